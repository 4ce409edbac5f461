//! Runner routes of repositories, organisations and the enterprise.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Map, Value, json};

use super::SimGitHub;
use super::bodies;
use super::errors::{Answer, ApiFailure};
use super::gate::Asked;
use super::ids::{RunnerId, Scope};
use super::jit;
use super::paging::{ListQuery, Page};
use super::place::{Parts, level, number, part};
use super::runners::{Label, MintRefusal, RUNNER_VERSION, Registration};
use super::state::World;
use super::unverified::Assumption;
use crate::sim::clock::rfc3339;

/// Prefixes under which runners live.
const SCOPES: [&str; 3] = ["/repos/{owner}/{repo}", "/orgs/{org}", "/enterprises/{enterprise}"];
/// Labels a mint may name.
const MINT_LABELS_MAX: usize = 100;
/// Registration and removal tokens live an hour.
const TOKEN_MS: u64 = 3_600_000;

/// Adds the routes under `root`, `""` or `/api/v3`.
pub(crate) fn mount(mut router: Router<SimGitHub>, root: &str) -> Router<SimGitHub> {
    for scope in SCOPES {
        let at = |path: &str| format!("{root}{scope}/actions/runners{path}");
        router = router
            .route(&at(""), get(list))
            .route(&at("/downloads"), get(downloads))
            .route(&at("/registration-token"), post(token))
            .route(&at("/remove-token"), post(token))
            .route(&at("/generate-jitconfig"), post(mint))
            .route(&at("/deprecations/{version}"), get(deprecation))
            .route(&at("/{runner_id}"), get(one).delete(delete));
    }
    let groups = format!("{root}/orgs/{{org}}/actions/runner-groups");
    router
        .route(&groups, get(list_groups))
        .route(&format!("{groups}/{{runner_group_id}}"), get(one_group))
}

/// A list answer with its `Link` header: the items by this name, and how many there are.
pub(crate) fn listed(page: Page<Value>, name: &str) -> Response {
    let total = ("total_count".to_owned(), page.total.into());
    let items = (name.to_owned(), Value::Array(page.items));
    linked(page.link.as_deref(), Value::Object(Map::from_iter([total, items])))
}

/// An answer with its `Link` header.
pub(crate) fn linked(link: Option<&str>, body: Value) -> Response {
    let mut response = Json(body).into_response();
    if let Some(link) = link.and_then(|link| link.parse().ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

async fn list(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
    Query(query): Query<ListQuery>,
) -> Answer {
    sim.with(|world, now| {
        let scope = world.runner_scope(&asked, &parts, level(&Method::GET))?;
        let runners = world.list_runners(now, &scope, asked.stale_ms).into_iter();
        let bodies = runners
            .filter(|(runner, _)| query.name.as_ref().is_none_or(|name| runner.name == *name))
            .map(|(runner, seen)| bodies::runner(world, runner, seen))
            .collect();
        Ok(listed(query.cut(bodies, &asked.url), "runners"))
    })
}

async fn one(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
) -> Answer {
    sim.with(|world, _| {
        let scope = world.runner_scope(&asked, &parts, level(&Method::GET))?;
        let id = RunnerId(number(&parts, "runner_id")?);
        let runner = world.runner_in(&scope, id).ok_or_else(ApiFailure::not_found)?;
        Ok(Json(bodies::runner(world, runner, world.seen_now(runner))).into_response())
    })
}

async fn delete(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
) -> Answer {
    sim.with(|world, now| {
        let scope = world.runner_scope(&asked, &parts, level(&Method::DELETE))?;
        let id = RunnerId(number(&parts, "runner_id")?);
        world.delete_runner(&scope, id, now)?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
}

impl World {
    fn delete_runner(&mut self, scope: &Scope, id: RunnerId, now: u64) -> Result<(), ApiFailure> {
        let runner = self.runner_in(scope, id).ok_or_else(ApiFailure::not_found)?;
        let (name, assignment) = (runner.name.clone(), runner.assignment);
        let connected = runner.session.is_some();
        let hostile = |assumption| self.settings.hostile.hostile(assumption);
        if self.seen_now(runner).busy {
            if hostile(Assumption::BusyDeleteStatus) {
                return Err(ApiFailure::not_found());
            }
            let message = format!("Bad request - Runner \"{name}\" is still running a job\"");
            return Err(ApiFailure::invalid(message));
        }
        let runs_on = assignment.is_some() && hostile(Assumption::DeletedWhileAssigned);
        let untold = connected && hostile(Assumption::DeletedRunnerNotice);
        if runs_on || untold {
            if !runs_on && let Some(assignment) = assignment {
                self.requeue(id, assignment.job, now);
            }
            self.hide_runner(id, now);
        } else {
            if let Some(assignment) = assignment {
                self.requeue(id, assignment.job, now);
            }
            self.remove_runner(id, now, "deleted");
        }
        self.dispatch(now);
        Ok(())
    }
}

async fn token(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
) -> Answer {
    sim.with(|world, now| {
        world.runner_scope(&asked, &parts, level(&Method::POST))?;
        let token = world.id_random.uuid().replace('-', "").to_uppercase();
        let body = json!({"token": token, "expires_at": rfc3339(now + TOKEN_MS)});
        Ok((StatusCode::CREATED, Json(body)).into_response())
    })
}

async fn mint(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
    body: Bytes,
) -> Answer {
    let body = parse_body(&body)?;
    sim.with(|world, now| {
        let scope = world.runner_scope(&asked, &parts, level(&Method::POST))?;
        let wanted = registration(world, &scope, &body)?;
        let id = world.register(now, scope, wanted).map_err(|refusal| match refusal {
            MintRefusal::NameTaken => ApiFailure::new(
                StatusCode::CONFLICT,
                "Already exists - A runner with the name *** already exists.",
            ),
            MintRefusal::Full => ApiFailure::invalid("Too many runners in this scope"),
        })?;
        let server_url = world.settings.runner_url.clone().unwrap_or_else(|| asked.origin.clone());
        let folder = body.get("work_folder").and_then(Value::as_str).unwrap_or("_work");
        let runner = world.runners.get(&id).ok_or_else(ApiFailure::not_found)?;
        let blob =
            jit::encode(runner, folder, server_url.trim_end_matches('/'), &mut world.id_random);
        let runner = world.runners.get(&id).ok_or_else(ApiFailure::not_found)?;
        let seen = world.seen_now(runner);
        let body =
            json!({"runner": bodies::runner(world, runner, seen), "encoded_jit_config": blob});
        Ok((StatusCode::CREATED, Json(body)).into_response())
    })
}

/// A request body; an empty one is an empty object.
pub(crate) fn parse_body(bytes: &[u8]) -> Result<Value, ApiFailure> {
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(bytes)
        .map_err(|_| ApiFailure::new(StatusCode::BAD_REQUEST, "Problems parsing JSON"))
}

/// Checks a mint's body as GitHub does.
fn registration(world: &World, scope: &Scope, body: &Value) -> Result<Registration, ApiFailure> {
    for key in ["name", "runner_group_id", "labels"] {
        if body.get(key).is_none_or(Value::is_null) {
            let message = format!("Invalid input: object is missing required key: {key}");
            return Err(ApiFailure::invalid(message));
        }
    }
    let hostile = |assumption| world.settings.hostile.hostile(assumption);
    let name_max = if hostile(Assumption::NameLength) { 48 } else { 64 };
    let name = body.get("name").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() || name.chars().count() > name_max {
        return Err(ApiFailure::invalid("Validation Failed")
            .with_error(json!({"resource": "Runner", "field": "name", "code": "invalid"})));
    }
    let group_id = body.get("runner_group_id").and_then(Value::as_u64);
    match (group_id, scope) {
        (Some(1), _) => (),
        (Some(2), Scope::Org(_) | Scope::Enterprise(_)) => {
            let message = "Runner group is not available for self-hosted runners";
            return Err(ApiFailure::new(StatusCode::FORBIDDEN, message));
        }
        (Some(_), _) => return Err(ApiFailure::not_found()),
        (None, _) => {
            return Err(ApiFailure::invalid("Invalid input: runner_group_id is not an integer"));
        }
    }
    Ok(Registration { name: name.to_owned(), group_id: 1, labels: mint_labels(world, body)? })
}

fn mint_labels(world: &World, body: &Value) -> Result<Vec<Label>, ApiFailure> {
    let hostile = |assumption| world.settings.hostile.hostile(assumption);
    let sent = body.get("labels").and_then(Value::as_array);
    let sent: Option<Vec<&str>> = sent.and_then(|list| list.iter().map(Value::as_str).collect());
    let sent = sent.filter(|list| !list.is_empty() && list.len() <= MINT_LABELS_MAX);
    let sent =
        sent.ok_or_else(|| ApiFailure::invalid("Invalid input: labels must be 1 to 100 strings"))?;
    let added: &[&str] =
        if hostile(Assumption::DefaultLabels) { &["self-hosted", "linux", "x64"] } else { &[] };
    let mut labels: Vec<Label> = Vec::new();
    let all = added.iter().map(|name| (*name, true)).chain(sent.iter().map(|name| (*name, false)));
    for (name, read_only) in all {
        let as_sent = hostile(Assumption::LabelCase);
        let name = if as_sent { name.to_owned() } else { name.to_lowercase() };
        if !labels.iter().any(|label| label.name.eq_ignore_ascii_case(&name)) {
            labels.push(Label { name, read_only });
        }
    }
    Ok(labels)
}

async fn downloads(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
) -> Answer {
    sim.with(|world, _| world.runner_scope(&asked, &parts, level(&Method::GET)))?;
    let files: Vec<Value> = ["x64", "arm64"]
        .iter()
        .map(|architecture| {
            let file = format!("actions-runner-linux-{architecture}-{RUNNER_VERSION}.tar.gz");
            json!({
                "os": "linux",
                "architecture": architecture,
                "download_url": format!("{}/downloads/{file}", asked.origin),
                "filename": file,
            })
        })
        .collect();
    Ok(Json(files).into_response())
}

async fn deprecation(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
) -> Answer {
    sim.with(|world, _| world.runner_scope(&asked, &parts, level(&Method::GET)))?;
    let version = part(&parts, "version");
    let known = version.split('.').count() == 3
        && version.split('.').all(|number| number.parse::<u32>().is_ok());
    if !known {
        return Err(ApiFailure::not_found());
    }
    let body = json!({
        "runner_version": version,
        "registration_deprecates_at": null,
        "runtime_deprecates_at": null,
    });
    Ok(Json(body).into_response())
}

fn group(world: &World, asked: &Asked, org: &str) -> Value {
    let url = format!("{}/orgs/{org}/actions/runner-groups/1", asked.places.api);
    json!({
        "id": 1, "name": "Default", "visibility": "all", "default": true,
        "runners_url": format!("{url}/runners"), "inherited": false,
        "allows_public_repositories": world.settings.group_allows_public,
        "restricted_to_workflows": false, "selected_workflows": [],
        "workflow_restrictions_read_only": false,
    })
}

async fn list_groups(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
    Query(query): Query<ListQuery>,
) -> Answer {
    sim.with(|world, _| {
        world.runner_scope(&asked, &parts, level(&Method::GET))?;
        let groups = vec![group(world, &asked, part(&parts, "org"))];
        Ok(listed(query.cut(groups, &asked.url), "runner_groups"))
    })
}

async fn one_group(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
) -> Answer {
    sim.with(|world, _| {
        world.runner_scope(&asked, &parts, level(&Method::GET))?;
        match number(&parts, "runner_group_id")? {
            1 => Ok(Json(group(world, &asked, part(&parts, "org"))).into_response()),
            _ => Err(ApiFailure::not_found()),
        }
    })
}
