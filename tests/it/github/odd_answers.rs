//! Answers that are broken, partial or strange.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Query;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use runner_orchestrator::fleet::id::GitHubRunnerId;
use runner_orchestrator::fleet::registration::Stillness;
use runner_orchestrator::github::budget::POINTS_PER_MINUTE;
use runner_orchestrator::github::{GitHub, GitHubError};
use runner_orchestrator::sim::github::{Fault, NewJobs, SimOptions};
use serde::Deserialize;
use serde_json::{Value, json};

use super::support::{JOBS, RUNNERS, RUNS, fault, org, pat, plant, repo, served, to_router};

#[tokio::test]
async fn a_broken_answer_is_an_error_that_names_its_route_and_the_next_one_is_read() {
    let (sim, github) = served(SimOptions::default()).await;
    let broken = |route| {
        [
            Fault { corrupt: true, ..fault(route) },
            Fault { truncate: true, ..fault(route) },
            Fault { drop_response: true, ..fault(route) },
            Fault { status: Some(502), ..fault(route) },
        ]
    };
    let mut there = 0;
    for route in [RUNNERS, RUNS, JOBS] {
        for fault in broken(route) {
            // Something new, so that the answer has a body to break.
            there += 1;
            plant(&sim, &format!("r{there}"), 1);
            sim.post_jobs(&NewJobs::default()).unwrap();
            let expected = if fault.corrupt { "could not be read" } else { "" };
            sim.add_fault(fault).unwrap();
            let error = if route == RUNNERS {
                github.registrations(&org()).await.unwrap_err()
            } else {
                github.queue(&repo(1)).await.unwrap_err()
            };
            sim.clear_faults();
            let text = error.to_string();
            let last = route.rsplit('/').next().unwrap();
            assert!(text.contains(last) && text.contains(expected), "{text}");
            assert_eq!(github.registrations(&org()).await.unwrap().registrations.len(), there);
            assert_eq!(github.queue(&repo(1)).await.unwrap().jobs.len(), there);
        }
    }
}

/// What reading runner lists may spend of a minute's points.
const REGISTRATION_POINTS: u32 = POINTS_PER_MINUTE - 50;

#[derive(Deserialize)]
struct Page {
    page: usize,
}

/// Plays a list of runners: `answer` is given the page and how often it was asked.
fn runners(answer: impl Fn(usize, usize) -> Response + Clone + Send + Sync + 'static) -> Router {
    let asked = Arc::new(AtomicUsize::new(0));
    let list = move |Query(page): Query<Page>| {
        let (answer, asked) = (answer.clone(), Arc::clone(&asked));
        async move { answer(page.page, asked.fetch_add(1, Ordering::SeqCst)) }
    };
    Router::new().route("/api/v3/orgs/acme/actions/runners", get(list))
}

fn page_of(total: usize, ids: std::ops::Range<usize>, next: bool) -> Response {
    let runners: Vec<Value> =
        ids.map(|id| json!({"id": id, "name": format!("r-{id}"), "busy": false})).collect();
    let mut headers = HeaderMap::new();
    if next {
        let link = "<https://elsewhere.test/steal?page=2>; rel=\"next\"";
        headers.insert("link", link.parse().unwrap());
    }
    (headers, Json(json!({"total_count": total, "runners": runners}))).into_response()
}

#[tokio::test]
async fn a_page_that_fails_makes_the_list_an_error_never_a_short_list() {
    for bad in [StatusCode::BAD_GATEWAY, StatusCode::NOT_FOUND] {
        let github = to_router(
            runners(move |page, _| match page {
                2 => bad.into_response(),
                _ => page_of(250, page * 100..page * 100 + 100, page < 3),
            }),
            pat("t"),
        );
        let error = github.registrations(&org()).await.unwrap_err();
        assert!(matches!(error, GitHubError::Refused { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_list_that_changes_while_it_is_read_is_read_again() {
    let github = to_router(
        runners(|page, asked| {
            // One runner goes after the first page was read: another slips past.
            let total = if asked == 0 { 101 } else { 100 };
            match page {
                1 if asked == 0 => page_of(total, 0..100, true),
                1 => page_of(total, 1..101, false),
                _ => page_of(total, 0..0, false),
            }
        }),
        pat("t"),
    );
    let reading = github.registrations(&org()).await.unwrap();
    assert_eq!(reading.stillness, Stillness::Still);
    assert_eq!(reading.registrations.len(), 100);
    assert!(reading.registrations.iter().any(|r| r.name.as_str() == "r-100"));
}

#[tokio::test]
async fn a_list_that_stays_shorter_than_its_total_has_not_shown_all() {
    let github = to_router(runners(|_, _| page_of(5, 0..4, false)), pat("t"));
    let reading = github.registrations(&org()).await.unwrap();
    assert_eq!(reading.registrations.len(), 4);
    assert!(!reading.stillness.is_still());
}

#[tokio::test]
async fn of_two_rows_of_a_moving_list_the_younger_counts() {
    let rows = |_, asked| {
        let row = |busy| json!({"id": 1, "name": "r-1", "status": "online", "busy": busy});
        Json(json!({"total_count": 2, "runners": [row(asked == 1)]})).into_response()
    };
    let github = to_router(runners(rows), pat("t"));
    let reading = github.registrations(&org()).await.unwrap();
    assert_eq!(reading.registrations.len(), 1);
    assert!(reading.registrations[0].busy, "as the second pass has it");
}

/// A name that is not found where the list did not hold still is not known to be free.
#[tokio::test]
async fn a_name_missing_from_a_moving_list_is_an_error() {
    let github = to_router(runners(|_, _| page_of(5, 0..4, false)), pat("t"));
    assert!(github.find(&org(), &"r-3".into()).await.unwrap().is_some());
    let error = github.find(&org(), &"r-4".into()).await.unwrap_err();
    assert!(matches!(error, GitHubError::Answer { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pass_there_is_no_room_for_is_left_out() {
    let github = to_router(runners(|_, _| page_of(5, 0..4, false)), pat("t"));
    // Two points a reading, of what the minute has for such; one is spent apart.
    github.deregister(&org(), GitHubRunnerId(9)).await.unwrap();
    let mut whole = 0;
    while github.budget().points_this_minute + 2 <= REGISTRATION_POINTS {
        github.registrations(&org()).await.unwrap();
        whole += 1;
    }
    assert!(whole > 400, "{whole}");
    assert_eq!(github.budget().points_this_minute, REGISTRATION_POINTS - 1);
    let half = github.registrations(&org()).await.unwrap();
    assert_eq!((half.registrations.len(), half.stillness.is_still()), (4, false));
    let none = github.registrations(&org()).await.unwrap_err();
    assert!(matches!(none, GitHubError::Shed { .. }), "{none:?}");
}

#[tokio::test]
async fn a_list_without_end_is_an_error_within_the_limit_of_a_minute() {
    let endless = |page: usize, _| page_of(1_000_000, page * 100..page * 100 + 100, true);
    let github = to_router(runners(endless), pat("t"));
    let error = github.registrations(&org()).await.unwrap_err();
    assert!(matches!(error, GitHubError::Answer { .. }), "{error:?}");
    assert_eq!(github.budget().points_this_minute, 100);
}

#[tokio::test]
async fn a_name_is_compared_here_also_when_githubs_filter_is_loose() {
    let github = to_router(runners(|_, _| page_of(3, 10..13, false)), pat("t"));
    let found = github.find(&org(), &"r-11".into()).await.unwrap().unwrap();
    assert_eq!(found.id.0, 11);
    assert_eq!(github.find(&org(), &"r-1".into()).await.unwrap(), None);
}

#[tokio::test]
async fn not_modified_without_a_question_is_an_error() {
    let github = to_router(runners(|_, _| StatusCode::NOT_MODIFIED.into_response()), pat("t"));
    let error = github.registrations(&org()).await.unwrap_err();
    assert!(matches!(error, GitHubError::Answer { .. }), "{error:?}");
}

/// Plays one run in progress whose jobs are `jobs`, dated `updated_at`.
fn one_run(status: &'static str, jobs: Value) -> Router {
    #[derive(Deserialize)]
    struct Filter {
        status: String,
    }
    let runs = move |Query(filter): Query<Filter>| async move {
        let run = json!({"id": 9, "status": status, "updated_at": "2026-01-02T03:04:05Z"});
        let runs = if filter.status == status { vec![run] } else { vec![] };
        Json(json!({"total_count": runs.len(), "workflow_runs": runs}))
    };
    let jobs = move || async move { Json(json!({"jobs": jobs})) };
    Router::new()
        .route("/api/v3/repos/acme/repo-1/actions/runs", get(runs))
        .route("/api/v3/repos/acme/repo-1/actions/runs/9/jobs", get(jobs))
}

#[tokio::test]
async fn of_a_run_in_progress_only_the_queued_jobs_wait() {
    let jobs = json!([
        {"id": 1, "status": "in_progress", "labels": ["a"]},
        {"id": 2, "status": "queued", "labels": ["A", "B"]},
        {"id": 3, "status": "waiting", "labels": ["a"]},
        {"id": 4, "status": "pending"}, {"id": 5, "status": "requested"},
        {"id": 6, "status": "completed"}, {"id": 7, "status": "levitating"}, {"id": 8},
    ]);
    let github = to_router(one_run("in_progress", jobs), pat("t"));
    let reading = github.queue(&repo(1)).await.unwrap();
    assert_eq!(reading.jobs.iter().map(|job| job.id.0).collect::<Vec<_>>(), [2]);
    assert_eq!(reading.jobs[0].labels.to_string(), "a,b");
    assert_eq!(reading.jobs[0].queued_at, reading.begun_at, "without a date, it is new");
    assert!(reading.active);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_quiet_is_asked_for_its_jobs_every_half_minute_only() {
    let github =
        to_router(one_run("in_progress", json!([{"id": 1, "status": "in_progress"}])), pat("t"));
    for _ in 0..61 {
        assert!(github.queue(&repo(1)).await.unwrap().active);
        super::support::pass(1).await;
    }
    let jobs = github.calls().into_iter().find(|row| row.operation == "list_jobs").unwrap();
    assert_eq!(jobs.count, 3);
}

#[tokio::test]
async fn nobody_at_home_is_unreachable_and_no_secret_is_told() {
    let settings = runner_orchestrator::github::GitHubSettings {
        api_url: "http://127.0.0.1:1/api/v3".into(),
        credentials: pat("ghp_verysecret"),
    };
    let clock = Arc::new(runner_orchestrator::clock::SystemClock::new());
    let github = runner_orchestrator::github::RestGitHub::new(settings.clone(), clock).unwrap();
    let error = github.registrations(&org()).await.unwrap_err();
    assert!(matches!(error, GitHubError::Unreachable { .. }), "{error:?}");
    for text in [format!("{settings:?}"), format!("{github:?}"), format!("{error:?}")] {
        assert!(!text.contains("verysecret"), "{text}");
    }
}
