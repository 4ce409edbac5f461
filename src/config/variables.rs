//! Every variable there is: the one table that the reader, `.env.example`, the README
//! and `config show` are made from.

/// One variable of the environment. It is read as `NAME` and as `ORCHESTRATOR_NAME`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variable {
    pub name: &'static str,
    pub fallback: Fallback,
    /// What a bare number counts; empty where there is none.
    pub unit: &'static str,
    pub help: &'static str,
    /// Never shown, and also read from the file that `NAME_FILE` names.
    pub secret: bool,
}

/// What holds when a variable is not set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    Unset,
    Value(&'static str),
    /// Follows from other settings or from the machine, in these words.
    Derived(&'static str),
}

/// Variables that belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    pub title: &'static str,
    pub variables: &'static [Variable],
}

/// The variable of this name, if there is one.
#[must_use]
pub fn find(name: &str) -> Option<&'static Variable> {
    all().find(|variable| variable.name == name)
}

/// Every variable, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Variable> {
    VARIABLES.iter().flat_map(|section| section.variables)
}

const fn var(
    name: &'static str,
    fallback: Fallback,
    unit: &'static str,
    help: &'static str,
) -> Variable {
    Variable { name, fallback, unit, help, secret: false }
}

const fn secret(name: &'static str, help: &'static str) -> Variable {
    Variable { name, fallback: Fallback::Unset, unit: "", help, secret: true }
}

const UNSET: Fallback = Fallback::Unset;

const fn is(value: &'static str) -> Fallback {
    Fallback::Value(value)
}

/// The table.
pub const VARIABLES: &[Section] = &[
    Section { title: "GitHub", variables: GITHUB },
    Section { title: "Scaling of the pool `default`", variables: SCALING },
    Section { title: "Runners of the pool `default`", variables: RUNNERS },
    Section { title: "HTTP API", variables: API },
    Section { title: "Docker, cluster and shutdown", variables: PROCESS },
    Section { title: "Logs and traces", variables: TELEMETRY },
];

const GITHUB: &[Variable] = &[
    secret(
        "GITHUB_TOKEN",
        "Personal access token: classic with `repo` (repository) or `admin:org` (organisation), \
         or fine-grained with write access to self-hosted runners (organisation) or \
         administration (repository) and read access to actions.",
    ),
    var("GITHUB_ORG", UNSET, "", "Organisation the runners serve; wins over GITHUB_REPO."),
    var("GITHUB_REPO", UNSET, "", "Repository the runners serve, as `owner/name`."),
    var("GITHUB_ENTERPRISE", UNSET, "", "Enterprise the runners serve; wins over GITHUB_ORG."),
    var(
        "GITHUB_ENTERPRISE_ORGS",
        UNSET,
        "",
        "Organisations of the enterprise whose queues are read, separated by commas.",
    ),
    var("GITHUB_APP_ID", UNSET, "", "GitHub App to act as, instead of GITHUB_TOKEN."),
    secret("GITHUB_APP_PRIVATE_KEY", "The App's private key (PEM); usually given as a file."),
    var(
        "GITHUB_APP_INSTALLATION_ID",
        UNSET,
        "",
        "The App's installation; looked up by the organisation or repository when not set.",
    ),
    var(
        "GITHUB_API_URL",
        is("https://api.github.com"),
        "",
        "REST API to talk to; on GitHub Enterprise Server `https://HOST/api/v3`.",
    ),
    var("POLL_INTERVAL", is("30"), "seconds", "How often the queue of jobs is read."),
];

const SCALING: &[Variable] = &[
    var("MIN_RUNNERS", is("2"), "runners", "Runners kept, waiting or running a job."),
    var("MAX_RUNNERS", is("10"), "runners", "Never more than this many, in whatever state."),
    var("MIN_IDLE_RUNNERS", is("0"), "runners", "Runners kept waiting beside the running ones."),
    var("SCALE_UP_THRESHOLD", is("3"), "jobs", "Queued jobs that make the pool grow at once."),
    var(
        "SCALE_DOWN_THRESHOLD",
        Fallback::Derived("the smaller of 1 and SCALE_UP_THRESHOLD - 1"),
        "jobs",
        "Queued jobs at or below which idle runners may go.",
    ),
    var(
        "SCALE_UP_MAX_WAIT",
        Fallback::Derived("POLL_INTERVAL"),
        "seconds",
        "A job that waits longer is served even below SCALE_UP_THRESHOLD.",
    ),
    var("IDLE_TIMEOUT", is("300"), "seconds", "How long a runner waits for a job before it goes."),
    var(
        "START_DEADLINE",
        is("120"),
        "seconds",
        "How long a started runner may take until it listens for jobs.",
    ),
    var(
        "MANUAL_BOOST_TTL",
        is("900"),
        "seconds",
        "How long a manual scale-up holds when its runners are not used.",
    ),
    var("POOLS_FILE", UNSET, "", "TOML file that adds pools; see the README."),
];

const RUNNERS: &[Variable] = &[
    var("RUNNER_IMAGE", is("apex-runner:local"), "", "Image the runners are made from."),
    var(
        "RUNNER_LABELS",
        Fallback::Derived("self-hosted,linux,<x64 or arm64>,docker-dind,orchestrated,optimized"),
        "",
        "Labels jobs may ask for, separated by commas; nothing is added to the list.",
    ),
    var(
        "RUNNER_COMMAND",
        UNSET,
        "",
        "Command for an image of one's own, quoted as for a shell; it finds the JIT \
         configuration on standard input.",
    ),
    var("RUNNER_GROUP_ID", is("1"), "", "GitHub's runner group; 1 is the default group."),
    var(
        "RUNNER_CPUS",
        UNSET,
        "CPUs",
        "Processors one runner may use, such as 2 or 1.5; a host with fewer gets none of the pool.",
    ),
    var(
        "RUNNER_MEMORY",
        UNSET,
        "bytes",
        "Memory one runner may use, such as 4g or 512m; a host gets no more runners than its memory holds.",
    ),
    var("RUNNER_PIDS", is("4096"), "processes", "Processes and threads one runner may have."),
    var(
        "RUNNER_DOCKER",
        is("none"),
        "",
        "Docker inside a runner: `none`, `rootless`, or `dind` (root on the host, needs \
         ALLOW_PRIVILEGED_RUNNERS); the last two with an image of `runner-image/`.",
    ),
];

const API: &[Variable] = &[
    var(
        "LISTEN_ADDR",
        is("127.0.0.1:8080"),
        "",
        "Address and port of the API; other than loopback needs API_TOKEN.",
    ),
    secret("API_TOKEN", "Bearer token that callers of the API must send."),
    var(
        "API_ALLOW_ANONYMOUS",
        is("false"),
        "",
        "Serve beyond loopback without API_TOKEN: for a port published on 127.0.0.1 only.",
    ),
    var(
        "API_ALLOWED_HOSTS",
        UNSET,
        "",
        "Further names the API may be called by, separated by commas. IP addresses, \
         localhost and names without a dot are always allowed.",
    ),
];

const PROCESS: &[Variable] = &[
    var(
        "DOCKER_HOST",
        is("unix:///var/run/docker.sock"),
        "",
        "Docker engine to use: `unix:///path` or `tcp://host:port`.",
    ),
    var(
        "HOST_MAX_RUNNERS",
        UNSET,
        "runners",
        "Most runners this host may hold, of all pools; none is added below 1 GiB of free disk.",
    ),
    var(
        "ALLOW_PRIVILEGED_RUNNERS",
        is("false"),
        "",
        "This host's operator allows pools whose jobs are as good as root on it.",
    ),
    var(
        "PLACEMENT",
        is("spread"),
        "",
        "`spread` puts runners on the least used host, `binpack` on the most used one.",
    ),
    var(
        "CLUSTER_NAME",
        Fallback::Derived("the identity of the Docker host; needed with REDIS_URL"),
        "",
        "Marks everything this installation makes, so that two never touch each other's.",
    ),
    secret("CLUSTER_SECRET", "Signs requests that replicas forward to each other."),
    var(
        "ADVERTISE_URL",
        Fallback::Derived("LISTEN_ADDR, or this machine's own address when that is 0.0.0.0"),
        "",
        "Where other replicas reach this one's API, such as `http://10.0.0.7:8080`; port 0 is \
         the port listened on.",
    ),
    secret(
        "REDIS_URL",
        "Redis that several replicas share, with CLUSTER_NAME: \
         `redis://[[user]:password@]host[:port][/db]`, `rediss://` for TLS, \
         `redis+sentinel://[[user]:password@]host:port,host:port/master[/db]`.",
    ),
    var("REDIS_CA_FILE", UNSET, "", "Authorities that vouch for a `rediss://` server (PEM)."),
    var("REDIS_CLIENT_CERT_FILE", UNSET, "", "Certificate shown to a `rediss://` server (PEM)."),
    var("REDIS_CLIENT_KEY_FILE", UNSET, "", "The key of REDIS_CLIENT_CERT_FILE (PEM)."),
    var(
        "SHUTDOWN_MODE",
        Fallback::Derived("drain without REDIS_URL, detach with it"),
        "",
        "drain: remove idle runners and wait for busy ones. detach: leave all runners.",
    ),
    var(
        "SHUTDOWN_TIMEOUT",
        is("60"),
        "seconds",
        "How long draining waits for busy runners; then they are left for the next start.",
    ),
];

const TELEMETRY: &[Variable] = &[
    var(
        "LOG_LEVEL",
        is("INFO"),
        "",
        "ERROR, WARN, INFO, DEBUG, TRACE, or directives such as `info,hyper=debug`.",
    ),
    var("STRUCTURED_LOGGING", is("true"), "", "true: one JSON object a line. false: text."),
    var(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        UNSET,
        "",
        "Collector to send traces to, by OTLP over HTTP; none are made without it. `/v1/traces` \
         is appended.",
    ),
    var("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", UNSET, "", "The same, as the complete URL."),
    secret("OTEL_EXPORTER_OTLP_HEADERS", "Headers for the collector, as `name=value,name=value`."),
    var("OTEL_EXPORTER_OTLP_PROTOCOL", is("http/protobuf"), "", "Only `http/protobuf`."),
    var("OTEL_EXPORTER_OTLP_TIMEOUT", is("10000"), "milliseconds", "Limit of one export."),
    var("OTEL_TRACES_EXPORTER", is("otlp"), "", "`otlp`, or `none` to switch traces off."),
    var(
        "OTEL_TRACES_SAMPLER",
        is("parentbased_always_on"),
        "",
        "always_on, always_off, traceidratio, or one of these after `parentbased_`.",
    ),
    var("OTEL_TRACES_SAMPLER_ARG", is("1"), "", "Share of traces kept by `traceidratio`: 0 to 1."),
    var("OTEL_SERVICE_NAME", is("runner-orchestrator"), "", "Name of the service in traces."),
    var("OTEL_RESOURCE_ATTRIBUTES", UNSET, "", "More attributes, as `name=value,name=value`."),
    var("OTEL_SDK_DISABLED", is("false"), "", "true switches traces off."),
];

/// What settings files of the Python original may hold beside our variables. They are
/// accepted without a word and never read: `CI` or `VERSION` mean something else to
/// every other program.
pub(super) const LEGACY: &[&str] = &[
    "BUILD_TIMESTAMP",
    "CI",
    "DOCKER_DNS",
    "DOCKER_DNS_SEARCH",
    "DOCKER_SOCKET",
    "ID",
    "METRICS_PORT",
    "NODE_ENV",
    "NODE_VERSION",
    "PLAYWRIGHT_BROWSERS_PATH",
    "RUNNER_DEBUG_OUTPUT",
    "RUNNER_DISABLE_AUTOMATIC_DEREGISTRATION",
    "RUNNER_NAME_PREFIX",
    "RUNNER_NETWORK",
    "RUNNER_NO_DEFAULT_LABELS",
    "RUNNER_PREFIX",
    "RUNNER_START_DOCKER_SERVICE",
    "RUNNER_UNSET_CONFIG_VARS",
    "RUNNER_VERSION",
    "VERSION",
];
