//! The API's description: complete, checked in, and shown without the internet.

use std::path::Path;

use runner_orchestrator::api::openapi_json;
use serde_json::Value;

use super::world::led;

fn document() -> Value {
    serde_json::from_str(&openapi_json()).unwrap()
}

/// `UPDATE_REFERENCE=1 cargo test` writes the file instead of comparing it; so does
/// `runner-orchestrator openapi > deploy/openapi.json`.
#[test]
fn the_copy_that_is_checked_in_is_current() {
    let copy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/openapi.json");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&copy, openapi_json()).unwrap();
    }
    let copy = std::fs::read_to_string(copy).unwrap();
    assert!(copy == openapi_json(), "run: runner-orchestrator openapi > deploy/openapi.json");
}

#[test]
fn every_route_of_the_mission_is_described() {
    let document = document();
    for (method, path) in [
        ("get", "/"),
        ("get", "/health"),
        ("get", "/api/v1/health"),
        ("get", "/livez"),
        ("get", "/readyz"),
        ("get", "/metrics"),
        ("get", "/api/v1/metrics"),
        ("get", "/api/v1/status"),
        ("get", "/api/v1/runners"),
        ("post", "/api/v1/runners/scale-up"),
        ("post", "/api/v1/runners/scale-down"),
        ("delete", "/api/v1/runners/{id}"),
        ("get", "/api/v1/runners/{id}/logs"),
        ("get", "/api/v1/pools"),
        ("get", "/api/v1/hosts"),
        ("get", "/api/v1/replicas"),
        ("get", "/api/v1/jobs"),
        ("get", "/api/v1/jobs/{id}/why"),
        ("get", "/api/v1/decisions"),
        ("post", "/api/v1/pools/{name}/pause"),
        ("post", "/api/v1/pools/{name}/resume"),
        ("post", "/api/v1/freeze"),
        ("post", "/api/v1/unfreeze"),
    ] {
        assert!(document["paths"][path][method].is_object(), "{method} {path}");
    }
}

#[test]
fn every_operation_names_its_problems_and_its_token() {
    let document = document();
    assert_eq!(document["info"]["license"]["name"], "MIT");
    assert_eq!(document["components"]["securitySchemes"]["api_token"]["scheme"], "bearer");
    let open = ["/health", "/api/v1/health", "/livez", "/readyz"];
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
            let responses = operation["responses"].as_object().unwrap();
            let secured = operation["security"][0]["api_token"].is_array();
            assert_eq!(secured, !open.contains(&path.as_str()), "{name}");
            assert_eq!(responses.contains_key("401"), secured, "{name}");
            assert!(responses.contains_key("421") && responses.contains_key("403"), "{name}");
            for (status, response) in responses {
                let kinds: Vec<&String> = response["content"].as_object().unwrap().keys().collect();
                let is_error = status.as_str() >= "400";
                assert_eq!(kinds == ["application/problem+json"], is_error, "{name} {status}");
            }
        }
    }
}

#[tokio::test]
async fn the_served_document_is_the_same() {
    let world = led().await;
    for path in ["/openapi.json", "/api/v1/openapi.json"] {
        assert_eq!(world.get(path).await.json, document(), "{path}");
    }
}

#[tokio::test]
async fn answers_fit_their_schemas() {
    let mut world = led().await;
    let now = world.now();
    world.announce();
    world.runner(1, super::world::listening(now)).await;
    world.queue(&[(7, &["self-hosted"])]);
    world.settled(|p| p.view.ledger.demand.jobs().count() == 1).await;
    let document = document();
    for (method, path, template) in [
        ("get", "/", "/"),
        ("get", "/health", "/health"),
        ("get", "/readyz", "/readyz"),
        ("get", "/api/v1/status", "/api/v1/status"),
        ("get", "/api/v1/runners", "/api/v1/runners"),
        ("get", "/api/v1/pools", "/api/v1/pools"),
        ("get", "/api/v1/hosts", "/api/v1/hosts"),
        ("get", "/api/v1/replicas", "/api/v1/replicas"),
        ("get", "/api/v1/jobs", "/api/v1/jobs"),
        ("get", "/api/v1/jobs/7/why", "/api/v1/jobs/{id}/why"),
        ("get", "/api/v1/decisions", "/api/v1/decisions"),
        ("post", "/api/v1/runners/scale-up", "/api/v1/runners/scale-up"),
        ("post", "/api/v1/runners/scale-down", "/api/v1/runners/scale-down"),
        ("post", "/api/v1/freeze", "/api/v1/freeze"),
        ("get", "/api/v1/jobs/8/why", "/api/v1/jobs/{id}/why"),
    ] {
        let answer = match method {
            "get" => world.get(path).await,
            _ => world.post(path, "").await,
        };
        let status = answer.status.as_str().to_owned();
        let described = &document["paths"][template][method]["responses"][&status];
        let kind = answer.header("content-type").to_owned();
        let mut schema = described["content"][&kind]["schema"].clone();
        assert!(schema.is_object(), "{method} {path} {status} {kind} is not described");
        schema["components"] = document["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&answer.json).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{method} {path}: {errors:?}\n{}", answer.text);
    }
}

#[tokio::test]
async fn swagger_ui_comes_from_the_binary() {
    let world = led().await;
    let page = world.get("/docs/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(!page.text.contains("src=\"http") && !page.text.contains("href=\"http"));
    assert!(!page.text.contains("<script>"), "the policy allows no inline script");
    let redirected = world.get("/docs").await;
    assert_eq!(redirected.header("location"), "/docs/");
    let script = world.get("/docs/swagger-ui-bundle.js").await;
    assert!(script.text.len() > 500_000);
    let start = world.get("/docs/swagger-initializer.js").await;
    assert!(start.text.contains("/openapi.json"), "{}", start.text);
}
