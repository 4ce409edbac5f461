//! The image itself: what is in it, and what a build refuses.

use serde_json::Value;

use super::made::image;
use crate::it::deploy::program::ending;

/// Beyond this a pull holds a host up, and some registries refuse it.
const LAYER_BYTES_MAX: u64 = 500_000_000;

#[test]
fn it_says_what_it_is_and_is_nobodys_root() {
    let image = image();
    let seen: Value = serde_json::from_str(&image.client().run(&["inspect", &image.name])).unwrap();
    let config = &seen[0]["Config"];
    assert_eq!(config["User"], "runner");
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!(config["Entrypoint"][0], "/usr/local/bin/runner-entrypoint");
    let labels = &config["Labels"];
    assert_eq!(labels["actions-runner-version"], "0.0.0");
    assert_eq!(labels["org.opencontainers.image.licenses"], "MIT");
    let history = ["history", "--no-trunc", "--human=false", "--format", "{{.Size}}"];
    let layers = image.client().run(&[&history[..], &[&image.name]].concat());
    let sizes: Vec<u64> = layers.lines().map(|size| size.parse().unwrap()).collect();
    assert!(sizes.iter().all(|size| *size < LAYER_BYTES_MAX), "{sizes:?}");
}

/// What is downloaded is what was meant, or the build ends there and nothing is kept.
#[test]
fn a_download_that_is_not_what_was_expected_is_not_used() {
    let image = image();
    let arguments = image.downloads.arguments();
    let of = |name: &str| arguments.iter().find_map(|one| one.strip_prefix(name)).unwrap();
    let (address, sum) = (of("RUNNER_URL="), of("RUNNER_SHA256="));
    let fetch = |sum: &str| {
        let script = format!("/usr/local/lib/runner/fetch {address} {sum} /tmp/got; ls /tmp/got");
        let run = ["run", "--rm", "--network", "host", "--entrypoint", "bash", &image.name];
        ending(&mut image.client().command(&[&run[..], &["-c", &script]].concat()))
    };
    assert_eq!(fetch(sum), (Some(0), "/tmp/got\n".to_owned()));
    let (code, said) = fetch(&"0".repeat(64));
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("is not what was expected"), "{said}");
}
