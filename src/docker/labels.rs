//! The one codec of what we write on containers. Old and new replicas read each other's
//! labels during an upgrade, so the set carries a version.

use std::collections::HashMap;

use chrono::DateTime;

use super::{ContainerLabels, RunnerContainer, label};
use crate::fleet::id::{ClusterMark, PoolName, RepoName, RunnerName};
use crate::fleet::pool::Scope;
use crate::fleet::time::Timestamp;

/// Every label of a runner's container.
pub(crate) fn encode(spec: &RunnerContainer) -> HashMap<String, String> {
    [
        (label::MANAGED_BY, label::MANAGED_BY_VALUE.to_owned()),
        (label::VERSION, label::VERSION_VALUE.to_owned()),
        (label::RUNNER_NAME, spec.name.to_string()),
        (label::CREATED_AT, spec.created_at.to_string()),
        (label::REPO_URL, spec.scope.path()),
        (label::SCOPE, spec.scope.to_string()),
        (label::IMAGE, spec.image.clone()),
        (label::CLUSTER, spec.cluster.to_string()),
        (label::HOST, spec.host.to_string()),
        (label::BOOT, spec.boot.to_string()),
        (label::POOL, spec.pool.to_string()),
        (label::RUNNER_ID, spec.runner.to_string()),
        (label::TERM, spec.term.to_string()),
        (label::SPEC, spec.revision.clone()),
        (label::CORRELATION, spec.correlation.clone()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Reads the labels back. `None`: not a runner of ours, or of a version we do not know;
/// such a container is left alone.
pub(crate) fn parse(labels: &HashMap<String, String>) -> Option<ContainerLabels> {
    let get = |key: &str| labels.get(key).map(String::as_str);
    if get(label::MANAGED_BY) != Some(label::MANAGED_BY_VALUE)
        || get(label::VERSION) != Some(label::VERSION_VALUE)
    {
        return None;
    }
    Some(ContainerLabels {
        runner: get(label::RUNNER_ID)?.parse().ok()?,
        name: RunnerName::from(get(label::RUNNER_NAME)?),
        pool: PoolName::from(get(label::POOL)?),
        cluster: ClusterMark::from(get(label::CLUSTER)?),
        host: get(label::HOST)?.parse().ok()?,
        boot: get(label::BOOT)?.parse().ok()?,
        term: get(label::TERM)?.parse().ok()?,
        revision: get(label::SPEC)?.to_owned(),
        created_at: instant(get(label::CREATED_AT)?)?,
        correlation: get(label::CORRELATION)?.to_owned(),
        scope: get(label::SCOPE).and_then(scope),
    })
}

/// The labels of a volume, network or helper container that serves the whole cluster.
pub(crate) fn of_role(mark: &ClusterMark, role: &str) -> HashMap<String, String> {
    [
        (label::MANAGED_BY, label::MANAGED_BY_VALUE),
        (label::VERSION, label::VERSION_VALUE),
        (label::CLUSTER, mark.as_str()),
        (label::ROLE, role),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// The filter that finds everything of this cluster and nothing else.
pub(crate) fn filter(mark: &ClusterMark) -> HashMap<String, Vec<String>> {
    let ours = format!("{}={}", label::MANAGED_BY, label::MANAGED_BY_VALUE);
    let cluster = format!("{}={mark}", label::CLUSTER);
    HashMap::from([("label".to_owned(), vec![ours, cluster])])
}

/// Reads what [`Scope`] shows of itself. Which organisations of an enterprise have demand
/// is the configuration's to say: a registration is found without it.
fn scope(text: &str) -> Option<Scope> {
    let (kind, name) = text.split_once(' ').filter(|(_, name)| !name.is_empty())?;
    match kind {
        "repo" => Some(Scope::Repo(RepoName::from(name))),
        "org" => Some(Scope::Org(name.to_owned())),
        "enterprise" => Some(Scope::Enterprise { slug: name.to_owned(), orgs: Vec::new() }),
        _ => None,
    }
}

fn instant(text: &str) -> Option<Timestamp> {
    let date = DateTime::parse_from_rfc3339(text).ok()?;
    Some(Timestamp::from_utc(date.to_utc()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::docker::spec::sample;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            at_ms in 0..253_402_300_799_999_u64,
            term: u64,
            pool in "[a-z0-9-]{1,30}",
            text in ".{0,40}",
        ) {
            let mut spec = sample();
            spec.created_at = Timestamp(at_ms);
            spec.term = term;
            spec.pool = PoolName(pool);
            spec.correlation = text;
            let read = parse(&encode(&spec)).expect("our own labels");
            prop_assert_eq!(read.created_at, spec.created_at);
            prop_assert_eq!(read.term, spec.term);
            prop_assert_eq!(read.pool, spec.pool);
            prop_assert_eq!(read.correlation, spec.correlation);
            prop_assert_eq!(
                (read.runner, read.name, read.cluster, read.host, read.boot, read.revision),
                (spec.runner, spec.name, spec.cluster, spec.host, spec.boot, spec.revision)
            );
        }
    }

    #[test]
    fn a_scope_is_read_back_and_an_older_set_has_none() {
        let scopes = [
            Scope::Repo(RepoName::from("acme/demo")),
            Scope::Org("acme".to_owned()),
            Scope::Enterprise { slug: "acme".to_owned(), orgs: Vec::new() },
        ];
        for scope in scopes {
            let labels = encode(&RunnerContainer { scope: scope.clone(), ..sample() });
            assert_eq!(parse(&labels).unwrap().scope, Some(scope));
        }
        let mut older = encode(&sample());
        older.remove(label::SCOPE);
        assert_eq!(parse(&older).unwrap().scope, None);
        older.insert(label::SCOPE.to_owned(), "galaxy acme".to_owned());
        assert_eq!(parse(&older).unwrap().scope, None);
    }

    #[test]
    fn a_set_with_anything_essential_missing_or_garbled_is_skipped() {
        let whole = encode(&sample());
        let read_nowhere = [label::REPO_URL, label::IMAGE, label::SCOPE];
        for key in whole.keys().filter(|key| !read_nowhere.contains(&key.as_str())) {
            let mut labels = whole.clone();
            labels.remove(key);
            assert!(parse(&labels).is_none(), "without {key}");
        }
        for key in [label::RUNNER_ID, label::HOST, label::BOOT, label::TERM, label::CREATED_AT] {
            let mut labels = whole.clone();
            labels.insert(key.to_owned(), "garbled".to_owned());
            assert!(parse(&labels).is_none(), "garbled {key}");
        }
        let mut newer = whole;
        newer.insert(label::VERSION.to_owned(), "2".to_owned());
        assert!(parse(&newer).is_none());
        assert!(parse(&HashMap::new()).is_none());
    }
}
