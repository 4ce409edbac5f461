//! Programs of the system, found and run the same way whatever the caller's environment.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::HostsError;

/// Where administrators' programs stand; a user's `PATH` often leaves the half of it out.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a program stands, if it does.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':').map(|dir| Path::new(dir).join(program)).find(|file| file.is_file())
}

/// A program with a clean environment and nothing to read.
pub(super) fn command(program: &str) -> Command {
    let found = find(program).unwrap_or_else(|| PathBuf::from(program));
    let mut command = Command::new(found);
    command.env_clear().env("PATH", PATH).stdin(Stdio::null());
    command
}

/// Runs one to its end; what it wrote to its standard output.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<String, HostsError> {
    let words = || format!("{program} {}", arguments.join(" "));
    let said = command(program)
        .args(arguments)
        .output()
        .map_err(|source| HostsError::Run { command: words(), source })?;
    if said.status.success() {
        return Ok(String::from_utf8_lossy(&said.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&said.stderr).trim().to_owned();
    Err(HostsError::Failed { command: words(), said: text })
}

/// A directory that only we may enter.
pub(super) fn make_dir(dir: &Path) -> Result<(), HostsError> {
    let made = DirBuilder::new().mode(0o700).create(dir);
    made.map_err(|source| HostsError::File { path: dir.to_owned(), source })
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), HostsError> {
    fs::write(path, text).map_err(|source| HostsError::File { path: path.to_owned(), source })
}

/// Short digits that follow from a name, for devices whose names must be short.
pub(super) fn tag(name: &str, digits: usize) -> String {
    let mut tag = format!("{:x}", Sha256::digest(name.as_bytes()));
    tag.truncate(digits);
    tag
}
