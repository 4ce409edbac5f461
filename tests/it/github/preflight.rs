//! The check at start.

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use runner_orchestrator::fleet::pool::Scope;
use runner_orchestrator::github::{GitHub, Preflight, Verdict};
use runner_orchestrator::sim::github::{
    Fault, Level, ReposPatch, SimGitHub, SimOptions, TokenKind, TokenSpec,
};

use super::support::{app, fault, org, pat, quiet, quiet_as, to_router, with_app};

/// Rows as `what: verdict`, and the fix of what is refused.
fn rows(preflight: &Preflight) -> Vec<(String, &'static str)> {
    let verdict = |verdict: &Verdict| match verdict {
        Verdict::Proven => "proven",
        Verdict::Refused { .. } => "refused",
        Verdict::UnknownUntilUse { .. } => "unknown",
        Verdict::Unreachable { .. } => "unreachable",
    };
    preflight.checks.iter().map(|row| (row.what.clone(), verdict(&row.verdict))).collect()
}

fn fix(preflight: &Preflight, what: &str) -> String {
    let row = preflight.checks.iter().find(|row| row.what == what).unwrap();
    match &row.verdict {
        Verdict::Refused { fix } => fix.clone(),
        other => panic!("{what}: {other:?}"),
    }
}

fn own(rows: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    rows.iter().map(|(what, verdict)| ((*what).to_owned(), *verdict)).collect()
}

/// A model that knows one fine-grained token with these permissions.
fn fine_grained(permissions: &[(&str, Level)]) -> SimOptions {
    let permissions = permissions.iter().map(|(name, level)| ((*name).to_owned(), *level));
    let token = TokenSpec {
        token: "sim-token".into(),
        kind: TokenKind::FineGrained,
        permissions: Some(permissions.collect()),
        repos: None,
    };
    SimOptions { tokens: vec![token], ..SimOptions::default() }
}

const FULL: [(&str, Level); 4] = [
    ("actions", Level::Read),
    ("administration", Level::Write),
    ("metadata", Level::Read),
    ("organization_self_hosted_runners", Level::Write),
];

fn without(name: &str) -> Vec<(&'static str, Level)> {
    FULL.into_iter().filter(|(other, _)| *other != name).collect()
}

fn repo_scope() -> Scope {
    Scope::Repo("acme/repo-1".into())
}

#[tokio::test]
async fn what_reading_shows_is_proven_and_the_right_to_write_stays_unknown() {
    let (sim, github) = quiet(&fine_grained(&FULL));
    let preflight = github.preflight(&[repo_scope(), org()]).await;
    assert_eq!(
        rows(&preflight),
        own(&[
            ("token", "proven"),
            ("repo acme/repo-1", "proven"),
            ("runners read on repo acme/repo-1", "proven"),
            ("runners write on repo acme/repo-1", "unknown"),
            ("actions read on repo acme/repo-1", "proven"),
            ("org acme", "proven"),
            ("runners read on org acme", "proven"),
            ("runners write on org acme", "unknown"),
            ("actions read on repo acme/repo-1", "proven"),
        ])
    );
    let state = sim.state();
    assert!(state.calls.keys().all(|route| route.starts_with("GET ")), "{:?}", state.calls);
    assert!(state.runners.is_empty());
}

#[tokio::test]
async fn a_missing_actions_permission_is_found_and_named() {
    let (_sim, github) = quiet(&fine_grained(&without("actions")));
    for scope in [repo_scope(), org()] {
        let preflight = github.preflight(&[scope]).await;
        let fix = fix(&preflight, "actions read on repo acme/repo-1");
        assert!(fix.contains("\"Actions: read\""), "{fix}");
    }
}

#[tokio::test]
async fn a_private_repository_is_asked_because_a_public_one_shows_its_runs_to_everybody() {
    let (sim, github) = quiet(&fine_grained(&without("actions")));
    let public = ReposPatch {
        repo: Some("acme/open".into()),
        private: Some(false),
        pushed_seconds_ago: Some(0.0),
        ..ReposPatch::default()
    };
    sim.change_repos(&public).unwrap();
    let preflight = github.preflight(&[org()]).await;
    fix(&preflight, "actions read on repo acme/repo-1");
}

#[tokio::test]
async fn a_missing_runner_permission_is_named_as_its_scope_calls_it() {
    let (_sim, github) =
        quiet(&fine_grained(&[("actions", Level::Read), ("metadata", Level::Read)]));
    let preflight = github.preflight(&[repo_scope(), org()]).await;
    let repo = fix(&preflight, "runners read on repo acme/repo-1");
    assert!(repo.contains("\"Administration: read and write\""), "{repo}");
    let org = fix(&preflight, "runners read on org acme");
    assert!(org.contains("\"Self-hosted runners: read and write\""), "{org}");
}

#[tokio::test]
async fn a_token_or_scope_that_does_not_exist_is_refused_and_nothing_more_is_asked() {
    let (sim, _) = quiet(&SimOptions::default());
    let stranger = to_router(sim.router(), pat("nobody"));
    let preflight = stranger.preflight(&[org()]).await;
    assert_eq!(rows(&preflight), own(&[("token", "refused")]));
    assert!(fix(&preflight, "token").contains("GITHUB_TOKEN"));
    let github = to_router(sim.router(), pat("sim-token"));
    let preflight = github.preflight(&[Scope::Repo("acme/none".into())]).await;
    assert_eq!(rows(&preflight), own(&[("token", "proven"), ("repo acme/none", "refused")]));
    assert!(fix(&preflight, "repo acme/none").contains("acme/none"));
}

/// The model behind what GitHub adds to answers to a classic token.
fn classic(sim: &SimGitHub, scopes: &'static str) -> axum::Router {
    let add = move |request: Request, next: Next| async move {
        let mut response = next.run(request).await;
        response.headers_mut().insert("x-oauth-scopes", scopes.parse().unwrap());
        response
    };
    sim.router().layer(from_fn(add))
}

#[tokio::test]
async fn a_classic_token_tells_whether_it_may_write() {
    let options = SimOptions { enterprise: Some("big".into()), ..SimOptions::default() };
    let (sim, _) = quiet(&options);
    let enterprise = Scope::Enterprise { slug: "big".into(), orgs: vec!["acme".into()] };
    let scopes = [repo_scope(), org(), enterprise];
    let write = |preflight: &Preflight| -> Vec<_> {
        rows(preflight).into_iter().filter(|(what, _)| what.contains("write")).collect()
    };
    let all =
        to_router(classic(&sim, "admin:org, manage_runners:enterprise, repo"), pat("sim-token"));
    let all = write(&all.preflight(&scopes).await);
    assert!(all.len() == 3 && all.iter().all(|(_, verdict)| *verdict == "proven"), "{all:?}");
    let few = to_router(classic(&sim, "read:org, gist"), pat("sim-token"));
    let few = few.preflight(&scopes).await;
    assert_eq!(
        write(&few),
        own(&[
            ("runners write on repo acme/repo-1", "refused"),
            ("runners write on org acme", "refused"),
            ("runners write on enterprise big", "refused"),
        ])
    );
    assert!(fix(&few, "runners write on org acme").contains("\"admin:org\""));
    let enterprise = fix(&few, "runners write on enterprise big");
    assert!(enterprise.contains("manage_runners:enterprise"), "{enterprise}");
}

#[tokio::test]
async fn an_app_is_proven_by_its_installations_permissions() {
    let (_sim, github) = quiet_as(&with_app(1), app("7", None));
    let preflight = github.preflight(&[org()]).await;
    assert!(rows(&preflight).iter().all(|(_, verdict)| *verdict == "proven"), "{preflight:?}");
    let mut options = with_app(1);
    let installation = &mut options.app.as_mut().unwrap().installations[1];
    installation.permissions.insert("organization_self_hosted_runners".into(), Level::Read);
    let (_sim, github) = quiet_as(&options, app("7", None));
    let preflight = github.preflight(&[org()]).await;
    let fix = fix(&preflight, "runners write on org acme");
    assert!(fix.contains("Self-hosted runners: read and write"), "{fix}");
}

#[tokio::test]
async fn an_app_that_is_unknown_not_installed_or_asked_too_much_is_refused() {
    let (sim, github) = quiet_as(&with_app(1), app("8", None));
    let unknown = github.preflight(&[org()]).await;
    assert_eq!(rows(&unknown), own(&[("github app", "refused")]));
    let github = to_router(sim.router(), app("7", None));
    let scopes = [
        Scope::Org("elsewhere".into()),
        Scope::Enterprise { slug: "big".into(), orgs: Vec::new() },
    ];
    let preflight = github.preflight(&scopes).await;
    assert_eq!(
        rows(&preflight),
        own(&[
            ("github app", "proven"),
            ("org elsewhere", "refused"),
            ("runners read on enterprise big", "refused"),
        ])
    );
    assert!(fix(&preflight, "org elsewhere").contains("install the App"));
}

#[tokio::test]
async fn a_github_that_does_not_answer_refuses_nothing() {
    let (sim, github) = quiet(&SimOptions::default());
    sim.add_fault(Fault { status: Some(503), ..fault("*") }).unwrap();
    assert_eq!(rows(&github.preflight(&[org()]).await), own(&[("token", "unreachable")]));
    sim.clear_faults();
    sim.add_fault(Fault { status: Some(500), ..fault(super::support::RUNNERS) }).unwrap();
    let preflight = github.preflight(&[org()]).await;
    assert_eq!(
        rows(&preflight),
        own(&[
            ("token", "proven"),
            ("org acme", "proven"),
            ("runners read on org acme", "unreachable"),
            ("actions read on repo acme/repo-1", "proven"),
        ])
    );
}
