//! The image under test, built as a user builds it, from a base that no registry gave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;
use uuid::Uuid;

use super::engine::Client;
use super::program::{checkout, command, ending, output};

/// What stands in every planted file that must never reach a builder.
pub(super) const SECRET: &str = "ghp_planted0secret0that0nobody0may0see";

/// What stands in a planted file that belongs to the sources: the search finds things.
pub(super) const SEEN: &str = "planted-and-expected-among-the-sources";

/// Files with [`SECRET`], each in a place where people keep such things.
const SECRET_FILES: [&str; 11] = [
    ".env",
    ".env.production",
    ".git/config",
    "app.pem",
    "deploy/.env",
    "deploy/app.pem",
    "deploy/prebuilt/.env",
    "docker-compose.override.yml",
    "src/.env",
    "src/github/app.key",
    "target/debug/build.log",
];

/// A checkout with a binary built elsewhere in it, and with secrets lying about.
#[derive(Debug)]
pub(super) struct Context(TempDir);

impl Context {
    pub(super) fn new() -> Self {
        let context = Self(TempDir::new().unwrap());
        for part in [".dockerignore", "Cargo.toml", "Cargo.lock", "benches", "deploy", "src"] {
            // There is a benchmark or not; the rest is checked by the build.
            if checkout().join(part).exists() {
                output(command("cp").arg("-r").arg(checkout().join(part)).arg(context.path()));
            }
        }
        fs::create_dir_all(context.path().join("deploy/prebuilt")).unwrap();
        // Without its line tables it is a quarter of the size.
        output(
            command("strip")
                .arg("-o")
                .arg(context.path().join("deploy/prebuilt/runner-orchestrator"))
                .arg(env!("CARGO_BIN_EXE_runner-orchestrator")),
        );
        for file in SECRET_FILES {
            context.plant(file, SECRET);
        }
        context.plant("src/seen.txt", SEEN);
        context
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    fn plant(&self, file: &str, text: &str) {
        let file = self.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}

/// The stand-in as a program that anybody may run, whatever the checkout's umask was.
fn stand_in() -> TempDir {
    let dir = TempDir::new().unwrap();
    let script = dir.path().join("stand_in");
    fs::write(&script, include_str!("stand_in.pl")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// The tar of a Debian base, made at most once for this checkout.
pub(crate) fn base_tar() -> PathBuf {
    let path = output(command(checkout().join("tests/setup.sh")).arg("base"));
    checkout().join(path.trim())
}

/// The image and the stage it is built in, removed from their engine in the end.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) client: Client,
    pub(super) image: String,
    pub(super) build_stage: String,
    base: String,
    stand_in: TempDir,
}

impl Built {
    pub(super) fn new(client: Client) -> Self {
        let name = format!("runner-orchestrator-test-{}", Uuid::new_v4().simple());
        let built = Self {
            client,
            image: format!("{name}:image"),
            build_stage: format!("{name}:build"),
            base: format!("{name}:base"),
            stand_in: stand_in(),
        };
        let context = Context::new();
        built.client.run(&["import", &base_tar().display().to_string(), &built.base]);
        built.build(&context, &built.build_stage, &["--target", "build"]);
        built.build(&context, &built.image, &[]);
        built
    }

    /// Builds as documented, but with nothing to be fetched: no network, no registry.
    fn build(&self, context: &Context, tag: &str, more: &[&str]) {
        let build_base = format!("BUILD_BASE={}", self.base);
        let runtime_base = format!("RUNTIME_BASE={}", self.base);
        let mut build = self.client.command(&["build", "--network", "none", "--tag", tag]);
        build.args(["--file", "deploy/Dockerfile", "--build-arg", &build_base]);
        build.args(["--build-arg", &runtime_base]).args(more).arg(".");
        output(build.current_dir(context.path()));
    }

    /// The mount that puts the stand-in into the program's place.
    pub(super) fn stand_in(&self) -> String {
        let script = self.stand_in.path().join("stand_in");
        format!("{}:/usr/local/bin/runner-orchestrator:ro", script.display())
    }

    /// What a shell says in a container of one of the images, without network and rights.
    pub(super) fn shell(&self, image: &str, script: &str) -> String {
        let without = ["--network", "none", "--cap-drop", "ALL", "--read-only"];
        let shell = ["--security-opt", "no-new-privileges:true", "--entrypoint", "sh"];
        let run = [&["run", "--rm"], &without[..], &shell, &[image, "-euc", script]].concat();
        self.client.run(&run)
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        // In this order: an image goes before what it was built from.
        for image in [&self.image, &self.build_stage, &self.base] {
            let (code, said) = ending(&mut self.client.command(&["rmi", image]));
            assert!(std::thread::panicking() || code == Some(0), "{said}");
        }
    }
}

static CLASSIC: Mutex<Weak<Built>> = Mutex::new(Weak::new());

/// The image built by the classic builder on this machine's engine: shared by the tests
/// that run at the same time, removed with the last of them.
pub(super) fn classic() -> Arc<Built> {
    // Held while building: the others wait for this one.
    let mut slot = CLASSIC.lock().unwrap_or_else(PoisonError::into_inner);
    slot.upgrade().unwrap_or_else(|| {
        let built = Arc::new(Built::new(Client::classic()));
        *slot = Arc::downgrade(&built);
        built
    })
}
