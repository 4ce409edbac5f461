//! What is in the image and in the stage it is built in, and what must not be there.

use std::path::Path;
use std::process::Stdio;

use super::engine::{Client, PrivateEngine};
use super::image::{self, Built, SECRET, SEEN};
use super::program::{command, output};

#[test]
fn the_classic_builder_makes_an_image_with_its_tools_and_without_secrets() {
    let built = image::classic();
    check_tools(&built);
    check_build_stage(&built);
    check_secrets(&built);
}

#[test]
fn buildkit_makes_the_same_image() {
    let bridge = || Path::new("/sys/class/net/docker0").exists();
    let before = bridge();
    let engine = PrivateEngine::start();
    let built = Built::new(Client::buildkit(engine.socket()));
    check_tools(&built);
    check_build_stage(&built);
    check_secrets(&built);
    drop(built);
    drop(engine);
    // A second engine must not touch the network of the machine's own.
    assert_eq!(bridge(), before);
}

/// Those that the README and the Compose file name, usable without any capability.
fn check_tools(built: &Built) {
    let said = built.shell(
        &built.image,
        "curl --version >/dev/null
         ping -c 1 -W 5 127.0.0.1 >/dev/null
         setpriv --version >/dev/null
         [ -s /etc/ssl/certs/ca-certificates.crt ]
         stat -c '%a %U' /usr/local/bin/*
         getent passwd 65532
         runner-orchestrator --version",
    );
    let expected = [
        "755 root",
        "755 root",
        "orchestrator:x:65532:65532::/nonexistent:/usr/sbin/nologin",
        concat!("runner-orchestrator ", env!("CARGO_PKG_VERSION")),
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

/// The builder was sent what the build reads, and nothing else.
fn check_build_stage(built: &Built) {
    let files = built.shell(&built.build_stage, "cd /src; find . -type f | sort");
    let expected = |file: &str| {
        ["./Cargo.toml", "./Cargo.lock", "./deploy/entrypoint.sh"].contains(&file)
            || file == "./deploy/prebuilt/runner-orchestrator"
            || file.starts_with("./src/")
            || file.starts_with("./benches/")
    };
    let unexpected: Vec<&str> = files.lines().filter(|file| !expected(file)).collect();
    assert_eq!(unexpected, Vec::<&str>::new());
    assert!(files.lines().any(|file| file == "./src/main.rs"), "{files}");
}

/// No layer and no word of the images' descriptions holds a planted secret.
fn check_secrets(built: &Built) {
    // Not through a file: two images are several hundred megabytes.
    let mut save = built.client.command(&["save", &built.image, &built.build_stage]);
    let mut save = save.stdout(Stdio::piped()).spawn().unwrap();
    let mut search = command("grep");
    search.args(["--text", "--only-matching", "--fixed-strings", "-e", SEEN, "-e", SECRET]);
    let found = output(search.stdin(save.stdout.take().unwrap()));
    assert!(save.wait().unwrap().success());
    assert!(found.lines().any(|text| text == SEEN), "the search does not see into the layers");
    assert!(found.lines().all(|text| text == SEEN), "a planted secret is in a layer");
    for image in [&built.image, &built.build_stage] {
        let history = built.client.run(&["history", "--no-trunc", image]);
        let inspect = built.client.run(&["inspect", image]);
        assert!(history.contains("COPY") && inspect.contains("Entrypoint"), "{history}{inspect}");
        assert!(!history.contains(SECRET) && !inspect.contains(SECRET));
    }
}

/// What cargo says of the package as the builder gets it: nothing it names is missing.
#[test]
fn the_build_has_all_that_cargo_asks_for() {
    let context = image::Context::new();
    let mut metadata = command(env!("CARGO"));
    metadata.args(["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"]);
    output(metadata.current_dir(context.path()));
}
