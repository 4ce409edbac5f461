//! The API's clients against an orchestrator that runs.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::{Running, github, run, settings, start, stderr, stdout};

const TOKEN: &str = "a-token-of-the-api-1";

/// A modelled GitHub, and an orchestrator on a modelled engine.
fn fleet() -> (Running, Running, String) {
    let (github, api_url) = github(&[]);
    let mut env = settings(&api_url);
    env.extend([
        ("LISTEN_ADDR", "127.0.0.1:0"),
        ("API_TOKEN", TOKEN),
        ("MIN_RUNNERS", "2"),
        ("POLL_INTERVAL", "1"),
        ("SHUTDOWN_MODE", "detach"),
    ]);
    let (serve, address) = start(&["serve", "--engine", "model"], &env, "address");
    (github, serve, format!("http://{address}"))
}

fn ask(url: &str, args: &[&str]) -> String {
    let mut all = args.to_vec();
    all.extend(["--api-url", url]);
    let output = run(&all, &[("API_TOKEN", TOKEN)]);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

fn json(url: &str, args: &[&str]) -> Value {
    let mut all = args.to_vec();
    all.push("--json");
    serde_json::from_str(&ask(url, &all)).unwrap()
}

/// Asks until the answer is as wanted.
fn until(url: &str, args: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let body = json(url, args);
        if wanted(&body) {
            return body;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{args:?}: {body}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_running_orchestrator_is_shown_and_scaled() {
    let (_github, _serve, url) = fleet();
    let health = run(&["healthcheck", "--url", &format!("{url}/livez")], &[]);
    assert!(health.status.success(), "{}", stderr(&health));

    let idle = |count: u64| move |body: &Value| body["runners"]["idle"] == count;
    until(&url, &["status"], idle(2));
    let text = ask(&url, &["status"]);
    assert!(text.contains("2 idle") && text.contains("org acme"), "{text}");

    let up = json(&url, &["runners", "scale-up", "--count", "1", "--pool", "default"]);
    assert_eq!(up["runners_created"], 1, "{up}");
    until(&url, &["status"], idle(3));
    let runners = json(&url, &["runners"]);
    let names: Vec<&str> =
        runners["runners"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    let table = ask(&url, &["runners", "ls"]);
    assert!(names.len() == 3 && names.iter().all(|name| table.contains(name)), "{table}");

    let log = ask(&url, &["runners", "logs", names[0], "--tail", "50"]);
    assert!(log.contains("Listening for Jobs"), "{log}");
    let removed = ask(&url, &["runners", "rm", names[0]]);
    assert!(removed.contains(names[0]), "{removed}");

    assert!(ask(&url, &["pools"]).contains("default"));
    assert_eq!(json(&url, &["hosts"])["hosts"].as_array().unwrap().len(), 1);
    let replicas = json(&url, &["replicas"]);
    assert_eq!(replicas["replicas"][0]["leader"], true, "{replicas}");
    assert_eq!(replicas["replicas"][0]["standing"], "agent", "{replicas}");
    let table = ask(&url, &["replicas"]);
    assert!(table.contains("LEADS") && table.contains("agent"), "{table}");
    let agent = replicas["replicas"][0]["name"].as_str().unwrap();
    assert!(ask(&url, &["hosts"]).contains(agent) && text.contains(agent), "{text}");
    assert!(text.contains("this replica"), "{text}");
    let events = ask(&url, &["events", "--pool", "default"]);
    assert!(events.contains("assign") && events.contains("orchestrated-"), "{events}");
}

#[test]
fn refusals_are_told_in_the_apis_own_words() {
    let (_github, _serve, url) = fleet();
    let fail = |args: &[&str], token: &str| {
        let mut all = args.to_vec();
        all.extend(["--api-url", url.as_str()]);
        let output = run(&all, &[("API_TOKEN", token)]);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(stdout(&output), "");
        stderr(&output)
    };
    assert!(fail(&["status"], "another-token-of-the-api").contains("--token-file"));
    assert!(fail(&["status"], "").contains("401"));
    assert!(fail(&["runners", "rm", "../x"], TOKEN).contains("404"));
    let pool = fail(&["runners", "scale-up", "--pool", "no-such"], TOKEN);
    assert!(pool.contains("no-such"), "{pool}");
}

#[test]
fn nobody_there_is_said_so() {
    for args in [&["status", "--api-url"][..], &["healthcheck", "--url"]] {
        let mut all = args.to_vec();
        all.push("http://127.0.0.1:1");
        let output = run(&all, &[]);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains("no answer from http://127.0.0.1:1"));
    }
}
