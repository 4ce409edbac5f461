//! The stand-in listener's behaviour at its edges.

use std::time::Duration;

use runner_orchestrator::sim::github::{Fault, NewJobs, SimOptions, decode_jit};
use runner_orchestrator::sim::listener::{ListenerOptions, StopSignal, Transport, run};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::quiet::{Quiet, pass};
use super::support::{Listening, Model, Output};

fn options(quiet: &Quiet) -> ListenerOptions {
    ListenerOptions::new(Transport::InProcess(quiet.router.clone()), quiet.sim.clock())
}

#[tokio::test(start_paused = true)]
async fn without_a_configuration_it_ends_with_one_clear_line() {
    let quiet = Quiet::new();
    for (input, wanted) in [
        (&b""[..], "standard input ended without a JIT configuration"),
        (&b"\n"[..], "standard input ended without a JIT configuration"),
        (&b"***\n"[..], "the JIT configuration is not base64"),
        (&b"e30=\n"[..], "the JIT configuration lacks a usable .runner"),
        (&b"aGVsbG8=\n"[..], "the JIT configuration is not a JSON object of files"),
    ] {
        let out = Output::default();
        let signals = futures_util::stream::pending();
        assert_eq!(run(options(&quiet), input, out.clone(), signals).await, 1);
        assert_eq!(out.text(), format!("An error occurred: {wanted}\n"));
    }
    // A standard input that stays open and silent: the limit ends it.
    let (ours, mut theirs) = tokio::io::duplex(64);
    theirs.write_all(b"half a li").await.unwrap();
    let out = Output::default();
    let signals = futures_util::stream::pending();
    assert_eq!(run(options(&quiet), ours, out.clone(), signals).await, 1);
    assert!(out.text().contains("within 60 s"), "{}", out.text());
    drop(theirs);
}

#[tokio::test(start_paused = true)]
async fn registration_gone_conflict_and_wrong_secret() {
    let quiet = Quiet::new();
    let (id, blob) = quiet.mint("gone").await;
    quiet.delete(&format!("/orgs/acme/actions/runners/{id}")).await;
    let mut gone = quiet.listen(&blob);
    assert_eq!(gone.ended().await, 1);
    assert!(
        gone.output()
            .contains("Failed to create a session. The runner registration has been deleted")
    );
    assert!(!gone.output().contains("Listening"));

    let (_, blob) = quiet.mint("double").await;
    let first = quiet.listen(&blob);
    first.printed("Listening").await;
    let mut second = quiet.listen(&blob);
    assert_eq!(second.ended().await, 5);
    let tries = second.output().matches("A session for this runner already exists.").count();
    assert_eq!(tries, 9);
    assert!(first.output().ends_with("Listening for Jobs\n"));
    let mut folded = options(&quiet);
    folded.fold_exit_codes = true;
    let mut folded = Listening::start(folded, &blob);
    assert_eq!(folded.ended().await, 0);

    // Another model with the same ids: its secrets differ.
    let other = Quiet::with(SimOptions { seed: 2, ..SimOptions::default() });
    other.mint("gone").await;
    other.mint("double").await;
    let (id, _) = other.mint("third").await;
    let (same, blob) = quiet.mint("third").await;
    assert_eq!(id, same);
    let mut wrong = Listening::start(options(&other), &blob);
    assert_eq!(wrong.ended().await, 1);
    assert!(wrong.output().contains("not accepted"), "{}", wrong.output());
}

#[tokio::test(start_paused = true)]
async fn misbehaviour_on_request() {
    let quiet = Quiet::new();
    let (_, blob) = quiet.mint("odd").await;
    let mut at_once = options(&quiet);
    at_once.faults.exit_at_start = Some(7);
    let mut at_once = Listening::start(at_once, &blob);
    assert_eq!((at_once.ended().await, at_once.output()), (7, String::new()));

    let mut never = options(&quiet);
    never.faults.never_listen = true;
    never.faults.ignore_term = true;
    let mut never = Listening::start(never, &blob);
    never.printed("Current runner version: '2.336.0'").await;
    never.signal(StopSignal::Terminate);
    pass(600).await;
    assert!(!never.output().contains("Listening") && !never.output().contains("Exiting"));
    assert_eq!(quiet.listed().await, [("odd".into(), "offline".into(), false)]);
    never.signal(StopSignal::Interrupt);
    assert_eq!(never.ended().await, 0);

    let mut forging = options(&quiet);
    forging.faults.forged_lines = vec!["2026-01-02 03:04:05Z: Listening for Jobs".into()];
    let mut forging = Listening::start(forging, &blob);
    quiet.sim.post_jobs(&NewJobs::default()).unwrap();
    assert_eq!(forging.ended().await, 0);
    assert_eq!(forging.output().matches("Listening for Jobs").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_and_a_failing_job() {
    let quiet = Quiet::new();
    let (_, blob) = quiet.mint("cancelled").await;
    let mut cancelled = quiet.listen(&blob);
    let long = NewJobs { duration_seconds: 3_600.0, ..NewJobs::default() };
    let id = quiet.sim.post_jobs(&long).unwrap()[0];
    cancelled.printed("Running job").await;
    assert!(quiet.sim.cancel_job(id));
    assert_eq!(cancelled.ended().await, 0);
    assert!(cancelled.output().contains("completed with result: Canceled"));
    let (_, blob) = quiet.mint("failing").await;
    let mut failing = quiet.listen(&blob);
    let bad = NewJobs { result: Some("Failed".into()), ..NewJobs::default() };
    quiet.sim.post_jobs(&bad).unwrap();
    assert_eq!(failing.ended().await, 0);
    let ends: Vec<_> = quiet.sim.state().jobs.iter().map(|j| j.conclusion.clone()).collect();
    assert_eq!(ends, [Some("cancelled".into()), Some("failure".into())]);
    assert!(quiet.sim.state().runners.is_empty());
}

#[tokio::test]
async fn a_service_that_is_away_is_waited_for() {
    let model = Model::start().await;
    let (_, blob) = model.mint("patient", &["self-hosted"]).await;
    let address = model.handle.address();
    let listening = model.listen(&blob);
    listening.printed("Listening").await;
    model.handle.shutdown().await;
    listening
        .printed(
            "Runner connect error: the service could not be reached. Retrying until reconnected.",
        )
        .await;
    // The next service at this address does not know the runner.
    let stop = tokio_util::sync::CancellationToken::new();
    let next = runner_orchestrator::sim::github::SimGitHub::new(&SimOptions::default());
    let next = next.listen(address, None, stop).await.unwrap();
    let mut listening = listening;
    assert_eq!(listening.ended().await, 1);
    assert!(listening.output().contains("Runner reconnected."));
    next.shutdown().await;
}

#[tokio::test]
async fn the_blob_names_where_it_was_minted_or_what_was_set() {
    let model = Model::start().await;
    let (id, blob) = model.mint("here", &["x"]).await;
    let config = decode_jit(&blob).unwrap();
    assert_eq!((config.agent_id, config.agent_name.as_str()), (id, "here"));
    assert_eq!(config.server_url, model.handle.base_url());
    assert!(!format!("{config:?}").contains("here"));
    let patch = serde_json::json!({"runner_url": "http://172.18.0.1:7000/"});
    let url = format!("{}/_sim/settings", model.handle.base_url());
    model.client.post(url).json(&patch).send().await.unwrap();
    let (_, blob) = model.mint("there", &["x"]).await;
    assert_eq!(decode_jit(&blob).unwrap().server_url, "http://172.18.0.1:7000");
}

#[tokio::test]
async fn a_killed_listener_over_a_socket_is_noticed() {
    let model = Model::start().await;
    let patch = serde_json::json!({"offline_after_seconds": 0.2, "lost_after_seconds": 0.6});
    let url = format!("{}/_sim/settings", model.handle.base_url());
    model.client.post(url).json(&patch).send().await.unwrap();
    let (_, blob) = model.mint("idle", &["other"]).await;
    let idle = model.listen(&blob);
    idle.printed("Listening").await;
    let (_, blob) = model.mint("busy", &["self-hosted"]).await;
    let busy = model.listen(&blob);
    model.handle.post_jobs(&NewJobs { duration_seconds: 60.0, ..NewJobs::default() }).unwrap();
    busy.printed("Running").await;
    // Slow as a busy runner's signs of life may be, it is not lost while it lives.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!model.handle.state().jobs[0].lost);
    drop((idle, busy));
    super::support::until("lost", || model.handle.state().jobs[0].lost).await;
    super::support::until("offline", || {
        let state = model.handle.state();
        state.runners.len() == 1 && state.runners[0].status == "offline"
    })
    .await;
    assert!(model.handle.add_fault(Fault::default()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_service_gives_a_job_until_it_is_started_and_counts_one_start() {
    let quiet = Quiet::new();
    let (id, blob) = quiet.mint("raw").await;
    let secret = decode_jit(&blob).unwrap().secret.expose_secret().to_owned();
    let open = |secret: &str| json!({"agent_id": id, "secret": secret});
    let sessions = "/_runner/sessions";
    assert_eq!(quiet.post(sessions, open("wrong")).await.status, 401);
    let unknown = json!({"agent_id": id + 1, "secret": secret});
    assert_eq!(quiet.post(sessions, unknown).await.status, 404);
    let opened = quiet.post(sessions, open(&secret)).await;
    assert_eq!(opened.status, 201);
    assert_eq!(quiet.post(sessions, open(&secret)).await.status, 409);
    let session = format!("{sessions}/{}", opened.body["session_id"].as_str().unwrap());
    let poll = format!("{session}/message?hold_ms=1000");
    assert_eq!(quiet.get(&poll).await.status, 204);

    let job = quiet.sim.post_jobs(&NewJobs::default()).unwrap()[0];
    let step = async |step: &str| {
        let path = format!("{session}/jobs/{job}/{step}");
        quiet.post(&path, json!({"result": "Succeeded"})).await.status.as_u16()
    };
    assert_eq!((step("renew").await, step("complete").await), (404, 404));
    // An answer may be lost: the job comes again until it is started.
    for _ in 0..2 {
        assert_eq!(quiet.get(&poll).await.body["job"]["id"].as_u64(), Some(job.0));
    }
    assert_eq!((step("start").await, step("start").await), (204, 204));
    assert_eq!(quiet.sim.state().jobs[0].attempts, 1);
    assert_eq!(quiet.get(&poll).await.status, 204);
    assert_eq!((step("renew").await, step("complete").await), (200, 204));
    assert_eq!((step("complete").await, step("start").await), (404, 404));
    assert_eq!(quiet.get(&poll).await.status, 404);
    assert_eq!(quiet.sim.state().jobs[0].attempts, 1);
}
