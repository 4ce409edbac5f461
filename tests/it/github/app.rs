//! A GitHub App: its installation, its tokens, their renewal.

use futures_util::future::join_all;
use runner_orchestrator::fleet::pool::Scope;
use runner_orchestrator::github::{
    GitHub, GitHubError, GitHubSettings, GitHubSetupError, RestGitHub,
};
use runner_orchestrator::sim::github::{Assumption, Fault, NewJobs, SettingsPatch};

use super::support::{
    TOKEN, app, calls, fault, org, pass, plant, quiet_as, repo, request, served_as, with_app,
};

const FIND: &str = "GET /orgs/{org}/installation";

#[tokio::test]
async fn every_page_beyond_an_api_path_is_asked_for_in_the_apps_name() {
    let (sim, github) = served_as(with_app(3), app("7", None)).await;
    assert!(sim.api_url().ends_with("/api/v3"));
    plant(&sim, "r", 250);
    sim.post_jobs(&NewJobs { count: 130, jobs_per_run: Some(1), ..NewJobs::default() }).unwrap();
    assert_eq!(github.registrations(&org()).await.unwrap().registrations.len(), 250);
    assert_eq!(github.queue(&repo(1)).await.unwrap().jobs.len(), 130);
    assert_eq!(github.repositories(&org()).await.unwrap().len(), 3);
    github.mint(&request("m-1")).await.unwrap();
    assert_eq!((calls(&sim, FIND), calls(&sim, TOKEN)), (1, 1));
}

#[tokio::test]
async fn the_client_id_names_the_app_too_and_a_given_installation_is_not_looked_up() {
    let (sim, github) = served_as(with_app(1), app("Iv1.client", Some(505))).await;
    github.registrations(&org()).await.unwrap();
    github.queue(&repo(1)).await.unwrap();
    assert_eq!((calls(&sim, FIND), calls(&sim, TOKEN)), (0, 1));
}

#[tokio::test]
async fn one_token_is_minted_however_many_ask_for_it_at_once() {
    let (sim, github) = served_as(with_app(1), app("7", None)).await;
    sim.add_fault(Fault { latency_ms: Some(50), ..fault(TOKEN) }).unwrap();
    let scope = org();
    let readings = join_all((0..40).map(|_| github.registrations(&scope))).await;
    assert!(readings.iter().all(Result::is_ok));
    assert_eq!((calls(&sim, FIND), calls(&sim, TOKEN)), (1, 1));
}

#[tokio::test]
async fn each_owner_has_an_installation_of_its_own() {
    let (sim, github) = served_as(with_app(1), app("7", None)).await;
    github.registrations(&org()).await.unwrap();
    github.queue(&repo(1)).await.unwrap();
    github.registrations(&Scope::Org("other".into())).await.unwrap();
    assert_eq!(calls(&sim, TOKEN), 2, "one for acme, one for other");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_expires_and_never_earlier_than_needed() {
    let (sim, github) = quiet_as(&with_app(1), app("7", None));
    for _ in 0..240 {
        github.registrations(&org()).await.unwrap();
        pass(60).await;
    }
    // Four hours of tokens that live one hour and are renewed five minutes before.
    assert_eq!(calls(&sim, TOKEN), 5);
    let refused: u64 =
        github.calls().iter().filter(|row| row.outcome == "4xx").map(|row| row.count).sum();
    assert_eq!(refused, 0);
}

#[tokio::test]
async fn a_token_that_is_revoked_is_replaced_once_for_all_callers() {
    let (sim, github) = served_as(with_app(1), app("7", None)).await;
    github.registrations(&org()).await.unwrap();
    assert!(sim.expire_tokens(None) > 0);
    github.mint(&request("m-1")).await.unwrap();
    assert_eq!(calls(&sim, TOKEN), 2);
    assert_eq!(sim.state().runners.len(), 1);
    assert!(sim.expire_tokens(None) > 0);
    let scope = org();
    let readings = join_all((0..20).map(|_| github.registrations(&scope))).await;
    assert!(readings.iter().all(Result::is_ok));
    assert_eq!(calls(&sim, TOKEN), 3);
}

#[tokio::test]
async fn a_401_that_a_new_token_does_not_cure_is_given_up_after_one_try() {
    let (sim, github) = served_as(with_app(1), app("7", None)).await;
    let route = super::support::RUNNERS;
    sim.add_fault(Fault { status: Some(401), ..fault(route) }).unwrap();
    let error = github.registrations(&org()).await.unwrap_err();
    assert!(matches!(error, GitHubError::Refused { status: 401, .. }), "{error:?}");
    assert_eq!((calls(&sim, route), calls(&sim, TOKEN)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_had_is_not_asked_for_by_every_caller() {
    let (sim, github) = quiet_as(&with_app(1), app("7", None));
    sim.add_fault(Fault { status: Some(500), ..fault(TOKEN) }).unwrap();
    let scope = org();
    let readings = join_all((0..40).map(|_| github.registrations(&scope))).await;
    assert!(readings.iter().all(Result::is_err));
    assert_eq!(calls(&sim, TOKEN), 1);
    sim.clear_faults();
    pass(6).await;
    github.registrations(&scope).await.unwrap();
}

#[tokio::test]
async fn remembered_answers_survive_a_new_token_where_github_lets_them() {
    let (sim, github) = served_as(with_app(1), app("7", None)).await;
    github.registrations(&org()).await.unwrap();
    sim.expire_tokens(None);
    let points = sim.state().points;
    github.registrations(&org()).await.unwrap();
    // The 401, the new token, and a 304.
    assert!(sim.state().points - points <= 2);
    let hostile = Some([Assumption::EtagPerToken].into_iter().collect());
    sim.change_settings(&SettingsPatch { hostile, ..SettingsPatch::default() });
    github.registrations(&org()).await.unwrap();
    sim.expire_tokens(None);
    github.registrations(&org()).await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_at_once() {
    let credentials = runner_orchestrator::github::Credentials::App {
        issuer: "7".into(),
        private_key_pem: "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n".into(),
        installation_id: None,
    };
    let settings = GitHubSettings { api_url: "http://127.0.0.1:9".into(), credentials };
    assert!(!format!("{settings:?}").contains("c2VjcmV0"));
    let clock = std::sync::Arc::new(runner_orchestrator::clock::SystemClock::new());
    let error = RestGitHub::new(settings, clock).unwrap_err();
    assert!(matches!(error, GitHubSetupError::PrivateKey));
}
