//! The entrypoint: how it ends tells what became of the runner, and its configuration goes
//! nowhere else.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use runner_orchestrator::fleet::pool::InnerDocker;

use super::made::{CANARY, configuration, fed, image, run};
use super::runner::job;
use crate::it::deploy::engine::Container;

const RAN_A_JOB: Option<i32> = Some(0);
const TOO_OLD: Option<i32> = Some(7);
const NO_JOB: Option<i32> = Some(64);
const NO_CONFIG: Option<i32> = Some(65);
const BAD_CONFIG: Option<i32> = Some(66);
const NO_DOCKER: Option<i32> = Some(67);

#[test]
fn each_end_has_its_own_code() {
    let image = image();
    let end = |stand_in: &Value| run(&image, &[], Some(&configuration(stand_in)));
    for (stand_in, code) in [
        (json!({ "job": "true" }), RAN_A_JOB),
        // That a job failed is GitHub's to tell.
        (json!({ "job": "false" }), RAN_A_JOB),
        (json!({ "exit": 0 }), NO_JOB),
        (json!({ "exit": 1 }), NO_JOB),
        (json!({ "exit": 5 }), NO_JOB),
        (json!({ "exit": 7 }), TOO_OLD),
        (json!({ "exits": [3] }), TOO_OLD),
        // GitHub was not reached; the next try finds it.
        (json!({ "exits": [2], "job": "echo served at last" }), RAN_A_JOB),
    ] {
        let (seen, said) = end(&stand_in);
        assert_eq!(seen, code, "{stand_in}: {said}");
    }
}

#[test]
fn what_is_no_configuration_is_refused_and_not_repeated() {
    let image = image();
    let outside = base64_of(&json!({ "../.bashrc": "eA==", ".runner": "eA==" }).to_string());
    for line in ["", "no base64: !", &base64_of("no json"), &outside, &base64_of("{}")] {
        let (code, said) = run(&image, &[], Some(line));
        let expected = if line.is_empty() { NO_CONFIG } else { BAD_CONFIG };
        assert_eq!(code, expected, "{line:?}: {said}");
        assert!(line.is_empty() || !said.contains(line), "{said}");
    }
    let (code, said) = run(&image, &["--env", "RUNNER_INPUT_SECONDS=1"], None);
    assert!(code == NO_CONFIG && said.contains("within 1 s"), "{said}");
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Usable, not started: a daemon that cannot come up is told of, with what it said.
#[test]
fn an_inner_docker_that_does_not_come_up_ends_the_runner() {
    let image = image();
    let line = configuration(&json!({ "job": "echo never" }));
    // Without the rights it needs.
    let arguments = ["--env", "RUNNER_DOCKER=rootless", "--device", "/dev/net/tun"];
    let (code, said) = run(&image, &arguments, Some(&line));
    assert!(code == NO_DOCKER && !said.contains("never"), "{said}");
    let (code, said) = run(&image, &["--env", "RUNNER_DOCKER=rootles"], Some(&line));
    assert!(
        code == NO_DOCKER && said.contains("known are none, rootless, dind and socket"),
        "{said}"
    );
}

/// The files of the listener are its user's alone; the job finds nothing on its input, in its
/// environment or in any list of processes.
#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_goes_to_the_listeners_files_only() {
    let look = "stat -c '%a %U %n' .runner .credentials .credentials_rsaparams; \
                echo input: $(cat | wc -c); \
                cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' \
                  >/tmp/seen; echo shown: $(grep -c \"$(cut -c2-20 .credentials)\" /tmp/seen)";
    let said = job(InnerDocker::None, look).await;
    for file in [".runner", ".credentials", ".credentials_rsaparams"] {
        assert!(said.contains(&format!("600 runner {file}")), "{said}");
    }
    assert!(said.contains("input: 0") && said.contains("shown: 0"), "{said}");
    assert!(!said.contains(CANARY), "{said}");
}

/// A stop reaches the listener as the one signal it understands; it cancels its job.
#[test]
fn a_stop_cancels_the_job_and_ends_in_time() {
    let image = image();
    for signal in ["INT", "TERM"] {
        let line = configuration(&json!({ "job": "echo at work; sleep 60" }));
        let container = fed(&image.name, &line);
        container.logs_until("at work");
        let begun = Instant::now();
        image.client().run(&["kill", "--signal", signal, &container.id]);
        let code = image.client().run(&["wait", &container.id]);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let logs = container.logs();
        assert!(logs.contains("completed with result: Canceled"), "{signal}: {logs}");
        // Though cancelled, a job had it.
        assert_eq!(code, "0", "{signal}: {logs}");
        assert!(!logs.contains(CANARY) && !container.inspect("{{json .}}").contains(CANARY));
    }
}

#[test]
fn a_stop_before_the_configuration_ends_it_at_once() {
    let image = image();
    let arguments = ["--interactive", "--init", &image.name];
    let container = Container::start(image.client(), &arguments);
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    image.client().run(&["stop", "--time", "30", &container.id]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "64");
}
