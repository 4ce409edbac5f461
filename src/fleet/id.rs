//! Names of things. A bare `String` or number never names a runner, a host or a pool.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id! {
    /// One runner, from assignment to end. Made once by the leader and never live twice.
    RunnerId
}
uuid_id! {
    /// One Docker daemon, known by the identity we keep on it.
    HostId
}
uuid_id! {
    /// One start of one agent. A restarted agent is a new boot, so that an
    /// assignment made for the old one can be told apart.
    BootId
}
uuid_id! {
    /// One orchestrator process.
    ReplicaId
}
uuid_id! {
    /// One request of an operator; also its idempotency key.
    IntentId
}
text_id! {
    /// A pool's name, unique in the configuration.
    PoolName
}
text_id! {
    /// The name GitHub shows for a runner.
    RunnerName
}
text_id! {
    /// A Docker container's full id.
    ContainerId
}
text_id! {
    /// A repository as `owner/name`.
    RepoName
}
text_id! {
    /// The six hexadecimal digits that mark everything of one cluster.
    ClusterMark
}
number_id! {
    /// The leader's fencing token: grows with every change of leader.
    Term
}
number_id! {
    /// GitHub's id of a runner registration.
    GitHubRunnerId
}
number_id! {
    /// GitHub's id of a workflow job.
    JobId
}

/// The first part of every runner name of ours; users of the Python original know it.
pub const RUNNER_NAME_PREFIX: &str = "orchestrated";
/// The first part of every runner container's name.
pub const CONTAINER_NAME_PREFIX: &str = "github-runner";

impl ClusterMark {
    /// Derives the mark from the cluster's name, or from a host identity where no
    /// name was given, so that two installations never sweep each other.
    #[must_use]
    pub fn derive(cluster_name: &str) -> Self {
        let digest = Sha256::digest(cluster_name.as_bytes());
        let [a, b, c, ..]: [u8; 32] = digest.into();
        Self(format!("{a:02x}{b:02x}{c:02x}"))
    }
}

impl HostId {
    /// The eight digits of a host that appear in its runners' names.
    #[must_use]
    pub fn short(&self) -> String {
        self.0.simple().to_string().chars().take(8).collect()
    }
}

impl RunnerId {
    /// The twelve digits that end the runner's name. They are the random tail of the
    /// id: its head is time-ordered and collides within a millisecond.
    #[must_use]
    pub fn tail(&self) -> String {
        self.0.simple().to_string().chars().skip(20).collect()
    }
}

impl RunnerName {
    /// `orchestrated-<cluster 6>-<host 8>-<12 hex>`; 41 characters.
    #[must_use]
    pub fn compose(mark: &ClusterMark, host: &HostId, runner: &RunnerId) -> Self {
        Self(format!("{RUNNER_NAME_PREFIX}-{mark}-{}-{}", host.short(), runner.tail()))
    }

    /// Whether the name carries our prefix and this cluster's mark. Names of other
    /// clusters, of the original (`orchestrated-<8 hex>`) and of anybody else do not.
    #[must_use]
    pub fn is_of(&self, mark: &ClusterMark) -> bool {
        let mut parts = self.0.split('-');
        parts.next() == Some(RUNNER_NAME_PREFIX)
            && parts.next() == Some(mark.as_str())
            && parts.next().is_some_and(|host| is_hex(host, 8))
            && parts.next().is_some_and(|tail| is_hex(tail, 12))
            && parts.next().is_none()
    }

    /// The host part of a name of ours.
    #[must_use]
    pub fn host_short(&self) -> Option<&str> {
        self.0.split('-').nth(2).filter(|host| is_hex(host, 8))
    }

    /// The container's name for this runner.
    #[must_use]
    pub fn container_name(&self) -> String {
        format!("{CONTAINER_NAME_PREFIX}-{}", self.0)
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl RepoName {
    /// Splits `owner/name`; `None` when it has another shape.
    #[must_use]
    pub fn split(&self) -> Option<(&str, &str)> {
        self.0
            .split_once('/')
            .filter(|(owner, name)| !owner.is_empty() && !name.is_empty() && !name.contains('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_ours_only_with_prefix_mark_and_shape() {
        let mark = ClusterMark::derive("demo");
        let host = HostId(Uuid::from_u128(0xabcd_ef01 << 96));
        let id = RunnerId(Uuid::from_u128(0x1234_5678_9abc));
        let name = RunnerName::compose(&mark, &host, &id);
        assert_eq!(name.as_str().len(), 41);
        assert!(name.as_str().ends_with("-abcdef01-123456789abc"), "{name}");
        assert!(name.is_of(&mark));
        assert!(!name.is_of(&ClusterMark::derive("other")));
        for foreign in ["orchestrated-1234abcd", "actions-runner-1", "orchestrated", ""] {
            assert!(!RunnerName::from(foreign).is_of(&mark), "{foreign}");
        }
        assert!(!RunnerName(format!("{name}-x")).is_of(&mark));
    }

    #[test]
    fn a_repository_needs_exactly_one_slash() {
        assert_eq!(RepoName::from("acme/demo").split(), Some(("acme", "demo")));
        for bad in ["acme", "/demo", "acme/", "a/b/c"] {
            assert_eq!(RepoName::from(bad).split(), None, "{bad}");
        }
    }
}
