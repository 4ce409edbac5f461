//! Registering and deleting runners.

use std::time::Duration;

use futures_util::future::join_all;
use runner_orchestrator::fleet::id::GitHubRunnerId;
use runner_orchestrator::github::{Deregistered, GitHub, GitHubError};
use runner_orchestrator::sim::github::{
    Assumption, Fault, LimitCrossings, PlantedRunners, Settings, SettingsPatch, SimOptions,
    Variants, decode_jit,
};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::support::{MINT, calls, fault, org, pass, quiet, request, served};

#[tokio::test]
async fn a_registration_is_made_found_and_deleted() {
    let (sim, github) = served(SimOptions::default()).await;
    let minted = github.mint(&request("m-1")).await.unwrap();
    decode_jit(minted.jit_config.expose_secret()).unwrap();
    assert!(!format!("{minted:?}").contains(minted.jit_config.expose_secret()));
    let found = github.find(&org(), &"m-1".into()).await.unwrap().unwrap();
    assert_eq!(found.id, minted.id);
    assert_eq!(found.labels, ["linux", "self-hosted"]);
    assert_eq!(github.deregister(&org(), minted.id).await.unwrap(), Deregistered::Deleted);
    assert_eq!(github.deregister(&org(), minted.id).await.unwrap(), Deregistered::Absent);
    assert_eq!(github.find(&org(), &"m-1".into()).await.unwrap(), None);
    assert!(sim.state().runners.is_empty());
}

#[tokio::test]
async fn a_busy_runner_is_not_deleted() {
    let (sim, github) = served(SimOptions::default()).await;
    let busy = PlantedRunners { busy: true, ..PlantedRunners::default() };
    let id = sim.plant_runners(&busy).unwrap()[0];
    let answer = github.deregister(&org(), GitHubRunnerId(id.0)).await.unwrap();
    assert_eq!(answer, Deregistered::Busy);
    assert_eq!(sim.state().runners.len(), 1);
}

#[tokio::test]
async fn a_name_that_is_taken_is_told_apart() {
    let (_sim, github) = served(SimOptions::default()).await;
    github.mint(&request("m-1")).await.unwrap();
    let error = github.mint(&request("m-1")).await.unwrap_err();
    assert!(matches!(&error, GitHubError::NameTaken { name } if name.as_str() == "m-1"));
    assert!(error.may_have_happened());
}

#[tokio::test]
async fn a_refusal_says_what_github_said_and_happened_not() {
    let (sim, github) = served(SimOptions::default()).await;
    let mut unusable = request("m-1");
    unusable.runner_group_id = 77;
    let error = github.mint(&unusable).await.unwrap_err();
    assert!(matches!(&error, GitHubError::Refused { status: 404, .. }), "{error}");
    for status in [403, 422] {
        let message = Some("no such thing".into());
        let refusal = Fault { status: Some(status), message, count: Some(1), ..fault(MINT) };
        sim.add_fault(refusal).unwrap();
        let error = github.mint(&request("m-1")).await.unwrap_err();
        assert!(!error.may_have_happened());
        let text = error.to_string();
        assert!(text.contains("no such thing") && text.contains(&status.to_string()), "{text}");
        assert!(text.contains("generate-jitconfig"), "{text}");
    }
    assert!(sim.state().runners.is_empty());
    assert_eq!(calls(&sim, MINT), 3, "nothing is tried again");
}

#[tokio::test]
async fn a_lost_answer_is_not_sent_again_and_its_registration_can_be_found() {
    let (sim, github) = served(SimOptions::default()).await;
    sim.add_fault(Fault { drop_response: true, count: Some(1), ..fault(MINT) }).unwrap();
    let error = github.mint(&request("m-1")).await.unwrap_err();
    assert!(matches!(error, GitHubError::Unreachable { .. }), "{error:?}");
    assert!(error.may_have_happened());
    assert_eq!(calls(&sim, MINT), 1);
    let found = github.find(&org(), &"m-1".into()).await.unwrap().unwrap();
    assert_eq!(github.deregister(&org(), found.id).await.unwrap(), Deregistered::Deleted);
}

#[tokio::test]
async fn a_server_error_may_have_registered_the_runner() {
    let hostile = Variants::from_iter([Assumption::MintServerError]);
    let settings = Settings { hostile, ..Settings::default() };
    let (sim, github) = served(SimOptions { settings, ..SimOptions::default() }).await;
    sim.add_fault(Fault { status: Some(502), count: Some(1), ..fault(MINT) }).unwrap();
    let error = github.mint(&request("m-1")).await.unwrap_err();
    assert!(error.may_have_happened(), "{error}");
    assert_eq!(calls(&sim, MINT), 1);
    assert!(github.find(&org(), &"m-1".into()).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_ends() {
    let (sim, github) = quiet(&SimOptions::default());
    sim.add_fault(Fault { latency_ms: Some(600_000), count: Some(1), ..fault(MINT) }).unwrap();
    let begun = Instant::now();
    let error = github.mint(&request("m-1")).await.unwrap_err();
    assert!(matches!(error, GitHubError::Timeout { timeout_ms: 15_000, .. }), "{error:?}");
    assert!(error.may_have_happened());
    assert_eq!(begun.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_caller_gave_up_is_counted_and_its_slot_is_free_again() {
    let (sim, github) = quiet(&SimOptions::default());
    sim.add_fault(Fault { latency_ms: Some(5_000), ..fault(MINT) }).unwrap();
    for n in 0..70 {
        let request = request(&format!("m-{n}"));
        let given_up = tokio::time::timeout(Duration::from_millis(10), github.mint(&request)).await;
        assert!(given_up.is_err());
    }
    assert_eq!(github.budget().points_this_minute, 350);
    sim.clear_faults();
    github.mint(&request("m")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hundred_registrations_of_200_ms_take_half_a_second_and_cross_no_limit() {
    let settings = Settings { concurrent_max: 60, ..Settings::default() };
    let (sim, github) = quiet(&SimOptions { settings, ..SimOptions::default() });
    sim.add_fault(Fault { latency_ms: Some(200), ..fault(MINT) }).unwrap();
    let begun = Instant::now();
    let requests: Vec<_> = (0..100).map(|n| request(&format!("m-{n}"))).collect();
    let minted = join_all(requests.iter().map(|request| github.mint(request))).await;
    assert!(minted.iter().all(Result::is_ok));
    assert!(begun.elapsed() <= Duration::from_millis(500), "{:?}", begun.elapsed());
    let state = sim.state();
    assert_eq!(state.runners.len(), 100);
    assert_eq!(state.limit_crossings.secondary, 0);
    assert_eq!(github.budget().mints_now, 80);
}

#[tokio::test]
async fn a_hundred_registrations_over_sockets_run_at_the_same_time() {
    let (sim, github) = served(SimOptions::default()).await;
    sim.add_fault(Fault { latency_ms: Some(200), ..fault(MINT) }).unwrap();
    let begun = Instant::now();
    let requests: Vec<_> = (0..100).map(|n| request(&format!("m-{n}"))).collect();
    let minted = join_all(requests.iter().map(|request| github.mint(request))).await;
    assert!(minted.iter().all(Result::is_ok));
    // One after the other they would take 20 seconds; a busy machine may take a few.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(sim.state().runners.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_the_budget_is_shed_at_once_and_never_sent() {
    let (sim, github) = quiet(&SimOptions::default());
    assert_eq!(github.budget().mints_now, 180);
    let requests: Vec<_> = (0..200).map(|n| request(&format!("m-{n}"))).collect();
    let minted = join_all(requests.iter().map(|request| github.mint(request))).await;
    let shed = minted
        .iter()
        .filter(|result| matches!(result, Err(GitHubError::Shed { .. })))
        .inspect(|result| assert!(!result.as_ref().unwrap_err().may_have_happened()))
        .count();
    assert_eq!((shed, calls(&sim, MINT)), (20, 180));
    assert_eq!(github.budget().mints_now, 0);
    let row = github.calls().into_iter().find(|row| row.outcome == "shed").unwrap();
    assert_eq!((row.operation, row.count), ("mint", 20));
}

/// Mints `wanted` runners as fast as the budget allows, as the fleet does; answers how
/// many seconds it took.
async fn mint_all(github: &impl GitHub, wanted: u32) -> u64 {
    let begun = Instant::now();
    let mut minted = 0;
    while minted < wanted {
        let now = github.budget().mints_now.min(wanted - minted);
        let requests: Vec<_> = (0..now).map(|n| request(&format!("m-{minted}-{n}"))).collect();
        let results = join_all(requests.iter().map(|request| github.mint(request))).await;
        minted += u32::try_from(results.iter().filter(|result| result.is_ok()).count()).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(3_600), "{minted} minted");
        pass(1).await;
    }
    begun.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn five_hundred_registrations_are_spread_over_minutes_and_cross_no_limit() {
    for hostile in [vec![], vec![Assumption::SecondaryWindow, Assumption::MintRateResource]] {
        let settings = Settings { hostile: hostile.into_iter().collect(), ..Settings::default() };
        let (sim, github) = quiet(&SimOptions { settings, ..SimOptions::default() });
        sim.add_fault(Fault { latency_ms: Some(200), ..fault(MINT) }).unwrap();
        let seconds = mint_all(&github, 500).await;
        assert!((120..=130).contains(&seconds), "{seconds} s");
        assert_eq!(sim.state().limit_crossings, LimitCrossings::default());
        assert_eq!(sim.state().runners.len(), 500);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tighter_limit_on_creating_is_learned_and_obeyed() {
    let (sim, github) = quiet(&SimOptions::default());
    let patch = SettingsPatch { content_per_minute: Some(80), ..SettingsPatch::default() };
    sim.change_settings(&patch);
    let first: Vec<_> = (0..180).map(|n| request(&format!("f-{n}"))).collect();
    let results = join_all(first.iter().map(|request| github.mint(request))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 80);
    assert!(results.iter().any(|result| matches!(result, Err(GitHubError::Limited { .. }))));
    let refused = sim.state().limit_crossings.content;
    let budget = github.budget();
    assert_eq!(budget.mints_now, 0);
    assert!(budget.blocked_until.is_some());
    let seconds = mint_all(&github, 300).await;
    assert!(seconds < 600, "{seconds} s");
    let state = sim.state();
    assert_eq!(state.runners.len(), 380);
    assert_eq!(state.limit_crossings.secondary, 0);
    assert!(state.limit_crossings.content - refused < 100, "{:?}", state.limit_crossings);
}
