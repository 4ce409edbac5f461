//! What time does to jobs and runners, under a paused clock.

use runner_orchestrator::sim::github::{JobStatus, NewJobs, SettingsPatch};

use super::quiet::{Quiet, pass};

fn job(seconds: f64) -> NewJobs {
    NewJobs { duration_seconds: seconds, ..NewJobs::default() }
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_vanishes_while_busy_fails_its_job_after_ten_minutes() {
    let quiet = Quiet::new();
    let (_, blob) = quiet.mint("gone").await;
    let listening = quiet.listen(&blob);
    listening.printed("Listening").await;
    quiet.sim.post_jobs(&job(3_600.0)).unwrap();
    listening.printed("Running job").await;
    pass(120).await;
    drop(listening);
    pass(580).await;
    let running = &quiet.sim.state().jobs[0];
    assert_eq!((running.status, running.lost), (JobStatus::InProgress, false));
    assert_eq!(quiet.listed().await, [("gone".into(), "offline".into(), true)]);
    pass(30).await;
    let state = quiet.sim.state();
    let lost = &state.jobs[0];
    assert_eq!((lost.status, lost.lost, lost.attempts), (JobStatus::Completed, true, 1));
    assert_eq!(lost.conclusion.as_deref(), Some("failure"));
    assert!(quiet.listed().await.is_empty());
    assert_eq!(state.removed.last().unwrap().reason, "lost");
}

#[tokio::test(start_paused = true)]
async fn a_job_nobody_picks_up_is_queued_again_and_given_to_another() {
    let quiet = Quiet::new();
    let (_, dead) = quiet.mint("dead").await;
    let dead = quiet.listen(&dead);
    dead.printed("Listening").await;
    drop(dead);
    // Still online for fifteen seconds: GitHub gives the job to a dead runner.
    quiet.sim.post_jobs(&job(1.0)).unwrap();
    pass(1).await;
    assert!(quiet.sim.state().jobs[0].assigned_at.is_some());
    let (_, alive) = quiet.mint("alive").await;
    let mut alive = quiet.listen(&alive);
    alive.printed("Listening").await;
    pass(50).await;
    assert!(!alive.output().contains("Running job"));
    assert_eq!(alive.ended().await, 0);
    let job = &quiet.sim.state().jobs[0];
    assert_eq!((job.requeues, job.attempts), (1, 1));
    assert_eq!(job.runner_name.as_deref(), Some("alive"));
    assert_eq!(job.conclusion.as_deref(), Some("success"));
}

#[tokio::test(start_paused = true)]
async fn an_idle_runner_whose_connection_ends_is_offline_after_fifteen_seconds() {
    let quiet = Quiet::new();
    let (_, blob) = quiet.mint("idle").await;
    let listening = quiet.listen(&blob);
    listening.printed("Listening").await;
    pass(3_600).await;
    assert_eq!(quiet.listed().await, [("idle".into(), "online".into(), false)]);
    drop(listening);
    pass(14).await;
    assert_eq!(quiet.listed().await, [("idle".into(), "online".into(), false)]);
    pass(2).await;
    assert_eq!(quiet.listed().await, [("idle".into(), "offline".into(), false)]);
    // Registered, offline, and given no job.
    quiet.sim.post_jobs(&job(1.0)).unwrap();
    pass(1).await;
    assert_eq!(quiet.sim.state().jobs[0].assigned_at, None);
}

#[tokio::test(start_paused = true)]
async fn a_stale_list_shows_what_was_true_then() {
    let quiet = Quiet::new();
    let (first, blob) = quiet.mint("first").await;
    pass(10).await;
    let listening = quiet.listen(&blob);
    listening.printed("Listening").await;
    pass(100).await;
    quiet.sim.change_settings(&SettingsPatch { stale_seconds: Some(60), ..Default::default() });
    quiet.mint("second").await;
    quiet.delete(&format!("/orgs/acme/actions/runners/{first}")).await;
    // Deleted now, but the list is a minute old; the other one is not in it yet.
    assert_eq!(quiet.listed().await, [("first".into(), "online".into(), false)]);
    let one = quiet.get(&format!("/orgs/acme/actions/runners/{first}")).await;
    assert_eq!(one.status, 404);
    pass(61).await;
    assert_eq!(quiet.listed().await, [("second".into(), "offline".into(), false)]);
    quiet.sim.change_settings(&SettingsPatch { stale_seconds: Some(3_600), ..Default::default() });
    assert_eq!(quiet.sim.state().settings.stale_seconds, 60);
}

#[tokio::test(start_paused = true)]
async fn a_job_queued_for_a_day_fails() {
    let quiet = Quiet::new();
    quiet.sim.post_jobs(&job(1.0)).unwrap();
    pass(24 * 3_600 - 1).await;
    assert_eq!(quiet.sim.state().jobs[0].status, JobStatus::Queued);
    pass(2).await;
    assert_eq!(quiet.sim.state().jobs[0].conclusion.as_deref(), Some("failure"));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_listeners_run_a_thousand_jobs_once_each() {
    let quiet = Quiet::new();
    quiet.sim.change_settings(&SettingsPatch {
        secondary_points_per_minute: Some(0),
        ..Default::default()
    });
    let mut listeners = Vec::new();
    for number in 0..1_000 {
        let (_, blob) = quiet.mint(&format!("runner-{number}")).await;
        listeners.push(quiet.listen(&blob));
    }
    quiet.sim.post_jobs(&NewJobs { count: 1_000, ..job(30.0) }).unwrap();
    for listening in &mut listeners {
        assert_eq!(listening.ended().await, 0);
    }
    let state = quiet.sim.state();
    assert!(state.jobs.iter().all(|job| job.attempts == 1 && job.requeues == 0));
    assert!(state.jobs.iter().all(|job| job.conclusion.as_deref() == Some("success")));
    let mut names: Vec<_> = state.jobs.iter().map(|job| job.runner_name.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 1_000);
    assert!(state.runners.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_answer_costs_no_point_for_an_hour_and_the_limit_resets() {
    let quiet = Quiet::new();
    let path = "/repos/acme/repo-1/actions/runs?status=queued&per_page=100";
    let first = quiet.get(path).await;
    let tag = first.header("etag").to_owned();
    assert_eq!(first.header("x-ratelimit-used"), "1");
    let reset: u64 = first.header("x-ratelimit-reset").parse().unwrap();
    for _ in 0..120 {
        pass(29).await;
        let again =
            quiet.call(axum::http::Method::GET, path, &[("if-none-match", &tag)], None).await;
        assert_eq!(again.status, 304);
        assert_eq!(again.header("x-ratelimit-used"), "1");
    }
    assert_eq!(quiet.sim.state().points, 1);
    pass(130).await;
    let later = quiet.get(path).await;
    assert_eq!((later.status.as_u16(), later.header("x-ratelimit-used")), (200, "1"));
    assert!(later.header("x-ratelimit-reset").parse::<u64>().unwrap() > reset);
}
