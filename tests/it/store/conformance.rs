//! What every store does. Each function is one sentence about it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runner_orchestrator::fleet::budget::{Budget, BudgetShare};
use runner_orchestrator::fleet::digest::Digest;
use runner_orchestrator::fleet::host::Assignment;
use runner_orchestrator::fleet::id::{GitHubRunnerId, RunnerName, Term};
use runner_orchestrator::fleet::intent::Operator;
use runner_orchestrator::fleet::pool::Scope;
use runner_orchestrator::fleet::registration::{Listed, Listing};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::store::{Commit, Lease, LeaseKey, StoreError, Topic};

use super::world::{
    LONG, PATIENCE, Subject, announcement, assignment, host, intent, ours, outcome, replica,
    report_of, take, wait_for,
};

const LEADER: LeaseKey = LeaseKey::Leader;
const SHORT: Duration = Duration::from_millis(150);

pub(super) async fn a_lease_has_one_holder(subject: &mut Subject) {
    let (here, there) = (&subject.here, &subject.there);
    let term = take(here.as_ref(), replica(1)).await;
    let asked = there.acquire(LEADER, replica(2), Term(0), LONG).await.unwrap();
    let Lease::HeldBy { replica: holder, term: seen, expires_in } = asked else {
        panic!("{asked:?}")
    };
    assert_eq!((holder, seen), (replica(1), term));
    assert!(expires_in <= LONG && expires_in > LONG / 2, "{expires_in:?}");
    // Another lease is another matter.
    let agent = LeaseKey::Agent(host(1));
    ours(&there.acquire(agent, replica(2), Term(0), LONG).await.unwrap());
    assert_eq!(there.snapshot().await.unwrap().leader, Some((replica(1), term)));
    let renewed = there.renew(LEADER, replica(2), term, LONG).await.unwrap();
    assert!(matches!(renewed, Lease::HeldBy { .. }), "{renewed:?}");
}

/// Whoever does not hear that he has it must not keep it from the others by asking again.
pub(super) async fn asking_for_a_lease_that_is_ours_does_not_prolong_it(subject: &mut Subject) {
    let (here, there) = (&subject.here, &subject.there);
    let half_a_second = Duration::from_millis(500);
    let term = ours(&here.acquire(LEADER, replica(1), Term(0), half_a_second).await.unwrap());
    let mut before = half_a_second;
    let next = wait_for("the lease to end although it is asked for", async || {
        match here.acquire(LEADER, replica(1), term, LONG).await.unwrap() {
            Lease::HeldBy { replica: holder, term: same, expires_in } => {
                assert_eq!((holder, same), (replica(1), term));
                assert!(expires_in <= before, "{expires_in:?} after {before:?}");
                before = expires_in;
                None
            }
            // A new one, like anybody's.
            Lease::Ours { term } => Some(term),
            Lease::Absent => panic!("nobody is told that of a lease to be had"),
        }
    })
    .await;
    assert!(next > term);
    // What is known to be ours is prolonged as ever.
    ours(&here.renew(LEADER, replica(1), next, LONG).await.unwrap());
    let asked = there.acquire(LEADER, replica(2), next, LONG).await.unwrap();
    assert!(matches!(asked, Lease::HeldBy { expires_in, .. } if expires_in > LONG / 2));
}

pub(super) async fn a_lease_ends_when_it_is_not_renewed(subject: &mut Subject) {
    let (here, there) = (&subject.here, &subject.there);
    let term = ours(&here.acquire(LEADER, replica(1), Term(0), SHORT).await.unwrap());
    ours(&here.renew(LEADER, replica(1), term, SHORT * 2).await.unwrap());
    let next = wait_for("the lease to end", async || {
        match there.acquire(LEADER, replica(2), Term(0), LONG).await.unwrap() {
            Lease::Ours { term } => Some(term),
            _ => None,
        }
    })
    .await;
    assert!(next > term);
    let late = here.renew(LEADER, replica(1), term, LONG).await.unwrap();
    assert!(matches!(late, Lease::HeldBy { .. }), "{late:?}");
    here.release(LEADER, replica(1), term).await.unwrap();
    assert_eq!(there.snapshot().await.unwrap().leader, Some((replica(2), next)));
}

pub(super) async fn a_lease_that_is_given_up_is_free_at_once(subject: &mut Subject) {
    let (here, there) = (&subject.here, &subject.there);
    let term = take(here.as_ref(), replica(1)).await;
    here.release(LEADER, replica(1), term).await.unwrap();
    assert_eq!(there.snapshot().await.unwrap().leader, None);
    assert_eq!(here.renew(LEADER, replica(1), term, LONG).await.unwrap(), Lease::Absent);
    assert!(take(there.as_ref(), replica(2)).await > term);
}

pub(super) async fn terms_grow_with_every_holder(subject: &mut Subject) {
    let mut last = Term(0);
    for n in 1..20 {
        let term = take(subject.here.as_ref(), replica(n)).await;
        assert!(term > last, "{term} after {last}");
        subject.here.release(LEADER, replica(n), term).await.unwrap();
        last = term;
    }
    let seen = Term(last.0 + 1_000_000);
    let term = subject.there.acquire(LEADER, replica(99), seen, LONG).await.unwrap();
    assert!(ours(&term) > seen);
}

pub(super) async fn terms_grow_over_a_flush_when_what_was_seen_is_told(subject: &mut Subject) {
    let ahead = Term(1 << 50);
    let term = ours(&subject.here.acquire(LEADER, replica(1), ahead, LONG).await.unwrap());
    subject.flush();
    assert_eq!(subject.here.renew(LEADER, replica(1), term, LONG).await.unwrap(), Lease::Absent);
    let next = subject.there.acquire(LEADER, replica(2), term, LONG).await.unwrap();
    assert!(ours(&next) > term);
}

fn superseded(result: Result<(), StoreError>, by: Term) {
    match result {
        Err(StoreError::Superseded { ours, current }) => assert!(ours < by && current == by),
        other => panic!("{other:?}"),
    }
}

pub(super) fn listing(id: u64) -> Arc<Listing> {
    let listed = Listed {
        id: GitHubRunnerId(id),
        scope: Scope::Org("acme".to_owned()),
        online: true,
        busy: false,
        unclaimed_since: None,
        missed: false,
    };
    Arc::new(BTreeMap::from([(RunnerName::from("orchestrated-a"), listed)]))
}

pub(super) fn digest(term: Term) -> Digest {
    let budget = Budget {
        mints_now: 3,
        remaining: None,
        limit: None,
        resets_at: None,
        blocked_until: None,
        points_this_minute: 0,
    };
    Digest::new(Timestamp(5), term, Arc::default(), Arc::default(), budget)
}

pub(super) async fn a_superseded_leader_writes_nothing(subject: &mut Subject) {
    let old = subject.leader(replica(1)).await;
    let (here, there) = (&subject.here, &subject.there);
    let first =
        Commit { assignments: BTreeMap::from([(host(1), assignment(1))]), ..Commit::default() };
    here.commit(&old, first).await.unwrap();
    here.release(LEADER, replica(1), old.term()).await.unwrap();
    let by = take(there.as_ref(), replica(2)).await;

    let commit = Commit {
        assignments: BTreeMap::from([(host(1), assignment(9))]),
        operator: Some(Operator { revision: 9, ..Operator::default() }),
        outcomes: vec![outcome(1)],
    };
    superseded(here.commit(&old, commit).await, by);
    superseded(here.publish(&old, digest(old.term())).await, by);
    let entry = BTreeMap::from([("a".to_owned(), Some("b".to_owned()))]);
    superseded(here.put_by(&old, "etags", entry).await, by);

    let seen = there.snapshot().await.unwrap();
    assert_eq!(seen.assignments[&host(1)].revision, 1);
    assert_eq!(seen.operator, Operator::default());
    assert!(seen.digest.is_none());
    assert!(there.recall("etags").await.unwrap().is_empty());
    assert_eq!(there.outcome(outcome(1).intent).await.unwrap(), None);
}

pub(super) async fn a_superseded_agent_reports_nothing(subject: &mut Subject) {
    let old = subject.agent(replica(1), host(1)).await;
    let (here, there) = (&subject.here, &subject.there);
    here.report(&old, report_of(host(1), 1)).await.unwrap();
    let lease = LeaseKey::Agent(host(1));
    here.release(lease, replica(1), old.term()).await.unwrap();
    let by = ours(&there.acquire(lease, replica(2), Term(0), LONG).await.unwrap());
    superseded(here.report(&old, report_of(host(1), 2)).await, by);
    assert_eq!(there.snapshot().await.unwrap().hosts[&host(1)].seq, 1);
}

pub(super) async fn a_commit_is_read_back_whole(subject: &mut Subject) {
    let leader = subject.leader(replica(1)).await;
    let (here, there) = (&subject.here, &subject.there);
    assert_eq!(there.assignment(host(1)).await.unwrap(), Assignment::default());
    here.record(intent(1)).await.unwrap();
    let operator =
        Operator { revision: 1, frozen_since: Some(Timestamp(3)), ..Operator::default() };
    let commit = Commit {
        assignments: BTreeMap::from([(host(1), assignment(1)), (host(2), assignment(1))]),
        operator: Some(operator.clone()),
        outcomes: vec![outcome(1)],
    };
    here.commit(&leader, commit.clone()).await.unwrap();
    for _ in 0..2 {
        let seen = there.snapshot().await.unwrap();
        let assignments = seen.assignments.iter();
        let assignments: BTreeMap<_, _> =
            assignments.map(|(host, it)| (*host, Assignment::clone(it))).collect();
        assert_eq!(assignments, commit.assignments);
        assert_eq!((seen.operator, seen.intents.len()), (operator.clone(), 0));
        assert!(seen.unreadable.is_empty());
    }
    assert_eq!(there.outcome(outcome(1).intent).await.unwrap(), Some(outcome(1)));

    let next =
        Commit { assignments: BTreeMap::from([(host(2), assignment(2))]), ..Commit::default() };
    here.commit(&leader, next).await.unwrap();
    let seen = there.snapshot().await.unwrap();
    assert_eq!(seen.assignments[&host(1)].revision, 1);
    assert_eq!(seen.assignments[&host(2)].revision, 2);
    assert_eq!(seen.operator, operator);
    assert_eq!(there.assignment(host(2)).await.unwrap().revision, 2);
}

pub(super) async fn an_intent_is_recorded_once(subject: &mut Subject) {
    for store in [&subject.here, &subject.there, &subject.here] {
        store.record(intent(1)).await.unwrap();
    }
    assert_eq!(subject.there.snapshot().await.unwrap().intents, [intent(1)]);
    assert_eq!(subject.there.outcome(intent(1).id).await.unwrap(), None);
}

pub(super) async fn intents_wait_in_their_order_and_not_without_limit(subject: &mut Subject) {
    // Their ids grow the other way.
    for n in (1..=1_000).rev() {
        subject.here.record(intent(n)).await.unwrap();
    }
    let waiting = subject.there.snapshot().await.unwrap().intents;
    assert!(waiting.iter().map(|intent| intent.id).eq((1..=1_000).rev().map(|n| intent(n).id)));
    let full = subject.there.record(intent(5_000)).await;
    assert!(matches!(full, Err(StoreError::IntentsFull { limit: 1_000 })), "{full:?}");
    // One that waits already is not refused.
    subject.there.record(intent(7)).await.unwrap();
}

pub(super) async fn a_settled_intent_is_not_recorded_again(subject: &mut Subject) {
    let leader = subject.leader(replica(1)).await;
    subject.here.record(intent(1)).await.unwrap();
    for n in 1..=1_200 {
        let commit = Commit { outcomes: vec![outcome(n)], ..Commit::default() };
        subject.here.commit(&leader, commit).await.unwrap();
    }
    // The newest thousand are kept.
    let there = &subject.there;
    assert_eq!(there.outcome(intent(1_200).id).await.unwrap(), Some(outcome(1_200)));
    assert_eq!(there.outcome(intent(1).id).await.unwrap(), None);
    there.record(intent(1_200)).await.unwrap();
    assert!(there.snapshot().await.unwrap().intents.is_empty());
}

pub(super) async fn an_announcement_is_forgotten_after_its_time(subject: &mut Subject) {
    let (here, there) = (&subject.here, &subject.there);
    here.announce(announcement(1), LONG).await.unwrap();
    here.announce(announcement(2), SHORT).await.unwrap();
    let seen = there.snapshot().await.unwrap();
    let at = seen.replicas[&replica(1)].at;
    assert!(at > Timestamp(0) && at <= seen.at, "{at} by the store's time, now {}", seen.at);
    wait_for("the second one to be forgotten", async || {
        let replicas = there.snapshot().await.unwrap().replicas;
        (!replicas.contains_key(&replica(2))).then_some(())
    })
    .await;
    let changed = {
        let mut changed = announcement(1);
        changed.agent = true;
        changed
    };
    here.announce(changed, LONG).await.unwrap();
    let replicas = there.snapshot().await.unwrap().replicas;
    assert_eq!(replicas.len(), 1);
    assert!(replicas[&replica(1)].agent);
}

pub(super) async fn an_older_operator_state_changes_nothing(subject: &mut Subject) {
    let state = |revision: u64, frozen: u64| Operator {
        revision,
        frozen_since: Some(Timestamp(frozen)),
        ..Operator::default()
    };
    let (here, there) = (&subject.here, &subject.there);
    for (written, expected) in [
        (state(3, 30), state(3, 30)),
        (state(2, 20), state(3, 30)),
        (state(3, 31), state(3, 30)),
        (state(4, 40), state(4, 40)),
    ] {
        here.restore(&written).await.unwrap();
        assert_eq!(there.snapshot().await.unwrap().operator, expected);
    }
    subject.flush();
    assert_eq!(subject.there.snapshot().await.unwrap().operator, Operator::default());
    subject.here.restore(&state(4, 40)).await.unwrap();
    assert_eq!(subject.there.snapshot().await.unwrap().operator, state(4, 40));
}

pub(super) async fn shares_are_those_of_the_others(subject: &mut Subject) {
    let share = |n: u128, left: u64| BudgetShare {
        replica: replica(n),
        at: Timestamp(1),
        spent: vec![(Timestamp(1), 5)],
        remaining: Some(left),
        limit: None,
        resets_at: None,
        blocked_until: None,
        mint_permille: 1_000,
    };
    assert_eq!(subject.here.share(share(1, 10)).await.unwrap(), []);
    assert_eq!(subject.there.share(share(2, 20)).await.unwrap(), [share(1, 10)]);
    assert_eq!(subject.here.share(share(1, 9)).await.unwrap(), [share(2, 20)]);
    assert_eq!(subject.there.share(share(2, 20)).await.unwrap(), [share(1, 9)]);
}

pub(super) async fn what_is_put_by_is_recalled(subject: &mut Subject) {
    let leader = subject.leader(replica(1)).await;
    let (here, there) = (&subject.here, &subject.there);
    let some = |text: &str| Some(text.to_owned());
    let first = BTreeMap::from([("a".to_owned(), some("1")), ("b".to_owned(), some("2: ü"))]);
    here.put_by(&leader, "etags", first).await.unwrap();
    let second = BTreeMap::from([("a".to_owned(), None), ("c".to_owned(), some(""))]);
    here.put_by(&leader, "etags", second).await.unwrap();
    let expected = [("b", "2: ü"), ("c", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(there.recall("etags").await.unwrap(), BTreeMap::from(expected));
    assert!(there.recall("other").await.unwrap().is_empty());
}

pub(super) async fn changes_are_heard_by_the_other_store(subject: &mut Subject) {
    let leader = subject.leader(replica(1)).await;
    let agent = subject.agent(replica(1), host(1)).await;
    let (here, there) = (&subject.here, &subject.there);
    // A first hint shows that the other one listens.
    let mut intents = there.changes(Topic::Intents);
    wait_for("the other store to listen", async || {
        let n = *intents.borrow_and_update();
        here.record(intent(u128::from(n) + 1)).await.unwrap();
        intents.has_changed().unwrap().then_some(())
    })
    .await;
    let mut heard: Vec<_> =
        Topic::ALL.iter().map(|topic| (*topic, there.changes(*topic))).collect();
    for (_, changes) in &mut heard {
        changes.mark_unchanged();
    }
    let commit = Commit {
        assignments: BTreeMap::from([(host(1), assignment(1))]),
        outcomes: vec![outcome(500)],
        ..Commit::default()
    };
    here.commit(&leader, commit).await.unwrap();
    here.report(&agent, report_of(host(1), 1)).await.unwrap();
    here.record(intent(999)).await.unwrap();
    here.release(LEADER, replica(1), leader.term()).await.unwrap();
    for (topic, changes) in &mut heard {
        let told = tokio::time::timeout(PATIENCE, changes.changed()).await;
        told.unwrap_or_else(|_| panic!("{topic:?} did not move")).unwrap();
    }
}

pub(super) async fn a_flush_is_another_incarnation(subject: &mut Subject) {
    let leader = subject.leader(replica(1)).await;
    let commit =
        Commit { assignments: BTreeMap::from([(host(1), assignment(1))]), ..Commit::default() };
    subject.here.commit(&leader, commit.clone()).await.unwrap();
    subject.here.record(intent(1)).await.unwrap();
    let before = subject.here.snapshot().await.unwrap();
    let same = subject.there.snapshot().await.unwrap();
    assert_eq!((before.incarnation, before.assignments.len()), (same.incarnation, 1));
    assert_ne!(before.incarnation, 0);

    subject.flush();
    let after = subject.here.snapshot().await.unwrap();
    assert_ne!(after.incarnation, before.incarnation);
    assert_eq!(subject.there.snapshot().await.unwrap().incarnation, after.incarnation);
    assert!(after.assignments.is_empty() && after.intents.is_empty() && after.leader.is_none());
    let late = subject.here.commit(&leader, commit).await;
    assert!(matches!(late, Err(StoreError::Superseded { .. })), "{late:?}");
}

pub(super) async fn a_digest_is_read_by_the_others(subject: &mut Subject) {
    let leader = subject.leader(replica(1)).await;
    let (here, there) = (&subject.here, &subject.there);
    assert!(there.snapshot().await.unwrap().digest.is_none());
    here.publish(&leader, digest(leader.term())).await.unwrap();
    for _ in 0..2 {
        let read = there.snapshot().await.unwrap().digest.unwrap();
        assert_eq!(*read, digest(leader.term()));
    }
    // What GitHub lists goes with it, changed since the last one or not.
    let mut told = digest(leader.term());
    for (id, times) in [(1, 2), (2, 1)] {
        Arc::make_mut(&mut told.ledger).registrations.set_listing(listing(id));
        for _ in 0..times {
            told.at = told.at + Duration::from_secs(1);
            here.publish(&leader, told.clone()).await.unwrap();
            assert_eq!(*there.snapshot().await.unwrap().digest.unwrap(), told);
            assert_eq!(*here.snapshot().await.unwrap().digest.unwrap(), told);
        }
    }
}

pub(super) async fn time_goes_on(subject: &mut Subject) {
    let (here, there) = (&subject.here, &subject.there);
    let first = here.now().await.unwrap();
    wait_for("the time to go on", async || (there.now().await.unwrap() > first).then_some(()))
        .await;
    assert!(here.snapshot().await.unwrap().at > first);
}
