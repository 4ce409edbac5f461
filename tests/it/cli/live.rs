//! `doctor --live` against the modelled GitHub.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::{command, run, settings, stderr, stdout};
use runner_orchestrator::sim::github::{
    Fault, PlantedRunners, SimGitHub, SimHandle, SimOptions, UNVERIFIED,
};

/// In this process, so that the test sees and steers the model without asking it.
async fn github() -> SimHandle {
    SimGitHub::start(SimOptions::default()).await.unwrap()
}

async fn doctor(api_url: String, more: &[&str]) -> (Option<i32>, Value) {
    let more: Vec<String> = more.iter().map(|arg| (*arg).to_owned()).collect();
    let ran = tokio::task::spawn_blocking(move || {
        let mut args = vec!["doctor", "--live", "--json"];
        args.extend(more.iter().map(String::as_str));
        run(&args, &settings(&api_url))
    });
    let output = ran.await.unwrap();
    let body = serde_json::from_str(&stdout(&output));
    let body = body.unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
    (output.status.code(), body)
}

fn row<'a>(body: &'a Value, what: &str) -> &'a Value {
    body["rows"].as_array().unwrap().iter().find(|row| row["what"] == what).unwrap()
}

fn registrations(sim: &SimGitHub) -> usize {
    sim.state().runners.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_agrees_with_itself_and_nothing_is_left() {
    let sim = github().await;
    let (code, body) = doctor(sim.api_url(), &[]).await;
    assert_eq!(code, Some(0), "{body}");
    let rows = body["rows"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["agrees"] != false), "{body}");
    for measured in [
        "delete when idle",
        "delete again",
        "same name again",
        "default labels",
        "label case",
        "etag weak",
        "mint rate resource",
        "deleted still listed",
        "new runner is listed",
    ] {
        assert_eq!(row(&body, measured)["agrees"], true, "{measured}");
    }
    // What was not measured is told too.
    let told = rows.iter().filter(|row| !row["assumption"].is_null()).count();
    assert_eq!(told, UNVERIFIED.len());
    assert!(row(&body, "busy delete status")["measured"].is_null());
    assert_eq!(registrations(&sim), 0);
}

/// Every row switched to its other answer that a lone runner can tell.
#[tokio::test(flavor = "multi_thread")]
async fn another_behaviour_is_told_apart_from_the_assumed_one() {
    let sim = github().await;
    let hostile = json!({"hostile": [
        "default_labels", "label_case", "etag_weak", "mint_rate_resource",
    ]});
    sim.change_settings(&serde_json::from_value(hostile).unwrap());
    let (code, body) = doctor(sim.api_url(), &[]).await;
    assert_eq!(code, Some(0), "{body}");
    for (what, measured) in [
        ("default labels", "self-hosted, linux, x64 added"),
        ("label case", "as sent"),
        ("etag weak", "weak"),
        ("mint rate resource", "actions_runner_registration"),
    ] {
        assert_eq!(row(&body, what)["measured"], measured, "{what}");
        assert_eq!(row(&body, what)["agrees"], false, "{what}");
    }
    assert_eq!(registrations(&sim), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_the_list_is_measured() {
    let sim = github().await;
    let stale = Fault {
        route: "GET /orgs/{org}/actions/runners".to_owned(),
        stale_seconds: Some(2),
        ..Fault::default()
    };
    sim.add_fault(stale).unwrap();
    let (code, body) = doctor(sim.api_url(), &[]).await;
    assert_eq!(code, Some(0), "{body}");
    for what in ["new runner is listed", "deleted still listed"] {
        assert_eq!(row(&body, what)["agrees"], false, "{body}");
        assert!(row(&body, what)["measured"].as_str().unwrap().starts_with("after "), "{body}");
    }
    assert_eq!(registrations(&sim), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_whose_answer_was_lost_is_found_and_deleted() {
    let sim = github().await;
    let lost = Fault {
        route: "POST /orgs/{org}/actions/runners/generate-jitconfig".to_owned(),
        drop_response: true,
        ..Fault::default()
    };
    sim.add_fault(lost).unwrap();
    let (code, body) = doctor(sim.api_url(), &[]).await;
    assert_eq!(code, Some(1), "{body}");
    assert!(body["ended_early"].as_str().unwrap().contains("the registration"), "{body}");
    assert!(body["left_behind"].is_null(), "{body}");
    assert_eq!(registrations(&sim), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_measurement_deletes_its_runner() {
    let sim = github().await;
    let stale = Fault {
        route: "GET /orgs/{org}/actions/runners".to_owned(),
        stale_seconds: Some(60),
        count: Some(1_000),
        ..Fault::default()
    };
    sim.add_fault(stale).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let api_url = sim.api_url();
    let child = command(folder.path(), &["doctor", "--live", "--json"], &settings(&api_url))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while registrations(&sim) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing was registered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The list does not show it for a minute: the measurement waits for it.
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let body: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(body["ended_early"], "interrupted");
    assert!(body["left_behind"].is_null(), "{body}");
    assert_eq!(registrations(&sim), 0);
}

/// A runner of somebody else, and what is measured on it.
async fn measured_on(busy: bool) -> (SimHandle, Option<i32>, Value) {
    let sim = github().await;
    let planted = PlantedRunners { busy, ..PlantedRunners::default() };
    let id = sim.plant_runners(&planted).unwrap()[0].0.to_string();
    let (code, body) = doctor(sim.api_url(), &["--busy-runner", &id]).await;
    (sim, code, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_not_busy_is_left_alone() {
    let (sim, code, body) = measured_on(false).await;
    assert_eq!(code, Some(0), "{body}");
    assert!(row(&body, "the busy runner")["measured"].as_str().unwrap().contains("left alone"));
    assert!(row(&body, "busy delete status")["measured"].is_null());
    assert_eq!(registrations(&sim), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refusal_to_delete_a_busy_runner_is_measured() {
    let (sim, code, body) = measured_on(true).await;
    assert_eq!(code, Some(0), "{body}");
    assert_eq!(row(&body, "busy delete status")["measured"], "422");
    assert_eq!(registrations(&sim), 1);
}
