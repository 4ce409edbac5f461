//! The shell scripts: clean, repeatable, and helpful to those who are not root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;

use super::program::{checkout, command, ending, on_path, output};

const SCRIPTS: [&str; 10] = [
    ".ci/run",
    "deploy/cluster/make-secrets.sh",
    "deploy/entrypoint.sh",
    "runner-image/entrypoint.sh",
    "runner-image/fetch.sh",
    "runner-image/smoke-test.sh",
    "runner-image/sudo.sh",
    "tests/it/runner_image/buildx.sh",
    "tests/it/runner_image/listener.sh",
    "tests/setup.sh",
];

#[test]
fn scripts_have_nothing_that_shellcheck_warns_of() {
    for script in SCRIPTS {
        let file = checkout().join(script);
        assert_ne!(fs::metadata(&file).unwrap().permissions().mode() & 0o111, 0, "{script}");
        output(command("shellcheck").arg(file));
    }
}

/// On a machine that has everything it says and does nothing.
#[test]
fn set_up_again_is_silent() {
    let setup = checkout().join("tests/setup.sh");
    assert_eq!(ending(command(&setup).arg("demo")), (Some(0), String::new()));
    let (code, said) = ending(command(&setup).arg("test"));
    // Where the newest Compose cannot be had, that is said every time.
    let silent = |line: &str| line.starts_with("setup: the Compose file is tested with ");
    assert!(code == Some(0) && said.lines().all(silent), "{said}");
}

#[test]
fn set_up_of_nothing_known_is_refused() {
    let (code, said) = ending(command(checkout().join("tests/setup.sh")).arg("everything"));
    assert_eq!((code, said.starts_with("usage: ")), (Some(2), true), "{said}");
}

/// A copy of the script that user `nobody` may run, with hardly any program around.
fn bare(dir: &Path, programs: &[&str]) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    for part in ["tests", "bin"] {
        fs::create_dir(dir.join(part)).unwrap();
    }
    fs::copy(checkout().join("tests/setup.sh"), dir.join("tests/setup.sh")).unwrap();
    for program in programs {
        symlink(on_path(program).first().unwrap(), dir.join("bin").join(program)).unwrap();
    }
}

fn as_nobody(dir: &Path, what: &str, docker_host: &str) -> (Option<i32>, String) {
    let mut setpriv = command("setpriv");
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]);
    setpriv.args(["env", &format!("PATH={}", dir.join("bin").display())]);
    setpriv.arg(format!("DOCKER_HOST={docker_host}"));
    ending(setpriv.arg("/bin/bash").arg(dir.join("tests/setup.sh")).arg(what))
}

/// Nothing is there, and whoever asks may not install it: they are told what does.
#[test]
fn without_rights_it_says_what_to_run() {
    let dir = TempDir::new().unwrap();
    bare(dir.path(), &["dirname", "id", "sort"]);
    let (code, said) = as_nobody(dir.path(), "test", "");
    assert_eq!(code, Some(1), "{said}");
    let packages = said.split_once("run as root: apt-get install ").unwrap().1.trim();
    let packages: Vec<&str> = packages.split(' ').collect();
    let among = ["busybox-static", "gcc", "prometheus"];
    assert!(among.iter().all(|package| packages.contains(package)), "{said}");
    assert!(packages.is_sorted_by(|one, next| one < next), "each once: {said}");
}

/// The demo needs no engine and goes on; the tests do not.
#[test]
fn an_engine_that_does_not_answer_stops_the_tests_only() {
    let dir = TempDir::new().unwrap();
    bare(dir.path(), &["dirname", "id", "sort", "docker", "cc"]);
    let nowhere = "unix:///nonexistent/docker.sock";
    let (code, said) = as_nobody(dir.path(), "demo", nowhere);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("no Docker engine answers at DOCKER_HOST={nowhere}")), "{said}");
}
