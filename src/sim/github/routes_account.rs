//! The caller, its limits, organisations, repositories, and the App.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

use super::SimGitHub;
use super::auth::{self, Caller, Grant, INSTALLATION_TOKEN_MS};
use super::bodies;
use super::errors::{Answer, ApiFailure};
use super::gate::Asked;
use super::ids::RepoKey;
use super::options::{AppSpec, InstallationSpec, Level, Permissions};
use super::paging::{ListQuery, Page};
use super::place::{Parts, number, part};
use super::routes_runners::{linked, listed, parse_body};
use super::state::{Repo, World};
use crate::sim::clock::rfc3339;

/// Adds the routes under `root`, `""` or `/api/v3`.
pub(crate) fn mount(router: Router<SimGitHub>, root: &str) -> Router<SimGitHub> {
    let at = |path: &str| format!("{root}{path}");
    router
        .route(&at("/meta"), get(meta))
        .route(&at("/rate_limit"), get(rate_limit))
        .route(&at("/user"), get(me))
        .route(&at("/orgs/{org}"), get(org))
        .route(&at("/orgs/{org}/repos"), get(org_repos))
        .route(&at("/repos/{owner}/{repo}"), get(repo))
        .route(&at("/installation/repositories"), get(installation_repos))
        .route(&at("/app"), get(app))
        .route(&at("/orgs/{org}/installation"), get(installation))
        .route(&at("/repos/{owner}/{repo}/installation"), get(installation))
        .route(&at("/app/installations/{installation_id}/access_tokens"), post(access_token))
}

async fn meta() -> Answer {
    Ok(Json(json!({"verifiable_password_authentication": false})).into_response())
}

async fn rate_limit(State(sim): State<SimGitHub>, Extension(asked): Extension<Asked>) -> Answer {
    let standing = sim.with(|world, now| {
        let limit = world.primary_limit(&asked.grant);
        world.limits.standing(now, &asked.grant.account, limit)
    });
    let bucket = |limit: u32, used: u32| {
        json!({
            "limit": limit, "used": used, "remaining": limit.saturating_sub(used),
            "reset": standing.reset_s,
        })
    };
    let core = bucket(standing.limit, standing.used);
    let body = json!({
        "resources": {
            "core": core,
            "search": bucket(30, 0),
            "graphql": bucket(5_000, 0),
            "actions_runner_registration": bucket(10_000, 0),
        },
        "rate": core,
    });
    Ok(Json(body).into_response())
}

async fn me(State(sim): State<SimGitHub>, Extension(asked): Extension<Asked>) -> Answer {
    if !matches!(asked.grant.caller, Caller::Personal(_)) {
        let message = "Resource not accessible by integration";
        return Err(ApiFailure::new(StatusCode::FORBIDDEN, message));
    }
    sim.with(|world, _| Ok(Json(bodies::me(&asked.places, world)).into_response()))
}

async fn org(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
) -> Answer {
    sim.with(|world, _| {
        let org = world.org(part(&parts, "org")).ok_or_else(ApiFailure::not_found)?;
        Ok(Json(bodies::organization(&asked.places, world, org)).into_response())
    })
}

async fn repo(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
) -> Answer {
    sim.with(|world, _| {
        let repo = world.repo_at(&asked, &parts)?;
        Ok(Json(bodies::full_repository(&asked.places, world, repo)).into_response())
    })
}

impl World {
    /// Repositories of an account that the caller sees.
    fn seen_repos(&self, asked: &Asked, owner: &str) -> Vec<&Repo> {
        let seen = |repo: &&Repo| {
            let key = RepoKey::new(&repo.owner, &repo.name);
            !repo.private || (asked.grant.sees(&key) && asked.grant.within(&repo.owner))
        };
        let all = self.repos.values().filter(|repo| repo.owner.eq_ignore_ascii_case(owner));
        all.filter(seen).collect()
    }

    /// The hourly limit of a caller.
    pub(crate) fn primary_limit(&self, grant: &Grant) -> u32 {
        let Caller::Installation(id) = grant.caller else { return self.settings.primary_limit };
        if let Some(limit) = self.settings.app_primary_limit {
            return limit;
        }
        let account = self.installation(|one| one.id == id).map(|(_, one)| one.account.clone());
        let account = account.unwrap_or_default();
        let owned = self.repos.values().filter(|repo| repo.owner.eq_ignore_ascii_case(&account));
        let repos = match &grant.repos {
            Some(repos) => repos.len(),
            None => owned.count(),
        };
        let above = u32::try_from(repos.saturating_sub(20)).unwrap_or(u32::MAX);
        above.saturating_mul(50).saturating_add(5_000).min(12_500)
    }

    fn installation(
        &self,
        wanted: impl Fn(&InstallationSpec) -> bool,
    ) -> Option<(&AppSpec, &InstallationSpec)> {
        let app = self.accounts.app.as_ref()?;
        app.installations.iter().find(|one| wanted(one)).map(|one| (app, one))
    }
}

fn sort_repos(repos: &mut [&Repo], query: &ListQuery) {
    let sort = query.sort.as_deref().unwrap_or("created");
    match sort {
        "pushed" => repos.sort_by_key(|repo| (repo.pushed_ms, repo.id)),
        "full_name" => repos.sort_by_key(|repo| repo.full_name().to_ascii_lowercase()),
        _ => repos.sort_by_key(|repo| (repo.created_ms, repo.id)),
    }
    let default = if sort == "full_name" { "asc" } else { "desc" };
    if query.direction.as_deref().unwrap_or(default) == "desc" {
        repos.reverse();
    }
}

fn page_of_repos(
    world: &World,
    asked: &Asked,
    query: &ListQuery,
    repos: Vec<&Repo>,
) -> Page<Value> {
    let page = query.cut(repos, &asked.url);
    let items =
        page.items.iter().map(|repo| bodies::repository(&asked.places, world, repo)).collect();
    Page { items, total: page.total, link: page.link }
}

async fn org_repos(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
    Query(query): Query<ListQuery>,
) -> Answer {
    sim.with(|world, _| {
        let org = world.org(part(&parts, "org")).ok_or_else(ApiFailure::not_found)?;
        asked.grant.demand("metadata", Level::Read)?;
        let mut repos = world.seen_repos(&asked, &org.login);
        match query.kind.as_deref() {
            Some("public") => repos.retain(|repo| !repo.private),
            Some("private") => repos.retain(|repo| repo.private),
            Some("forks") => repos.clear(),
            _ => (),
        }
        sort_repos(&mut repos, &query);
        let page = page_of_repos(world, &asked, &query, repos);
        Ok(linked(page.link.as_deref(), Value::Array(page.items)))
    })
}

async fn installation_repos(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Query(query): Query<ListQuery>,
) -> Answer {
    sim.with(|world, _| {
        let Caller::Installation(id) = asked.grant.caller else {
            let message = "You must authenticate with an installation access token in order to list repositories for an installation.";
            return Err(ApiFailure::new(StatusCode::FORBIDDEN, message));
        };
        let (_, one) = world.installation(|i| i.id == id).ok_or_else(ApiFailure::not_found)?;
        let mut repos = world.seen_repos(&asked, &one.account);
        repos.retain(|repo| asked.grant.sees(&RepoKey::new(&repo.owner, &repo.name)));
        repos.sort_by_key(|repo| repo.id);
        let page = page_of_repos(world, &asked, &query, repos);
        Ok(listed(page, "repositories"))
    })
}

/// Only the App itself, by JWT, may call this.
fn demand_app(asked: &Asked) -> Result<(), ApiFailure> {
    match asked.grant.caller {
        Caller::App => Ok(()),
        _ => {
            Err(ApiFailure::new(StatusCode::UNAUTHORIZED, "A JSON web token could not be decoded"))
        }
    }
}

async fn app(State(sim): State<SimGitHub>, Extension(asked): Extension<Asked>) -> Answer {
    demand_app(&asked)?;
    sim.with(|world, _| {
        let app = world.accounts.app.as_ref().ok_or_else(ApiFailure::not_found)?;
        Ok(Json(bodies::app(&asked.places, world, app)).into_response())
    })
}

async fn installation(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
) -> Answer {
    demand_app(&asked)?;
    sim.with(|world, _| {
        let owner =
            parts.get("org").or_else(|| parts.get("owner")).ok_or_else(ApiFailure::not_found)?;
        let key = parts.get("repo").map(|repo| RepoKey::new(owner, repo));
        let on = |one: &InstallationSpec| {
            let reaches =
                |key| one.repos.as_ref().is_none_or(|names| auth::keys(names, owner).contains(key));
            one.account.eq_ignore_ascii_case(owner) && key.as_ref().is_none_or(reaches)
        };
        let (app, one) = world.installation(on).ok_or_else(ApiFailure::not_found)?;
        if key.is_some_and(|key| !world.repos.contains_key(&key)) {
            return Err(ApiFailure::not_found());
        }
        Ok(Json(bodies::installation(&asked.places, world, app, one)).into_response())
    })
}

async fn access_token(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
    body: Bytes,
) -> Answer {
    demand_app(&asked)?;
    let body = parse_body(&body)?;
    sim.with(|world, now| {
        let id = number(&parts, "installation_id")?;
        let (_, one) = world.installation(|one| one.id == id).ok_or_else(ApiFailure::not_found)?;
        let one = one.clone();
        let permissions = narrowed(&one.permissions, body.get("permissions"))?;
        let chosen = chosen_repos(world, &one, body.get("repositories"))?;
        let selection = if chosen.is_some() { "selected" } else { "all" };
        let expires_ms = now + INSTALLATION_TOKEN_MS;
        // Long and of no fixed length, like the stateless form in use since 2026.
        let token = format!("ghs_{}_{}{}", id, world.id_random.uuid(), world.id_random.uuid());
        let grant = Grant {
            caller: Caller::Installation(id),
            permissions: Some(permissions.clone()),
            repos: chosen.map(|names| auth::keys(&names, &one.account)),
            owner: Some(one.account.clone()),
            account: auth::installation_account(id),
            expires_ms: Some(expires_ms),
            fingerprint: 0,
        };
        world.accounts.add_installation(&token, grant);
        let body = json!({
            "token": token, "expires_at": rfc3339(expires_ms),
            "permissions": permissions, "repository_selection": selection,
        });
        Ok((StatusCode::CREATED, Json(body)).into_response())
    })
}

/// The permissions asked for, when the installation has them.
fn narrowed(had: &Permissions, wanted: Option<&Value>) -> Result<Permissions, ApiFailure> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_null()) else { return Ok(had.clone()) };
    let refused =
        || ApiFailure::invalid("The permissions requested are not granted to this installation.");
    let wanted: Permissions = serde_json::from_value(wanted.clone()).map_err(|_| refused())?;
    let fits = wanted.iter().all(|(name, level)| had.get(name).is_some_and(|had| had >= level));
    if fits { Ok(wanted) } else { Err(refused()) }
}

/// The repositories asked for, when the installation reaches them.
fn chosen_repos(
    world: &World,
    one: &InstallationSpec,
    wanted: Option<&Value>,
) -> Result<Option<Vec<String>>, ApiFailure> {
    let Some(wanted) = wanted.and_then(Value::as_array) else { return Ok(one.repos.clone()) };
    let refused = || {
        ApiFailure::invalid(
            "There is at least one repository that does not exist or is not accessible to the parent installation.",
        )
    };
    let names: Option<Vec<String>> =
        wanted.iter().map(|name| name.as_str().map(str::to_owned)).collect();
    let names = names.ok_or_else(refused)?;
    let reach = one.repos.as_ref().map(|names| auth::keys(names, &one.account));
    let fits = auth::keys(&names, &one.account).iter().all(|key| {
        world.repos.contains_key(key) && reach.as_ref().is_none_or(|reach| reach.contains(key))
    });
    if fits { Ok(Some(names)) } else { Err(refused()) }
}
