//! Running programs to their end and reading what they said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The checkout.
pub(crate) fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program that is killed when it has not ended after two minutes: no step of these
/// tests takes half of that.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "120"]).arg(program.as_ref()).stdin(Stdio::null());
    command
}

/// What the program wrote to its standard output. Panics with all it said when it fails.
pub(crate) fn output(command: &mut Command) -> String {
    let said = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&said.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{command:?}: {}\n{stdout}{stderr}", said.status);
    stdout
}

/// The exit code and what a program wrote to both of its outputs.
pub(crate) fn ending(command: &mut Command) -> (Option<i32>, String) {
    let said = command.output().unwrap();
    let text = [said.stdout, said.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    (said.status.code(), text.concat())
}

/// Asks again until there is an answer; says what for when there is none.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The programs of this name, in the order of `PATH`.
pub(crate) fn on_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).filter(|file| file.is_file()).collect()
}
