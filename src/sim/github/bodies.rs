//! The JSON of the API's answers, by GitHub's published schemas.

use serde_json::{Map, Value, json};

use super::jobs::{Job, Run};
use super::options::{AppSpec, InstallationSpec};
use super::runners::{RUNNER_VERSION, Runner, Seen};
use super::state::{Org, Repo, World};
use super::unverified::Assumption;
use crate::sim::clock::rfc3339;

/// Base URLs of what an answer links to.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The API's root, without a slash at its end.
    pub(crate) api: String,
}

impl Places {
    pub(crate) fn new(api: &str) -> Self {
        Self { api: api.trim_end_matches('/').to_owned() }
    }
}

const SHA: &str = "f83a356604ae3c5d03e1b46ef4d1ca77d64a90b0";

/// A runner as lists and `GET …/runners/{id}` show it.
pub(crate) fn runner(world: &World, runner: &Runner, seen: Seen) -> Value {
    let lean = world.settings.hostile.hostile(Assumption::FieldSet);
    let labels: Vec<Value> = runner
        .labels
        .iter()
        .enumerate()
        .map(|(index, label)| {
            if lean {
                return json!({"name": label.name});
            }
            let kind = if label.read_only { "read-only" } else { "custom" };
            json!({"id": index + 1, "name": label.name, "type": kind})
        })
        .collect();
    let connected = runner.connected_ms.is_some();
    let mut body = json!({
        "id": runner.id,
        "name": runner.name,
        "os": if connected { "linux" } else { "unknown" },
        "status": if seen.online { "online" } else { "offline" },
        "busy": seen.busy,
    });
    body["labels"] = Value::Array(labels);
    if lean {
        body["unheard_of"] = json!({"nested": [1, 2]});
    } else {
        body["runner_group_id"] = json!(runner.group_id);
        body["ephemeral"] = json!(runner.planted_busy.is_none());
        if connected {
            body["version"] = json!(RUNNER_VERSION);
        }
    }
    body
}

/// A job, as REST and webhooks show it.
pub(crate) fn job(places: &Places, world: &World, job: &Job) -> Value {
    let repo = world.repos.get(&job.repo).map(Repo::full_name).unwrap_or_default();
    let api = format!("{}/repos/{repo}", places.api);
    let hostile = |assumption| world.settings.hostile.hostile(assumption);
    let started = match job.started_ms {
        Some(at) => rfc3339(at),
        None if hostile(Assumption::QueuedStartedAt) => "0001-01-01T00:00:00Z".to_owned(),
        None => rfc3339(job.queued_ms),
    };
    let none = || if hostile(Assumption::QueuedRunnerId) { json!(0) } else { Value::Null };
    let no_name = || if hostile(Assumption::QueuedRunnerId) { json!("") } else { Value::Null };
    if world.settings.brief {
        return json!({
            "id": job.id,
            "run_id": job.run,
            "status": job.status.word(),
            "conclusion": job.conclusion,
            "created_at": rfc3339(job.queued_ms),
            "started_at": started,
            "name": job.name,
            "labels": job.labels,
        });
    }
    let ran_on = job.ran_on.as_ref();
    json!({
        "id": job.id,
        "run_id": job.run,
        "run_url": format!("{api}/actions/runs/{}", job.run),
        "run_attempt": 1,
        "node_id": format!("CR_{}", job.id),
        "head_sha": SHA,
        "url": format!("{api}/actions/jobs/{}", job.id),
        "html_url": format!("{api}/runs/{}/job/{}", job.run, job.id),
        "status": job.status.word(),
        "conclusion": job.conclusion,
        "created_at": rfc3339(job.queued_ms),
        "started_at": started,
        "completed_at": job.completed_ms.map(rfc3339),
        "name": job.name,
        "steps": [],
        "check_run_url": format!("{api}/check-runs/{}", job.id),
        "labels": job.labels,
        "runner_id": ran_on.map_or_else(none, |on| json!(on.id)),
        "runner_name": ran_on.map_or_else(no_name, |on| json!(on.name)),
        "runner_group_id": ran_on.map_or_else(none, |on| json!(on.group_id)),
        "runner_group_name": ran_on.map_or_else(no_name, |_| json!("Default")),
        "workflow_name": "CI",
        "head_branch": "main",
    })
}

/// A workflow run.
pub(crate) fn run(places: &Places, world: &World, run: &Run, repo: &Repo) -> Value {
    if world.settings.brief {
        return json!({
            "id": run.id,
            "run_attempt": 1,
            "status": run.status().word(),
            "conclusion": run.conclusion(),
            "created_at": rfc3339(run.created_ms),
            "updated_at": rfc3339(run.updated_ms),
        });
    }
    let api = format!("{}/repos/{}", places.api, repo.full_name());
    let url = format!("{api}/actions/runs/{}", run.id);
    let head_commit = if world.settings.hostile.hostile(Assumption::HeadCommit) {
        Value::Null
    } else {
        json!({
            "id": SHA,
            "tree_id": SHA,
            "message": "A change",
            "timestamp": rfc3339(run.created_ms),
            "author": {"name": "Octo", "email": "octo@example.invalid"},
            "committer": {"name": "Octo", "email": "octo@example.invalid"},
        })
    };
    let minimal = repository(places, world, repo);
    let mut body = json!({
        "id": run.id,
        "name": "CI",
        "node_id": format!("WFR_{}", run.id),
        "head_branch": "main",
        "head_sha": SHA,
        "path": ".github/workflows/ci.yml",
        "display_title": "A change",
        "run_number": run.number,
        "run_attempt": 1,
        "event": "push",
        "status": run.status().word(),
        "conclusion": run.conclusion(),
        "workflow_id": 1,
        "url": url,
        "html_url": url,
        "pull_requests": [],
        "created_at": rfc3339(run.created_ms),
        "updated_at": rfc3339(run.updated_ms),
        "run_started_at": rfc3339(run.created_ms),
        "jobs_url": format!("{url}/jobs"),
        "logs_url": format!("{url}/logs"),
        "check_suite_url": format!("{api}/check-suites/{}", run.id),
        "artifacts_url": format!("{url}/artifacts"),
        "cancel_url": format!("{url}/cancel"),
        "rerun_url": format!("{url}/rerun"),
        "workflow_url": format!("{api}/actions/workflows/1"),
    });
    body["head_commit"] = head_commit;
    body["repository"] = minimal.clone();
    body["head_repository"] = minimal;
    body
}

/// Parts of a repository that are links below its own URL.
const REPO_LINKS: [&str; 37] = [
    "archive",
    "assignees",
    "blobs",
    "branches",
    "collaborators",
    "comments",
    "commits",
    "compare",
    "contents",
    "contributors",
    "deployments",
    "downloads",
    "events",
    "forks",
    "git_commits",
    "git_refs",
    "git_tags",
    "hooks",
    "issue_comment",
    "issue_events",
    "issues",
    "keys",
    "labels",
    "languages",
    "merges",
    "milestones",
    "notifications",
    "pulls",
    "releases",
    "stargazers",
    "statuses",
    "subscribers",
    "subscription",
    "tags",
    "teams",
    "trees",
    "git",
];

/// A repository as lists show it.
pub(crate) fn repository(places: &Places, world: &World, repo: &Repo) -> Value {
    let url = format!("{}/repos/{}", places.api, repo.full_name());
    let mut body = Map::new();
    let links = if world.settings.brief { &[] } else { &REPO_LINKS[..] };
    for link in links {
        body.insert(format!("{link}_url"), format!("{url}/{link}").into());
    }
    let owner_kind = if world.org(&repo.owner).is_some() { "Organization" } else { "User" };
    let rest = json!({
        "id": repo.id,
        "node_id": format!("R_{}", repo.id),
        "name": repo.name,
        "full_name": repo.full_name(),
        "owner": user(places, &repo.owner, world.org(&repo.owner).map_or(1, |o| o.id), owner_kind),
        "private": repo.private,
        "html_url": url,
        "url": url,
        "clone_url": url,
        "ssh_url": url,
        "svn_url": url,
        "mirror_url": null,
        "description": null,
        "fork": false,
        "homepage": null,
        "language": null,
        "forks_count": 0,
        "stargazers_count": 0,
        "watchers_count": 0,
        "size": 1,
        "default_branch": "main",
        "open_issues_count": 0,
        "has_issues": true,
        "has_projects": false,
        "has_wiki": false,
        "has_pages": false,
        "has_downloads": false,
        "has_discussions": false,
        "archived": repo.archived,
        "disabled": repo.disabled,
        "visibility": if repo.private { "private" } else { "public" },
        "pushed_at": rfc3339(repo.pushed_ms),
        "created_at": rfc3339(repo.created_ms),
        "updated_at": rfc3339(repo.pushed_ms),
        "license": null,
        "forks": 0,
        "open_issues": 0,
        "watchers": 0,
    });
    if let Value::Object(rest) = rest {
        body.extend(rest);
    }
    Value::Object(body)
}

/// A repository as `GET /repos/{owner}/{repo}` shows it.
pub(crate) fn full_repository(places: &Places, world: &World, repo: &Repo) -> Value {
    let mut body = repository(places, world, repo);
    body["network_count"] = json!(0);
    body["subscribers_count"] = json!(0);
    body
}

/// A user or organisation where another thing names it.
pub(crate) fn user(places: &Places, login: &str, id: u64, kind: &str) -> Value {
    let url = format!("{}/users/{login}", places.api);
    let mut body = Map::new();
    for link in [
        "avatar",
        "events",
        "followers",
        "following",
        "gists",
        "html",
        "organizations",
        "received_events",
        "repos",
        "starred",
        "subscriptions",
    ] {
        body.insert(format!("{link}_url"), format!("{url}/{link}").into());
    }
    let rest = json!({
        "login": login, "id": id, "node_id": format!("U_{id}"), "gravatar_id": "",
        "url": url, "type": kind, "site_admin": false,
    });
    if let Value::Object(rest) = rest {
        body.extend(rest);
    }
    Value::Object(body)
}

/// The user behind a personal token.
pub(crate) fn me(places: &Places, world: &World) -> Value {
    let mut body = user(places, "octo", 606, "User");
    let since = rfc3339(world.started_ms);
    let rest = json!({
        "name": null, "company": null, "blog": null, "location": null, "email": null,
        "hireable": null, "bio": null, "public_repos": 0, "public_gists": 0, "followers": 0,
        "following": 0, "created_at": since, "updated_at": since,
    });
    extend(&mut body, rest);
    body
}

/// An organisation.
pub(crate) fn organization(places: &Places, world: &World, org: &Org) -> Value {
    let url = format!("{}/orgs/{}", places.api, org.login);
    let since = rfc3339(world.started_ms);
    let public = world.repos.values().filter(|r| r.owner == org.login && !r.private).count();
    json!({
        "login": org.login, "id": org.id, "node_id": format!("O_{}", org.id), "url": url,
        "repos_url": format!("{url}/repos"), "events_url": format!("{url}/events"),
        "hooks_url": format!("{url}/hooks"), "issues_url": format!("{url}/issues"),
        "members_url": format!("{url}/members"), "html_url": url,
        "public_members_url": format!("{url}/public_members"),
        "avatar_url": format!("{url}/avatar"), "description": null,
        "has_organization_projects": false, "has_repository_projects": false,
        "public_repos": public, "public_gists": 0, "followers": 0, "following": 0,
        "type": "Organization", "created_at": since, "updated_at": since, "archived_at": null,
    })
}

/// The App.
pub(crate) fn app(places: &Places, world: &World, app: &AppSpec) -> Value {
    let since = rfc3339(world.started_ms);
    json!({
        "id": app.id, "slug": "fleet", "client_id": app.client_id,
        "node_id": format!("A_{}", app.id),
        "owner": user(places, &world.default_owner(), 1, "Organization"),
        "name": "fleet", "description": null, "external_url": places.api,
        "html_url": format!("{}/apps/fleet", places.api),
        "created_at": since, "updated_at": since,
        "permissions": {"metadata": "read"}, "events": ["workflow_job"],
        "installations_count": app.installations.len(),
    })
}

/// An installation of the App.
pub(crate) fn installation(
    places: &Places,
    world: &World,
    app: &AppSpec,
    installation: &InstallationSpec,
) -> Value {
    let since = rfc3339(world.started_ms);
    let url = format!("{}/app/installations/{}", places.api, installation.id);
    let org = world.org(&installation.account);
    let kind = if org.is_some() { "Organization" } else { "User" };
    let target_id = org.map_or(1, |org| org.id);
    json!({
        "id": installation.id, "app_id": app.id, "app_slug": "fleet", "client_id": app.client_id,
        "target_id": target_id, "target_type": kind,
        "account": user(places, &installation.account, target_id, kind),
        "repository_selection": if installation.repos.is_some() { "selected" } else { "all" },
        "access_tokens_url": format!("{url}/access_tokens"),
        "repositories_url": format!("{}/installation/repositories", places.api),
        "html_url": url, "events": ["workflow_job"], "permissions": installation.permissions,
        "created_at": since, "updated_at": since, "single_file_name": null,
        "suspended_by": null, "suspended_at": null,
    })
}

fn extend(body: &mut Value, rest: Value) {
    if let (Value::Object(body), Value::Object(rest)) = (body, rest) {
        body.extend(rest);
    }
}
