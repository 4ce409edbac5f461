//! Whatever is sent: a 4xx problem, never a 5xx, and nothing happens.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::{Request, header};
use futures_util::stream;
use runner_orchestrator::store::Store;
use serde_json::{Value, json};

use super::world::{Setup, led, led_with, request};

const UP: &str = "/api/v1/runners/scale-up";

#[tokio::test]
async fn bad_bodies() {
    let world = led().await;
    let deep = "[".repeat(10_000);
    let table: &[(&str, u16, &str)] = &[
        ("{", 400, "invalid_json"),
        ("nonsense", 400, "invalid_json"),
        ("{\"count\":1}x", 400, "invalid_json"),
        ("\u{0}", 400, "invalid_json"),
        (&deep, 400, "invalid_json"),
        ("[]", 422, "invalid_body"),
        ("null", 422, "invalid_body"),
        ("7", 422, "invalid_body"),
        (r#"{"count":0}"#, 422, "invalid_body"),
        (r#"{"count":-1}"#, 422, "invalid_body"),
        (r#"{"count":1.5}"#, 422, "invalid_body"),
        (r#"{"count":"2"}"#, 422, "invalid_body"),
        (r#"{"count":null}"#, 422, "invalid_body"),
        (r#"{"count":true}"#, 422, "invalid_body"),
        (r#"{"count":1001}"#, 422, "invalid_body"),
        (r#"{"count":4294967297}"#, 422, "invalid_body"),
        (r#"{"count":99999999999999999999999}"#, 422, "invalid_body"),
        (r#"{"count":1e400}"#, 400, "invalid_json"),
        (r#"{"pool":"nobody"}"#, 422, "invalid_body"),
        (r#"{"pool":""}"#, 422, "invalid_body"),
        (r#"{"pool":7}"#, 422, "invalid_body"),
        (r#"{"pool":null}"#, 422, "invalid_body"),
        (r#"{"pool":"default\u0000"}"#, 422, "invalid_body"),
        (r#"{"counts":1}"#, 422, "invalid_body"),
    ];
    for (body, status, code) in table {
        for path in [UP, "/api/v1/runners/scale-down"] {
            world.post(path, body).await.is_problem(*status, code);
        }
    }
    assert!(world.store.snapshot().await.unwrap().intents.is_empty());
    assert!(world.store.snapshot().await.unwrap().assignments.is_empty());
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let world = led().await;
    let answer = world.post(UP, r#"{"count":0,"pool":"x","force":true}"#).await;
    answer.is_problem(422, "invalid_body");
    let errors = answer.json["errors"].as_array().unwrap();
    let fields: Vec<&Value> = errors.iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["force", "count", "pool"]);
}

#[tokio::test]
async fn bodies_of_the_wrong_kind_or_size() {
    let world = led().await;
    let form =
        request("POST", UP).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let answer = world.send(form.body(Body::from("count=3")).unwrap()).await;
    answer.is_problem(415, "unsupported_media_type");
    let none = request("POST", UP).body(Body::from(r#"{"count":1}"#)).unwrap();
    world.send(none).await.is_problem(415, "unsupported_media_type");
    let huge = format!("{{\"pool\":\"{}\"}}", "x".repeat(70_000));
    world.post(UP, &huge).await.is_problem(413, "body_too_large");
    let announced = request("POST", UP).header(header::CONTENT_LENGTH, "99999999");
    let answer = world.send(announced.body(Body::empty()).unwrap()).await;
    answer.is_problem(413, "body_too_large");
    let endless = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1024])));
    let endless = request("POST", UP).body(Body::from_stream(endless)).unwrap();
    world.send(endless).await.is_problem(413, "body_too_large");
    let answer = world.post("/api/v1/freeze", r#"{"for":"ever"}"#).await;
    answer.is_problem(422, "invalid_body");
    assert_eq!(answer.json["errors"][0]["field"], "for");
    assert!(world.store.snapshot().await.unwrap().operator.frozen_since.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_given_up() {
    let world = led().await;
    let stuck = stream::pending::<Result<Bytes, Infallible>>();
    let stuck = request("POST", UP).body(Body::from_stream(stuck)).unwrap();
    world.send(stuck).await.is_problem(408, "body_timeout");
}

#[tokio::test]
async fn bad_ids() {
    let world = led().await;
    let long = "a".repeat(10_000);
    let ids = [
        "%00",
        "a%00b",
        "a%2Fb",
        "%2F",
        "..%2F..",
        "%2e%2e",
        "a%20b",
        "%F0%9F%90%B3",
        "%0d%0a",
        "*",
        "-1",
        "0",
        "null",
        ";",
        "%25",
        "a%5Cb",
        &long,
    ];
    for id in ids {
        let answers = [
            world.delete(&format!("/api/v1/runners/{id}")).await,
            world.get(&format!("/api/v1/runners/{id}/logs")).await,
            world.post(&format!("/api/v1/pools/{id}/pause"), "").await,
            world.post(&format!("/api/v1/pools/{id}/resume"), "").await,
            world.post(&format!("/api/v1/hosts/{id}/drain"), "").await,
            world.get(&format!("/api/v1/intents/{id}")).await,
            world.get(&format!("/api/v1/jobs/{id}/why")).await,
        ];
        for answer in answers {
            let status = answer.status.as_u16();
            assert!(status == 400 || status == 404, "{id}: {}", answer.text);
            let code = answer.json["code"].as_str().unwrap().to_owned();
            answer.is_problem(status, &code);
        }
    }
    for not_text in ["%FF", "%C3%28"] {
        let answer = world.delete(&format!("/api/v1/runners/{not_text}")).await;
        answer.is_problem(400, "invalid_path");
    }
    for path in ["/api/v1/runners/a/b", "/api/v1/runners//logs", "/api/v1/jobs//why"] {
        let answer = world.get(path).await;
        assert!((400..500).contains(&answer.status.as_u16()), "{path}: {}", answer.text);
    }
    assert!(world.store.snapshot().await.unwrap().intents.is_empty());
}

#[tokio::test]
async fn bad_queries() {
    let world = led().await;
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "limit=4294967296",
        "state=odd",
        "a=b",
        "limit=1&limit=2",
    ] {
        let answer = world.get(&format!("/api/v1/jobs?{query}")).await;
        answer.is_problem(400, "invalid_query");
    }
    for query in ["limit=501", "kind=odd", "since=1"] {
        let answer = world.get(&format!("/api/v1/decisions?{query}")).await;
        answer.is_problem(400, "invalid_query");
    }
    for query in ["force=maybe", "force", "forced=true"] {
        let answer = world.delete(&format!("/api/v1/runners/x?{query}")).await;
        answer.is_problem(400, "invalid_query");
    }
}

#[tokio::test]
async fn unknown_routes_and_methods() {
    let world = led().await;
    for path in ["/nothing", "/api/v1", "/api/v1/status/", "/api/v2/status", "/docs/none.js"] {
        world.get(path).await.is_problem(404, "not_found");
    }
    for (method, path, allow) in [
        ("POST", "/api/v1/status", "GET,HEAD"),
        ("GET", UP, "POST"),
        ("PUT", "/api/v1/runners/x", "DELETE"),
        ("TRACE", "/health", "GET,HEAD"),
        ("OPTIONS", "/api/v1/freeze", "POST"),
    ] {
        let answer = world.send(request(method, path).body(Body::empty()).unwrap()).await;
        answer.is_problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
}

#[tokio::test]
async fn a_panic_is_a_problem_and_not_the_end() {
    let world = led_with(Setup { metrics_panic: true, ..Setup::default() }).await;
    let answer = world.get("/metrics").await;
    answer.is_problem(500, "internal");
    assert!(!answer.text.contains("broken"), "internals are logged, not sent");
    assert_eq!(world.get("/livez").await.status, 200);
}

#[tokio::test]
async fn readiness_follows_the_start_and_the_stop() {
    let world = led().await;
    world.ready.send_modify(|ready| {
        ready.docker = None;
        ready.github = None;
    });
    let answer = world.get("/readyz").await;
    answer.is_problem(503, "starting");
    assert!(answer.json["detail"].as_str().unwrap().contains("docker and github"));
    assert_eq!(answer.header("retry-after"), "2");
    assert_eq!(world.get("/livez").await.status, 200, "a start is not a death");
    assert_eq!(world.get("/health").await.status, 200);
    world.ready.send_modify(|ready| {
        ready.docker = Some(Ok(()));
        ready.github = Some(Err("actions on repo acme/demo: connection refused".to_owned()));
    });
    let answer = world.get("/readyz").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json["degraded"][0]["what"], "github");
    assert!(answer.json["degraded"][0]["fix"].as_str().unwrap().contains("GITHUB_API_URL"));
    world.ready.send_modify(|ready| ready.stopping = true);
    world.get("/readyz").await.is_problem(503, "stopping");
    assert_eq!(world.get("/health").await.json["orchestrator_running"], false);
}

#[tokio::test]
async fn a_request_line_of_its_own_kind_is_answered() {
    let world = led().await;
    let index = world.get("/").await.json;
    let shown = json!({"message":"Runner Orchestrator API","version":"1.2.3","docs_url":"/docs"});
    assert_eq!(index, shown);
    let head = Request::builder().method("HEAD").uri("/api/v1/status").header("host", "localhost");
    let head = world.send(head.body(Body::empty()).unwrap()).await;
    assert_eq!(head.status, 200);
    assert!(head.text.is_empty());
}
