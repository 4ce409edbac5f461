//! The hostile variants of what is not verified, each seen to differ.

use axum::http::{Method, StatusCode};
use runner_orchestrator::sim::github::{
    Assumption, Fault, NewJobs, PlantedRunners, SettingsPatch, SimOptions, TokenSpec, UNVERIFIED,
    Variants,
};
use serde_json::{Value, json};

use super::quiet::{Answer, Quiet, pass};
use super::support::{Listening, text};

const RUNNERS: &str = "/orgs/acme/actions/runners";

fn switch(quiet: &Quiet, assumption: Assumption) {
    let hostile = Some(Variants::from_iter([assumption]));
    quiet.sim.change_settings(&SettingsPatch { hostile, ..SettingsPatch::default() });
}

fn hostile(assumption: Assumption) -> Quiet {
    let quiet = Quiet::new();
    switch(&quiet, assumption);
    quiet
}

async fn listening(quiet: &Quiet, name: &str) -> (u64, Listening) {
    let (id, blob) = quiet.mint(name).await;
    let listening = quiet.listen(&blob);
    listening.printed("Listening").await;
    (id, listening)
}

fn job(seconds: f64) -> NewJobs {
    NewJobs { duration_seconds: seconds, ..NewJobs::default() }
}

async fn first_job(quiet: &Quiet) -> Value {
    let runs = quiet.get("/repos/acme/repo-1/actions/runs").await.body;
    let run = runs["workflow_runs"][0]["id"].as_u64().unwrap();
    quiet.get(&format!("/repos/acme/repo-1/actions/runs/{run}/jobs")).await.body["jobs"][0].clone()
}

#[tokio::test(start_paused = true)]
async fn deletion_of_busy_and_connected_runners() {
    let quiet = hostile(Assumption::BusyDeleteStatus);
    let busy = PlantedRunners { busy: true, ..PlantedRunners::default() };
    let id = quiet.sim.plant_runners(&busy).unwrap()[0];
    assert_eq!(quiet.delete(&format!("{RUNNERS}/{id}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(quiet.sim.state().runners.len(), 1);

    let told = Quiet::new();
    let (id, mut told_runner) = listening(&told, "told").await;
    told.delete(&format!("{RUNNERS}/{id}")).await;
    assert_eq!(told_runner.ended().await, 1);
    assert!(told_runner.output().contains("no longer exists on the server"));

    let quiet = hostile(Assumption::DeletedRunnerNotice);
    let (id, untold) = listening(&quiet, "untold").await;
    assert_eq!(quiet.delete(&format!("{RUNNERS}/{id}")).await.status, StatusCode::NO_CONTENT);
    quiet.sim.post_jobs(&job(1.0)).unwrap();
    pass(300).await;
    assert!(untold.output().ends_with("Listening for Jobs\n"), "{}", untold.output());
    assert!(quiet.listed().await.is_empty());
    assert_eq!(quiet.sim.state().jobs[0].assigned_at, None);

    let quiet = hostile(Assumption::DeletedStillListed);
    let (id, _) = quiet.mint("ghost").await;
    quiet.delete(&format!("{RUNNERS}/{id}")).await;
    assert_eq!(quiet.listed().await, [("ghost".into(), "offline".into(), false)]);
    pass(61).await;
    assert!(quiet.listed().await.is_empty());
}

/// A runner that was given a job and has not started it, because its poll is over.
async fn assigned(assumption: Assumption) -> (Quiet, u64) {
    let quiet = hostile(assumption);
    let (id, listening) = listening(&quiet, "slow").await;
    drop(listening);
    quiet.sim.post_jobs(&job(1.0)).unwrap();
    (quiet, id)
}

#[tokio::test(start_paused = true)]
async fn a_runner_between_assignment_and_start() {
    let (quiet, id) = assigned(Assumption::LabelCase).await;
    assert_eq!(quiet.listed().await, [("slow".into(), "online".into(), true)]);
    assert_eq!(quiet.delete(&format!("{RUNNERS}/{id}")).await.status, 422);

    let (quiet, id) = assigned(Assumption::BusyFrom).await;
    assert_eq!(quiet.listed().await, [("slow".into(), "online".into(), false)]);
    assert_eq!(quiet.delete(&format!("{RUNNERS}/{id}")).await.status, 204);
    let queued = &quiet.sim.state().jobs[0];
    assert_eq!((queued.requeues, queued.assigned_at), (1, None));

    // Both at once: deleted with 204, and the job runs on it all the same.
    let quiet = Quiet::new();
    let both = [Assumption::BusyFrom, Assumption::DeletedWhileAssigned];
    let hostile = Some(Variants::from_iter(both));
    quiet.sim.change_settings(&SettingsPatch { hostile, ..SettingsPatch::default() });
    let (id, blob) = quiet.mint("race").await;
    let mut racing = quiet.listen(&blob);
    racing.printed("Listening").await;
    quiet.sim.post_jobs(&job(1.0)).unwrap();
    assert_eq!(quiet.delete(&format!("{RUNNERS}/{id}")).await.status, 204);
    assert!(quiet.listed().await.is_empty());
    assert_eq!(racing.ended().await, 0);
    let job = &quiet.sim.state().jobs[0];
    assert_eq!((job.attempts, job.conclusion.as_deref()), (1, Some("success")));
}

#[tokio::test(start_paused = true)]
async fn registrations_that_stay_after_their_job() {
    let quiet = hostile(Assumption::RemovedAfterJob);
    let (_, mut done) = listening(&quiet, "done").await;
    quiet.sim.post_jobs(&job(1.0)).unwrap();
    assert_eq!(done.ended().await, 0);
    assert_eq!(quiet.listed().await, [("done".into(), "offline".into(), false)]);
    pass(31).await;
    assert!(quiet.listed().await.is_empty());

    let quiet = hostile(Assumption::LostRegistration);
    let (id, lost) = listening(&quiet, "lost").await;
    quiet.sim.post_jobs(&job(3_600.0)).unwrap();
    lost.printed("Running").await;
    drop(lost);
    pass(620).await;
    assert_eq!(quiet.listed().await, [("lost".into(), "offline".into(), false)]);
    assert!(quiet.sim.state().jobs[0].lost);
    assert_eq!(quiet.delete(&format!("{RUNNERS}/{id}")).await.status, 204);
}

#[tokio::test(start_paused = true)]
async fn mints() {
    let quiet = hostile(Assumption::MintServerError);
    let route = "POST /orgs/{org}/actions/runners/generate-jitconfig".to_owned();
    let fault = Fault { route, status: Some(502), count: Some(1), ..Fault::default() };
    quiet.sim.add_fault(fault.clone()).unwrap();
    assert_eq!(quiet.try_mint("twice", &["x"]).await.status, 502);
    assert_eq!(quiet.try_mint("twice", &["x"]).await.status, 409);
    let friendly = Quiet::new();
    friendly.sim.add_fault(fault).unwrap();
    assert_eq!(friendly.try_mint("twice", &["x"]).await.status, 502);
    assert_eq!(friendly.try_mint("twice", &["x"]).await.status, 201);

    let labels = |minted: &Answer| {
        let labels = minted.body["runner"]["labels"].as_array().unwrap();
        labels.iter().map(|label| text(&label["name"])).collect::<Vec<_>>()
    };
    let quiet = hostile(Assumption::NameLength);
    assert_eq!(quiet.try_mint(&"n".repeat(49), &["x"]).await.status, 422);
    assert_eq!(quiet.try_mint(&"n".repeat(48), &["x"]).await.status, 201);
    let quiet = hostile(Assumption::DefaultLabels);
    assert_eq!(labels(&quiet.try_mint("a", &["X"]).await), ["self-hosted", "linux", "x64", "x"]);
    let quiet = hostile(Assumption::LabelCase);
    assert_eq!(labels(&quiet.try_mint("a", &["GPU"]).await), ["GPU"]);
    let quiet = hostile(Assumption::MintRateResource);
    let minted = quiet.try_mint("a", &["x"]).await;
    assert_eq!(minted.header("x-ratelimit-resource"), "actions_runner_registration");
}

#[tokio::test(start_paused = true)]
async fn fields() {
    let quiet = hostile(Assumption::QueuedRunnerId);
    quiet.sim.post_jobs(&job(1.0)).unwrap();
    let queued = first_job(&quiet).await;
    assert_eq!((&queued["runner_id"], &queued["runner_name"]), (&json!(0), &json!("")));
    switch(&quiet, Assumption::QueuedStartedAt);
    assert_eq!(first_job(&quiet).await["started_at"], "0001-01-01T00:00:00Z");
    switch(&quiet, Assumption::HeadCommit);
    let runs = quiet.get("/repos/acme/repo-1/actions/runs").await.body;
    assert!(runs["workflow_runs"][0]["head_commit"].is_null());
    switch(&quiet, Assumption::FieldSet);
    let runner = quiet.try_mint("lean", &["x"]).await.body["runner"].clone();
    assert!(runner["unheard_of"].is_object() && runner["ephemeral"].is_null());
    switch(&quiet, Assumption::JobVisibility);
    quiet.sim.post_jobs(&job(1.0)).unwrap();
    let total = async || {
        let runs = quiet.get("/repos/acme/repo-1/actions/runs?status=queued").await;
        runs.body["total_count"].as_u64().unwrap()
    };
    assert_eq!(total().await, 0);
    pass(5).await;
    assert_eq!(total().await, 2);
}

#[tokio::test(start_paused = true)]
async fn tags_and_limits() {
    let tokens = ["sim-token", "other"].map(TokenSpec::all_powerful).to_vec();
    let quiet = Quiet::with(SimOptions { tokens, ..SimOptions::default() });
    let tag = async |token: &str| {
        let header = format!("Bearer {token}");
        let headers = [("authorization", header.as_str())];
        quiet.call(Method::GET, "/orgs/acme", &headers, None).await.header("etag").to_owned()
    };
    assert_eq!(tag("sim-token").await, tag("other").await);
    switch(&quiet, Assumption::EtagPerToken);
    assert_ne!(tag("sim-token").await, tag("other").await);
    switch(&quiet, Assumption::EtagWeak);
    let weak = tag("other").await;
    assert!(weak.starts_with("W/\""), "{weak}");
    let known = [("if-none-match", weak.as_str())];
    assert_eq!(quiet.call(Method::GET, "/orgs/acme", &known, None).await.status, 304);

    let few = SettingsPatch { secondary_points_per_minute: Some(0), ..SettingsPatch::default() };
    quiet.sim.change_settings(&few);
    let few = SettingsPatch { secondary_points_per_minute: Some(2), ..SettingsPatch::default() };
    pass(61).await;
    quiet.sim.change_settings(&few);
    let full = async || {
        for _ in 0..2 {
            quiet.get("/orgs/acme").await;
        }
        quiet.get("/orgs/acme").await
    };
    switch(&quiet, Assumption::LimitStatus);
    assert_eq!(full().await.status, StatusCode::TOO_MANY_REQUESTS);
    switch(&quiet, Assumption::SecondaryRetryAfter);
    assert_eq!(full().await.header("retry-after"), "");
    // Clock minutes: at :50 a minute is full, ten seconds later it is a new one.
    switch(&quiet, Assumption::SecondaryWindow);
    let past = quiet.sim.clock().now_ms() / 1_000 % 60;
    pass(110 - past).await;
    assert_eq!(full().await.status, StatusCode::FORBIDDEN);
    pass(10).await;
    assert_eq!(quiet.get("/orgs/acme").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_whole_table_at_once_still_runs_a_job_once() {
    let quiet = Quiet::new();
    let hostile = Some(Variants::all());
    quiet.sim.change_settings(&SettingsPatch { hostile, ..SettingsPatch::default() });
    let (_, mut listening) = listening(&quiet, "all").await;
    quiet.sim.post_jobs(&job(1.0)).unwrap();
    assert_eq!(listening.ended().await, 0);
    assert_eq!(quiet.sim.state().jobs[0].attempts, 1);
    assert_eq!(UNVERIFIED.len(), 22);
}
