//! `doctor` on a modelled GitHub and whatever engine there is.

use serde_json::Value;

use super::process::{github, run, settings, stderr, stdout};

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
