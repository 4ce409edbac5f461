//! `deploy/cluster/`: each file read by the program it is for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::compose::installed;
use super::program::{checkout, command, ending, on_path, output};

fn shipped() -> PathBuf {
    checkout().join("deploy/cluster")
}

/// The directory as an operator has it after the first two steps of its README.
fn prepared() -> TempDir {
    let dir = TempDir::new().unwrap();
    for entry in fs::read_dir(shipped()).unwrap().flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    output(&mut command(dir.path().join("make-secrets.sh")));
    fs::copy(checkout().join(".env.example"), dir.path().join(".env")).unwrap();
    dir
}

#[test]
fn every_compose_reads_both_files_without_a_word() {
    let dir = prepared();
    for compose in installed() {
        for file in ["docker-compose.yml", "per-host.yml"] {
            let ask = |more: &[&str]| {
                let mut words = command(&compose[0]);
                words.args(&compose[1..]).args(["--file", file, "config"]).args(more);
                words.current_dir(dir.path()).env("ADVERTISE_URL", "http://10.0.0.7:8080");
                words
            };
            let (code, said) = ending(&mut ask(&["--quiet"]));
            assert_eq!((code, said.as_str()), (Some(0), ""), "{compose:?} {file}");
            let config = output(&mut ask(&[]));
            assert!(config.contains("/run/secrets/redis_url"), "{config}");
            let secret = fs::read_to_string(dir.path().join("secrets/redis_password")).unwrap();
            assert!(!config.contains(&secret), "{compose:?} {file} shows a password");
        }
    }
}

#[test]
fn a_replica_per_host_does_not_start_without_its_own_address() {
    let dir = prepared();
    for compose in installed() {
        let mut words = command(&compose[0]);
        words.args(&compose[1..]).args(["--file", "per-host.yml", "config", "--quiet"]);
        let (code, said) = ending(words.current_dir(dir.path()).env_remove("ADVERTISE_URL"));
        assert!(code != Some(0) && said.contains("ADDRESS-OF-THIS-MACHINE"), "{said}");
    }
}

#[test]
fn secrets_are_made_once_and_fit_each_other() {
    let dir = prepared();
    let read = |name: &str| fs::read_to_string(dir.path().join("secrets").join(name)).unwrap();
    let made = ["redis_url", "redis_password", "cluster_secret", "api_token"].map(read);
    let [url, password, ..] = &made;
    assert_eq!(*url, format!("redis://:{password}@redis:6379/0"));
    assert!(made.iter().all(|secret| secret.len() >= 64), "{made:?}");
    output(&mut command(dir.path().join("make-secrets.sh")));
    assert_eq!(["redis_url", "redis_password", "cluster_secret", "api_token"].map(read), made);
}

/// The server starts with the shipped file and has what the orchestrators ask for.
#[test]
fn redis_takes_its_settings() {
    let Some(server) = on_path("redis-server").into_iter().next() else {
        panic!("no redis-server here: run tests/setup.sh test");
    };
    let dir = TempDir::new().unwrap();
    let settings = fs::read_to_string(shipped().join("redis.conf")).unwrap();
    // On a socket of the test's own, with its files in the test's directory.
    let socket = dir.path().join("redis.sock");
    let settings = settings
        .replace("dir /data", &format!("dir {}", dir.path().display()))
        .replace("bind * -::*", &format!("port 0\nunixsocket {}", socket.display()));
    let file = dir.path().join("redis.conf");
    fs::write(&file, settings + "requirepass hidden\n").unwrap();
    let mut child = std::process::Command::new(server)
        .arg(&file)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let ask = |words: &[&str]| {
        let mut client = command("redis-cli");
        client.args(["-s", socket.to_str().unwrap(), "--no-auth-warning", "-a", "hidden"]);
        ending(client.args(words)).1
    };
    super::program::wait_for("redis", std::time::Duration::from_secs(20), || {
        (ask(&["ping"]).trim() == "PONG").then_some(())
    });
    let policy = ask(&["config", "get", "maxmemory-policy"]);
    let durable = ask(&["config", "get", "appendonly"]);
    let flushed = ask(&["flushall"]);
    let _ = child.kill();
    child.wait().unwrap();
    assert!(policy.contains("noeviction") && durable.contains("yes"), "{policy}{durable}");
    assert!(flushed.contains("unknown command"), "{flushed}");
}

#[test]
fn haproxy_accepts_its_settings() {
    let Some(haproxy) = on_path_with_sbin("haproxy") else {
        panic!("no haproxy here: run tests/setup.sh test");
    };
    let (code, said) =
        ending(command(haproxy).args(["-c", "-f"]).arg(shipped().join("haproxy.cfg")));
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.to_lowercase().contains("warning"), "{said}");
}

fn on_path_with_sbin(name: &str) -> Option<PathBuf> {
    let system = ["/usr/sbin", "/usr/local/sbin"].map(|dir| Path::new(dir).join(name));
    on_path(name).into_iter().chain(system).find(|file| file.is_file())
}

#[test]
fn prometheus_accepts_its_settings_and_rules() {
    let dir = prepared();
    // promtool insists on seeing the file that the container gets from Compose.
    let file = dir.path().join("prometheus.yml");
    let settings = fs::read_to_string(&file).unwrap();
    let secrets = dir.path().join("secrets").display().to_string();
    fs::write(&file, settings.replace("/run/secrets", &secrets)).unwrap();
    let (code, said) = ending(command("promtool").args(["check", "config"]).arg(&file));
    assert!(code == Some(0) && said.contains("13 rules found"), "{said}");
}

/// A rule on a metric that does not exist never fires, and nobody notices.
#[test]
fn rules_name_only_metrics_that_exist() {
    let rules = fs::read_to_string(shipped().join("rules.yml")).unwrap();
    let mut declared = String::new();
    for dir in ["src/telemetry", "src/telemetry/metrics"] {
        for entry in fs::read_dir(checkout().join(dir)).unwrap().flatten() {
            declared += &fs::read_to_string(entry.path()).unwrap_or_default();
        }
    }
    let words = rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let named: BTreeSet<&str> = words.filter(|word| word.starts_with("orchestrator_")).collect();
    assert!(named.len() > 8, "{named:?}");
    let missing: Vec<_> =
        named.iter().filter(|name| !declared.contains(&format!("\"{name}\""))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// What must be seen for an alert: a series and its values every 15 seconds, when it must
/// still be quiet, and when it must fire.
struct Story {
    alert: &'static str,
    series: &'static str,
    values: &'static str,
    quiet: &'static str,
    fires: &'static str,
}

const fn story(
    alert: &'static str,
    series: &'static str,
    values: &'static str,
    quiet: &'static str,
    fires: &'static str,
) -> Story {
    Story { alert, series, values, quiet, fires }
}

/// One for each alert. Most are well for a minute first.
const STORIES: [Story; 13] = [
    story("OrchestratorDown", "up{job='orchestrator'}", "1x4 0x60", "2m", "5m"),
    story("OrchestratorNoLeader", LEADER, "1x4 0x60", "2m", "4m"),
    story("OrchestratorLeaderChangesOften", "orchestrator_cluster_term", "1+1x60", "1m", "4m"),
    story("OrchestratorStoreDown", "orchestrator_cluster_store_up", "1x4 0x60", "2m", "4m"),
    story(
        "OrchestratorStoreUnsound",
        "orchestrator_cluster_store_warnings",
        "0x4 1x60",
        "2m",
        "4m",
    ),
    story(
        "OrchestratorReplicasDiffer",
        "orchestrator_cluster_replica_problems{problem='clock'}",
        "0x4 1x60",
        "6m",
        "8m",
    ),
    story(
        "OrchestratorHostLost",
        "orchestrator_cluster_hosts{liveness='lost'}",
        "0x4 1x60",
        "2m",
        "4m",
    ),
    story(
        "OrchestratorDockerDown",
        "orchestrator_cluster_hosts_docker_down",
        "0x4 1x60",
        "3m",
        "5m",
    ),
    // The clock of the rules begins at 0: a job queued at 60 has waited for long at 660.
    story(
        "OrchestratorJobsWait",
        "orchestrator_cluster_oldest_queued_job_timestamp_seconds{pool='p'}",
        "0x4 60x100",
        "11m",
        "14m",
    ),
    story(
        "OrchestratorNoRoom",
        "orchestrator_cluster_runners_unplaced{pool='p'}",
        "0x4 2x100",
        "11m",
        "13m",
    ),
    story(
        "OrchestratorBreakerOpen",
        "orchestrator_cluster_breaker_active{pool='p'}",
        "0x4 1x60",
        "3m",
        "5m",
    ),
    story(
        "OrchestratorGitHubLimit",
        "orchestrator_cluster_github_rate_limit_remaining",
        "5000x4 499x60",
        "6m",
        "8m",
    ),
    story("OrchestratorFrozen", "orchestrator_cluster_frozen", "0x4 1x160", "31m", "33m"),
];
const LEADER: &str = "orchestrator_cluster_leader";

/// Whether promtool finds that exactly these alerts fire at these times.
fn told(series: &[(&str, &str)], firing: &[(&str, Option<&str>)]) -> (Option<i32>, String) {
    let dir = prepared();
    let series = series
        .iter()
        .map(|(series, values)| serde_json::json!({"series": series, "values": values}));
    let expected = firing.iter().map(|(at, alert)| {
        let samples = alert.map(|alert| {
            let labels = format!("{{alertname=\"{alert}\"}}");
            serde_json::json!({"labels": labels, "value": 1})
        });
        serde_json::json!({
            "expr": "count by (alertname) (ALERTS{alertstate='firing'})",
            "eval_time": at,
            "exp_samples": samples.into_iter().collect::<Vec<_>>(),
        })
    });
    let test = serde_json::json!({
        "rule_files": ["rules.yml"],
        "evaluation_interval": "15s",
        "tests": [{
            "interval": "15s",
            "input_series": series.collect::<Vec<_>>(),
            "promql_expr_test": expected.collect::<Vec<_>>(),
        }],
    });
    // JSON is YAML.
    let file = dir.path().join("story.yml");
    fs::write(&file, Value::to_string(&test)).unwrap();
    ending(command("promtool").args(["test", "rules"]).arg(&file))
}

#[test]
fn every_alert_fires_when_it_should_and_no_other() {
    let rules = fs::read_to_string(shipped().join("rules.yml")).unwrap();
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    assert!(alerts.eq(STORIES.iter().map(|story| story.alert)), "one story for each alert");
    for Story { alert, series, values, quiet, fires } in STORIES {
        let mut seen = vec![(series, values)];
        if series != LEADER {
            seen.push((LEADER, "1x200"));
        }
        let (code, said) = told(&seen, &[(quiet, None), (fires, Some(alert))]);
        assert_eq!(code, Some(0), "{alert}: {said}");
    }
}

#[test]
fn a_cluster_that_is_well_or_tells_nothing_of_github_gives_no_alert() {
    let well = [
        (LEADER, "1x200"),
        ("up{job='orchestrator'}", "1x200"),
        ("orchestrator_cluster_term", "7x200"),
        ("orchestrator_cluster_store_up", "1x200"),
        ("orchestrator_cluster_oldest_queued_job_timestamp_seconds{pool='p'}", "0x200"),
        // Not known.
        ("orchestrator_cluster_github_rate_limit_remaining", "-1x200"),
    ];
    let (code, said) = told(&well, &[("45m", None)]);
    assert_eq!(code, Some(0), "{said}");
    // No replica at all tells anything.
    let (code, said) = told(&[], &[("3m", Some("OrchestratorNoLeader"))]);
    assert_eq!(code, Some(0), "{said}");
}

/// What an operator is told, with the names filled in.
#[test]
fn an_alert_names_the_replica() {
    let dir = prepared();
    let story = serde_json::json!({
        "rule_files": ["rules.yml"],
        "evaluation_interval": "15s",
        "tests": [{
            "interval": "15s",
            "input_series":
                [{"series": "orchestrator_cluster_store_up{instance='a'}", "values": "0x40"}],
            "alert_rule_test": [{
                "eval_time": "4m", "alertname": "OrchestratorStoreDown", "exp_alerts": [{
                    "exp_labels": {"severity": "critical", "instance": "a"},
                    "exp_annotations": {
                        "summary": "Replica a cannot read Redis",
                        "description": "It keeps what runs and starts nothing new.",
                    },
                }],
            }],
        }],
    });
    let file = dir.path().join("story.yml");
    fs::write(&file, Value::to_string(&story)).unwrap();
    let (code, said) = ending(command("promtool").args(["test", "rules"]).arg(&file));
    assert_eq!(code, Some(0), "{said}");
}

/// Where systemd is: it understands every line, and finds little that is left open.
#[test]
fn systemd_accepts_the_unit() {
    let Some(analyze) = on_path("systemd-analyze").into_iter().next() else { return };
    let dir = TempDir::new().unwrap();
    let unit = fs::read_to_string(shipped().join("runner-orchestrator.service")).unwrap();
    let program = env!("CARGO_BIN_EXE_runner-orchestrator");
    let file = dir.path().join("runner-orchestrator.service");
    fs::write(&file, unit.replace("/usr/local/bin/runner-orchestrator", program)).unwrap();
    let (code, said) = ending(command(&analyze).arg("verify").arg(&file));
    assert_eq!((code, said.as_str()), (Some(0), ""));
    // Tenths of the exposure level.
    let mut security = command(&analyze);
    security.args(["security", "--offline=yes", "--threshold=20"]).arg(&file);
    let (code, said) = ending(&mut security);
    assert_eq!(code, Some(0), "{said}");
}
