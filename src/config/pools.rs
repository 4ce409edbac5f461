//! Pools: the fields that the environment and a pools file share, their ranges, and the
//! rules between them.

use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::problem::Problem;
use super::reader::Reader;
use super::value;
use crate::fleet::id::PoolName;
use crate::fleet::pool::{InnerDocker, Labels, Pool, Resources, Scope};

/// The pool that the environment describes.
pub const DEFAULT_POOL: &str = "default";

/// GitHub's own limit of runners in one group.
const RUNNERS_MAX: u32 = 10_000;
/// GitHub takes at most so many labels for one runner.
const LABELS_MAX: usize = 100;
const LABEL_CHARS_MAX: usize = 256;
/// A week: longer than any job may take.
const SECONDS_MAX: u64 = 7 * 24 * 3600;

/// A setting as its source gives it.
pub(super) enum Raw {
    Text(String),
    List(Vec<String>),
}

impl Raw {
    fn text<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
        match self {
            Self::Text(text) => parse(text),
            Self::List(_) => Err("expected one value, not a list".to_owned()),
        }
    }
}

/// Where the fields of a pool are read from.
pub(super) trait FieldSource {
    /// The field that the environment calls `variable`. `None`: not set, or wrong and
    /// noted as a problem.
    fn field<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Option<T>;
}

/// The fields of a pool, each as far as it is set and right.
#[derive(Clone, Default)]
pub(super) struct Fields {
    pub scope: Option<Scope>,
    pub labels: Option<Labels>,
    pub image: Option<String>,
    pub command: Option<Vec<String>>,
    pub runner_group_id: Option<u64>,
    pub resources: Resources,
    pub docker: Option<InnerDocker>,
    pub min_runners: Option<u32>,
    pub max_runners: Option<u32>,
    pub min_idle_runners: Option<u32>,
    pub scale_up_threshold: Option<u32>,
    pub scale_down_threshold: Option<u32>,
    pub scale_up_max_wait: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub start_deadline: Option<Duration>,
    pub weight: Option<u32>,
    pub priority: Option<i32>,
}

impl Fields {
    /// Reads what a source has. Scope, weight and priority are not among the shared
    /// fields.
    pub(super) fn read(source: &mut impl FieldSource) -> Self {
        let runners = |from| move |raw: &Raw| raw.text(value::whole(from..=RUNNERS_MAX));
        let seconds = |from| move |raw: &Raw| raw.text(value::seconds(from..=SECONDS_MAX));
        Self {
            min_runners: source.field("MIN_RUNNERS", runners(0)),
            max_runners: source.field("MAX_RUNNERS", runners(1)),
            min_idle_runners: source.field("MIN_IDLE_RUNNERS", runners(0)),
            scale_up_threshold: source.field("SCALE_UP_THRESHOLD", runners(1)),
            scale_down_threshold: source.field("SCALE_DOWN_THRESHOLD", runners(0)),
            scale_up_max_wait: source.field("SCALE_UP_MAX_WAIT", seconds(0)),
            idle_timeout: source.field("IDLE_TIMEOUT", seconds(1)),
            start_deadline: source.field("START_DEADLINE", seconds(1)),
            image: source.field("RUNNER_IMAGE", |raw| raw.text(image)),
            labels: source.field("RUNNER_LABELS", labels),
            command: source.field("RUNNER_COMMAND", |raw| match raw {
                Raw::Text(text) => value::command(text),
                Raw::List(words) if words.is_empty() => Err("expected a command".to_owned()),
                Raw::List(words) => Ok(words.clone()),
            }),
            runner_group_id: source
                .field("RUNNER_GROUP_ID", |raw| raw.text(value::whole(1..=u64::from(u32::MAX)))),
            resources: Resources {
                cpus: source.field("RUNNER_CPUS", |raw| raw.text(value::decimal(0.01..=1024.0))),
                memory_bytes: source.field("RUNNER_MEMORY", |raw| raw.text(value::memory)),
                // A runner with Docker inside idles at 34 processes; the upper end is
                // the kernel's.
                pids: source.field("RUNNER_PIDS", |raw| raw.text(value::whole(64..=4_194_304))),
            },
            docker: source.field("RUNNER_DOCKER", |raw| raw.text(inner_docker)),
            scope: None,
            weight: None,
            priority: None,
        }
    }

    /// Takes from `base` what is not set here.
    pub(super) fn or(self, base: &Self) -> Self {
        let own = self.resources;
        Self {
            scope: self.scope.or_else(|| base.scope.clone()),
            labels: self.labels.or_else(|| base.labels.clone()),
            image: self.image.or_else(|| base.image.clone()),
            command: self.command.or_else(|| base.command.clone()),
            runner_group_id: self.runner_group_id.or(base.runner_group_id),
            resources: Resources {
                cpus: own.cpus.or(base.resources.cpus),
                memory_bytes: own.memory_bytes.or(base.resources.memory_bytes),
                pids: own.pids.or(base.resources.pids),
            },
            docker: self.docker.or(base.docker),
            min_runners: self.min_runners.or(base.min_runners),
            max_runners: self.max_runners.or(base.max_runners),
            min_idle_runners: self.min_idle_runners.or(base.min_idle_runners),
            scale_up_threshold: self.scale_up_threshold.or(base.scale_up_threshold),
            scale_down_threshold: self.scale_down_threshold.or(base.scale_down_threshold),
            scale_up_max_wait: self.scale_up_max_wait.or(base.scale_up_max_wait),
            idle_timeout: self.idle_timeout.or(base.idle_timeout),
            start_deadline: self.start_deadline.or(base.start_deadline),
            weight: self.weight.or(base.weight),
            priority: self.priority.or(base.priority),
        }
    }

    /// Rules between fields; `name` says what the user calls a field.
    pub(super) fn contradictions(&self, name: impl Fn(&'static str) -> String) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut at_most = |low: (&'static str, Option<u32>), high: (&'static str, Option<u32>)| {
            if let (Some(low_value), Some(high_value)) = (low.1, high.1)
                && low_value > high_value
            {
                problems.push(Problem {
                    subject: format!("{}={low_value}", name(low.0)),
                    text: format!("must be at most {} ({high_value})", name(high.0)),
                });
            }
        };
        let max = ("MAX_RUNNERS", self.max_runners);
        at_most(("MIN_RUNNERS", self.min_runners), max);
        at_most(("MIN_IDLE_RUNNERS", self.min_idle_runners), max);
        if let (Some(down), Some(up)) = (self.scale_down_threshold, self.scale_up_threshold)
            && down >= up
        {
            problems.push(Problem {
                subject: format!("{}={down}", name("SCALE_DOWN_THRESHOLD")),
                text: format!("must be below {} ({up})", name("SCALE_UP_THRESHOLD")),
            });
        }
        // The entrypoint of the image is what takes root away from a job beside such a Docker.
        if let (Some(_), Some(docker)) = (&self.command, self.docker)
            && docker != InnerDocker::None
        {
            problems.push(Problem {
                subject: format!("{}={}", name("RUNNER_DOCKER"), docker.name()),
                text: format!(
                    "is brought up by the image's own entrypoint, which {} would replace",
                    name("RUNNER_COMMAND")
                ),
            });
        }
        problems
    }

    /// The pool. `None` when a field is missing, for which there is a problem already.
    pub(super) fn finish(self, name: &str, poll_interval: Option<Duration>) -> Option<Pool> {
        let scale_up_threshold = self.scale_up_threshold?;
        let mut pool = Pool {
            name: PoolName::from(name),
            scope: self.scope?,
            labels: self.labels?,
            image: self.image?,
            command: self.command,
            runner_group_id: self.runner_group_id?,
            resources: self.resources,
            docker: self.docker?,
            min_runners: self.min_runners?,
            max_runners: self.max_runners?,
            min_idle_runners: self.min_idle_runners?,
            scale_up_threshold,
            scale_down_threshold: self
                .scale_down_threshold
                .unwrap_or_else(|| default_scale_down_threshold(scale_up_threshold)),
            scale_up_max_wait: self.scale_up_max_wait.or(poll_interval)?,
            idle_timeout: self.idle_timeout?,
            start_deadline: self.start_deadline?,
            weight: self.weight.unwrap_or(1),
            priority: self.priority.unwrap_or(0),
            revision: String::new(),
        };
        pool.revision = revision(&pool);
        Some(pool)
    }
}

/// What the environment says of the pool `default`, whether or not that pool exists.
pub(super) fn from_environment(reader: &mut Reader<'_>, scope: Option<Scope>) -> Fields {
    let set = reader.is_set("RUNNER_LABELS");
    let mut fields = Fields { scope, ..Fields::read(reader) };
    if !set {
        fields.labels = Some(default_labels());
    }
    if let Some(labels) = &fields.labels {
        if set && !labels.iter().any(|label| label == "self-hosted") {
            let name = reader.spelled("RUNNER_LABELS");
            reader.warn(format!(
                "{name} has no label self-hosted: jobs that ask for it will not run here"
            ));
        }
        reader.derived("RUNNER_LABELS", labels);
    }
    if let Some(up) = fields.scale_up_threshold {
        reader.derived("SCALE_DOWN_THRESHOLD", default_scale_down_threshold(up));
    }
    let problems = fields.contradictions(|variable| reader.spelled(variable));
    reader.problems.extend(problems);
    fields
}

fn default_scale_down_threshold(scale_up_threshold: u32) -> u32 {
    scale_up_threshold.saturating_sub(1).min(1)
}

/// GitHub's name of this machine's architecture is among them.
fn default_labels() -> Labels {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    ["self-hosted", "linux", architecture, "docker-dind", "orchestrated", "optimized"]
        .into_iter()
        .collect()
}

fn labels(raw: &Raw) -> Result<Labels, String> {
    let labels: Labels = match raw {
        Raw::Text(text) => value::list(text).into_iter().collect(),
        Raw::List(items) => items.iter().collect(),
    };
    let fits = |label: &str| {
        label.chars().count() <= LABEL_CHARS_MAX
            && !label.contains(|c: char| c == ',' || c.is_control())
    };
    if (1..=LABELS_MAX).contains(&labels.len()) && labels.iter().all(fits) {
        Ok(labels)
    } else {
        Err(format!(
            "expected 1 to {LABELS_MAX} labels of at most {LABEL_CHARS_MAX} characters, \
             separated by commas"
        ))
    }
}

fn inner_docker(text: &str) -> Result<InnerDocker, String> {
    let named = InnerDocker::ALL.into_iter().find(|mode| text.eq_ignore_ascii_case(mode.name()));
    named.ok_or_else(|| "expected none, rootless or dind".to_owned())
}

/// A reference as Docker takes it; the daemon judges the rest.
fn image(text: &str) -> Result<String, String> {
    let fits = text.len() <= 512
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@".contains(&b));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected an image such as name:tag or host/name@sha256:…".to_owned())
    }
}

/// Changes when a setting changes that runners are made from: then idle runners of the
/// old revision are replaced. Thresholds are not among them.
fn revision(pool: &Pool) -> String {
    let mut made_from = vec![
        json!(pool.scope),
        json!(pool.labels),
        json!(pool.image),
        json!(pool.command),
        json!(pool.runner_group_id),
        json!(pool.resources),
    ];
    // What the version before did not know and made as if it were the default.
    if pool.docker != InnerDocker::default() {
        made_from.push(json!(pool.docker));
    }
    let made_from = json!(made_from);
    let digest = Sha256::digest(made_from.to_string());
    let head = digest.iter().take(6).fold(0_u64, |head, byte| (head << 8) | u64::from(*byte));
    format!("{head:012x}")
}
