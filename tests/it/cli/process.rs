//! The binary with an environment of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

pub(super) const BINARY: &str = env!("CARGO_BIN_EXE_runner-orchestrator");

/// A command in an empty folder, with nothing in its environment but what is given.
pub(super) fn command(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(args).current_dir(folder).env_clear().envs(env.iter().copied());
    command
}

/// Runs it to its end.
pub(super) fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    command(folder.path(), args, env).output().unwrap()
}

pub(super) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(super) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A program that stays; killed when dropped.
pub(super) struct Running {
    pub(super) child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts it and reads standard output until a line of JSON has this field.
pub(super) fn start(args: &[&str], env: &[(&str, &str)], field: &str) -> (Running, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(folder.path(), args, env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut running = Running { child, _folder: folder };
    let value = loop {
        let Some(line) = lines.next() else {
            panic!("{args:?} ended: {:?}", running.child.wait());
        };
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap_or_default();
        let found = line.get(field).or_else(|| line.get("fields")?.get(field));
        if let Some(value) = found.and_then(Value::as_str) {
            break value.to_owned();
        }
    };
    // What it says later must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (running, value)
}

/// The modelled GitHub as a program of its own; answers its API's address.
pub(super) fn github(more: &[&str]) -> (Running, String) {
    let mut args = vec!["sim", "github", "--repos", "2"];
    args.extend(more);
    let (running, base) = start(&args, &[], "listening");
    (running, format!("{base}/api/v3"))
}

/// What every command that needs a configuration is given.
pub(super) fn settings(api_url: &str) -> Vec<(&str, &str)> {
    vec![
        ("GITHUB_API_URL", api_url),
        ("GITHUB_TOKEN", "sim-token"),
        ("GITHUB_ORG", "acme"),
        ("CLUSTER_NAME", "cli-test"),
    ]
}
