//! What can go wrong at a daemon, told apart by what the caller can do about it.

use crate::fleet::id::ContainerId;

/// What went wrong at the daemon.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    #[error("docker did not answer within {timeout_ms} ms while {action}")]
    Timeout { action: &'static str, timeout_ms: u64 },
    #[error("docker is not reachable while {action}")]
    Unreachable {
        action: &'static str,
        #[source]
        source: BoxError,
    },
    #[error("docker refused {action} with status {status}: {message}")]
    Refused { action: &'static str, status: u16, message: String },
    #[error("image {image} is not on the host")]
    ImageMissing { image: String },
    #[error("container {container} cannot start, its network is gone: {message}")]
    NetworkMissing { container: ContainerId, message: String },
    #[error("docker address \"{address}\" is not usable: {problem}")]
    Address { address: String, problem: &'static str },
    #[error("not done while {action}: this process is not the host's agent now")]
    NotAgent { action: &'static str },
    #[error("docker's answer to {action} could not be read")]
    Answer {
        action: &'static str,
        #[source]
        source: BoxError,
    },
}

/// The cause beneath an edge's error, without the edge's library in the signature.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl DockerError {
    /// Whether the thing asked for does not exist.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// The status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether trying again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. }
            | Self::Unreachable { .. }
            | Self::Answer { .. }
            | Self::NotAgent { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::ImageMissing { .. } | Self::NetworkMissing { .. } | Self::Address { .. } => false,
        }
    }
}
