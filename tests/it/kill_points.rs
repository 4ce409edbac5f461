//! kill -9 at every point between a container's creation and the hand-over of its
//! configuration: after the next start the job has run exactly once and nothing is left.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::it::support::docker_proxy::{DockerProxy, Point};
use crate::it::support::fleet::Fleet;

const SOCKET: &str = "/var/run/docker.sock";
const DONE_WITHIN: Duration = Duration::from_secs(60);
/// Passed only when something hangs, also beside tests that start engines of their own.
const REACHED_WITHIN: Duration = Duration::from_secs(60);

async fn killed_at(point: Point) {
    let dir = tempfile::tempdir().unwrap();
    let proxy = DockerProxy::start(dir.path().join("docker.sock"), PathBuf::from(SOCKET));
    let mut fleet = Fleet::build(4).await;
    proxy.set(point);
    fleet.start(Some(proxy.docker_host()), &[]).await;
    fleet.jobs(1, 1.0).await;
    tokio::time::timeout(REACHED_WITHIN, proxy.fired())
        .await
        .unwrap_or_else(|_| panic!("{point:?} was never reached"));
    fleet.kill().await;
    drop(proxy);

    fleet.start(None, &[]).await;
    fleet.until_all_done(DONE_WITHIN).await;
    assert!(fleet.stop().await, "{point:?}: the orchestrator did not end well");
    fleet.each_job_once().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_point_at_docker_leaves_nothing() {
    // Side by side, but not so many that the engine becomes the thing that is tested.
    for points in Point::ALL.chunks(4) {
        futures_util::future::join_all(points.iter().map(|point| killed_at(*point))).await;
    }
}

/// GitHub has registered the runner, its answer is on the way, and the process dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_registration_whose_answer_never_arrived_is_deleted() {
    let mut fleet = Fleet::build(4).await;
    let route = "POST /repos/{owner}/{repo}/actions/runners/generate-jitconfig";
    fleet.sim("faults", json!({"route": route, "drop_response": true, "count": 1})).await;
    fleet.start(None, &[]).await;
    fleet.jobs(1, 1.0).await;
    fleet
        .until(Duration::from_secs(20), "registered", |state| {
            !state["runners"].as_array().unwrap().is_empty()
        })
        .await;
    fleet.kill().await;
    fleet.start(None, &[]).await;
    fleet.until_all_done(DONE_WITHIN).await;
    assert!(fleet.stop().await);
    fleet.each_job_once().await;
    fleet.end().await;
}

/// A busy runner outlives kill -9 and is adopted: its job is neither lost nor run again.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_runner_outlives_its_orchestrator() {
    let mut fleet = Fleet::build(4).await;
    fleet.start(None, &[]).await;
    fleet.jobs(1, 6.0).await;
    fleet
        .until(Duration::from_secs(20), "a job running", |state| {
            state["jobs"][0]["status"] == "in_progress"
        })
        .await;
    fleet.kill().await;
    assert_eq!(fleet.containers().await, 1, "the runner died with its orchestrator");
    fleet.start(None, &[]).await;
    fleet.until_all_done(DONE_WITHIN).await;
    assert!(fleet.stop().await);
    fleet.each_job_once().await;
    fleet.end().await;
}
