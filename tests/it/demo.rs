//! The demo as a user runs it: the built program, real containers, its own verdict.

use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::it::support::redis::Redis;

async fn demo(more: &[&str]) -> Value {
    demo_with(more, &[]).await
}

async fn demo_with(more: &[&str], env: &[(&str, &str)]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_runner-orchestrator"))
        .envs(env.iter().copied())
        .args(["demo", "--seed", "7", "--until-done", "--report", "json", "--job-seconds", "1..3"])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{lines}{errors}");
    serde_json::from_str(lines.lines().last().unwrap()).unwrap()
}

fn every_promise_kept(report: &Value, jobs: u32) {
    assert_eq!(report["jobs"], jobs, "{report}");
    assert_eq!(report["succeeded"], jobs, "{report}");
    for none in ["lost", "run_twice", "killed_busy"] {
        assert_eq!(report[none], 0, "{none}: {report}");
    }
    let nothing = json!({"containers": 0, "volumes": 0, "networks": 0, "registrations": 0});
    assert_eq!(report["leftover"], nothing, "{report}");
    assert!(report["max_runners_seen"].as_u64() <= report["max_runners"].as_u64(), "{report}");
}

#[tokio::test]
async fn thirty_jobs_on_the_real_engine() {
    let report = demo(&["--jobs", "30", "--engine", "docker"]).await;
    assert_eq!(report["engine"], "docker");
    every_promise_kept(&report, 30);
}

#[tokio::test]
async fn thirty_jobs_with_the_orchestrator_killed_in_the_middle() {
    let report = demo(&["--jobs", "30", "--engine", "docker", "--kill-orchestrator"]).await;
    assert_eq!(report["engine"], "docker");
    every_promise_kept(&report, 30);
}

#[tokio::test]
async fn without_an_engine_the_modelled_one_serves() {
    let report = demo(&["--jobs", "10", "--engine", "model"]).await;
    assert_eq!(report["engine"], "model");
    every_promise_kept(&report, 10);
}

/// Three orchestrators, three Docker hosts where this machine allows it, and the leader
/// killed in the middle.
#[tokio::test]
async fn three_replicas_go_on_when_their_leader_is_killed() {
    let several = ["--jobs", "30", "--engine", "docker", "--replicas", "3", "--kill-leader"];
    let report = demo(&several).await;
    assert_eq!((&report["engine"], &report["replicas"]), (&json!("docker"), &json!(3)));
    every_promise_kept(&report, 30);
}

/// Of a Redis that others use too it takes away its own keys, and leaves theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_of_others_is_left_as_it_was() {
    let server = Redis::with(&["--requirepass", "hidden"]);
    let others = ["{ro:demo-other}:state", "{ro:production}:hosts", "sessions", "{ro:demo-"];
    for key in others {
        server.ask::<()>(&["HSET", key, "a", "b"]);
    }
    let url = server.url();
    let own = ["--jobs", "4", "--engine", "model", "--replicas", "2"];
    let report = demo_with(&own, &[("REDIS_URL", &url)]).await;
    every_promise_kept(&report, 4);
    let mut left: Vec<String> = server.ask(&["KEYS", "*"]);
    left.sort();
    let mut expected = others.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(left, expected);
    // It was this one, and not one of the demo's own.
    let stats: String = server.ask(&["INFO", "commandstats"]);
    assert!(stats.contains("cmdstat_evalsha"), "{stats}");
}

/// One engine for three: one orchestrator is its agent, the others stand by.
#[tokio::test]
async fn three_replicas_share_one_host() {
    let shared = ["--jobs", "12", "--engine", "docker", "--replicas", "3", "--hosts", "shared"];
    let report = demo(&shared).await;
    assert_eq!(report["replicas"], 3);
    every_promise_kept(&report, 12);
}

/// Whatever interrupts it, nothing stays behind.
#[tokio::test]
async fn hosts_of_their_own_vanish_with_an_interrupted_demo() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_runner-orchestrator"))
        .args(["demo", "--jobs", "12", "--job-seconds", "1..40", "--hosts", "own"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = i32::try_from(demo.id().unwrap()).unwrap();
    let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines();
    // The first is done and others run, in containers on a daemon of the demo's own.
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        let first = line.contains(" done ") && !line.contains(" 0 done ");
        said.push(line);
        if first {
            break;
        }
    }
    assert!(said.iter().any(|line| line.contains("hosts of their own")), "{said:#?}");
    let dir = dir_of_its_daemons(pid);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
    while let Some(line) = lines.next_line().await.unwrap() {
        assert!(!line.contains("by force"), "{line}");
    }
    assert!(!demo.wait().await.unwrap().success());
    assert!(!dir.exists(), "{}", dir.display());
    let tag = dir.file_name().unwrap().to_str().unwrap().strip_prefix("hosts-").unwrap();
    for place in ["/run/netns", "/sys/class/net"] {
        let left = std::fs::read_dir(place).unwrap().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains(tag)).collect();
        assert!(left.is_empty(), "{place}: {left:?}");
    }
}

/// Where the daemons that this process has started keep their files.
fn dir_of_its_daemons(pid: i32) -> PathBuf {
    let children = std::fs::read_dir("/proc").unwrap().flatten().filter(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        parent == Some(pid.to_string().as_str())
    });
    let said = |child: std::fs::DirEntry| std::fs::read_to_string(child.path().join("cmdline"));
    let root = children.filter_map(|child| said(child).ok()).find_map(|command| {
        let words: Vec<String> = command.split('\0').map(str::to_owned).collect();
        let flag = words.iter().position(|word| word == "--data-root")?;
        words.get(flag + 1).cloned()
    });
    // Of `hosts-<tag>/<number>/data`.
    PathBuf::from(root.unwrap()).ancestors().nth(2).unwrap().to_owned()
}
