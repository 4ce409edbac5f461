//! A GitHub App against the model: key, JWT, installation token.

use std::sync::OnceLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use octocrab::jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use runner_orchestrator::sim::github::{AppSpec, InstallationSpec, SimOptions};
use serde_json::{Value, json};

use super::quiet::{Answer, Quiet, START_MS, pass};
use super::support::{Model, text};

/// A key pair made once for all tests: private and public half, PEM.
pub(crate) fn keys() -> &'static (String, String) {
    static KEYS: OnceLock<(String, String)> = OnceLock::new();
    KEYS.get_or_init(|| {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = pair.public_key().as_der().unwrap();
        (pem("PRIVATE KEY", pair.as_der().unwrap().as_ref()), pem("PUBLIC KEY", public.as_ref()))
    })
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}

/// A model with an App installed on `acme`.
pub(crate) fn with_app(repos: usize) -> SimOptions {
    SimOptions {
        repos,
        app: Some(AppSpec {
            id: 7,
            client_id: "Iv1.client".into(),
            public_key_pem: keys().1.clone(),
            installations: vec![InstallationSpec::for_runners(505, "acme")],
        }),
        ..SimOptions::default()
    }
}

pub(crate) fn jwt(claims: &Value) -> String {
    let key = EncodingKey::from_rsa_pem(keys().0.as_bytes()).unwrap();
    encode(&Header::new(Algorithm::RS256), claims, &key).unwrap()
}

async fn ask(quiet: &Quiet, method: &str, path: &str, token: &str) -> Answer {
    let header = format!("Bearer {token}");
    quiet.call(method.parse().unwrap(), path, &[("authorization", &header)], None).await
}

#[tokio::test]
async fn the_real_client_gets_an_installation_token_and_uses_it() {
    let model = Model::with(with_app(3)).await;
    let key = EncodingKey::from_rsa_pem(keys().0.as_bytes()).unwrap();
    let app = octocrab::Octocrab::builder()
        .base_uri(model.handle.api_url())
        .unwrap()
        .app(octocrab::models::AppId(7), key)
        .build()
        .unwrap();
    let installation = app.apps().get_org_installation("acme").await.unwrap();
    assert_eq!(installation.id.0, 505);
    let client = app.installation(installation.id).unwrap();
    let repos: Value = client.get("/installation/repositories", None::<&()>).await.unwrap();
    assert_eq!(repos["total_count"], 3);
    let body = json!({"name": "by-app", "runner_group_id": 1, "labels": ["x"]});
    let minted: Value =
        client.post("/orgs/acme/actions/runners/generate-jitconfig", Some(&body)).await.unwrap();
    assert_eq!(minted["runner"]["name"], "by-app");
    assert!(client.get::<Value, _, ()>("/user", None).await.is_err());
    // An expired token is answered with 401; the client fetches a new one by itself.
    assert_eq!(model.handle.expire_tokens(None), 1);
    let repos: Value = client.get("/installation/repositories", None::<&()>).await.unwrap();
    assert_eq!(repos["total_count"], 3);
}

#[tokio::test(start_paused = true)]
async fn a_jwt_is_checked_and_a_token_lives_an_hour() {
    let quiet = Quiet::with(with_app(30));
    let now = START_MS / 1_000;
    let good = json!({"iat": now - 60, "exp": now + 540, "iss": "Iv1.client"});
    let path = "/app/installations/505/access_tokens";
    for (claims, status) in [
        (good.clone(), 201),
        (json!({"iat": now - 60, "exp": now + 540, "iss": 7}), 201),
        (json!({"iat": now - 60, "exp": now + 540, "iss": "8"}), 404),
        (json!({"iat": now - 60, "exp": now - 1, "iss": "7"}), 401),
        (json!({"iat": now + 600, "exp": now + 900, "iss": "7"}), 401),
        (json!({"iat": now - 60, "exp": now + 3_600, "iss": "7"}), 401),
    ] {
        let answer = ask(&quiet, "POST", path, &jwt(&claims)).await;
        assert_eq!(answer.status.as_u16(), status, "{claims} {}", answer.body);
    }
    let forged = jwt(&good).replacen('.', ".AAAA", 1);
    assert_eq!(ask(&quiet, "POST", path, &forged).await.status, 401);
    assert_eq!(
        ask(&quiet, "POST", "/app/installations/506/access_tokens", &jwt(&good)).await.status,
        404
    );

    let token = text(&ask(&quiet, "POST", path, &jwt(&good)).await.body["token"]);
    let answer = ask(&quiet, "GET", "/orgs/acme/actions/runners", &token).await;
    assert_eq!(answer.status, 200);
    // 5,000 and 50 for each of the ten repositories above twenty.
    assert_eq!(answer.header("x-ratelimit-limit"), "5500");
    // An App's JWT is good for nothing but App routes, a token not for those.
    assert_eq!(ask(&quiet, "GET", "/app", &jwt(&good)).await.status, 200);
    assert_eq!(ask(&quiet, "GET", "/app", &token).await.status, 401);
    assert_eq!(ask(&quiet, "GET", "/orgs/acme/actions/runners", &jwt(&good)).await.status, 403);
    pass(3_599).await;
    assert_eq!(ask(&quiet, "GET", "/orgs/acme/actions/runners", &token).await.status, 200);
    pass(2).await;
    assert_eq!(ask(&quiet, "GET", "/orgs/acme/actions/runners", &token).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn a_token_can_be_narrowed_but_never_widened() {
    let quiet = Quiet::with(with_app(2));
    let now = START_MS / 1_000;
    let jwt = format!("Bearer {}", jwt(&json!({"iat": now, "exp": now + 60, "iss": "7"})));
    let path = "/app/installations/505/access_tokens";
    let narrow = json!({"repositories": ["repo-2"], "permissions": {"actions": "read"}});
    let headers = [("authorization", jwt.as_str())];
    let post = |body| quiet.call(axum::http::Method::POST, path, &headers, Some(body));
    let answer = post(narrow).await;
    assert_eq!(answer.body["repository_selection"], "selected");
    let token = text(&answer.body["token"]);
    assert_eq!(ask(&quiet, "GET", "/repos/acme/repo-2/actions/runs", &token).await.status, 200);
    assert_eq!(ask(&quiet, "GET", "/repos/acme/repo-1/actions/runs", &token).await.status, 404);
    assert_eq!(ask(&quiet, "GET", "/orgs/acme/actions/runners", &token).await.status, 403);
    assert_eq!(post(json!({"permissions": {"actions": "write"}})).await.status, 422);
    assert_eq!(post(json!({"repositories": ["nowhere"]})).await.status, 422);
}
