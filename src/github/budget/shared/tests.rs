use std::time::Duration;

use proptest::prelude::*;

use super::super::tests::{PAT, answered, drain, headers, secondary, seconds};
use super::super::{MINTS_PER_MINUTE, Outcome, Shortage};
use super::*;

/// Tells each budget what the others have spent, as replicas do every second.
fn exchange(budgets: &mut [CallBudget], now: Timestamp) {
    let shares: Vec<_> = budgets
        .iter_mut()
        .zip(1..)
        .map(|(budget, n)| budget.share(ReplicaId(uuid::Uuid::from_u128(n)), now))
        .collect();
    for (index, budget) in budgets.iter_mut().enumerate() {
        let others = shares.iter().enumerate().filter(|(other, _)| *other != index);
        drop(budget.heed(others.map(|(_, share)| share.clone()).collect(), now));
    }
}

fn three() -> [CallBudget; 3] {
    std::array::from_fn(|_| CallBudget::default())
}

#[test]
fn what_others_have_spent_is_spent() {
    let mut budgets = three();
    for budget in &mut budgets[..2] {
        for _ in 0..60 {
            let ticket = budget.reserve(CallClass::Mint, PAT, seconds(0)).expect("room");
            budget.settle(&ticket, &answered(), seconds(0));
        }
    }
    exchange(&mut budgets, seconds(1));
    let seen = budgets[2].snapshot(seconds(1));
    assert_eq!(seen.points_this_minute, 600);
    assert_eq!(seen.mints_now, (300 - 40) / 5, "what may be untold is left free");
    let (minted, shortage) = drain(&mut budgets[2], CallClass::Mint, seconds(1));
    assert_eq!((minted, shortage), (60, Shortage::MinutePoints));
    exchange(&mut budgets, seconds(2));
    for budget in &mut budgets {
        assert_eq!(drain(budget, CallClass::Mint, seconds(2)).0, 0);
    }
    exchange(&mut budgets, seconds(63));
    assert_eq!(budgets[0].snapshot(seconds(63)).points_this_minute, 0);
}

/// A store that is emptied forgets the shares of the dead; whoever heard them does not.
#[test]
fn a_share_that_the_store_has_lost_counts_and_is_written_back() {
    let mut budgets = three();
    let (polled, _) = drain(&mut budgets[0], CallClass::Queue, seconds(0));
    exchange(&mut budgets, seconds(1));
    let [_dead, mut survivor, _dead_too] = budgets;
    let mut fresh = CallBudget::default();
    let share = fresh.share(ReplicaId(uuid::Uuid::from_u128(4)), seconds(2));
    let lost = survivor.heed(vec![share], seconds(2));
    assert_eq!(lost.len(), 2, "all that is left of the other two");
    assert_eq!(survivor.snapshot(seconds(2)).points_this_minute, polled);
    fresh.heed(lost, seconds(3));
    assert_eq!(fresh.snapshot(seconds(3)).points_this_minute, polled);
    assert!(survivor.heed(Vec::new(), seconds(63)).is_empty(), "a minute is over");
}

/// A new leader that had spent nothing itself used to begin with a full minute.
#[test]
fn a_dead_leaders_spending_counts_to_the_end_of_its_minute() {
    let mut budgets = three();
    let (polled, _) = drain(&mut budgets[0], CallClass::Queue, seconds(0));
    exchange(&mut budgets, seconds(1));
    // The first one is gone; its last share stays in the store.
    assert_eq!(budgets[1].snapshot(seconds(30)).points_this_minute, polled);
    assert_eq!(drain(&mut budgets[1], CallClass::Queue, seconds(30)).0, 0);
    assert_eq!(budgets[1].snapshot(seconds(63)).points_this_minute, 0);
}

#[test]
fn a_wait_that_github_asks_of_one_holds_for_all() {
    let mut budgets = three();
    let ticket = budgets[0].reserve(CallClass::Queue, PAT, seconds(0)).expect("room");
    assert!(!budgets[0].is_urgent_to_share());
    budgets[0].settle(&ticket, &secondary(Some(Duration::from_secs(30))), seconds(1));
    assert!(budgets[0].is_urgent_to_share(), "told at once");
    exchange(&mut budgets, seconds(1));
    assert!(!budgets[0].is_urgent_to_share());
    for budget in &mut budgets {
        let until = seconds(31);
        let refused = budget.reserve(CallClass::Queue, PAT, seconds(20)).expect_err("blocked");
        assert_eq!(refused, Shortage::Blocked { until });
        assert_eq!(budget.snapshot(seconds(20)).blocked_until, Some(until));
        assert_eq!(budget.snapshot(seconds(20)).mints_now, 0);
    }
    exchange(&mut budgets, seconds(32));
    let rates: Vec<u32> =
        budgets.iter_mut().map(|budget| drain(budget, CallClass::Mint, seconds(32)).0).collect();
    assert!(rates.iter().sum::<u32>() <= MINTS_PER_MINUTE / 2, "one halved rate: {rates:?}");
    assert!(rates.iter().all(|rate| *rate > 0), "{rates:?}");
}

#[test]
fn the_primary_limit_one_has_seen_is_known_to_all() {
    let mut budgets = three();
    let ticket = budgets[0].reserve(CallClass::Queue, PAT, seconds(0)).expect("room");
    let told = Outcome::Answered(headers(5000, 10, seconds(600)));
    budgets[0].settle(&ticket, &told, seconds(0));
    exchange(&mut budgets, seconds(1));
    assert_eq!(budgets[1].snapshot(seconds(1)).remaining, Some(10));
    let refused = budgets[1].reserve(CallClass::Queue, PAT, seconds(1)).expect_err("kept");
    assert_eq!(refused, Shortage::PrimaryPoints);
    // Another credential's window, told apart by its reset, is none of ours.
    let ticket = budgets[2].reserve(CallClass::Deregister, PAT, seconds(1)).expect("room");
    let other = Outcome::Answered(headers(5000, 4000, seconds(1800)));
    budgets[2].settle(&ticket, &other, seconds(1));
    assert!(budgets[2].reserve(CallClass::Queue, PAT, seconds(2)).is_ok());
}

proptest! {
    /// Three replicas that mint as planned by one of them, with shares a second old, never
    /// spend more in any minute than one would.
    #[test]
    fn three_together_never_spend_more_than_one(
        wishes in proptest::collection::vec((0_usize..3, 0_u32..40, 0_u64..4), 1..120),
    ) {
        let mut budgets = three();
        let (mut now, mut leader) = (0, 0);
        let mut sent: Vec<u64> = Vec::new();
        for (index, wish, pause) in wishes {
            now += pause;
            exchange(&mut budgets, seconds(now));
            if pause == 3 {
                leader = index;
            }
            // The leader polls, and plans no more registrations than it sees room for.
            let polls = drain_at_most(&mut budgets[leader], CallClass::Queue, wish, now);
            let planned = wish.min(budgets[leader].snapshot(seconds(now)).mints_now);
            let minted = drain_at_most(&mut budgets[index], CallClass::Mint, planned, now);
            sent.extend(std::iter::repeat_n(now, (polls + 5 * minted) as usize));
            let minute = sent.iter().filter(|at| now - **at < 60).count();
            prop_assert!(minute <= POINTS_PER_MINUTE as usize, "{minute} points in a minute");
        }
    }
}

fn drain_at_most(budget: &mut CallBudget, class: CallClass, most: u32, now: u64) -> u32 {
    let mut sent = 0;
    while sent < most {
        let Ok(ticket) = budget.reserve(class, PAT, seconds(now)) else { break };
        budget.settle(&ticket, &answered(), seconds(now));
        sent += 1;
    }
    sent
}
