//! Who may ask: tokens, hosts, origins.

use axum::body::Body;
use axum::http::{Request, header};
use runner_orchestrator::store::Store;

use super::world::{Answer, Setup, World, led, led_with, request};

const UP: &str = "/api/v1/runners/scale-up";

async fn post_with(world: &World, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method("POST").uri(UP);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.send(request.body(Body::empty()).unwrap()).await
}

async fn untouched(world: &World) -> bool {
    let snapshot = world.store.snapshot().await.unwrap();
    snapshot.intents.is_empty() && snapshot.assignments.values().all(|a| a.runners.is_empty())
}

#[tokio::test]
async fn another_name_for_us_is_refused() {
    let world = led().await;
    for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "10.0.0.1:8080"] {
        post_with(&world, &[("host", host)]).await.is_problem(421, "host_refused");
    }
    for broken in ["a b", "localhost:8080, evil.example", "user@localhost", "http://localhost"] {
        post_with(&world, &[("host", broken)]).await.is_problem(400, "invalid_header");
    }
    post_with(&world, &[]).await.is_problem(400, "invalid_header");
    let twice = [("host", "localhost"), ("host", "evil.example")];
    post_with(&world, &twice).await.is_problem(400, "invalid_header");
    let absolute = Request::builder().method("GET").uri("http://evil.example/api/v1/status");
    let absolute = absolute.header(header::HOST, "localhost").body(Body::empty()).unwrap();
    world.send(absolute).await.is_problem(421, "host_refused");
    assert!(untouched(&world).await);
    for ours in ["localhost", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST:1", "orchestrator:8080"] {
        assert_eq!(post_with(&world, &[("host", ours)]).await.status, 200, "{ours}");
    }
}

#[tokio::test]
async fn another_page_cannot_drive_us() {
    let world = led().await;
    let host = ("host", "localhost:8080");
    for origin in ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:8080"]
    {
        let answer = post_with(&world, &[host, ("origin", origin)]).await;
        answer.is_problem(403, "origin_refused");
        assert!(answer.headers.get("access-control-allow-origin").is_none());
    }
    for site in ["cross-site", "same-site"] {
        let answer = post_with(&world, &[host, ("sec-fetch-site", site)]).await;
        answer.is_problem(403, "origin_refused");
    }
    let twice = [host, ("origin", "http://localhost:8080"), ("origin", "https://evil.example")];
    post_with(&world, &twice).await.is_problem(403, "origin_refused");
    assert!(untouched(&world).await);
    let own = [host, ("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")];
    assert_eq!(post_with(&world, &own).await.status, 200);
    let preflight = request("OPTIONS", UP).header("origin", "https://evil.example");
    let preflight = world.send(preflight.body(Body::empty()).unwrap()).await;
    preflight.is_problem(403, "origin_refused");
}

#[tokio::test]
async fn with_a_token_only_its_bearer_may_ask() {
    let world = led_with(Setup { token: Some("s3cret"), ..Setup::default() }).await;
    for path in ["/health", "/api/v1/health", "/livez", "/readyz", "/docs/", "/openapi.json"] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    let closed = [
        "/",
        "/metrics",
        "/api/v1/metrics",
        "/api/v1/status",
        "/api/v1/runners",
        "/api/v1/runners/x/logs",
        "/api/v1/pools",
        "/api/v1/hosts",
        "/api/v1/jobs",
        "/api/v1/jobs/1/why",
        "/api/v1/decisions",
        "/api/v1/intents/x",
        "/nothing/here",
        "/health/",
        "//health",
        "/docsx",
    ];
    for path in closed {
        let answer = world.get(path).await;
        answer.is_problem(401, "unauthorized");
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
    world.post(UP, "").await.is_problem(401, "unauthorized");
    world.delete("/api/v1/runners/x").await.is_problem(401, "unauthorized");
    let host = ("host", "localhost");
    for wrong in ["Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret ", "Basic s3cret", "s3cret"] {
        let answer = post_with(&world, &[host, ("authorization", wrong)]).await;
        answer.is_problem(401, "unauthorized");
        assert!(!answer.text.contains("s3cre"), "{}", answer.text);
    }
    assert!(untouched(&world).await);
    for right in ["Bearer s3cret", "bearer s3cret"] {
        let answer = post_with(&world, &[host, ("authorization", right)]).await;
        assert_eq!(answer.status, 200, "{right}");
    }
    assert!(!format!("{:?}", world.state).contains("s3cret"));
}

#[tokio::test]
async fn every_answer_has_its_id_and_its_headers() {
    let world = led().await;
    let own = request("GET", "/livez").header("x-request-id", "deploy-7.a_b");
    let answer = world.send(own.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.header("x-request-id"), "deploy-7.a_b");
    for bad in ["", "a b", "a\tb", "<script>", &"x".repeat(65)] {
        let given = request("GET", "/livez").header("x-request-id", bad);
        let answer = world.send(given.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.header("x-request-id").len(), 36, "{bad}");
    }
    for path in ["/livez", "/nothing", "/docs/"] {
        let answer = world.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("x-frame-options"), "DENY");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        let csp = answer.header("content-security-policy");
        assert!(csp.starts_with("default-src 'none'"), "{csp}");
        assert_eq!(csp.contains("script-src"), path == "/docs/");
        assert!(!csp.contains("'unsafe-eval'") && !csp.contains("http"), "{csp}");
    }
}

#[tokio::test]
async fn the_observer_hears_route_templates_only() {
    let world = led().await;
    world.get("/api/v1/runners/secret-name/logs").await;
    world.get("/no/such/path").await;
    let weird = request("BREW", "/api/v1/status").body(Body::empty()).unwrap();
    world.send(weird).await.is_problem(405, "method_not_allowed");
    let heard = world.answers.lock().unwrap().clone();
    let row = |method: &str, route: &str, status| (method.into(), route.into(), status);
    assert_eq!(
        heard,
        [
            row("GET", "/api/v1/runners/{id}/logs", 404),
            row("GET", "unmatched", 404),
            row("OTHER", "/api/v1/status", 405),
        ]
    );
}
