//! Paging, limits, refusals: how the API answers.

use axum::http::{Method, StatusCode};
use runner_orchestrator::sim::github::{
    Level, NewJobs, PlantedRunners, ReposPatch, SettingsPatch, SimOptions, TokenKind, TokenSpec,
};
use serde_json::json;

use super::quiet::{Answer, Quiet, pass};
use super::support::{Model, text};

const RUNNERS: &str = "/orgs/acme/actions/runners";

#[tokio::test(start_paused = true)]
async fn lists_are_paged_with_absolute_links() {
    let quiet = Quiet::new();
    let planted = PlantedRunners { count: 250, name_prefix: "p".into(), ..Default::default() };
    quiet.sim.plant_runners(&planted).unwrap();
    let first = quiet.get(&format!("{RUNNERS}?per_page=100")).await;
    assert_eq!(first.body["total_count"], 250);
    let base = "http://model.test/api/v3/orgs/acme/actions/runners?per_page=100";
    assert_eq!(
        first.header("link"),
        format!("<{base}&page=2>; rel=\"next\", <{base}&page=3>; rel=\"last\"")
    );
    let mut names = Vec::new();
    for page in 1..=3 {
        let page = quiet.get(&format!("{RUNNERS}?per_page=100&page={page}")).await;
        names.extend(page.body["runners"].as_array().unwrap().iter().map(|r| text(&r["name"])));
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 250);
    let one = quiet.get(&format!("{RUNNERS}?name=p-7")).await;
    assert_eq!((one.body["total_count"].as_u64(), one.header("link")), (Some(1), ""));
    let beyond = quiet.get(&format!("{RUNNERS}?per_page=100&page=9")).await;
    assert_eq!(beyond.body["runners"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn repositories_come_most_recently_pushed_first_when_asked_so() {
    let quiet = Quiet::with(SimOptions { repos: 0, ..SimOptions::default() });
    for (repo, ago) in [("old", 500.0), ("new", 5.0), ("middle", 50.0)] {
        let patch = ReposPatch {
            repo: Some(repo.into()),
            pushed_seconds_ago: Some(ago),
            archived: Some(repo == "old"),
            ..ReposPatch::default()
        };
        quiet.sim.change_repos(&patch).unwrap();
    }
    let repos = quiet.get("/orgs/acme/repos?sort=pushed&per_page=100").await;
    let names: Vec<_> = repos.body.as_array().unwrap().iter().map(|r| text(&r["name"])).collect();
    assert_eq!(names, ["new", "middle", "old"]);
    assert_eq!(repos.body[2]["archived"], true);
}

#[tokio::test(start_paused = true)]
async fn the_primary_limit_refuses_until_it_resets() {
    let quiet = Quiet::new();
    quiet.sim.change_settings(&SettingsPatch { primary_limit: Some(3), ..Default::default() });
    for used in ["1", "2", "3"] {
        assert_eq!(quiet.get("/user").await.header("x-ratelimit-used"), used);
    }
    let refused = quiet.get("/user").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    assert!(text(&refused.body["message"]).contains("API rate limit exceeded"));
    // This one is free, and answers also when nothing else does.
    let free = quiet.get("/rate_limit").await;
    assert_eq!(free.body["rate"]["remaining"], 0);
    assert_eq!(quiet.sim.state().limit_crossings.primary, 1);
    pass(3_601).await;
    assert_eq!(quiet.get("/user").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_and_eighty_mints_fill_a_minute() {
    let quiet = Quiet::new();
    for number in 0..180 {
        quiet.mint(&format!("r{number}")).await;
    }
    let refused = quiet.try_mint("one-more", &["x"]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.header("retry-after"), "60");
    assert_ne!(refused.header("x-ratelimit-remaining"), "0");
    let state = quiet.sim.state();
    assert_eq!((state.limit_crossings.secondary, state.runners.len()), (1, 180));
    pass(60).await;
    assert_eq!(quiet.try_mint("one-more", &["x"]).await.status, StatusCode::CREATED);
}

#[tokio::test(start_paused = true)]
async fn content_creation_is_limited_when_switched_on() {
    let quiet = Quiet::new();
    let patch = SettingsPatch { content_per_minute: Some(80), ..Default::default() };
    quiet.sim.change_settings(&patch);
    for number in 0..80 {
        quiet.mint(&format!("r{number}")).await;
    }
    assert_eq!(quiet.try_mint("one-more", &["x"]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(quiet.get("/user").await.status, StatusCode::OK);
    assert_eq!(quiet.sim.state().limit_crossings.content, 1);
}

fn refused(answer: &Answer, status: u16, message: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
    assert!(text(&answer.body["message"]).contains(message), "{}", answer.body);
    assert!(answer.body["documentation_url"].is_string());
    assert_eq!(answer.body["status"], status.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_mint_is_refused_as_github_refuses_it() {
    let quiet = Quiet::new();
    let path = format!("{RUNNERS}/generate-jitconfig");
    quiet.mint("taken").await;
    let mint = |body| quiet.post(&path, body);
    let labels = json!(["x"]);
    refused(&quiet.try_mint("TAKEN", &["x"]).await, 409, "already exists");
    refused(
        &mint(json!({"name": "a", "labels": labels})).await,
        422,
        "missing required key: runner_group_id",
    );
    let group = |id| json!({"name": "a", "runner_group_id": id, "labels": labels});
    refused(&mint(group(2)).await, 403, "Runner group");
    refused(&mint(group(3)).await, 404, "Not Found");
    refused(&quiet.try_mint("a", &[]).await, 422, "labels");
    refused(&quiet.try_mint(&"n".repeat(65), &["x"]).await, 422, "Validation Failed");
    let broken = Quiet::call(&quiet, Method::POST, &path, &[], Some(json!("x"))).await;
    refused(&broken, 422, "missing required key");
    assert_eq!(quiet.sim.state().runners.len(), 1);
    let minted = quiet.try_mint("b", &["GPU", "gpu", "Linux"]).await;
    let labels = minted.body["runner"]["labels"].as_array().unwrap();
    let names: Vec<_> = labels.iter().map(|label| text(&label["name"])).collect();
    assert_eq!(names, ["gpu", "linux"]);
    let blob = text(&minted.body["encoded_jit_config"]).len();
    assert!((2_000..8_000).contains(&blob), "{blob}");
}

#[tokio::test(start_paused = true)]
async fn deletion_answers_204_then_404_and_422_when_busy() {
    let quiet = Quiet::new();
    let (id, _) = quiet.mint("one").await;
    let path = format!("{RUNNERS}/{id}");
    assert_eq!(quiet.delete(&path).await.status, StatusCode::NO_CONTENT);
    refused(&quiet.delete(&path).await, 404, "Not Found");
    refused(&quiet.delete(&format!("{RUNNERS}/abc")).await, 404, "Not Found");
    let busy = PlantedRunners { busy: true, status: "online".into(), ..Default::default() };
    let id = quiet.sim.plant_runners(&busy).unwrap()[0];
    refused(&quiet.delete(&format!("{RUNNERS}/{id}")).await, 422, "still running a job");
    refused(&quiet.delete(&format!("/repos/acme/repo-1/actions/runners/{id}")).await, 404, "Not");
}

#[tokio::test(start_paused = true)]
async fn who_may_not_is_told_so() {
    let quiet = Quiet::with(SimOptions {
        tokens: vec![
            TokenSpec::all_powerful("sim-token"),
            TokenSpec {
                token: "reader".to_owned().into(),
                kind: TokenKind::FineGrained,
                permissions: Some(
                    [("organization_self_hosted_runners".to_owned(), Level::Read)].into(),
                ),
                repos: Some(vec!["acme/repo-1".into()]),
            },
        ],
        repos: 2,
        ..SimOptions::default()
    });
    let ask = |method, path, token: &str| {
        let header = format!("Bearer {token}");
        let quiet = &quiet;
        async move { quiet.call(method, path, &[("authorization", &header)], None).await }
    };
    refused(&ask(Method::GET, "/user", "nobody").await, 401, "Bad credentials");
    refused(&ask(Method::GET, "/user", "").await, 401, "Bad credentials");
    assert_eq!(ask(Method::GET, RUNNERS, "reader").await.status, StatusCode::OK);
    let wording = "Resource not accessible by personal access token";
    let mint = format!("{RUNNERS}/generate-jitconfig");
    refused(&ask(Method::POST, &mint, "reader").await, 403, wording);
    refused(&ask(Method::GET, "/repos/acme/repo-1/actions/runs", "reader").await, 403, wording);
    // A private repository it does not see might as well not exist.
    refused(&ask(Method::GET, "/repos/acme/repo-2/actions/runs", "reader").await, 404, "Not");
    refused(&quiet.get("/orgs/unknown/actions/runners").await, 404, "Not Found");
    refused(&quiet.get("/no/such/route").await, 404, "Not Found");
    assert_eq!(quiet.sim.expire_tokens(Some("reader")), 1);
    refused(&ask(Method::GET, RUNNERS, "reader").await, 401, "Bad credentials");
    let old = [("x-github-api-version", "2020-01-01")];
    refused(&quiet.call(Method::GET, "/user", &old, None).await, 410, "version");
}

#[tokio::test(start_paused = true)]
async fn runs_are_filtered_by_status_and_jobs_by_run() {
    let quiet = Quiet::new();
    let new = NewJobs { count: 5, jobs_per_run: Some(2), ..NewJobs::default() };
    let ids = quiet.sim.post_jobs(&new).unwrap();
    assert!(quiet.sim.cancel_job(ids[4]));
    let runs = |status: &str| {
        let path = format!("/repos/acme/repo-1/actions/runs?status={status}");
        let quiet = &quiet;
        async move { quiet.get(&path).await.body }
    };
    assert_eq!(runs("queued").await["total_count"], 2);
    assert_eq!(runs("completed").await["total_count"], 1);
    assert_eq!(runs("in_progress").await["total_count"], 0);
    let run = runs("queued").await["workflow_runs"][1]["id"].as_u64().unwrap();
    let jobs = quiet.get(&format!("/repos/acme/repo-1/actions/runs/{run}/jobs")).await.body;
    assert_eq!(jobs["total_count"], 2);
    assert_eq!(jobs["jobs"][0]["id"].as_u64(), Some(ids[0].0));
    assert_eq!(jobs["jobs"][0]["status"], "queued");
    assert!(jobs["jobs"][0]["runner_id"].is_null());
}

#[tokio::test(start_paused = true)]
async fn an_enterprise_runner_takes_jobs_of_every_organisation() {
    let fine = TokenSpec { kind: TokenKind::FineGrained, ..TokenSpec::all_powerful("fine") };
    let quiet = Quiet::with(SimOptions {
        orgs: vec!["acme".into(), "other".into()],
        enterprise: Some("big".into()),
        tokens: vec![TokenSpec::all_powerful("sim-token"), fine],
        ..SimOptions::default()
    });
    let path = "/enterprises/Big/actions/runners/generate-jitconfig";
    let body = json!({"name": "e", "runner_group_id": 1, "labels": ["self-hosted"]});
    let fine = [("authorization", "Bearer fine")];
    let answer = quiet.call(Method::POST, path, &fine, Some(body.clone())).await;
    refused(&answer, 403, "Resource not accessible by personal access token");
    refused(&quiet.get("/enterprises/small/actions/runners").await, 404, "Not Found");
    let minted = quiet.post(path, body).await;
    let mut listening = quiet.listen(&text(&minted.body["encoded_jit_config"]));
    listening.printed("Listening").await;
    let job = NewJobs { repo: Some("other/thing".into()), ..NewJobs::default() };
    quiet.sim.post_jobs(&job).unwrap();
    assert_eq!(listening.ended().await, 0);
    assert_eq!(quiet.sim.state().jobs[0].repo, "other/thing");
    let nowhere = NewJobs { repo: Some("nobody/thing".into()), ..NewJobs::default() };
    assert!(quiet.sim.post_jobs(&nowhere).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_job_goes_only_to_a_runner_that_matches() {
    let quiet = Quiet::new();
    let public =
        ReposPatch { repo: Some("open".into()), private: Some(false), ..ReposPatch::default() };
    quiet.sim.change_repos(&public).unwrap();
    let minted = quiet.try_mint("one", &["Linux", "GPU"]).await;
    let mut listening = quiet.listen(&text(&minted.body["encoded_jit_config"]));
    listening.printed("Listening").await;
    let job = |labels: &[&str], repo: &str| NewJobs {
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        repo: Some(repo.into()),
        ..NewJobs::default()
    };
    quiet.sim.post_jobs(&job(&["linux", "arm"], "repo-1")).unwrap();
    // A public repository's job stays queued for the default group, as in real life.
    quiet.sim.post_jobs(&job(&["linux"], "open")).unwrap();
    pass(600).await;
    assert!(quiet.sim.state().jobs.iter().all(|job| job.assigned_at.is_none()));
    quiet.sim.post_jobs(&job(&["LINUX", "gpu"], "repo-1")).unwrap();
    assert_eq!(listening.ended().await, 0);
    let ran: Vec<_> = quiet.sim.state().jobs.iter().map(|job| job.attempts).collect();
    assert_eq!(ran, [0, 0, 1]);
    let open = SettingsPatch { group_allows_public: Some(true), ..SettingsPatch::default() };
    quiet.sim.change_settings(&open);
    let minted = quiet.try_mint("two", &["linux"]).await;
    let mut listening = quiet.listen(&text(&minted.body["encoded_jit_config"]));
    assert_eq!(listening.ended().await, 0);
    assert_eq!(quiet.sim.state().jobs[1].runner_name.as_deref(), Some("two"));
}

#[tokio::test]
async fn a_user_agent_is_required_and_both_roots_answer() {
    let model = Model::start().await;
    let url = format!("{}/user", model.handle.base_url());
    let bare = model.client.get(&url).bearer_auth("sim-token").send().await.unwrap();
    assert_eq!(bare.status(), 403);
    let named = model.client.get(&url).bearer_auth("sim-token").header("user-agent", "me");
    let named: serde_json::Value = named.send().await.unwrap().json().await.unwrap();
    assert_eq!(named["url"], format!("{}/users/octo", model.handle.base_url()));
    let ghes = model.get_json("/user").await;
    assert_eq!(ghes["url"], format!("{}/users/octo", model.handle.api_url()));
    // Both are one route for the counters.
    assert_eq!(model.handle.state().calls["GET /user"], 3);
}
