//! Every success body against GitHub's published schemas.

use std::collections::BTreeSet;

use runner_orchestrator::sim::github::{
    NewJobs, PlantedRunners, ReposPatch, SettingsPatch, Variants,
};
use serde_json::{Value, json};

use super::app::{jwt, with_app};
use super::quiet::{Quiet, START_MS};
use super::support::text;

/// GitHub's schemas, ready for a JSON Schema validator.
struct Schemas {
    document: Value,
}

impl Schemas {
    fn load() -> Self {
        let text = include_str!("../../data/github-schemas.json");
        let mut document: Value = serde_json::from_str(text).unwrap();
        allow_null(&mut document["components"]["schemas"]);
        allow_null(&mut document["components"]["responses"]);
        allow_null(&mut document["paths"]);
        Self { document }
    }

    /// The schema of a route's answer; `None` when it has no body.
    fn of(&self, method: &str, template: &str, status: u16) -> Option<Value> {
        let method = method.to_lowercase();
        let mut response =
            &self.document["paths"][template][&method]["responses"][status.to_string()];
        assert!(!response.is_null(), "the schemas have no {method} {template} {status}");
        if let Some(reference) = response["$ref"].as_str() {
            response = self.document.pointer(reference.trim_start_matches('#')).unwrap();
        }
        let schema = response["content"]["application/json"]["schema"].clone();
        (!schema.is_null()).then_some(schema)
    }

    fn check(&self, what: &str, schema: Value, body: &Value) {
        let problems = self.problems(schema, body);
        assert!(problems.is_empty(), "{what}: {problems:#?}");
    }

    fn problems(&self, mut schema: Value, body: &Value) -> Vec<String> {
        schema["components"] = self.document["components"].clone();
        let validator = jsonschema::draft4::options().build(&schema).unwrap();
        let problems = validator.iter_errors(body);
        problems.map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    fn routes(&self) -> BTreeSet<String> {
        let paths = self.document["paths"].as_object().unwrap();
        let routes = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        routes.collect()
    }
}

/// Turns the `nullable` of `OpenAPI` 3.0 into JSON Schema.
fn allow_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(allow_null),
        Value::Object(fields) => {
            fields.values_mut().for_each(allow_null);
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
                let inner = std::mem::take(fields);
                fields.insert("anyOf".into(), json!([inner, {"type": "null"}]));
            }
        }
        _ => (),
    }
}

/// One request and what it is in the schemas.
struct Check {
    route: &'static str,
    path: String,
    status: u16,
    body: Option<Value>,
    app: bool,
}

fn check(route: &'static str, path: impl Into<String>) -> Check {
    let status = if route.starts_with("POST") { 201 } else { 200 };
    Check { route, path: path.into(), status, body: None, app: false }
}

fn checks([run, job, runner, planted]: [u64; 4]) -> Vec<Check> {
    let mut checks = vec![
        check("GET /meta", "/meta"),
        check("GET /rate_limit", "/rate_limit"),
        check("GET /user", "/user"),
        check("GET /orgs/{org}", "/orgs/acme"),
        check("GET /orgs/{org}/repos", "/orgs/acme/repos"),
        check("GET /repos/{owner}/{repo}", "/repos/acme/repo-1"),
        check("GET /orgs/{org}/actions/runner-groups", "/orgs/acme/actions/runner-groups"),
        check(
            "GET /orgs/{org}/actions/runner-groups/{runner_group_id}",
            "/orgs/acme/actions/runner-groups/1",
        ),
        check("GET /repos/{owner}/{repo}/actions/runs", "/repos/acme/repo-1/actions/runs"),
        check(
            "GET /repos/{owner}/{repo}/actions/runs/{run_id}",
            format!("/repos/acme/repo-1/actions/runs/{run}"),
        ),
        check(
            "GET /repos/{owner}/{repo}/actions/runs/{run_id}/jobs",
            format!("/repos/acme/repo-1/actions/runs/{run}/jobs"),
        ),
        check(
            "GET /repos/{owner}/{repo}/actions/jobs/{job_id}",
            format!("/repos/acme/repo-1/actions/jobs/{job}"),
        ),
        check("GET /orgs/{org}/actions/runners", "/orgs/acme/actions/runners"),
        check(
            "GET /orgs/{org}/actions/runners/{runner_id}",
            format!("/orgs/acme/actions/runners/{runner}"),
        ),
        check("GET /repos/{owner}/{repo}/actions/runners", "/repos/acme/repo-1/actions/runners"),
        check(
            "GET /repos/{owner}/{repo}/actions/runners/{runner_id}",
            format!("/repos/acme/repo-1/actions/runners/{planted}"),
        ),
        Check { app: true, ..check("GET /app", "/app") },
        Check { app: true, ..check("GET /orgs/{org}/installation", "/orgs/acme/installation") },
        Check {
            app: true,
            ..check("GET /repos/{owner}/{repo}/installation", "/repos/acme/repo-1/installation")
        },
        Check {
            app: true,
            ..check(
                "POST /app/installations/{installation_id}/access_tokens",
                "/app/installations/505/access_tokens",
            )
        },
    ];
    checks.extend(scope_checks());
    checks
}

/// The calls that exist for an organisation and for a repository alike.
fn scope_checks() -> Vec<Check> {
    let mint = json!({"name": "minted", "runner_group_id": 1, "labels": ["x"]});
    let mut checks = Vec::new();
    for (scope, at) in
        [("/orgs/{org}", "/orgs/acme"), ("/repos/{owner}/{repo}", "/repos/acme/repo-1")]
    {
        let (jit, registration, removal, downloads) = if scope == "/orgs/{org}" {
            (
                "POST /orgs/{org}/actions/runners/generate-jitconfig",
                "POST /orgs/{org}/actions/runners/registration-token",
                "POST /orgs/{org}/actions/runners/remove-token",
                "GET /orgs/{org}/actions/runners/downloads",
            )
        } else {
            (
                "POST /repos/{owner}/{repo}/actions/runners/generate-jitconfig",
                "POST /repos/{owner}/{repo}/actions/runners/registration-token",
                "POST /repos/{owner}/{repo}/actions/runners/remove-token",
                "GET /repos/{owner}/{repo}/actions/runners/downloads",
            )
        };
        let runners = format!("{at}/actions/runners");
        checks.push(Check {
            body: Some(mint.clone()),
            ..check(jit, format!("{runners}/generate-jitconfig"))
        });
        checks.push(check(registration, format!("{runners}/registration-token")));
        checks.push(check(removal, format!("{runners}/remove-token")));
        checks.push(check(downloads, format!("{runners}/downloads")));
    }
    checks
}

/// The model with one of everything: queued, running and cancelled jobs, runners of
/// every kind. Answers a run, a job, a runner and a planted one of it.
async fn populated() -> (Quiet, [u64; 4]) {
    let quiet = Quiet::with(with_app(2));
    quiet
        .sim
        .post_jobs(&NewJobs { count: 3, duration_seconds: 60.0, ..NewJobs::default() })
        .unwrap();
    let (runner, blob) = quiet.mint("busy").await;
    let listening = quiet.listen(&blob);
    listening.printed("Running job").await;
    let state = quiet.sim.state();
    let job = &state.jobs[0];
    assert!(quiet.sim.cancel_job(state.jobs[2].id));
    let foreign = PlantedRunners { repo: Some("repo-1".into()), ..PlantedRunners::default() };
    let planted = quiet.sim.plant_runners(&foreign).unwrap()[0];
    let public =
        ReposPatch { repo: Some("open".into()), private: Some(false), ..ReposPatch::default() };
    quiet.sim.change_repos(&public).unwrap();
    (quiet, [job.run_id.0, job.id.0, runner, planted.0])
}

async fn answers_fit(quiet: &Quiet, schemas: &Schemas, checks: &[Check]) {
    let now = START_MS / 1_000;
    let app = format!("Bearer {}", jwt(&json!({"iat": now - 60, "exp": now + 500, "iss": "7"})));
    for check in checks {
        let (method, template) = check.route.split_once(' ').unwrap();
        let token = if check.app { app.as_str() } else { "Bearer sim-token" };
        let headers = [("authorization", token)];
        let answer =
            quiet.call(method.parse().unwrap(), &check.path, &headers, check.body.clone()).await;
        assert_eq!(answer.status.as_u16(), check.status, "{} {}", check.route, answer.body);
        let schema = schemas.of(method, template, check.status).unwrap();
        schemas.check(check.route, schema, &answer.body);
    }
}

#[tokio::test(start_paused = true)]
async fn every_success_body_fits_the_published_schema() {
    let schemas = Schemas::load();
    let (quiet, ids) = populated().await;
    let checks = checks(ids);
    answers_fit(&quiet, &schemas, &checks).await;
    // Deletion answers without a body, as the schemas say.
    for at in ["/orgs/acme", "/repos/acme/repo-1"] {
        let list = quiet.get(&format!("{at}/actions/runners?name=minted")).await;
        let id = list.body["runners"][0]["id"].as_u64().unwrap();
        assert_eq!(quiet.delete(&format!("{at}/actions/runners/{id}")).await.status, 204);
    }
    let mut covered: BTreeSet<String> = checks.iter().map(|check| check.route.to_owned()).collect();
    covered.insert("DELETE /orgs/{org}/actions/runners/{runner_id}".into());
    covered.insert("DELETE /repos/{owner}/{repo}/actions/runners/{runner_id}".into());
    let routes = schemas.routes();
    assert!(covered.is_subset(&routes));
    let uncovered: Vec<&String> = routes.difference(&covered).collect();
    show_uncovered(&uncovered);
    // What is served but has no schema in the file.
    let deprecation = quiet.get("/orgs/acme/actions/runners/deprecations/2.336.0").await;
    assert_eq!(deprecation.body["runner_version"], "2.336.0");
    assert_eq!(quiet.get("/orgs/acme/actions/runners/deprecations/x").await.status, 404);
}

#[test]
fn the_check_finds_what_does_not_fit() {
    let schemas = Schemas::load();
    let schema = schemas.of("GET", "/orgs/{org}/actions/runners/{runner_id}", 200).unwrap();
    let whole = json!({
        "id": 1, "name": "a", "os": "linux", "status": "online", "busy": true, "labels": [],
    });
    schemas.check("whole", schema.clone(), &whole);
    for (field, value) in [("busy", Value::Null), ("labels", json!({})), ("id", json!("1"))] {
        let mut broken = whole.clone();
        broken[field] = value;
        assert!(!schemas.problems(schema.clone(), &broken).is_empty(), "{field}");
    }
}

#[expect(clippy::print_stdout, reason = "the list is this test's output")]
fn show_uncovered(uncovered: &[&String]) {
    println!("{} routes of the schemas are not modelled:", uncovered.len());
    for route in uncovered {
        println!("  {route}");
    }
    assert!(!uncovered.iter().any(|route| route.contains("jitconfig")));
}

#[tokio::test(start_paused = true)]
async fn hostile_variants_fit_the_schemas_too() {
    let schemas = Schemas::load();
    let (quiet, ids) = populated().await;
    quiet.sim.change_settings(&SettingsPatch {
        hostile: Some(Variants::all()),
        ..SettingsPatch::default()
    });
    answers_fit(&quiet, &schemas, &checks(ids)).await;
}

#[tokio::test(start_paused = true)]
async fn errors_have_one_shape() {
    let schemas = Schemas::load();
    let quiet = Quiet::new();
    let shape = json!({
        "type": "object",
        "required": ["message", "documentation_url", "status"],
        "properties": {
            "message": {"type": "string", "minLength": 1},
            "documentation_url": {"type": "string", "format": "uri"},
            "status": {"type": "string", "pattern": "^[45][0-9][0-9]$"},
            "errors": {"type": "array"},
        },
        "additionalProperties": false,
    });
    let mint = "/orgs/acme/actions/runners/generate-jitconfig";
    quiet.mint("taken").await;
    let nobody = [("authorization", "Bearer nobody")];
    let get = || "GET".parse().unwrap();
    let too_long = json!({"name": "n".repeat(99), "runner_group_id": 1, "labels": ["x"]});
    for (status, answer) in [
        (401, quiet.call(get(), "/user", &nobody, None).await),
        (404, quiet.get("/repos/acme/none").await),
        (409, quiet.try_mint("taken", &["x"]).await),
        (422, quiet.post(mint, json!({})).await),
        (422, quiet.post(mint, too_long).await),
        (403, quiet.post(mint, json!({"name": "a", "runner_group_id": 2, "labels": ["x"]})).await),
        (410, quiet.call(get(), "/user", &[("x-github-api-version", "1")], None).await),
    ] {
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
        assert_eq!(text(&answer.body["status"]), status.to_string());
        schemas.check("error", shape.clone(), &answer.body);
    }
}
