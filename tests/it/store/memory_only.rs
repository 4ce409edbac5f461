//! What the in-process store does in hours and days, on a clock that a test moves: the same
//! lifetimes as a Redis gives its keys.

use std::time::Duration;

use runner_orchestrator::store::Commit;
use tokio::time::advance;

use super::world::{LONG, Subject, announcement, assignment, host, outcome, replica, report_of};

const HOUR: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn an_outcome_is_kept_for_an_hour() {
    let mut subject = Subject::memory();
    let leader = subject.leader(replica(1)).await;
    let outcomes = vec![outcome(1)];
    subject.here.commit(&leader, Commit { outcomes, ..Commit::default() }).await.unwrap();
    advance(HOUR.saturating_sub(SOON)).await;
    assert!(subject.here.outcome(outcome(1).intent).await.unwrap().is_some());
    advance(SOON).await;
    assert!(subject.here.outcome(outcome(1).intent).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_silent_for_a_day_is_forgotten_with_its_assignment() {
    let mut subject = Subject::memory();
    let leader = subject.leader(replica(1)).await;
    let assignments = [(host(1), assignment(1))].into();
    subject.here.commit(&leader, Commit { assignments, ..Commit::default() }).await.unwrap();
    let agent = subject.agent(replica(1), host(1)).await;
    subject.here.report(&agent, report_of(host(1), 1)).await.unwrap();
    advance((24 * HOUR).saturating_sub(SOON)).await;
    subject.here.announce(announcement(1), LONG).await.unwrap();
    let seen = subject.here.snapshot().await.unwrap();
    assert!(seen.hosts.contains_key(&host(1)) && seen.assignments.contains_key(&host(1)));
    advance(2 * SOON).await;
    subject.here.announce(announcement(1), LONG).await.unwrap();
    let seen = subject.here.snapshot().await.unwrap();
    assert!(seen.hosts.is_empty() && seen.assignments.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_put_by_is_kept_for_a_week() {
    let mut subject = Subject::memory();
    let leader = subject.leader(replica(1)).await;
    let entry = [("url".to_owned(), Some("tag".to_owned()))].into();
    subject.here.put_by(&leader, "answers", entry).await.unwrap();
    advance((7 * 24 * HOUR).saturating_sub(SOON)).await;
    assert_eq!(subject.here.recall("answers").await.unwrap().len(), 1);
    advance(SOON).await;
    assert!(subject.here.recall("answers").await.unwrap().is_empty());
}
