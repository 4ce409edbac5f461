//! Runs the scenarios in `tests/scenarios`: what is written there is what must happen.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

mod daemon;
pub(crate) mod events;
mod executor;
mod expect;
pub(crate) mod hub;
mod rules;
pub(crate) mod words;
pub(crate) mod world;

use world::World;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// A test for each file, and one that no file lacks its test.
macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn every_file_has_its_test() {
            let listed = [$(stringify!($name)),*];
            let mut files: Vec<String> = std::fs::read_dir(directory())
                .unwrap()
                .filter_map(|entry| {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    name.strip_suffix(".txt").map(str::to_owned)
                })
                .collect();
            files.sort();
            assert_eq!(files, listed, "tests/it/scenarios.rs and tests/scenarios differ");
        }
    };
}

/// Plays one file and panics with file, line, what was expected, what happened and the
/// whole state.
fn run(name: &str) {
    let file = format!("tests/scenarios/{name}.txt");
    let text = std::fs::read_to_string(directory().join(format!("{name}.txt"))).unwrap();
    let mut world = World::new();
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split('#').next().unwrap_or("").trim_end()))
        .filter(|(_, line)| !line.trim().is_empty())
        .collect();
    let mut rest = &lines[..];
    while let Some(((number, line), more)) = rest.split_first() {
        rest = more;
        let result = if line.trim() == "expect" {
            let block: Vec<(usize, String)> = rest
                .iter()
                .take_while(|(_, line)| line.starts_with(' '))
                .map(|(number, line)| (*number, line.trim().to_owned()))
                .collect();
            rest = &rest[block.len()..];
            world.rest().and_then(|()| expect::compare(&mut world, &block))
        } else {
            events::happen(&mut world, line.trim())
        };
        if let Err(error) = result {
            panic!("\n{file}:{number}: {}\n{error}\n\n{}", line.trim(), state(&world));
        }
    }
}

/// The whole state, for whoever must find out why.
fn state(world: &World) -> String {
    let mut text = format!("at {} s\n", world.now.since(world.began).as_secs());
    for (name, daemon) in &world.daemons {
        let _ = writeln!(text, "host {name}: silent {}", daemon.silent);
        for (id, local) in &daemon.agent.local {
            let retiring = world
                .assignments
                .get(&daemon.agent.host)
                .and_then(|assignment| assignment.retire.get(id))
                .map_or("", |order| order.reason.code());
            let container = daemon.containers.get(id).map(|c| c.found.state);
            let runner = world::short(*id);
            let _ = writeln!(
                text,
                "  {runner} {:?} container {container:?} retire {retiring:?}",
                local.record.phase
            );
        }
    }
    for (name, row) in &world.hub.rows {
        let _ = writeln!(text, "github {name}: online {} busy {}", row.online, row.busy);
    }
    for (name, decision) in &world.last.pools {
        let _ = writeln!(text, "pool {name}: {decision:?}");
    }
    let _ = writeln!(text, "operator {:?}", world.operator);
    text
}

scenarios! {
    accepted_on_a_dead_daemon_is_no_supply
    accepted_one_waits_its_turn
    adopted_unknown_occupies_and_is_no_supply
    adopted_with_a_readable_log
    an_end_is_reported_when_the_host_returns
    assignment_vanishes
    boost_ends_after_its_time
    boost_lasts_until_used
    boost_on_top_of_the_queue
    boosted_runner_that_dies_unused_is_made_anew
    brake_limits_a_minute
    breaker_counts_exits_without_a_job
    breaker_counts_runners_that_never_listen
    breaker_opens_and_closes
    budget_bounds_what_is_assigned
    d01_forty_foreign_runners_hide_nothing
    d02_another_orchestrator_on_the_same_host
    d03_scale_down_reads_busy
    d04_delete_of_a_busy_runner_is_refused
    d06_no_scale_down_below_a_waiting_job
    d07_shutdown_by_draining
    d07_shutdown_detached
    d08_an_unread_queue_is_not_zero
    d09_org_scope_scales
    d10_running_jobs_are_no_demand
    d11_jobs_not_runs
    d12_labels_must_match
    d13_foreign_idle_runners_are_no_supply
    d14_one_job_below_threshold
    d15_a_hundred_jobs_at_once
    d16_returns_to_the_minimum
    d17_idle_timeout_is_read
    d18_foreign_runners_do_not_stir_the_pool
    d19_foreign_ghosts_block_nothing
    d20_at_maximum_it_still_polls_and_shrinks
    d21_the_breaker_stays_open_and_is_reset_by_success
    d22_no_cool_down
    d23_a_dead_runner_is_replaced_at_once
    d25_starting_runners_are_supply
    d26_maximum_counts_our_runners
    delete_204_and_a_job_at_the_same_moment
    delete_404_counts_beside_a_complete_list
    delete_404_on_every_delete
    delete_422_leaves_it
    delete_500_leaves_it
    denials_of_the_start_do_not_count
    denied_one_that_comes_back_stays
    denied_only_by_two_late_readings
    down_stops_above_its_threshold
    drain_empties_a_host
    drain_includes_unknown_ones
    drain_waits_for_replacements
    drain_waits_no_longer_than_a_minute
    drained_hosts_taken_away_are_not_missed
    edge_cancels_another_when_its_job_is_gone
    edge_counts_until_the_next_reading
    edge_never_cancels_a_job_read_later
    exited_after_a_job_costs_no_call
    floor_is_filled_and_refilled
    freeze_holds_back_the_agents
    freeze_stops_everything
    ghosts_occupy_and_are_no_floor
    github_does_not_assign
    github_says_wait
    github_unreadable_no_retirement
    gone_before_it_was_removed
    half_of_the_hosts_lost_freezes_removals
    host_that_refuses_is_left_alone
    id_handed_back_is_placed_anew
    id_handed_back_without_image
    id_not_accepted_in_20s_is_placed_anew
    id_of_an_earlier_boot_never_starts
    idle_runners_go_after_idle_timeout
    idle_surplus_makes_room_for_others
    job_waiting_too_long_is_served
    jobs_find_the_smallest_pool
    jobs_of_a_queue_long_unread_are_left_out
    jobs_stay_in_their_scope
    join_created_never_started
    join_exited
    join_exited_while_the_agent_was_away
    join_no_container_registration_busy
    join_no_container_registration_offline
    join_orphan_of_a_silent_host
    join_orphan_of_a_vanished_record
    join_orphan_offline
    join_orphan_online_or_busy
    join_orphan_seen_online_between
    join_orphan_that_cannot_be_deleted
    join_running_recorded_missing_inside_the_deadline
    join_running_recorded_online
    join_running_without_record
    join_strangers
    lost_and_found_alive_is_adopted_not_killed
    lost_container_is_reported_after_two_lists
    lost_host_is_no_supply
    lost_host_is_replaced_elsewhere
    mass_vanish_freezes_removals
    maximum_bounds_occupied
    min_idle_is_kept_beside_running_ones
    moving_list_confirms_a_404_by_name
    moving_list_denies_only_by_two_readings_in_a_row
    moving_list_keeps_a_lost_hosts_runner_once
    moving_list_orphan_seen_without_a_gap
    moving_list_read_once_places_nothing
    never_handed_is_removed_without_asking
    new_leader_and_a_vanished_record
    new_leader_counts_registrations_first
    new_leader_reads_everything_first
    new_leader_trusts_no_old_record
    new_term_of_the_same_replica_begins_empty
    no_image_no_placement
    old_reading_changes_nothing
    one_incomplete_list_loses_nothing
    one_running_runner_is_never_chosen
    operator_deletes
    pause_stops_growth_only
    pending_delete_waits_for_its_host
    placement_binpack
    placement_by_what_a_host_has
    placement_spread
    precedence_breaker_over_floor_and_boost
    precedence_freeze_over_all
    precedence_room_over_maximum
    queue_not_read_yet_is_not_empty
    queue_scales_up_at_once
    record_vanishes_and_comes_back
    record_vanishes_with_its_host
    removed_pool_is_emptied
    replica_drained_is_forgotten_when_it_has_gone
    replica_drained_with_its_host
    retirement_waits_for_the_daemon
    room_is_not_made_for_a_pool_at_its_maximum
    room_is_not_made_when_the_budget_is_short
    running_one_is_never_denied
    scale_down_stops_at_the_floor
    scale_down_takes_back_a_scale_up
    short_room_floors_first
    short_room_is_shared_by_weight
    short_room_little_need_is_met
    short_room_oldest_job_breaks_ties
    stale_list_does_not_revive_ended_names
    start_deadline_runs_from_hand_over
    store_away_loses_no_host
    store_emptied_gives_up_after_45_s
    store_emptied_keeps_pending_deletes
    store_emptied_keeps_what_operators_set
    store_emptied_under_a_new_leader
    store_emptied_waits_for_its_hosts
    store_fresh_waits_for_nobody
    store_rolled_back_to_nothing
    store_rolled_back_waits_for_its_hosts
    ten_short_jobs_read_once
    unread_host_blocks_deadlines_too
    unread_host_blocks_its_own_retirements
    unread_queue_blocks_its_own_pool_only
    unread_queue_is_not_zero
    unreadable_assignment_is_left_alone
    unreadable_operator_state_lets_intents_wait
    wishes_expire_without_a_leader
    wishes_for_unknown_pools_are_answered
}
