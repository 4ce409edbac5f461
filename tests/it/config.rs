//! The configuration as an operator meets it: variables, `.env`, files, and messages.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use runner_orchestrator::config::{
    self, Config, Credentials, LogFormat, ShutdownMode, Sources, reference,
};
use runner_orchestrator::fleet::id::PoolName;
use runner_orchestrator::fleet::pool::Scope;
use secrecy::ExposeSecret;

const TOKEN: &str = "ghp_0123456789abcdefghij";
const ESSENTIAL: &str = "GITHUB_TOKEN=ghp_0123456789abcdefghij GITHUB_ORG=acme";

/// Files that settings may name.
const FILES: &[(&str, &str)] = &[
    ("/run/token", "ghp_from_a_file\n"),
    ("/run/empty", "\n"),
    ("/run/key.pem", "-----BEGIN RSA PRIVATE KEY-----\nx\n-----END RSA PRIVATE KEY-----\n"),
    ("/etc/pools.toml", POOLS),
    ("/etc/bad-pools.toml", BAD_POOLS),
    ("/etc/broken.toml", "[pools.gpu]\nlabels = [\n\n= 3"),
    ("/etc/none.toml", "pool = 3"),
];

const POOLS: &str = r#"
# The machines with a graphics card.
[pools.gpu]
labels = ["self-hosted", "GPU"]
repo = "acme/models"
image = "acme/gpu-runner:1"
command = ["/run.sh", "--verbose now"]
min_runners = 0
max_runners = 4
scale_up_threshold = 1
idle_timeout = 60
cpus = 1.5
memory = "4g"
weight = 3
priority = 7

[pools.plain]
labels = "self-hosted,plain"
"#;

const BAD_POOLS: &str = r#"
[pools.gpu]
max_runner = 3
min_runners = 5
max_runners = 4
cpus = "many"
org = "a"
repo = "a/b"
[pools.default]
labels = ["x"]
[pools."Über"]
labels = ["x"]
[pools.wide]
labels = []
enterprise = "big"
"#;

fn read_file(path: &Path) -> io::Result<String> {
    FILES
        .iter()
        .find(|(name, _)| Path::new(name) == path)
        .map(|(_, text)| (*text).to_owned())
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Loads variables written as `A=1 B=2` (no blanks in values) and the text of a `.env`.
fn load(env: &str, dotenv: &str) -> Result<Config, config::ConfigError> {
    let env: BTreeMap<String, String> = env
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let dotenv = (!dotenv.is_empty()).then(|| dotenv.to_owned());
    Config::load(&Sources { env, dotenv, read_file: &read_file })
}

fn good(env: &str) -> Config {
    match load(&format!("{ESSENTIAL} {env}"), "") {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    }
}

/// The problems of a configuration that has the essentials and these variables.
fn bad(env: &str) -> Vec<String> {
    match load(&format!("{ESSENTIAL} {env}"), "") {
        Ok(_) => Vec::new(),
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_missions_defaults_hold_when_only_the_essentials_are_set() {
    let config = good("");
    let pool = &config.pools[&"default".into()];
    assert_eq!(pool.scope, Scope::Org("acme".to_owned()));
    assert_eq!((pool.min_runners, pool.max_runners, pool.min_idle_runners), (2, 10, 0));
    assert_eq!((pool.scale_up_threshold, pool.scale_down_threshold), (3, 1));
    assert_eq!(pool.idle_timeout, Duration::from_secs(300));
    assert_eq!(pool.start_deadline, Duration::from_secs(120));
    assert_eq!(config.github.poll_interval, Duration::from_secs(30));
    assert_eq!(pool.scale_up_max_wait, config.github.poll_interval);
    assert_eq!(pool.image, "apex-runner:local");
    let architecture = if cfg!(target_arch = "x86_64") { "x64" } else { "arm64" };
    let labels = format!("{architecture},docker-dind,linux,optimized,orchestrated,self-hosted");
    let mut sorted: Vec<&str> = labels.split(',').collect();
    sorted.sort_unstable();
    assert_eq!(pool.labels.iter().collect::<Vec<_>>(), sorted);
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.docker.host, "unix:///var/run/docker.sock");
    assert_eq!(config.shutdown.mode, ShutdownMode::Drain);
    assert_eq!(config.shutdown.timeout, Duration::from_secs(60));
    assert_eq!(config.scaling.manual_boost_ttl, Duration::from_secs(900));
    assert_eq!(config.telemetry.log_format, LogFormat::Json);
    assert!(config.telemetry.traces.is_none());
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn both_spellings_work_and_the_prefixed_one_wins() {
    assert_eq!(good("MAX_RUNNERS=7").pools[&"default".into()].max_runners, 7);
    assert_eq!(good("ORCHESTRATOR_MAX_RUNNERS=7").pools[&"default".into()].max_runners, 7);
    let both = good("MAX_RUNNERS=7 ORCHESTRATOR_MAX_RUNNERS=8");
    assert_eq!(both.pools[&"default".into()].max_runners, 8);
    assert_eq!(
        both.warnings,
        ["MAX_RUNNERS is set in both spellings; ORCHESTRATOR_MAX_RUNNERS wins"]
    );
    let empty = good("MAX_RUNNERS=7 ORCHESTRATOR_MAX_RUNNERS=");
    assert_eq!(empty.pools[&"default".into()].max_runners, 7);
}

#[test]
fn the_environment_wins_over_dotenv_and_empty_means_unset() {
    let dotenv = "export ORCHESTRATOR_GITHUB_TOKEN='ghp_dotenv' # mine\n\
                  GITHUB_ORG= # nobody\nGITHUB_REPO=\"acme/demo\"\nMAX_RUNNERS=4 # four\n\
                  MIN_RUNNERS=1\nPOLL_INTERVAL=\nDOCKER_DNS=1.1.1.1\nCI=true\nOTHER_PROGRAM=x\n";
    let config = load("MIN_RUNNERS=3 MAX_RUNNERS=", dotenv).unwrap();
    let pool = &config.pools[&"default".into()];
    assert_eq!(pool.scope, Scope::Repo("acme/demo".into()));
    assert_eq!((pool.min_runners, pool.max_runners), (3, 4));
    assert_eq!(config.github.poll_interval, Duration::from_secs(30));
    let Credentials::Token(token) = &config.github.credentials else { panic!("no token") };
    assert_eq!(token.expose_secret(), "ghp_dotenv");
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn secrets_come_from_files_too_but_not_from_both() {
    let config = load("GITHUB_TOKEN_FILE=/run/token GITHUB_ORG=acme", "").unwrap();
    let Credentials::Token(token) = &config.github.credentials else { panic!("no token") };
    assert_eq!(token.expose_secret(), "ghp_from_a_file");

    for (env, problem) in [
        (
            "GITHUB_TOKEN_FILE=/run/token",
            "GITHUB_TOKEN: set either this or GITHUB_TOKEN_FILE, not both",
        ),
        ("API_TOKEN_FILE=/run/empty", "API_TOKEN_FILE: the file \"/run/empty\" is empty"),
        (
            "ORCHESTRATOR_API_TOKEN_FILE=/none",
            "ORCHESTRATOR_API_TOKEN_FILE: the file \"/none\" cannot be read (entity not found)",
        ),
    ] {
        assert_eq!(bad(env), [problem]);
    }
}

/// Variables, and what is said of them.
const MISTAKES: &[(&str, &str)] = &[
    ("MIN_RUNNERS=two", "MIN_RUNNERS: expected a whole number from 0 to 10000, got \"two\""),
    (
        "ORCHESTRATOR_MAX_RUNNERS=-3",
        "ORCHESTRATOR_MAX_RUNNERS: expected a whole number from 1 to 10000, got \"-3\"",
    ),
    ("MIN_RUNNERS=20", "MIN_RUNNERS=20: must be at most MAX_RUNNERS (10)"),
    ("MIN_IDLE_RUNNERS=11", "MIN_IDLE_RUNNERS=11: must be at most MAX_RUNNERS (10)"),
    ("SCALE_DOWN_THRESHOLD=3", "SCALE_DOWN_THRESHOLD=3: must be below SCALE_UP_THRESHOLD (3)"),
    ("POLL_INTERVAL=0", "POLL_INTERVAL: expected whole seconds from 1 to 3600, got \"0\""),
    ("STRUCTURED_LOGGING=maybe", "STRUCTURED_LOGGING: expected true or false, got \"maybe\""),
    ("GITHUB_REPO=demo", "GITHUB_REPO: expected owner/name, got \"demo\""),
    (
        "RUNNER_MEMORY=4x",
        "RUNNER_MEMORY: expected memory of at least 16m, such as 512m or 4g, got \"4x\"",
    ),
    ("RUNNER_CPUS=0", "RUNNER_CPUS: expected a number from 0.01 to 1024, got \"0\""),
    ("RUNNER_CPUS=NaN", "RUNNER_CPUS: expected a number from 0.01 to 1024, got \"NaN\""),
    ("SHUTDOWN_MODE=kill", "SHUTDOWN_MODE: expected drain or detach, got \"kill\""),
    (
        "GITHUB_API_URL=https://github.com",
        "GITHUB_API_URL: expected the API's address, https://api.github.com, got \
             \"https://github.com\"",
    ),
    (
        "GITHUB_API_URL=https://me:pw@ghes.example",
        "GITHUB_API_URL: expected a URL such as https://host/path, without credentials, got a \
             URL with credentials in it",
    ),
    (
        "DOCKER_HOST=ssh://host",
        "DOCKER_HOST: expected unix:///path or tcp://host:port, got \"ssh://host\"",
    ),
    (
        "CLUSTER_NAME=Prod!",
        "CLUSTER_NAME: expected 1 to 40 lower-case letters, digits and hyphens, got \"Prod!\"",
    ),
    (
        "LISTEN_ADDR=0.0.0.0:80",
        "LISTEN_ADDR=0.0.0.0:80: reachable from other machines, so API_TOKEN is needed (or \
             API_ALLOW_ANONYMOUS=true, when the port is published on 127.0.0.1 only)",
    ),
    (
        "REDIS_URL=redis://:hunter2hunter2@redis:6379/0",
        "CLUSTER_NAME: missing: REDIS_URL is set, and replicas that share a Redis must carry one \
             name",
    ),
    (
        "CLUSTER_NAME=prod REDIS_URL=http://hunter2",
        "REDIS_URL: expected redis://[[user]:password@]host[:port][/db], rediss:// for TLS, or \
             redis+sentinel://[[user]:password@]host:port,host:port/master[/db]",
    ),
    (
        "CLUSTER_NAME=prod REDIS_URL=rediss://redis REDIS_CA_FILE=/nowhere.pem",
        "REDIS_CA_FILE: the file cannot be read (entity not found)",
    ),
    ("API_TOKEN=schlüssel", "API_TOKEN: expected visible ASCII characters without blanks"),
    (
        "GITHUB_APP_ID=7 GITHUB_APP_PRIVATE_KEY_FILE=/run/key.pem",
        "GITHUB_TOKEN: set either this or the GitHub App (GITHUB_APP_ID), not both",
    ),
    (
        "GITHUB_ENTERPRISE=big",
        "GITHUB_ENTERPRISE_ORGS: missing: the organisations of the enterprise whose queues \
             are read",
    ),
    (
        "MANUAL_BOOST_TTL=60",
        "MANUAL_BOOST_TTL=60: must be at least the START_DEADLINE of pool default (120), or a \
             manual scale-up ends before its runners listen",
    ),
    ("RUNNER_DOCKER=rootles", "RUNNER_DOCKER: expected none, rootless or dind, got \"rootles\""),
    (
        "RUNNER_DOCKER=dind",
        "RUNNER_DOCKER=dind: makes its jobs as good as root on this host, which \
             ALLOW_PRIVILEGED_RUNNERS=true must allow",
    ),
    (
        "RUNNER_DOCKER=rootless RUNNER_COMMAND=/run.sh",
        "RUNNER_DOCKER=rootless: is brought up by the image's own entrypoint, which \
             RUNNER_COMMAND would replace",
    ),
    ("RUNNER_COMMAND='x", "RUNNER_COMMAND: expected a command with every quote closed, got \"'x\""),
];

#[test]
fn every_mistake_is_listed_with_name_value_and_what_is_allowed() {
    for (env, problem) in MISTAKES {
        assert_eq!(bad(env), [*problem], "{env}");
    }
}

#[test]
fn all_mistakes_are_reported_together_and_none_follows_from_another() {
    let error = load("MIN_RUNNERS=two MAX_RUNNERS=1 GITHUB_APP_ID=x", "A='\nIDLE_TIMEOUT=soon")
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "configuration is not usable (6 problems):\n  \
         .env line 1: the quote is not closed\n  \
         GITHUB_APP_ID: expected a whole number from 1 to 18446744073709551615, got \"x\"\n  \
         GITHUB_APP_PRIVATE_KEY_FILE: missing: a GitHub App needs its id and its private key\n  \
         MIN_RUNNERS: expected a whole number from 0 to 10000, got \"two\"\n  \
         IDLE_TIMEOUT (.env line 2): expected whole seconds from 1 to 604800, got \"soon\"\n  \
         GITHUB_ORG: missing (set it, GITHUB_REPO or GITHUB_ENTERPRISE)"
    );
    let nothing = load("", "").unwrap_err().to_string();
    assert_eq!(
        nothing,
        "configuration is not usable (2 problems):\n  \
         GITHUB_TOKEN: missing (set it, or GITHUB_APP_ID and GITHUB_APP_PRIVATE_KEY_FILE)\n  \
         GITHUB_ORG: missing (set it, GITHUB_REPO or GITHUB_ENTERPRISE)"
    );
}

#[test]
fn the_lower_threshold_follows_the_upper_one() {
    for (up, down) in [(1, 0), (2, 1), (3, 1), (50, 1)] {
        let config = good(&format!("SCALE_UP_THRESHOLD={up}"));
        assert_eq!(config.pools[&"default".into()].scale_down_threshold, down, "UP={up}");
    }
}

#[test]
fn odd_settings_are_warned_of() {
    for (env, warning) in [
        ("GITHUB_REPO=acme/demo", "GITHUB_REPO is ignored, because GITHUB_ORG is set too"),
        (
            "ORCHESTRATOR_MAX_RUNERS=3",
            "ORCHESTRATOR_MAX_RUNERS is not a setting of ours: did you mean \
             ORCHESTRATOR_MAX_RUNNERS?",
        ),
        ("API_TOKEN=hunter2", "API_TOKEN has fewer than 16 characters"),
        ("ORCHESTRATOR_PORT=tcp://x", "ORCHESTRATOR_PORT is not a setting of ours"),
        (
            "POLL_INTERVAL=1",
            "POLL_INTERVAL=1: a busy queue may cost 10800 requests an hour, and GitHub allows \
             5000; polling slows down when they run short",
        ),
        (
            "IDLE_TIMEOUT=10",
            "IDLE_TIMEOUT of pool default (10 s) is below POLL_INTERVAL: runners may go while \
             their job is not yet seen",
        ),
        (
            "HOST_MAX_RUNNERS=1",
            "HOST_MAX_RUNNERS=1 is below the 2 runners that MIN_RUNNERS asks for: one host cannot \
             hold them",
        ),
        (
            "RUNNER_LABELS=orchestrated",
            "RUNNER_LABELS has no label self-hosted: jobs that ask for it will not run here",
        ),
        (
            "GITHUB_API_URL=http://ghes.example/api/v3",
            "GITHUB_API_URL is plain http: the credentials cross the network readable",
        ),
    ] {
        assert_eq!(good(env).warnings, [warning], "{env}");
    }
    let dotenv = load(ESSENTIAL, "MAX_RUNNER=3\nMY_OTHER_TOOL=1\n").unwrap();
    assert_eq!(dotenv.warnings, ["MAX_RUNNER (.env line 1) is ignored: did you mean MAX_RUNNERS?"]);
}

#[test]
fn what_the_original_knew_is_accepted_without_a_word() {
    let legacy = "ORCHESTRATOR_ID=x ORCHESTRATOR_VERSION=1 ORCHESTRATOR_NODE_ENV=production \
                  ORCHESTRATOR_METRICS_PORT=9090 ORCHESTRATOR_RUNNER_VERSION=2.3 \
                  ORCHESTRATOR_RUNNER_NAME_PREFIX=a CI=true ID=y VERSION=2 NODE_ENV=test";
    assert_eq!(good(legacy).warnings, Vec::<String>::new());
}

#[test]
fn a_github_app_and_an_enterprise_are_read() {
    let config = load(
        "GITHUB_APP_ID=7 GITHUB_APP_INSTALLATION_ID=9 GITHUB_APP_PRIVATE_KEY_FILE=/run/key.pem \
         GITHUB_REPO=acme/demo GITHUB_API_URL=https://ghes.example/api/v3/",
        "",
    )
    .unwrap();
    let Credentials::App(app) = &config.github.credentials else { panic!("no app") };
    assert_eq!((app.id, app.installation_id), (7, Some(9)));
    assert_eq!(config.github.api_url.as_str(), "https://ghes.example/api/v3");

    let enterprise = good("GITHUB_ENTERPRISE=big GITHUB_ENTERPRISE_ORGS=a,b");
    let orgs = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(
        enterprise.pools[&"default".into()].scope,
        Scope::Enterprise { slug: "big".to_owned(), orgs }
    );
    assert_eq!(
        enterprise.warnings,
        ["GITHUB_ORG is ignored, because GITHUB_ENTERPRISE is set too"]
    );
}

#[test]
fn traces_are_off_without_an_endpoint_whatever_else_is_set() {
    assert!(good("OTEL_EXPORTER_OTLP_PROTOCOL=grpc").telemetry.traces.is_none());
    let traces = |env: &str| good(env).telemetry.traces.expect("traces are on");
    let on = traces(
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 OTEL_SERVICE_NAME=mine \
         OTEL_TRACES_SAMPLER=parentbased_traceidratio OTEL_TRACES_SAMPLER_ARG=0.25 \
         OTEL_EXPORTER_OTLP_HEADERS=x-api-key=abc%3D OTEL_RESOURCE_ATTRIBUTES=a=1",
    );
    assert_eq!(on.endpoint.as_str(), "http://localhost:4318/v1/traces");
    assert_eq!((on.service_name.as_str(), on.sampled_ratio), ("mine", 0.25));
    assert_eq!(on.headers[0].1.expose_secret(), "abc=");
    let complete = traces("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://localhost:4318/x");
    assert_eq!(complete.endpoint.as_str(), "http://localhost:4318/x");
    let endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318";
    for off in ["OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none"] {
        assert!(good(&format!("{endpoint} {off}")).telemetry.traces.is_none(), "{off}");
    }
    assert_eq!(
        bad(&format!("{endpoint} OTEL_EXPORTER_OTLP_PROTOCOL=grpc")),
        ["OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf (port 4318 of most collectors), \
          got \"grpc\""]
    );
}

#[test]
fn a_pools_file_adds_pools_that_inherit_from_the_environment() {
    let config = good("POOLS_FILE=/etc/pools.toml MAX_RUNNERS=5 RUNNER_PIDS=500");
    let names: Vec<&str> = config.pools.keys().map(PoolName::as_str).collect();
    assert_eq!(names, ["default", "gpu", "plain"]);
    let gpu = &config.pools[&"gpu".into()];
    assert_eq!(gpu.scope, Scope::Repo("acme/models".into()));
    assert_eq!(gpu.labels.iter().collect::<Vec<_>>(), ["gpu", "self-hosted"]);
    assert_eq!(
        gpu.command.as_deref(),
        Some(["/run.sh", "--verbose now"].map(String::from).as_slice())
    );
    assert_eq!((gpu.min_runners, gpu.max_runners), (0, 4));
    assert_eq!((gpu.scale_up_threshold, gpu.scale_down_threshold), (1, 0));
    assert_eq!(gpu.resources.memory_bytes, Some(4 << 30));
    assert_eq!(gpu.resources.pids, Some(500));
    assert_eq!((gpu.weight, gpu.priority), (3, 7));
    let plain = &config.pools[&"plain".into()];
    assert_eq!((plain.max_runners, plain.weight, plain.priority), (5, 1, 0));
    assert_eq!(plain.scope, Scope::Org("acme".to_owned()));

    let alone = load("GITHUB_TOKEN=ghp_x POOLS_FILE=/etc/pools.toml", "").unwrap_err();
    assert_eq!(
        alone.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["pool \"plain\" org: missing (set it, or repo or enterprise; or GITHUB_ORG for all)"]
    );
}

#[test]
fn mistakes_in_a_pools_file_are_reported_like_any_other() {
    assert_eq!(
        bad("POOLS_FILE=/etc/bad-pools.toml"),
        [
            "pool \"default\": the environment describes this pool; choose another name",
            "pool \"Über\": expected 1 to 40 lower-case letters, digits and hyphens",
            "pool \"gpu\" labels: missing: the labels that tell this pool from the others",
            "pool \"gpu\" \"max_runner\": not a field of a pool: did you mean max_runners?",
            "pool \"gpu\" org: set only one of org, repo and enterprise",
            "pool \"gpu\" cpus: expected a number from 0.01 to 1024, got \"many\"",
            "pool \"gpu\" min_runners=5: must be at most pool \"gpu\" max_runners (4)",
            "pool \"wide\" enterprise_orgs: missing: the organisations whose queues count",
            "pool \"wide\" labels: expected 1 to 100 labels of at most 256 characters, separated \
             by commas, got \"\"",
        ]
    );
    assert_eq!(
        bad("POOLS_FILE=/etc/none.toml"),
        [
            "/etc/none.toml: unknown key \"pool\"; expected [pools.NAME]",
            "/etc/none.toml: expected at least one table [pools.NAME]"
        ]
    );
    assert_eq!(
        bad("POOLS_FILE=/nowhere"),
        ["POOLS_FILE: the file \"/nowhere\" cannot be read (entity not found)"]
    );
    let broken = bad("POOLS_FILE=/etc/broken.toml");
    assert_eq!(broken.len(), 1);
    assert!(broken[0].starts_with("/etc/broken.toml line "), "{broken:?}");
}

#[test]
fn the_revision_changes_with_what_runners_are_made_from_only() {
    let revision = |env: &str| good(env).pools[&"default".into()].revision.clone();
    let base = revision("");
    assert_eq!(base.len(), 12);
    for same in ["MAX_RUNNERS=3", "IDLE_TIMEOUT=60", "POLL_INTERVAL=7", "START_DEADLINE=9"] {
        assert_eq!(revision(same), base, "{same}");
    }
    for other in [
        "RUNNER_IMAGE=other:1",
        "RUNNER_LABELS=self-hosted",
        "RUNNER_COMMAND=/run.sh",
        "RUNNER_CPUS=1",
        "RUNNER_MEMORY=1g",
        "RUNNER_GROUP_ID=2",
        "GITHUB_ENTERPRISE=big GITHUB_ENTERPRISE_ORGS=a",
    ] {
        assert_ne!(revision(other), base, "{other}");
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let secrets = ["hunter2-hunter2-hunter2", "collector-key-123", TOKEN, "cluster-secret-cluster"];
    let env = "API_TOKEN=hunter2-hunter2-hunter2 CLUSTER_SECRET=cluster-secret-cluster \
               OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 \
               OTEL_EXPORTER_OTLP_HEADERS=key=collector-key-123";
    let config = good(env);
    let wrong = bad(&format!("{env} MIN_RUNNERS=x")).join("\n");
    let shown = [format!("{config:?}"), config::render(&config.settings), wrong].join("\n");
    for secret in secrets {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    // A token that landed in the wrong variable is not printed either.
    assert!(!bad(&format!("GITHUB_REPO={TOKEN}")).join("\n").contains(TOKEN));
    for name in ["GITHUB_TOKEN", "API_TOKEN"] {
        let setting = config.settings.iter().find(|setting| setting.name == name).unwrap();
        assert_eq!(setting.value.as_deref(), Some("***"), "{name}");
    }
}

#[test]
fn the_effective_settings_name_every_variable_once_with_its_origin() {
    let config = load(
        "GITHUB_TOKEN_FILE=/run/token GITHUB_ORG=acme POOLS_FILE=/etc/pools.toml",
        "\nMAX_RUNNERS=4\n",
    )
    .unwrap();
    let table = config::render(&config.settings);
    let row = |name: &str| {
        let rows: Vec<&str> =
            table.lines().filter(|row| row.split_whitespace().next() == Some(name)).collect();
        assert_eq!(rows.len(), 1, "{name} in\n{table}");
        rows[0].split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    for variable in config::all() {
        row(variable.name);
    }
    assert_eq!(row("GITHUB_TOKEN"), "*** file /run/token");
    assert_eq!(row("MAX_RUNNERS"), "4 .env line 2");
    assert_eq!(row("SCALE_DOWN_THRESHOLD"), "1 default");
    assert_eq!(row("SCALE_UP_MAX_WAIT"), "30 default");
    assert_eq!(row("SHUTDOWN_MODE"), "drain default");
    assert_eq!(row("API_TOKEN"), "- default");
    assert_eq!(row("pools.gpu.max_runners"), "4 file /etc/pools.toml");
    assert_eq!(row("pools.gpu.min_idle_runners"), "0 default");
}

#[test]
fn the_table_of_variables_is_complete_and_its_defaults_are_allowed() {
    let mut names: Vec<&str> = config::all().map(|variable| variable.name).collect();
    let config = good("");
    for setting in &config.settings {
        assert!(config::find(&setting.name).is_some(), "{} is not in the table", setting.name);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), config::all().count(), "a name appears twice");
}

/// `UPDATE_REFERENCE=1 cargo test` writes the file instead of comparing it.
#[test]
fn the_example_file_is_the_table_of_variables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".env.example");
    let expected = reference::dotenv_example();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, expected, ".env.example is not what config::VARIABLES says");
    // Filled in with the essentials it is a configuration without a warning.
    let filled = text.replace("GITHUB_TOKEN=\n", &format!("GITHUB_TOKEN={TOKEN}\n"));
    let filled = filled.replace("GITHUB_ORG=\n", "GITHUB_ORG=acme\n");
    assert_eq!(load("", &filled).unwrap().warnings, Vec::<String>::new());
    // So it is with every default written out.
    let all: String = filled
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|line| line.contains('=')).unwrap_or(line))
        .filter(|line| !line.contains(' '))
        .fold(String::new(), |text, line| text + line + "\n");
    assert!(all.contains("MAX_RUNNERS=10"), "{all}");
    assert_eq!(load("", &all).unwrap().warnings, Vec::<String>::new());
}

/// `UPDATE_REFERENCE=1 cargo test` writes the table instead of comparing it.
#[test]
fn the_readme_holds_the_table_of_variables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let Ok(readme) = std::fs::read_to_string(&path) else { return };
    let (before, rest) = readme.split_once(reference::MARKDOWN_BEGIN).expect("the table begins");
    let (table, after) = rest.split_once(reference::MARKDOWN_END).expect("the table ends");
    let expected = format!("\n{}", reference::markdown_table());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        let (begin, end) = (reference::MARKDOWN_BEGIN, reference::MARKDOWN_END);
        std::fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(table, expected, "the README's table is not what config::VARIABLES says");
}
