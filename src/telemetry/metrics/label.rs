//! The values of labels: enums, so that their number is known.

use crate::fleet::runner::RunnerPhase;

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum $name { $($variant,)+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The label's value.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

label! {
    /// Where a live runner stands.
    RunnerState {
        Assigned = "assigned",
        Accepted = "accepted",
        Created = "created",
        Started = "started",
        Handed = "handed",
        Listening = "listening",
        Running = "running",
        Retiring = "retiring",
        Unknown = "unknown",
    }
}
label! {
    /// How the life of a runner ended.
    RunnerEnd {
        Ended = "ended",
        Retired = "retired",
        Failed = "failed",
        Expired = "expired",
        Lost = "lost",
    }
}
label! {
    /// A step from the assignment to `Listening for Jobs`; `Total` is all of them.
    StartPhase {
        Accept = "accept",
        Create = "create",
        Start = "start",
        Mint = "mint",
        Hand = "hand",
        Listen = "listen",
        Total = "total",
    }
}
label! {
    /// What the runner said of its job.
    JobResult {
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
        Unknown = "unknown",
    }
}
label! {
    /// How an operation went.
    Outcome {
        Ok = "ok",
        Failed = "failed",
        TimedOut = "timed_out",
    }
}
label! {
    /// The three loops.
    LoopName {
        Observe = "observe",
        Lead = "lead",
        Host = "host",
    }
}
label! {
    /// What we depend on.
    Dependency {
        GitHub = "github",
        Docker = "docker",
        Store = "store",
    }
}

label! {
    /// What became of a request that claims to come from another replica.
    PeerRequest {
        Accepted = "accepted",
        Forged = "forged",
        Replayed = "replayed",
        Late = "late",
        Crowded = "crowded",
    }
}
label! {
    /// What became of a request forwarded to another replica.
    PeerForward {
        Answered = "answered",
        Unreachable = "unreachable",
        Refused = "refused",
    }
}

impl RunnerState {
    /// The state of a phase; `None` once the runner has ended.
    #[must_use]
    pub fn of(phase: &RunnerPhase) -> Option<Self> {
        match phase {
            RunnerPhase::Assigned { .. } => Some(Self::Assigned),
            RunnerPhase::Accepted { .. } => Some(Self::Accepted),
            RunnerPhase::Created { .. } => Some(Self::Created),
            RunnerPhase::Started { .. } => Some(Self::Started),
            RunnerPhase::Handed { .. } => Some(Self::Handed),
            RunnerPhase::Listening { .. } => Some(Self::Listening),
            RunnerPhase::Running { .. } => Some(Self::Running),
            RunnerPhase::Unknown { .. } => Some(Self::Unknown),
            RunnerPhase::Ended { .. }
            | RunnerPhase::Failed { .. }
            | RunnerPhase::Retired { .. }
            | RunnerPhase::Lost { .. } => None,
        }
    }
}

/// Operations at the Docker engine: the names of the methods of [`crate::docker::Docker`].
pub const DOCKER_OPERATIONS: &[&str] = &[
    "daemon",
    "claim_identity",
    "replace_identity",
    "marker",
    "write_marker",
    "remove_marker",
    "containers",
    "ensure_network",
    "image",
    "pull",
    "create",
    "attach",
    "start",
    "state",
    "stop",
    "remove",
    "logs",
    "events",
    "sweep",
];
