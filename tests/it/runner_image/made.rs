//! The image under test: the same Dockerfile, with what is downloaded elsewhere stood in for
//! and served by the test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use uuid::Uuid;

use crate::it::deploy::engine::{Client, Container};
use crate::it::deploy::image::base_tar;
use crate::it::deploy::program::{checkout, command, ending, output, wait_for};

/// What the stand-in says of itself.
const VERSION: &str = "0.0.0";

/// A full build fetches its packages; on a slow day that takes minutes.
const BUILD_SECONDS: &str = "900";

/// What is downloaded, served on a port of this machine's own.
#[derive(Debug)]
pub(super) struct Downloads {
    dir: TempDir,
    address: SocketAddr,
}

impl Downloads {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let tree = dir.path().join("tree");
        let place = |file: &str, text: &str| {
            let file = tree.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
            output(command("chmod").arg("0755").arg(&file));
        };
        place("bin/Runner.Listener", include_str!("listener.sh"));
        place("externals/node24/bin/node", "#!/bin/sh\necho v24.0.0\n");
        let tarball = dir.path().join("runner.tar.gz");
        output(command("tar").arg("-C").arg(&tree).arg("-czf").arg(tarball).arg("."));
        fs::write(dir.path().join("buildx"), include_str!("buildx.sh")).unwrap();
        fs::copy(compose(), dir.path().join("compose")).unwrap();
        let address = serve(dir.path().to_path_buf());
        Self { dir, address }
    }

    /// `--build-arg` by `--build-arg`, all that names a download.
    pub(super) fn arguments(&self) -> Vec<String> {
        let of = |what: &str, file: &str| {
            let bytes = fs::read(self.dir.path().join(file)).unwrap();
            let sum = format!("{:x}", Sha256::digest(bytes));
            [format!("{what}_URL=http://{}/{file}", self.address), format!("{what}_SHA256={sum}")]
        };
        let downloads = [("RUNNER", "runner.tar.gz"), ("BUILDX", "buildx"), ("COMPOSE", "compose")];
        downloads.iter().flat_map(|(what, file)| of(what, file)).collect()
    }
}

/// A real Compose, as `tests/setup.sh` gets it or the machine has it.
fn compose() -> PathBuf {
    let plugins = ["/usr/libexec", "/usr/lib", "/usr/local/libexec", "/usr/local/lib"];
    let plugins = plugins.map(|dir| PathBuf::from(dir).join("docker/cli-plugins/docker-compose"));
    let own = checkout().join("target/deploy/compose/bin/docker-compose");
    std::iter::once(own)
        .chain(plugins)
        .find(|file| file.exists())
        .expect("run tests/setup.sh test: no Compose that is a plugin")
}

/// Serves the files of a directory until the process ends.
fn serve(dir: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut request = String::new();
            let _ = BufReader::new(&client).read_line(&mut request);
            let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
            let (status, body) = match fs::read(dir.join(name)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            let _ = (&client).write_all(&[head.as_bytes(), &body[..]].concat());
        }
    });
    address
}

/// A Debian base on this machine's engine, removed in the end.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) client: Client,
    pub(super) name: String,
}

impl Base {
    pub(super) fn new() -> Self {
        let name = format!("runner-image-test-{}:base", Uuid::new_v4().simple());
        let client = Client::classic();
        client.run(&["import", &base_tar().display().to_string(), &name]);
        Self { client, name }
    }

    /// Builds as documented. The builder's containers reach the test by the host's network.
    pub(super) fn build(&self, tag: &str, arguments: &[String]) -> Command {
        let mut build = Command::new("timeout");
        build.args(["-k", "5", BUILD_SECONDS, "docker", "build", "--force-rm"]);
        build.args(["--network", "host", "--tag", tag, "--file", "runner-image/Dockerfile"]);
        let own = [
            format!("BASE={}", self.name),
            format!("RUNNER_VERSION={VERSION}"),
            // Half a gigabyte of compilers that no test asks for.
            "PACKAGES=".to_owned(),
        ];
        for argument in own.iter().chain(arguments) {
            build.args(["--build-arg", argument]);
        }
        build.arg(".").env("DOCKER_BUILDKIT", "0").current_dir(checkout()).stdin(Stdio::null());
        build
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let _ = ending(&mut self.client.command(&["rmi", &self.name]));
    }
}

/// The image, removed in the end.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) base: Base,
    pub(super) downloads: Downloads,
}

impl Image {
    fn new() -> Self {
        let (base, downloads) = (Base::new(), Downloads::new());
        let name = base.name.replace(":base", ":image");
        output(&mut base.build(&name, &downloads.arguments()));
        Self { name, base, downloads }
    }

    pub(super) fn client(&self) -> &Client {
        &self.base.client
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let (code, said) = ending(&mut self.client().command(&["rmi", &self.name]));
        assert!(std::thread::panicking() || code == Some(0), "{said}");
    }
}

static IMAGE: Mutex<Weak<Image>> = Mutex::new(Weak::new());

/// Shared by the tests that run at the same time, removed with the last of them.
pub(super) fn image() -> Arc<Image> {
    // Held while building: the others wait for this one.
    let mut slot = IMAGE.lock().unwrap_or_else(PoisonError::into_inner);
    slot.upgrade().unwrap_or_else(|| {
        let image = Arc::new(Image::new());
        *slot = Arc::downgrade(&image);
        image
    })
}

/// A just-in-time configuration whose one job is what the stand-in is told here.
pub(super) fn configuration(stand_in: &Value) -> String {
    let runner = json!({ "AgentId": 1, "AgentName": "r", "StandIn": stand_in });
    let file = |value: &Value| STANDARD.encode(value.to_string());
    let files = json!({
        ".runner": file(&runner),
        ".credentials": file(&json!({ "Scheme": "OAuth", "Data": { "Secret": CANARY } })),
        ".credentials_rsaparams": file(&json!({})),
    });
    STANDARD.encode(files.to_string())
}

/// Stands in the credentials, and must be seen nowhere else.
pub(super) const CANARY: &str = "canary-secret-of-one-runner";

/// Runs a container to its end, with `line` on its standard input: exit code and output.
pub(super) fn run(image: &Image, arguments: &[&str], line: Option<&str>) -> (Option<i32>, String) {
    let mut docker = command("docker");
    docker.args(["run", "--rm", "--interactive", "--init"]).args(arguments).arg(&image.name);
    docker.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = docker.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    if let Some(line) = line {
        writeln!(input, "{line}").unwrap();
        drop(input);
        return said(child.wait_with_output().unwrap());
    }
    // Open and silent, as of an orchestrator that died.
    let said = said(child.wait_with_output().unwrap());
    drop(input);
    said
}

fn said(end: std::process::Output) -> (Option<i32>, String) {
    let text = [end.stdout, end.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    (end.status.code(), text.concat())
}

/// A script beside this file.
pub(super) fn script(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/runner_image").join(name);
    fs::read_to_string(file).unwrap()
}

/// A container in the background whose standard input gets `line`.
pub(super) fn fed(image: &str, line: &str) -> Container {
    let client = Client::classic();
    let create = client.run(&["create", "--interactive", "--init", image]);
    let container = Container { id: create, client };
    let mut attach = command("docker");
    attach.args(["start", "--attach", "--interactive", &container.id]);
    attach.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut attach = attach.stderr(Stdio::null()).spawn().unwrap();
    let mut input = attach.stdin.take().unwrap();
    writeln!(input, "{line}").unwrap();
    drop(input);
    // It ends with the container.
    std::thread::spawn(move || attach.wait());
    wait_for("the container to run", Duration::from_secs(20), || {
        (container.inspect("{{.State.Running}}") == "true").then_some(())
    });
    container
}
