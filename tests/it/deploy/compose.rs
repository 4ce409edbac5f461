//! `docker-compose.yml`, read and run by every Compose that this machine has: the one
//! written in Python (1.29) and the one in Go (2 and later) read it differently.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::engine::Client;
use super::image::{self, Built};
use super::program::{checkout, command, ending, on_path, output, wait_for};

/// A Compose, as the words of its command line.
pub(super) type Words = Vec<String>;

pub(super) fn installed() -> Vec<Words> {
    let mut found: Vec<Words> = Vec::new();
    if ending(command("docker").args(["compose", "version"])).0 == Some(0) {
        found.push(["docker", "compose"].map(str::to_owned).to_vec());
    }
    let newest = checkout().join("target/deploy/compose/bin/docker-compose");
    let standalone = on_path("docker-compose").into_iter().take(1);
    let standalone = standalone.chain(newest.exists().then_some(newest));
    found.extend(standalone.map(|program| vec![program.display().to_string()]));
    assert!(!found.is_empty(), "no Compose here: run tests/setup.sh test");
    found
}

/// A project of the shipped file in a directory of its own, taken down when dropped.
#[derive(Debug)]
struct Project {
    compose: Words,
    name: String,
    dir: TempDir,
}

impl Project {
    /// `.env` is what the README tells people to copy.
    fn new(compose: &Words) -> Self {
        let dir = TempDir::new().unwrap();
        let name = format!("deploy-test-{}", Uuid::new_v4().simple());
        fs::copy(checkout().join("docker-compose.yml"), dir.path().join("docker-compose.yml"))
            .unwrap();
        fs::copy(checkout().join(".env.example"), dir.path().join(".env")).unwrap();
        Self { compose: compose.clone(), name, dir }
    }

    /// What makes it run beside others, with the stand-in as its program: names of its
    /// own, any free port, and checks of its health once a second.
    fn override_for(&self, built: &Built) {
        let service = json!({
            "container_name": self.name,
            "image": built.image,
            "volumes": [built.stand_in()],
            "healthcheck": { "interval": "1s" },
        });
        let version = json!({ "services": { "orchestrator": service } });
        fs::write(self.dir.path().join("docker-compose.override.yml"), version.to_string())
            .unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut compose = command(&self.compose[0]);
        compose.args(&self.compose[1..]).args(["--project-name", &self.name]).args(arguments);
        // Empty: any free port.
        compose.env("PUBLISHED_PORT", "").current_dir(self.dir.path());
        compose
    }

    fn inspect(&self) -> Value {
        let inspect = Client::classic().run(&["inspect", &self.name]);
        serde_json::from_str::<Value>(&inspect).unwrap()[0].take()
    }

    /// What Docker still has of this project.
    fn left(&self) -> String {
        let label = format!("label=com.docker.compose.project={}", self.name);
        let client = Client::classic();
        client.run(&["ps", "--all", "--quiet", "--filter", &label])
            + &client.run(&["network", "ls", "--quiet", "--filter", &label])
            + &client.run(&["volume", "ls", "--quiet", "--filter", &label])
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let (code, said) = ending(&mut self.command(&["down", "--volumes", "--timeout", "5"]));
        assert!(std::thread::panicking() || code == Some(0), "{said}");
    }
}

#[test]
fn every_compose_reads_the_file_without_a_word() {
    for compose in installed() {
        let project = Project::new(&compose);
        let (code, said) = ending(&mut project.command(&["config", "--quiet"]));
        assert_eq!((code, said.as_str()), (Some(0), ""), "{compose:?}");
        let config = output(&mut project.command(&["config"]));
        assert!(config.contains("127.0.0.1"), "{config}");
    }
}

#[test]
fn up_runs_a_healthy_orchestrator_that_only_this_machine_reaches() {
    let built = image::classic();
    for compose in installed() {
        let project = Project::new(&compose);
        project.override_for(&built);
        output(&mut project.command(&["up", "--detach", "--no-build"]));
        let listed = output(&mut project.command(&["ps"]));
        assert!(listed.contains(&project.name), "{compose:?}: {listed}");
        check_container(&project.inspect());
        wait_for("a good health check", Duration::from_secs(30), || {
            (project.inspect()["State"]["Health"]["Status"] == "healthy").then_some(())
        });
        check_reached(&project);
        check_end(&project);
    }
}

/// What the file asks for, as Docker understood it.
fn check_container(container: &Value) {
    let host = &container["HostConfig"];
    let sorted = |list: &Value| {
        let mut list: Vec<String> = serde_json::from_value(list.clone()).unwrap();
        // Newer ones say CAP_SETUID for SETUID.
        for name in &mut list {
            *name = name.replace("CAP_", "");
        }
        list.sort();
        list
    };
    assert_eq!(sorted(&host["CapDrop"]), ["ALL"]);
    assert_eq!(sorted(&host["CapAdd"]), ["SETGID", "SETUID"]);
    assert_eq!(sorted(&host["SecurityOpt"]), ["no-new-privileges:true"]);
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["Privileged"], false);
    assert_eq!(host["Init"], false);
    assert_eq!(host["RestartPolicy"]["Name"], "unless-stopped");
    let rotation = json!({ "max-size": "10m", "max-file": "5" });
    assert_eq!(host["LogConfig"], json!({ "Type": "json-file", "Config": rotation }));
    let ports = host["PortBindings"].as_object().unwrap();
    assert_eq!(ports.keys().collect::<Vec<_>>(), ["8080/tcp"]);
    let published = host["PortBindings"]["8080/tcp"].as_array().unwrap();
    assert!(published.len() == 1 && published[0]["HostIp"] == "127.0.0.1", "{published:?}");
    assert_eq!(container["Config"]["Labels"]["component"], "orchestrator");
    assert_eq!(container["Config"]["Labels"]["managed-by"], Value::Null);
    let grace = container["Config"]["StopTimeout"].as_u64().unwrap();
    assert!(grace >= shutdown_timeout_seconds() + 20, "{grace} s leave no time to clean up");
}

/// The default, as the example file documents it.
fn shutdown_timeout_seconds() -> u64 {
    let example = fs::read_to_string(checkout().join(".env.example")).unwrap();
    let line =
        |line: &str| line.trim_start_matches("# ").strip_prefix("SHUTDOWN_TIMEOUT=")?.parse().ok();
    example.lines().find_map(line).expect("SHUTDOWN_TIMEOUT in .env.example")
}

/// From this machine by the published port; from inside, people reach the outside.
fn check_reached(project: &Project) {
    let client = Client::classic();
    let address = client.run(&["port", &project.name, "8080/tcp"]);
    let address: SocketAddr = address.parse().unwrap();
    assert!(address.ip().is_loopback(), "{address}");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let ping = client.run(&["exec", &project.name, "ping", "-c", "1", "-W", "5", "127.0.0.1"]);
    assert!(ping.contains("1 received"), "{ping}");
    let logs = client.run(&["logs", &project.name]);
    assert!(logs.contains("Docker: OK") && logs.contains("Arguments: serve"), "{logs}");
    assert!(logs.contains("CapPrm:\t0000000000000000"), "{logs}");
}

/// Stopped, it ends by itself long before its time is over; down leaves nothing.
fn check_end(project: &Project) {
    let begun = Instant::now();
    output(&mut project.command(&["stop"]));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(project.inspect()["State"]["ExitCode"], 0);
    output(&mut project.command(&["down"]));
    assert_eq!(project.left(), "");
}
