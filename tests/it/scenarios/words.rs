//! Reading the words of a scenario: times, ranges, jobs, settings.

use std::collections::BTreeMap;
use std::time::Duration;

use runner_orchestrator::fleet::demand::WaitingJob;
use runner_orchestrator::fleet::id::{JobId, PoolName, RepoName, RunnerId};
use runner_orchestrator::fleet::pool::{InnerDocker, Labels, Pool, Resources, Scope};
use runner_orchestrator::fleet::time::Timestamp;
use uuid::Uuid;

/// `90s`, `5m`, `2h`.
pub(crate) fn span(word: &str) -> Result<Duration, String> {
    let (number, unit) = word.split_at(word.len().saturating_sub(1));
    let number: u64 = number.parse().map_err(|_| format!("{word:?} is not a time"))?;
    match unit {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
        _ => Err(format!("{word:?} is not a time")),
    }
}

pub(crate) fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word:?} is not a number"))
}

/// `r3`, `r1..r10`, `r1,r4`; also bare numbers.
pub(crate) fn numbers(word: &str) -> Result<Vec<u64>, String> {
    let one = |text: &str| number::<u64>(text.trim_start_matches('r'));
    let mut all = Vec::new();
    for part in word.split(',') {
        match part.split_once("..") {
            Some((from, to)) => all.extend(one(from)?..=one(to)?),
            None => all.push(one(part)?),
        }
    }
    Ok(all)
}

pub(crate) fn runners(word: &str) -> Result<Vec<RunnerId>, String> {
    let numbers = numbers(word)?;
    Ok(numbers.into_iter().map(|n| RunnerId(Uuid::from_u128(u128::from(n)))).collect())
}

/// `min 2 max 10 up 3 ...`
pub(crate) fn pool(name: &str, words: &[&str]) -> Result<Pool, String> {
    let mut pool = Pool {
        name: PoolName::from(name),
        scope: Scope::Repo(RepoName::from("acme/demo")),
        labels: Labels::from_iter(["self-hosted"]),
        image: "runner:1".to_owned(),
        command: None,
        runner_group_id: 1,
        resources: Resources::default(),
        docker: InnerDocker::None,
        min_runners: 0,
        max_runners: 10,
        min_idle_runners: 0,
        scale_up_threshold: 1,
        scale_down_threshold: 0,
        scale_up_max_wait: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(300),
        start_deadline: Duration::from_secs(120),
        weight: 1,
        priority: 0,
        revision: "1".to_owned(),
    };
    for pair in words.chunks(2) {
        let &[key, value] = pair else { return Err(format!("{pair:?} has no value")) };
        match key {
            "min" => pool.min_runners = number(value)?,
            "max" => pool.max_runners = number(value)?,
            "min-idle" => pool.min_idle_runners = number(value)?,
            "up" => pool.scale_up_threshold = number(value)?,
            "down" => pool.scale_down_threshold = number(value)?,
            "wait" => pool.scale_up_max_wait = span(value)?,
            "idle" => pool.idle_timeout = span(value)?,
            "deadline" => pool.start_deadline = span(value)?,
            "labels" => pool.labels = value.split(',').collect(),
            "cpus" => pool.resources.cpus = Some(number::<u32>(value)?.into()),
            "memory" => pool.resources.memory_bytes = Some(number::<u64>(value)? << 30),
            "weight" => pool.weight = number(value)?,
            "priority" => pool.priority = number(value)?,
            "image" => value.clone_into(&mut pool.image),
            "scope" => pool.scope = scope(value)?,
            _ => return Err(format!("a pool has no {key:?}")),
        }
    }
    Ok(pool)
}

/// `repo:acme/demo`, `org:acme`, `enterprise:big:acme,other`.
fn scope(word: &str) -> Result<Scope, String> {
    match word.split(':').collect::<Vec<_>>()[..] {
        ["repo", name] => Ok(Scope::Repo(RepoName::from(name))),
        ["org", name] => Ok(Scope::Org(name.to_owned())),
        ["enterprise", slug, orgs] => Ok(Scope::Enterprise {
            slug: slug.to_owned(),
            orgs: orgs.split(',').map(str::to_owned).collect(),
        }),
        _ => Err(format!("{word:?} is not a scope")),
    }
}

/// `jobs 1..3 labels gpu,linux; jobs 7 queued 40s ago`, or `empty`.
pub(crate) fn jobs(
    text: &str,
    repo: &RepoName,
    pools: &BTreeMap<PoolName, Pool>,
    known: &[WaitingJob],
    now: Timestamp,
) -> Result<Vec<WaitingJob>, String> {
    let mut jobs = Vec::new();
    if text.trim() == "empty" {
        return Ok(jobs);
    }
    let usual = pools.values().next().map(|pool| pool.labels.clone()).unwrap_or_default();
    for group in text.split(';') {
        let words: Vec<&str> = group.split_whitespace().collect();
        let Some((&"jobs" | &"job", rest)) = words.split_first() else {
            return Err(format!("{group:?} is no group of jobs"));
        };
        let Some((ids, mut rest)) = rest.split_first() else {
            return Err("which jobs?".to_owned());
        };
        let mut labels = usual.clone();
        let mut queued_at = None;
        loop {
            rest = match rest {
                [] => break,
                ["labels", list, more @ ..] => {
                    labels = list.split(',').collect();
                    more
                }
                ["queued", ago, "ago", more @ ..] => {
                    queued_at = Some(now - span(ago)?);
                    more
                }
                _ => return Err(format!("{rest:?} says nothing of a job")),
            };
        }
        for id in numbers(ids)? {
            let before = known.iter().find(|job| job.id == JobId(id)).map(|job| job.queued_at);
            jobs.push(WaitingJob {
                id: JobId(id),
                repo: repo.clone(),
                labels: labels.clone(),
                queued_at: queued_at.or(before).unwrap_or(now),
                name: format!("job {id}"),
                evidence: now,
            });
        }
    }
    Ok(jobs)
}
