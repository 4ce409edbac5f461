//! A job's and a runner's life: mint, connect, run, gone.

use runner_orchestrator::sim::github::{JobStatus, NewJobs};

use runner_orchestrator::sim::listener::StopSignal;

use super::support::Model;

fn job(seconds: f64) -> NewJobs {
    NewJobs { labels: vec!["Self-Hosted".into()], duration_seconds: seconds, ..NewJobs::default() }
}

#[tokio::test]
async fn a_job_is_run_once_and_its_runner_is_gone() {
    let model = Model::start().await;
    let (id, blob) = model.mint("one", &["self-hosted", "X64"]).await;
    let runner = model.get_json(&format!("/orgs/acme/actions/runners/{id}")).await;
    assert_eq!(runner["status"], "offline");
    assert_eq!(runner["labels"][1]["name"], "x64");

    let mut listening = model.listen(&blob);
    listening.printed("Listening for Jobs").await;
    let runner = model.get_json(&format!("/orgs/acme/actions/runners/{id}")).await;
    assert_eq!((&runner["status"], &runner["busy"]), (&"online".into(), &false.into()));

    model.handle.post_jobs(&job(0.3)).unwrap();
    listening.printed("Running job: build").await;
    let runner = model.get_json(&format!("/orgs/acme/actions/runners/{id}")).await;
    assert_eq!(runner["busy"], true);
    let refused = model.delete(&format!("/orgs/acme/actions/runners/{id}")).await;
    assert_eq!(refused.status(), 422);
    assert!(refused.text().await.unwrap().contains("is still running a job"));

    assert_eq!(listening.ended().await, 0);
    assert!(listening.output().contains("Job build completed with result: Succeeded"));
    let state = model.handle.state();
    let job = &state.jobs[0];
    assert_eq!((job.status, job.attempts, job.lost), (JobStatus::Completed, 1, false));
    assert_eq!(job.conclusion.as_deref(), Some("success"));
    assert_eq!(job.runner_name.as_deref(), Some("one"));
    assert!(state.runners.is_empty());
    assert_eq!(state.removed[0].reason, "job_done");
    let list = model.get_json("/orgs/acme/actions/runners").await;
    assert_eq!(list["total_count"], 0);
}

#[tokio::test]
async fn a_signal_ends_an_idle_listener_and_cancels_a_busy_one() {
    let model = Model::start().await;
    let (_, idle) = model.mint("idle", &["other"]).await;
    let (_, busy) = model.mint("busy", &["self-hosted"]).await;
    let mut idle = model.listen(&idle);
    let mut busy = model.listen(&busy);
    idle.printed("Listening for Jobs").await;
    model.handle.post_jobs(&job(60.0)).unwrap();
    busy.printed("Running job").await;

    idle.signal(StopSignal::Terminate);
    assert_eq!(idle.ended().await, 0);
    assert!(idle.output().ends_with("Exiting...\n"), "{}", idle.output());
    busy.signal(StopSignal::Interrupt);
    assert_eq!(busy.ended().await, 0);
    assert!(busy.output().contains("completed with result: Canceled"));

    let state = model.handle.state();
    assert_eq!(state.jobs[0].conclusion.as_deref(), Some("cancelled"));
    let left: Vec<_> = state.runners.iter().map(|r| (r.name.as_str(), r.status.as_str())).collect();
    assert_eq!(left, [("idle", "offline")]);
}
