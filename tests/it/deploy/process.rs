//! The process in the container: who it is, what it may do, how it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::engine::Container;
use super::image::{self, Built};
use super::program::{ending, wait_for};

const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// As in the Compose file.
const HARDENED: [&str; 8] = [
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--cap-add=SETUID",
    "--cap-add=SETGID",
    "--security-opt=no-new-privileges:true",
    "--network=none",
    "--log-driver=json-file",
];

/// As `docker run` does it by itself.
const PLAIN: [&str; 1] = ["--network=none"];

/// Starts the stand-in in a container of the image.
fn start(built: &Built, flags: &[&str], arguments: &[&str]) -> Container {
    let mount = built.stand_in();
    let given = [flags, &["--volume", &mount, &built.image], arguments].concat();
    Container::start(&built.client, &given)
}

/// What the stand-in says of itself, by name.
fn facts(said: &str) -> BTreeMap<&str, String> {
    let fact = |line: &'_ str| -> Option<(usize, String)> {
        let (name, value) = line.split_once(':')?;
        Some((name.len(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    said.lines().filter_map(|line| fact(line).map(|(end, value)| (&line[..end], value))).collect()
}

/// A user without rights: no uid or gid 0, no capability in force, none to be had.
fn check_rights(said: &str, user: &str, group: &str) {
    let facts = facts(said);
    let four = |id: &str| [id; 4].join(" ");
    assert_eq!((&facts["Uid"], &facts["Gid"]), (&four(user), &four(group)), "{said}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(facts[set], "0000000000000000", "{set} in {said}");
    }
    assert_eq!(facts["Arguments"], "serve");
}

fn groups(said: &str) -> Vec<u32> {
    facts(said)["Groups"].split(' ').map(|group| group.parse().unwrap()).collect()
}

/// A socket of a group that no machine has, on which somebody answers like Docker.
fn foreign_socket(built: &Built, dir: &Path, group: u32) {
    let listener = UnixListener::bind(dir.join("docker.sock")).unwrap();
    let mount = format!("{}:/dir", dir.display());
    let script = format!("chown 0:{group} /dir/docker.sock && chmod 0660 /dir/docker.sock");
    let image = [built.image.as_str(), "-c", &script];
    let shell = ["run", "--rm", "--network=none", "--entrypoint=sh", "--volume", &mount];
    built.client.run(&[&shell[..], &image].concat());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nOK");
        }
    });
}

#[test]
fn the_process_has_the_group_of_the_docker_socket_and_no_rights() {
    let built = image::classic();
    for flags in [&HARDENED[..], &PLAIN] {
        let real = format!("{DOCKER_SOCKET}:{DOCKER_SOCKET}");
        let container = start(&built, &[flags, &["--volume", &real]].concat(), &[]);
        let said = container.logs_until("ready");
        check_rights(&said, "65532", "65532");
        let group = std::fs::metadata(DOCKER_SOCKET).unwrap().gid();
        assert_eq!(BTreeSet::from_iter(groups(&said)), BTreeSet::from([group, 65_532]));
        assert_eq!((&*facts(&said)["Docker"], &*facts(&said)["NoNewPrivs"]), ("OK", "1"));
    }
}

#[test]
fn a_group_unknown_to_everybody_is_found_and_works() {
    let built = image::classic();
    let dir = TempDir::new().unwrap();
    foreign_socket(&built, dir.path(), 54_321);
    let mount = format!("{}:/run/engine", dir.path().display());
    let socket = ["--volume", &mount, "--env=DOCKER_SOCKET=/run/engine/docker.sock"];
    // The spelling with the prefix wins; the other one leads nowhere.
    let by_prefix = "--env=ORCHESTRATOR_DOCKER_HOST=unix:///run/engine/docker.sock";
    let by_prefix = [by_prefix, "--env=DOCKER_HOST=unix:///nowhere"];
    let plain = ["--env=DOCKER_HOST=unix:///run/engine/docker.sock"];
    for (flags, name) in [(&HARDENED[..], &by_prefix[..]), (&PLAIN, &plain)] {
        let said = start(&built, &[flags, &socket, name].concat(), &[]).logs_until("ready");
        check_rights(&said, "65532", "65532");
        assert_eq!(groups(&said), [54_321, 65_532]);
        assert_eq!(facts(&said)["Docker"], "OK");
    }
}

#[test]
fn without_a_socket_and_as_somebody_else_it_still_starts() {
    let built = image::classic();
    let tcp = ["--env=DOCKER_HOST=tcp://engine.invalid:2375"];
    let said = start(&built, &[&HARDENED[..], &tcp].concat(), &[]).logs_until("ready");
    check_rights(&said, "65532", "65532");
    assert_eq!(groups(&said), [65_532]);
    let chosen = ["--user=4321:4322", "--cap-drop=ALL"];
    let said = start(&built, &[&PLAIN[..], &chosen].concat(), &["serve"]).logs_until("ready");
    check_rights(&said, "4321", "4322");
}

/// TERM reaches the program itself, as process 1 and under an init.
#[test]
fn told_to_stop_the_process_ends_by_itself() {
    let built = image::classic();
    let with_init = ["--network=none", "--init"];
    for (flags, first) in [(&PLAIN[..], true), (&HARDENED, true), (&with_init, false)] {
        let container = start(&built, flags, &[]);
        let said = container.logs_until("ready");
        assert_eq!(facts(&said)["Pid"] == "1", first, "{said}");
        let begun = Instant::now();
        built.client.run(&["stop", "--time", "30", &container.id]);
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        let said = container.logs();
        assert!(said.ends_with("terminated\n"), "{flags:?}: {said}");
        assert_eq!(container.inspect("{{.State.ExitCode}}"), "0");
    }
}

/// What it ends with is what the container ends with.
#[test]
fn the_programs_own_exit_code_comes_out() {
    let built = image::classic();
    let image = built.image.as_str();
    let wrong = [&["run", "--rm"], &HARDENED[..], &[image, "--no-such-flag"]].concat();
    let (code, said) = ending(&mut built.client.command(&wrong));
    assert_eq!(code, Some(2), "{said}");
    let version = [&["run", "--rm"], &HARDENED[..], &[image, "--version"]].concat();
    assert!(built.client.run(&version).ends_with(env!("CARGO_PKG_VERSION")));
}

/// The program itself, as process 1, where neither GitHub nor Docker answers: it serves,
/// and ends well when told to.
#[test]
fn the_program_serves_and_ends_in_the_container() {
    let built = image::classic();
    let settings = [
        "--env=GITHUB_TOKEN=ghp_given0to0the0container",
        "--env=GITHUB_REPO=owner/name",
        "--env=GITHUB_API_URL=http://127.0.0.1:9",
        "--env=DOCKER_HOST=unix:///nowhere/docker.sock",
    ];
    let container =
        Container::start(&built.client, &[&HARDENED[..], &settings, &[&built.image]].concat());
    let healthy = ["exec", &container.id, "curl", "-fsS", "http://localhost:8080/livez"];
    wait_for("an answer of the API", Duration::from_secs(30), || {
        (ending(&mut built.client.command(&healthy)).0 == Some(0)).then_some(())
    });
    built.client.run(&["stop", "--time", "30", &container.id]);
    let said = container.logs();
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "0", "{said}");
    assert!(!said.contains("given0to0the0container"), "{said}");
}
