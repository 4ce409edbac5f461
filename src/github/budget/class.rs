//! What calls are for, whose they are, and why one may have to wait.

use std::fmt;

use super::{CHANGE_POINTS, POINTS_PER_MINUTE, READ_POINTS, SWEEP_POINTS_PER_MINUTE};
use crate::fleet::time::Timestamp;

/// What a call is for, in the order in which calls are given up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CallClass {
    /// Nice to have.
    Extra,
    /// Reading the queue of a quiet repository.
    Sweep,
    /// Reading the queue of an active repository, and which repositories there are.
    Queue,
    /// Reading which runners are registered.
    Registrations,
    /// Registering a runner.
    Mint,
    /// Deleting a registration.
    Deregister,
    /// Obtaining the token without which nothing else can be sent.
    Token,
}

impl CallClass {
    /// What one call of the class costs.
    #[must_use]
    pub const fn points(self) -> u32 {
        match self {
            Self::Extra | Self::Sweep | Self::Queue | Self::Registrations => READ_POINTS,
            Self::Mint | Self::Deregister | Self::Token => CHANGE_POINTS,
        }
    }

    /// Points of the running minute that the class leaves to more urgent ones.
    pub(super) const fn minute_reserve(self) -> u32 {
        match self {
            Self::Extra => 700,
            Self::Sweep => POINTS_PER_MINUTE - SWEEP_POINTS_PER_MINUTE,
            Self::Queue => 100,
            Self::Registrations => 50,
            // A whole minute's points may go into registrations: a burst of jobs is
            // served at once, and reading waits for the window to move.
            Self::Mint | Self::Deregister | Self::Token => 0,
        }
    }

    /// Thousandths of the primary limit that the class leaves to more urgent ones.
    pub(super) const fn primary_reserve_permille(self) -> u64 {
        match self {
            Self::Extra => 300,
            Self::Sweep => 150,
            Self::Queue => 60,
            Self::Registrations => 40,
            Self::Mint => 10,
            Self::Deregister | Self::Token => 0,
        }
    }
}

/// Whose limit a call counts against.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CredentialId {
    /// The personal access token.
    Token,
    /// The App itself, signing with its key.
    App,
    /// One installation of the App.
    Installation(u64),
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token => f.write_str("token"),
            Self::App => f.write_str("app"),
            Self::Installation(id) => write!(f, "installation {id}"),
        }
    }
}

/// Why a call may not be sent now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shortage {
    /// GitHub told us to wait.
    Blocked { until: Timestamp },
    /// The points of this minute are kept for more urgent calls, or spent.
    MinutePoints,
    /// The primary limit's rest is kept for more urgent calls, or spent.
    PrimaryPoints,
    /// The minting rate was lowered after a refusal.
    MintRate,
}

impl Shortage {
    /// The reason in words, for [`crate::github::GitHubError::Shed`].
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Blocked { .. } => "github asked us to wait",
            Self::MinutePoints => "points of this minute",
            Self::PrimaryPoints => "primary rate limit",
            Self::MintRate => "minting rate lowered after a refusal",
        }
    }
}
