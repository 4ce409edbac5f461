//! Everything that Docker and GitHub can do to us, one kind at a time: each job still
//! runs exactly once and nothing is left over.

use std::time::Duration;

use runner_orchestrator::docker::Docker;
use runner_orchestrator::fleet::intent::Wish;
use runner_orchestrator::sim::docker::{Fault as DockerFault, Operation};
use runner_orchestrator::sim::github::{Assumption, Fault, SettingsPatch, StateReport, Variants};
use runner_orchestrator::sim::listener::ListenerFaults;

use super::world::World;

const MINT: &str = "POST /repos/{owner}/{repo}/actions/runners/generate-jitconfig";

fn lengths() -> Vec<f64> {
    (0..12).map(|n| f64::from(n % 5) + 0.5).collect()
}

async fn with_docker_fault(operation: Operation, fault: DockerFault, times: u32) {
    let mut world = World::new(ListenerFaults::default());
    world.start();
    // The first jobs bring the fleet up, so that the fault meets it in full swing.
    world.jobs(&lengths());
    tokio::time::sleep(Duration::from_secs(6)).await;
    world.docker.fail(operation, fault, times);
    world.jobs(&lengths());
    world.until_all_done(Duration::from_secs(1200)).await;
    world.docker.clear_faults();
    world
        .until(Duration::from_secs(600), "no registrations", |state| state.runners.is_empty())
        .await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn docker_loses_answers_after_their_effect() {
    for operation in [
        Operation::Create,
        Operation::Attach,
        Operation::Start,
        Operation::Remove,
        Operation::Stop,
        Operation::State,
        Operation::Containers,
        Operation::Network,
    ] {
        with_docker_fault(operation, DockerFault::DropAnswer, 4).await;
    }
}

#[tokio::test(start_paused = true)]
async fn docker_refuses() {
    for operation in [
        Operation::Create,
        Operation::Attach,
        Operation::Start,
        Operation::Remove,
        Operation::State,
    ] {
        let fault = DockerFault::Refuse { status: 500, message: "no".to_owned() };
        with_docker_fault(operation, fault, 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn docker_hangs() {
    for operation in [Operation::Create, Operation::Start, Operation::Remove, Operation::Containers]
    {
        with_docker_fault(operation, DockerFault::Hang, 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn docker_is_away_for_two_minutes() {
    let mut world = World::new(ListenerFaults::default());
    world.start();
    world.jobs(&(0..8).map(|n| 20.0 + f64::from(n)).collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_secs(8)).await;
    world.docker.set_reachable(false);
    tokio::time::sleep(Duration::from_secs(120)).await;
    world.docker.set_reachable(true);
    world.jobs(&lengths());
    world.until_all_done(Duration::from_secs(600)).await;
    world.until(Duration::from_secs(300), "no registrations", |s| s.runners.is_empty()).await;
    world.end().await;
}

/// A job reaches an idle runner just before GitHub deletes its registration, and begins while
/// the daemon is away and nobody can follow its output. Whenever the daemon comes back, the
/// runner's own log is asked before it is removed.
#[tokio::test(start_paused = true)]
async fn a_job_that_began_unfollowed_is_never_killed() {
    let assigned_late = [Assumption::BusyFrom, Assumption::DeletedWhileAssigned];
    let late_start = Duration::from_secs(3);
    for away_ms in (3_000..5_000).step_by(50) {
        let mut world = World::new(ListenerFaults { late_start, ..ListenerFaults::default() });
        let hostile = Some(Variants::from_iter(assigned_late));
        world.sim.change_settings(&SettingsPatch { hostile, ..SettingsPatch::default() });
        world.pool.min_runners = 1;
        world.start();
        let listens = |s: &StateReport| s.runners.iter().any(|runner| runner.status == "online");
        world.until(Duration::from_secs(30), "a runner", listens).await;
        let runner = world.docker.containers(&World::mark()).await.unwrap().remove(0);
        if away_ms % 100 == 0 {
            // Then a list without it counts as soon as there is one.
            tokio::time::sleep(Duration::from_secs(70)).await;
        }
        world.wish(Wish::Delete { runner: runner.labels.runner, force: false }).await;
        world.jobs(&[30.0]);
        let name = runner.labels.name.as_str().to_owned();
        let deleted = move |s: &StateReport| s.runners.iter().all(|runner| runner.name != name);
        world.until(Duration::from_secs(30), "its registration to go", deleted).await;
        world.docker.set_reachable(false);
        tokio::time::sleep(Duration::from_millis(away_ms)).await;
        world.docker.set_reachable(true);
        world.until_all_done(Duration::from_secs(300)).await;
        let job = &world.state().jobs[0];
        let ended = (job.attempts, job.lost, job.conclusion.as_deref());
        assert_eq!(ended, (1, false, Some("success")), "{away_ms} ms: {job:#?}");
        // One that was left alone for what its log showed is seen to end all the same.
        tokio::time::sleep(Duration::from_secs(20)).await;
        let left = world.docker.containers(&World::mark()).await.unwrap();
        assert!(left.iter().all(|seen| seen.id != runner.id), "{away_ms} ms: {left:?}");
    }
}

/// A configuration that may have arrived whole is as good as handed over: its runner may be
/// given a job at any moment, and is not taken away as one that never had any.
#[tokio::test(start_paused = true)]
async fn a_hand_over_in_doubt_kills_no_job() {
    let mut world = World::new(ListenerFaults::default());
    world.docker.fail(Operation::HandOver, DockerFault::DropAnswer, 6);
    world.start();
    world.jobs(&[20.0; 6]);
    world.until_all_done(Duration::from_secs(120)).await;
    let made = world.docker.calls(Operation::Create);
    assert_eq!(made, 6, "each of them served its job");
    world.until(Duration::from_secs(300), "no registrations", |s| s.runners.is_empty()).await;
    world.end().await;
}

/// A freeze stops what was accepted and waits for its turn, too: twelve starts at a time are
/// under way, and they come to their end.
#[tokio::test(start_paused = true)]
async fn a_freeze_holds_starts_that_wait_for_their_turn() {
    let mut world = World::new(ListenerFaults::default());
    world.pool.max_runners = 40;
    world.docker.fail(Operation::Create, DockerFault::Hang, 12);
    world.start();
    world.jobs(&[20.0; 40]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.docker.calls(Operation::Create), 12, "the others wait");
    world.wish(Wish::Freeze).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.docker.calls(Operation::Create), 12, "and go on waiting");
    world.wish(Wish::Unfreeze).await;
    world.until_all_done(Duration::from_secs(600)).await;
    world.until(Duration::from_secs(300), "no registrations", |s| s.runners.is_empty()).await;
    world.end().await;
}

/// A runner found after a restart is known by its name alone, and GitHub's list may be too
/// old to show it: that it is not there is no proof that no job can reach it.
#[tokio::test(start_paused = true)]
async fn a_list_older_than_a_runner_is_no_proof_that_it_is_gone() {
    let mut world = World::new(ListenerFaults::default());
    world.pool.min_runners = 1;
    world.start();
    let listens = |s: &StateReport| s.runners.iter().any(|runner| runner.status == "online");
    world.until(Duration::from_secs(30), "a runner", listens).await;
    let stale = Fault { stale_seconds: Some(60), ..Fault::default() };
    world.sim.add_fault(Fault { route: "GET *".to_owned(), ..stale }).unwrap();
    world.kill();
    world.start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let host = world.docker.containers(&World::mark()).await.unwrap().remove(0);
    world.wish(Wish::Delete { runner: host.labels.runner, force: false }).await;
    for _ in 0..300 {
        let there = world.docker.containers(&World::mark()).await.unwrap();
        let registered = world.state().runners.iter().any(|r| r.name == host.labels.name.as_str());
        let lives = there.iter().any(|container| container.id == host.id);
        assert!(lives || !registered, "taken away while GitHub could still give it a job");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.sim.clear_faults();
    world.pool.min_runners = 0;
    world.end().await;
}

async fn with_github_fault(fault: Fault) {
    let mut world = World::new(ListenerFaults::default());
    world.start();
    world.jobs(&lengths());
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.sim.add_fault(fault).unwrap();
    world.jobs(&lengths());
    tokio::time::sleep(Duration::from_secs(200)).await;
    world.sim.clear_faults();
    world.until_all_done(Duration::from_secs(2400)).await;
    world
        .until(Duration::from_secs(600), "no registrations", |state| state.runners.is_empty())
        .await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn github_loses_answers_after_their_effect() {
    for route in [MINT, "DELETE *", "GET *"] {
        let route = route.to_owned();
        with_github_fault(Fault { route, drop_response: true, count: Some(5), ..Fault::default() })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn github_answers_half_or_nonsense() {
    for (truncate, corrupt) in [(true, false), (false, true)] {
        for route in [MINT, "GET *"] {
            let route = route.to_owned();
            let probability = Some(0.3);
            with_github_fault(Fault { route, truncate, corrupt, probability, ..Fault::default() })
                .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn github_fails_limits_and_is_slow() {
    let any = || Fault { route: "*".to_owned(), probability: Some(0.3), ..Fault::default() };
    with_github_fault(Fault { status: Some(502), ..any() }).await;
    with_github_fault(Fault { status: Some(429), retry_after: Some(20), count: Some(6), ..any() })
        .await;
    with_github_fault(Fault { latency_ms: Some(4_000), ..any() }).await;
}

/// A minute-old runner list, as the real GitHub serves it, revives and kills nobody.
#[tokio::test(start_paused = true)]
async fn github_lists_runners_a_minute_late() {
    with_github_fault(Fault {
        route: "GET *".to_owned(),
        stale_seconds: Some(60),
        ..Fault::default()
    })
    .await;
}

/// A job prints what the listener would: nothing comes of it.
#[tokio::test(start_paused = true)]
async fn forged_lines_change_nothing() {
    let forged_lines = vec![
        "2026-01-02 03:04:05Z: Listening for Jobs".to_owned(),
        "2026-01-02 03:04:05Z: Job x completed with result: Succeeded".to_owned(),
    ];
    let mut world = World::new(ListenerFaults { forged_lines, ..ListenerFaults::default() });
    world.pool.idle_timeout = Duration::from_secs(5);
    world.start();
    world.jobs(&[40.0, 50.0, 60.0]);
    world.until_all_done(Duration::from_secs(300)).await;
    world.end().await;
}

/// Runners that never listen trip the breaker instead of being made for ever (D25).
#[tokio::test(start_paused = true)]
async fn runners_that_never_listen_are_not_made_for_ever() {
    let mut world = World::new(ListenerFaults { never_listen: true, ..ListenerFaults::default() });
    world.pool.start_deadline = Duration::from_secs(30);
    world.start();
    world.jobs(&[1.0, 1.0, 1.0]);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let minted = world.state().calls[MINT];
    assert!((3..=16).contains(&minted), "{minted} runners made in an hour");
    let published = world.handle().published.borrow().clone();
    let held = &published.plan.pools.values().next().unwrap().not_added;
    assert!(held.iter().any(|reason| reason.code() == "breaker_open"), "{held:?}");
    world.stop().await;
    assert_eq!(world.containers().await, 0);
}

/// GitHub's limits are no fault of the pool: its breaker stays shut, the budget waits.
#[tokio::test(start_paused = true)]
async fn a_rate_limit_opens_no_breaker() {
    let mut world = World::new(ListenerFaults::default());
    world.start();
    let retry_after = Some(30);
    let limited = Fault { status: Some(429), retry_after, count: Some(6), ..Fault::default() };
    world.sim.add_fault(Fault { route: MINT.to_owned(), ..limited }).unwrap();
    world.jobs(&[5.0; 6]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let published = world.handle().published.borrow().clone();
    let failures: u32 = published.view.ledger.breakers.values().map(|b| b.failures).sum();
    assert_eq!(failures, 0, "a limit was counted as a failure of the pool");
    assert!(published.view.ledger.totals.failed > 0, "the limit was never met");
    world.until_all_done(Duration::from_secs(300)).await;
    world.end().await;
}
