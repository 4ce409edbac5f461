//! Commands that need nothing but the settings.

use super::process::{run, stderr, stdout};

const WRONG: &[(&str, &str)] = &[
    ("GITHUB_TOKEN", "ghp_secret"),
    ("GITHUB_ORG", "acme"),
    ("MIN_RUNNERS", "two"),
    ("POLL_INTERVAL", "0"),
    ("LISTEN_ADDR", "nowhere"),
];

const RIGHT: &[(&str, &str)] =
    &[("GITHUB_TOKEN", "ghp_secret"), ("GITHUB_ORG", "acme"), ("MIN_RUNNERS", "3")];

#[test]
fn every_command_that_needs_a_configuration_lists_all_its_mistakes() {
    for args in [&["config", "validate"][..], &["config", "show"], &["serve"]] {
        let output = run(args, WRONG);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(stdout(&output), "", "{args:?}");
        let said = stderr(&output);
        for name in ["MIN_RUNNERS", "POLL_INTERVAL", "LISTEN_ADDR", "3 problems"] {
            assert!(said.contains(name), "{args:?} does not name {name}: {said}");
        }
        assert!(!said.contains("ghp_secret"), "{said}");
    }
}

#[test]
fn doctor_lists_the_same_mistakes() {
    let output = run(&["doctor", "--json"], WRONG);
    assert_eq!(output.status.code(), Some(2));
    let body: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(body["verdict"], "unusable");
    assert_eq!(body["groups"][0]["rows"].as_array().unwrap().len(), 3, "{body}");
    let output = run(&["doctor"], WRONG);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output).matches('✗').count(), 3);
}

#[test]
fn settings_are_shown_with_their_origin_and_without_secrets() {
    let output = run(&["config", "show"], RIGHT);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("MIN_RUNNERS").contains('3') && line("MIN_RUNNERS").contains("environment"));
    assert!(line("MAX_RUNNERS").contains("default"));
    assert!(line("GITHUB_TOKEN").contains("***"));
    assert!(!text.contains("ghp_secret"));
    let output = run(&["config", "validate"], RIGHT);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn the_document_is_printed_as_it_is_served() {
    let output = run(&["openapi"], &[]);
    assert!(output.status.success());
    assert_eq!(stdout(&output), runner_orchestrator::api::openapi_json());
}

#[test]
fn a_flag_that_does_not_exist_exits_2() {
    for args in [&["doctor", "--nonsense"][..], &["doctor", "--busy-runner", "1"], &["status", "x"]]
    {
        assert_eq!(run(args, RIGHT).status.code(), Some(2), "{args:?}");
    }
}
