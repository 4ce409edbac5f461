//! GitHub's limits, as the client meets them.

use runner_orchestrator::github::{GitHub, GitHubError};
use runner_orchestrator::sim::github::{
    Assumption, Fault, LimitCrossings, Settings, SettingsPatch, SimOptions, Variants,
};

use super::support::{RUNNERS, calls, fault, org, pass, quiet, repo, request};

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_by_every_call() {
    let (sim, github) = quiet(&SimOptions::default());
    sim.add_fault(Fault {
        status: Some(429),
        retry_after: Some(40),
        count: Some(1),
        ..fault(RUNNERS)
    })
    .unwrap();
    let error = github.registrations(&org()).await.unwrap_err();
    let GitHubError::Limited { retry_after, .. } = error else { panic!("{error:?}") };
    assert_eq!(retry_after.as_secs(), 40);
    pass(39).await;
    let sent: u64 = sim.state().calls.values().sum();
    assert!(matches!(github.queue(&repo(1)).await, Err(GitHubError::Shed { .. })));
    assert!(matches!(github.mint(&request("m")).await, Err(GitHubError::Shed { .. })));
    assert!(matches!(github.deregister(&org(), 1.into_id()).await, Err(GitHubError::Shed { .. })));
    assert_eq!(sim.state().calls.values().sum::<u64>(), sent, "nothing went out");
    pass(2).await;
    github.registrations(&org()).await.unwrap();
    github.mint(&request("m")).await.unwrap();
}

trait IntoId {
    fn into_id(self) -> runner_orchestrator::fleet::id::GitHubRunnerId;
}

impl IntoId for u64 {
    fn into_id(self) -> runner_orchestrator::fleet::id::GitHubRunnerId {
        runner_orchestrator::fleet::id::GitHubRunnerId(self)
    }
}

#[tokio::test(start_paused = true)]
async fn a_secondary_limit_without_a_time_is_left_alone_for_a_minute() {
    for status in [403, 429] {
        let (sim, github) = quiet(&SimOptions::default());
        let message = Some("You have exceeded a secondary rate limit.".into());
        let refusal = Fault { status: Some(status), message, count: Some(1), ..fault(RUNNERS) };
        sim.add_fault(refusal).unwrap();
        let error = github.registrations(&org()).await.unwrap_err();
        assert!(matches!(error, GitHubError::Limited { .. }), "{error:?}");
        pass(58).await;
        assert!(matches!(github.registrations(&org()).await, Err(GitHubError::Shed { .. })));
        pass(3).await;
        github.registrations(&org()).await.unwrap();
        assert_eq!(calls(&sim, RUNNERS), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_stops_nothing_else() {
    let (sim, github) = quiet(&SimOptions::default());
    let message = Some("Resource not accessible by personal access token".into());
    sim.add_fault(Fault { status: Some(403), message, ..fault(RUNNERS) }).unwrap();
    let error = github.registrations(&org()).await.unwrap_err();
    assert!(matches!(error, GitHubError::Refused { status: 403, .. }), "{error:?}");
    assert_eq!(github.budget().blocked_until, None);
    github.mint(&request("m")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_primary_limit_is_never_crossed_and_the_urgent_calls_come_last() {
    let hostile = Variants::from_iter([Assumption::EtagPerToken]);
    let settings = Settings { primary_limit: 200, hostile, ..Settings::default() };
    let (sim, github) = quiet(&SimOptions { repos: 400, settings, ..SimOptions::default() });
    github.registrations(&org()).await.unwrap();
    assert_eq!(github.budget().limit, Some(200));
    let mut read = 0;
    for n in 1..=400 {
        match github.queue(&repo(n)).await {
            Ok(_) => read += 1,
            Err(GitHubError::Shed { .. }) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!((80..=90).contains(&read), "{read} repositories");
    let minted = github.mint(&request("m")).await.unwrap();
    github.deregister(&org(), minted.id).await.unwrap();
    let remaining = github.budget().remaining.unwrap();
    assert!((20..=31).contains(&remaining), "{remaining} points");
    assert_eq!(sim.state().limit_crossings, LimitCrossings::default());
    pass(3_601).await;
    assert_eq!(github.budget().remaining, None, "a new hour begins unknown");
    github.queue(&repo(400)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_primary_refusal_waits_for_the_reset() {
    let settings = Settings { primary_limit: 10, ..Settings::default() };
    let (sim, github) = quiet(&SimOptions { settings, ..SimOptions::default() });
    for hostile in [Variants::default(), Variants::from_iter([Assumption::LimitStatus])] {
        let patch = SettingsPatch { hostile: Some(hostile), ..SettingsPatch::default() };
        sim.change_settings(&patch);
        // Somebody else with the same token spends the hour.
        let other = super::support::to_router(sim.router(), super::support::pat("sim-token"));
        while other
            .mint(&request(&format!("o-{}", calls(&sim, super::support::MINT))))
            .await
            .is_ok()
        {}
        let error = github.mint(&request("m")).await.unwrap_err();
        assert!(matches!(error, GitHubError::Limited { .. }), "{error:?}");
        assert_eq!(github.budget().mints_now, 0);
        let sent: u64 = sim.state().calls.values().sum();
        pass(1_800).await;
        assert!(github.mint(&request("m")).await.is_err());
        assert_eq!(sim.state().calls.values().sum::<u64>(), sent);
        pass(1_801).await;
        let minted = github.mint(&request("m")).await.unwrap();
        github.deregister(&org(), minted.id).await.unwrap();
    }
}
