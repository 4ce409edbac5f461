//! The demo as a user runs it: the built program, real containers, its own verdict.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

async fn demo(more: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_runner-orchestrator"))
        .args(["demo", "--seed", "7", "--until-done", "--report", "json", "--job-seconds", "1..3"])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{lines}{errors}");
    serde_json::from_str(lines.lines().last().unwrap()).unwrap()
}

fn every_promise_kept(report: &Value, jobs: u32) {
    assert_eq!(report["jobs"], jobs, "{report}");
    assert_eq!(report["succeeded"], jobs, "{report}");
    for none in ["lost", "run_twice", "killed_busy"] {
        assert_eq!(report[none], 0, "{none}: {report}");
    }
    let nothing = json!({"containers": 0, "volumes": 0, "networks": 0, "registrations": 0});
    assert_eq!(report["leftover"], nothing, "{report}");
    assert!(report["max_runners_seen"].as_u64() <= report["max_runners"].as_u64(), "{report}");
}

#[tokio::test]
async fn thirty_jobs_on_the_real_engine() {
    let report = demo(&["--jobs", "30", "--engine", "docker"]).await;
    assert_eq!(report["engine"], "docker");
    every_promise_kept(&report, 30);
}

#[tokio::test]
async fn thirty_jobs_with_the_orchestrator_killed_in_the_middle() {
    let report = demo(&["--jobs", "30", "--engine", "docker", "--kill-orchestrator"]).await;
    assert_eq!(report["engine"], "docker");
    every_promise_kept(&report, 30);
}

#[tokio::test]
async fn without_an_engine_the_modelled_one_serves() {
    let report = demo(&["--jobs", "10", "--engine", "model"]).await;
    assert_eq!(report["engine"], "model");
    every_promise_kept(&report, 10);
}
