//! `sim github` and `sim listener` as programs.

use std::process::Stdio;
use std::time::Duration;

use runner_orchestrator::sim::github::{SimGitHub, SimOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

fn sim(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_runner-orchestrator"))
        .arg("sim")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn ended(child: &mut Child) -> Option<i32> {
    let status = tokio::time::timeout(Duration::from_secs(30), child.wait()).await;
    status.unwrap().unwrap().code()
}

fn terminate(child: &Child) {
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

#[tokio::test]
async fn the_two_programs_run_a_job() {
    let mut github = sim(&["github", "--token", "t", "--repos", "2", "--org", "acme"]);
    let mut lines = BufReader::new(github.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    let base = first["listening"].as_str().unwrap().to_owned();
    let client = reqwest::Client::builder().no_proxy().user_agent("test").build().unwrap();
    let mint = format!("{base}/api/v3/orgs/acme/actions/runners/generate-jitconfig");
    let body = json!({"name": "p", "runner_group_id": 1, "labels": ["self-hosted"]});
    let minted = client.post(mint).bearer_auth("t").json(&body).send().await.unwrap();
    let minted: Value = minted.json().await.unwrap();
    let jobs = json!({"count": 1, "duration_seconds": 0.1});
    client.post(format!("{base}/_sim/jobs")).json(&jobs).send().await.unwrap();

    let mut listener = sim(&["listener"]);
    let mut input = listener.stdin.take().unwrap();
    let blob = format!("{}\n", minted["encoded_jit_config"].as_str().unwrap());
    input.write_all(blob.as_bytes()).await.unwrap();
    assert_eq!(ended(&mut listener).await, Some(0));
    let mut output = String::new();
    listener.stdout.take().unwrap().read_to_string(&mut output).await.unwrap();
    assert!(output.contains(": Job build completed with result: Succeeded\n"), "{output}");
    assert!(output.ends_with("Exiting runner...\n"));
    let state = client.get(format!("{base}/_sim/state")).send().await.unwrap();
    let state: Value = state.json().await.unwrap();
    assert_eq!((&state["jobs"][0]["attempts"], &state["runners"]), (&json!(1), &json!([])));

    terminate(&github);
    assert_eq!(ended(&mut github).await, Some(0));
    // Standard output held one line of JSON and nothing else.
    assert_eq!(lines.next_line().await.unwrap(), None);
}

#[tokio::test]
async fn a_listener_without_input_ends_by_itself() {
    let mut empty = sim(&["listener"]);
    drop(empty.stdin.take());
    assert_eq!(ended(&mut empty).await, Some(1));
    // Its standard input stays open and silent.
    let mut late = sim(&["listener", "--input-seconds", "0"]);
    assert_eq!(ended(&mut late).await, Some(1));
    let mut faulty = sim(&["listener", "--exit-at-start", "5"]);
    assert_eq!(ended(&mut faulty).await, Some(5));
}

#[tokio::test]
async fn a_device_can_be_named_and_must_exist() {
    let address = "127.0.0.1:0".parse().unwrap();
    let sim = SimGitHub::new(&SimOptions::default());
    let served = sim.clone().listen(address, Some("lo"), CancellationToken::new()).await.unwrap();
    let url = format!("{}/_sim/state", served.base_url());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(client.get(url).send().await.unwrap().status(), 200);
    served.shutdown().await;
    let missing = sim.listen(address, Some("no-such-dev"), CancellationToken::new()).await;
    assert!(missing.is_err());
}
