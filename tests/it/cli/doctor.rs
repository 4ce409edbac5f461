//! `doctor` on a modelled GitHub and whatever engine there is.

use serde_json::Value;

use super::process::{Running, github, run, settings, start, stderr, stdout};
use crate::it::support::redis::Redis;

/// The engine the tests run on: `DOCKER_HOST`, or the usual socket.
fn engine() -> String {
    let host = std::env::var_os("DOCKER_HOST").map(|host| host.into_string().unwrap());
    host.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned())
}

fn row<'a>(body: &'a Value, what: &str) -> &'a Value {
    let groups = body["groups"].as_array().unwrap().iter();
    let mut rows = groups.flat_map(|group| group["rows"].as_array().unwrap());
    rows.find(|row| row["what"].as_str().unwrap().starts_with(what))
        .unwrap_or_else(|| panic!("no row {what}: {body}"))
}

#[test]
fn what_works_is_told_apart_from_what_is_missing() {
    let host = engine();
    let (_github, api_url) = github(&[]);
    let mut env = settings(&api_url);
    env.push(("DOCKER_HOST", &host));
    env.push(("RUNNER_IMAGE", "no-such-runner-image:local"));
    env.push(("RUNNER_CPUS", "1024"));
    let output = run(&["doctor", "--json"], &env);
    let body: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(output.status.code(), Some(1), "{body}");
    assert_eq!(body["verdict"], "broken");
    for fine in ["token", "org acme", "runners read", "clock", "engine", "subnet for pool"] {
        assert_eq!(row(&body, fine)["level"], "fine", "{fine}: {body}");
    }
    let image = row(&body, "image");
    assert_eq!(image["level"], "broken");
    assert!(image["fix"].as_str().unwrap().contains("RUNNER_IMAGE"));
    let cpus = row(&body, "processors");
    assert_eq!(cpus["level"], "broken");
    assert!(cpus["fix"].as_str().unwrap().contains("RUNNER_CPUS"));
    for group in body["groups"].as_array().unwrap() {
        for row in group["rows"].as_array().unwrap() {
            assert_eq!(row["level"] == "fine", row["fix"].is_null(), "{row}");
        }
    }
}

#[test]
fn a_missing_image_that_can_be_pulled_is_a_warning() {
    let host = engine();
    let (_github, api_url) = github(&[]);
    let mut env = settings(&api_url);
    env.push(("DOCKER_HOST", &host));
    env.push(("RUNNER_IMAGE", "registry.invalid/runner:1"));
    let output = run(&["doctor"], &env);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("docker pull registry.invalid/runner:1"), "{text}");
    assert!(!text.contains('✗'), "{text}");
}

#[test]
fn what_cannot_be_reached_is_named_with_its_fix() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix://{}/docker.sock", folder.path().display());
    // Nobody listens on port 1 of this machine.
    let mut env = settings("http://127.0.0.1:1");
    env.push(("DOCKER_HOST", &socket));
    let output = run(&["doctor"], &env);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("GITHUB_API_URL (http://127.0.0.1:1)"), "{text}");
    assert!(text.contains(&format!("there is no socket {}", socket.replace("unix://", ""))));
    assert!(text.contains("fix: start Docker"), "{text}");
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_left_over_socket_is_told_apart_from_a_missing_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docker.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (_github, api_url) = github(&[]);
    let host = format!("unix://{}", path.display());
    let mut env = settings(&api_url);
    env.push(("DOCKER_HOST", &host));
    let output = run(&["doctor"], &env);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("nobody listens on"), "{}", stdout(&output));
}

#[test]
fn a_token_that_is_refused_is_named() {
    let (_github, api_url) = github(&["--token", "another"]);
    let mut env = settings(&api_url);
    env.push(("DOCKER_HOST", "unix:///nowhere/docker.sock"));
    let output = run(&["doctor", "--json"], &env);
    let body: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let token = row(&body, "token");
    assert_eq!(token["level"], "broken");
    assert!(token["fix"].as_str().unwrap().contains("GITHUB_TOKEN"), "{token}");
    assert!(!stdout(&output).contains("sim-token"));
}

/// The rows of the group `Redis`, of an installation that shares this one.
fn redis_rows(url: &str, more: &[(&str, &str)]) -> Vec<Value> {
    let (_github, api_url) = github(&[]);
    let mut env = settings(&api_url);
    env.extend([("DOCKER_HOST", "unix:///nowhere/docker.sock"), ("REDIS_URL", url)]);
    env.extend(more);
    let output = run(&["doctor", "--json"], &env);
    assert!(!stdout(&output).contains("hidden"), "a password is shown: {}", stdout(&output));
    let body: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let mut groups = body["groups"].as_array().unwrap().iter();
    let rows = groups.find(|group| group["name"] == "Redis").unwrap()["rows"].clone();
    let rows = rows.as_array().unwrap().clone();
    for row in &rows {
        assert_eq!(row["level"] == "fine", row["fix"].is_null(), "{row}");
    }
    rows
}

fn levels(rows: &[Value]) -> Vec<(&str, &str)> {
    rows.iter().map(|row| (row["what"].as_str().unwrap(), row["level"].as_str().unwrap())).collect()
}

#[test]
fn a_sound_redis_is_looked_at_and_left_as_it_was() {
    let server = Redis::with(&["--requirepass", "hidden"]);
    let secret = ("CLUSTER_SECRET", "a-secret-of-the-whole-cluster");
    let rows = redis_rows(&server.url(), &[secret]);
    let expected = ["reachable", "version", "eviction", "role", "persistence", "replicas"];
    assert_eq!(levels(&rows), expected.map(|what| (what, "fine")), "{rows:?}");
    assert_eq!(server.ask::<u64>(&["DBSIZE"]), 0, "something was written");
}

#[test]
fn each_trouble_of_a_redis_is_told_with_its_fix() {
    let server = Redis::with(&["--requirepass", "hidden", "--maxmemory-policy", "allkeys-lru"]);
    server.ask::<()>(&["CONFIG", "SET", "appendonly", "no"]);
    let master = Redis::start();
    server.ask::<()>(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    let rows = redis_rows(&server.url(), &[]);
    let told = levels(&rows);
    for (what, level) in [
        ("version", "fine"),
        ("eviction", "broken"),
        ("role", "broken"),
        ("persistence", "warning"),
        ("peers", "warning"),
    ] {
        assert!(told.contains(&(what, level)), "{what}: {rows:?}");
    }
    let eviction = rows.iter().find(|row| row["what"] == "eviction").unwrap();
    assert!(eviction["detail"].as_str().unwrap().contains("maxmemory-policy is allkeys-lru"));
    assert_eq!(eviction["fix"], "set it to noeviction");

    let wrong = format!("redis://:hidden-too@127.0.0.1:{}", server.port);
    let without = format!("redis://127.0.0.1:{}", server.port);
    for (url, says) in [(wrong, "does not accept"), (without, "asks for a password")] {
        let rows = redis_rows(&url, &[]);
        assert_eq!(levels(&rows), [("password", "broken")], "{rows:?}");
        assert!(rows[0]["detail"].as_str().unwrap().contains(says), "{rows:?}");
        assert!(rows[0]["fix"].as_str().unwrap().contains("REDIS_URL"), "{rows:?}");
    }
    let rows = redis_rows("redis://127.0.0.1:1", &[]);
    assert_eq!(levels(&rows), [("reachable", "broken")], "{rows:?}");
}

/// Against a replica that runs with another secret and another pool.
#[test]
fn replicas_that_differ_from_this_configuration_are_named() {
    let server = Redis::start();
    let (_github, api_url) = github(&[]);
    let url = server.url();
    let mut env = settings(&api_url);
    env.extend([
        ("REDIS_URL", url.as_str()),
        ("CLUSTER_SECRET", "a-secret-of-the-whole-cluster"),
        ("LISTEN_ADDR", "127.0.0.1:0"),
        ("MAX_RUNNERS", "7"),
    ]);
    let (_serve, _address): (Running, String) =
        start(&["serve", "--engine", "model"], &env, "address");
    let begun = std::time::Instant::now();
    let differing = loop {
        let rows = redis_rows(&url, &[("CLUSTER_SECRET", "another-secret-of-the-cluster")]);
        let found: Vec<String> = rows
            .iter()
            .filter(|row| row["what"] == "replicas" && row["level"] == "warning")
            .map(|row| format!("{} {}", row["detail"], row["fix"]))
            .collect();
        if !found.is_empty() {
            break found;
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{rows:?}");
    };
    assert_eq!(differing.len(), 2, "{differing:?}");
    assert!(differing[0].contains("another cluster secret than this configuration"));
    assert!(differing[0].contains("set the same CLUSTER_SECRET"), "{differing:?}");
    assert!(differing[1].contains("other pools than this configuration"), "{differing:?}");
    let same = [("CLUSTER_SECRET", "a-secret-of-the-whole-cluster"), ("MAX_RUNNERS", "7")];
    let rows = redis_rows(&url, &same);
    assert!(levels(&rows).contains(&("replicas", "fine")), "{rows:?}");
}
