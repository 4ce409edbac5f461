//! Signed `workflow_job` deliveries.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use runner_orchestrator::sim::github::{NewJobs, NewWebhook, sign};
use secrecy::SecretString;
use serde_json::Value;

use super::support::{Model, text, until};

type Received = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

async fn receiver() -> (String, Received) {
    let received = Received::default();
    let keep = async |State(received): State<Received>, headers: HeaderMap, body: Bytes| {
        received.lock().unwrap().push((headers, body));
        StatusCode::ACCEPTED
    };
    let router = Router::new().route("/hook", post(keep)).with_state(received.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "the server ends with the test's runtime")]
    tokio::spawn(axum::serve(listener, router).into_future());
    (url, received)
}

fn hook(url: &str) -> NewWebhook {
    let secret = Some(SecretString::from("test-secret"));
    NewWebhook { url: url.into(), secret, duplicate: false, shuffle: false }
}

#[test]
fn signatures_are_those_of_the_published_vectors() {
    let sample = r#"{"action":"queued","workflow_job":{"id":101,"run_id":202,"run_attempt":1,"name":"build","status":"queued","conclusion":null,"labels":["self-hosted","linux"],"runner_id":null,"runner_name":null,"runner_group_id":null,"runner_group_name":null,"workflow_name":"CI","head_branch":"main","created_at":"2026-01-02T03:04:05Z","started_at":"2026-01-02T03:04:05Z","completed_at":null},"repository":{"id":303,"name":"demo","full_name":"acme/demo","private":true,"owner":{"login":"acme","id":404}},"organization":{"login":"acme","id":404},"installation":{"id":505},"sender":{"login":"octo","id":606}}"#;
    for (secret, body, signature) in [
        (
            "It's a Secret to Everybody",
            "Hello, World!",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        ),
        (
            "test-secret",
            sample,
            "sha256=7026b1fbcd30db1cbad375e58c87f66d6c90e4945761964062bb1cb91de3c471",
        ),
        (
            "test-secret",
            "",
            "sha256=a41bc6d81d6413576ae0994995e0ad89a416ec97389515c3604f47722122eeeb",
        ),
        (
            "test-secret",
            "{\"name\":\"héllo ✓\"}",
            "sha256=6a1c12ee66f94a8bb0c094b1c7435570ad458ca0bd7ac18a87c4279b5d3e4d24",
        ),
    ] {
        assert_eq!(sign(&SecretString::from(secret), body.as_bytes()), signature);
    }
}

#[tokio::test]
async fn a_job_is_announced_signed_at_every_step() {
    let model = Model::start().await;
    let (url, received) = receiver().await;
    model.handle.add_webhook(hook(&url)).unwrap();
    let (_, blob) = model.mint("hooked", &["self-hosted"]).await;
    let mut listening = model.listen(&blob);
    let job =
        model.handle.post_jobs(&NewJobs { duration_seconds: 0.2, ..NewJobs::default() }).unwrap()
            [0];
    assert_eq!(listening.ended().await, 0);
    until("three deliveries", || received.lock().unwrap().len() == 3).await;
    until("they are noted", || model.handle.state().deliveries.len() == 3).await;
    let received = received.lock().unwrap();
    let mut actions: Vec<String> = Vec::new();
    for (headers, body) in received.iter() {
        assert_eq!(headers["x-github-event"], "workflow_job");
        assert_eq!(headers["x-hub-signature-256"], sign(&"test-secret".into(), body).as_str());
        assert_eq!(headers["content-type"], "application/json");
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(body["workflow_job"]["id"].as_u64(), Some(job.0));
        assert_eq!(body["action"], body["workflow_job"]["status"]);
        assert_eq!(body["repository"]["full_name"], "acme/repo-1");
        if body["action"] != "queued" {
            assert_eq!(body["workflow_job"]["runner_name"], "hooked");
        }
        actions.push(text(&body["action"]));
    }
    actions.sort();
    assert_eq!(actions, ["completed", "in_progress", "queued"]);
    assert!(model.handle.state().deliveries.iter().all(|d| d.status == Some(202)));
}

#[tokio::test]
async fn duplicates_keep_their_guid_and_no_secret_means_no_signature() {
    let model = Model::start().await;
    let (url, received) = receiver().await;
    let spec = NewWebhook { secret: None, duplicate: true, shuffle: true, ..hook(&url) };
    model.handle.add_webhook(spec).unwrap();
    model.handle.post_jobs(&NewJobs { count: 3, ..NewJobs::default() }).unwrap();
    until("six deliveries", || received.lock().unwrap().len() == 6).await;
    let guids = |received: &Received| {
        let received = received.lock().unwrap();
        assert!(received.iter().all(|(h, _)| !h.contains_key("x-hub-signature-256")));
        let mut guids: Vec<_> =
            received.iter().map(|(h, _)| h["x-github-delivery"].clone()).collect();
        guids.sort();
        guids.dedup();
        guids.len()
    };
    assert_eq!(guids(&received), 3);
    // Switched off, nothing more is sent.
    model.handle.clear_webhooks();
    model.handle.post_jobs(&NewJobs::default()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(received.lock().unwrap().len(), 6);
}
