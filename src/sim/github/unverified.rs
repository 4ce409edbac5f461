//! What nobody outside GitHub can confirm, in one table. Each row has the answer
//! the model gives by default and a hostile one that tests switch on.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// One assumption that is not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assumption {
    /// Answer to the deletion of a busy runner.
    BusyDeleteStatus,
    /// From when a runner shows as busy.
    BusyFrom,
    /// What becomes of a job whose runner is deleted between assignment and start.
    DeletedWhileAssigned,
    /// Whether a deleted runner leaves the list at once.
    DeletedStillListed,
    /// Whether a connected runner is told that its registration is gone.
    DeletedRunnerNotice,
    /// How soon an ephemeral runner disappears after its job.
    RemovedAfterJob,
    /// What becomes of the registration of a runner that vanished while busy.
    LostRegistration,
    /// Whether a mint that answers 5xx has registered the runner.
    MintServerError,
    /// Longest accepted runner name.
    NameLength,
    /// Whether a mint adds the default labels.
    DefaultLabels,
    /// Letter case of stored labels.
    LabelCase,
    /// Whether `ETag` differs between tokens.
    EtagPerToken,
    /// Whether `ETag` is weak.
    EtagWeak,
    /// `runner_id` and `runner_name` of a queued job.
    QueuedRunnerId,
    /// `started_at` of a queued job.
    QueuedStartedAt,
    /// Whether optional fields are present and unknown ones absent.
    FieldSet,
    /// `head_commit` of a run.
    HeadCommit,
    /// How soon a new job is listed.
    JobVisibility,
    /// Status of an answer over a limit.
    LimitStatus,
    /// Whether a secondary limit names the time to wait.
    SecondaryRetryAfter,
    /// How the minute of the secondary limit is counted.
    SecondaryWindow,
    /// Which rate bucket a mint reports.
    MintRateResource,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Row {
    /// Which assumption.
    pub assumption: Assumption,
    /// What the model does unless told otherwise.
    pub default: &'static str,
    /// What it does when the row is switched on.
    pub hostile: &'static str,
}

const fn row(assumption: Assumption, default: &'static str, hostile: &'static str) -> Row {
    Row { assumption, default, hostile }
}

/// Every assumption with both of its answers.
pub const TABLE: [Row; 22] = [
    row(Assumption::BusyDeleteStatus, "422", "404"),
    row(Assumption::BusyFrom, "assignment", "start of the job"),
    row(Assumption::DeletedWhileAssigned, "job queued again", "the runner runs it nevertheless"),
    row(Assumption::DeletedStillListed, "gone from the list at once", "listed for 60 s, offline"),
    row(Assumption::DeletedRunnerNotice, "told at once", "its polls stay empty"),
    row(Assumption::RemovedAfterJob, "at once", "listed for 30 s, offline"),
    row(Assumption::LostRegistration, "removed with its job", "stays, offline"),
    row(Assumption::MintServerError, "nothing registered", "registered all the same"),
    row(Assumption::NameLength, "64 characters", "48 characters"),
    row(Assumption::DefaultLabels, "only those sent", "self-hosted, linux and x64 added"),
    row(Assumption::LabelCase, "lower case", "as sent"),
    row(Assumption::EtagPerToken, "by content", "by content and token"),
    row(Assumption::EtagWeak, "strong", "weak"),
    row(Assumption::QueuedRunnerId, "null", "0 and an empty name"),
    row(Assumption::QueuedStartedAt, "equals created_at", "0001-01-01T00:00:00Z"),
    row(Assumption::FieldSet, "as documented", "optional ones missing, unknown ones added"),
    row(Assumption::HeadCommit, "an object", "null"),
    row(Assumption::JobVisibility, "at once", "after 5 s"),
    row(Assumption::LimitStatus, "403", "429"),
    row(Assumption::SecondaryRetryAfter, "retry-after sent", "no retry-after"),
    row(Assumption::SecondaryWindow, "any 60 s", "clock minutes"),
    row(Assumption::MintRateResource, "core", "actions_runner_registration"),
];

/// The set of assumptions switched to their hostile variant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Variants(BTreeSet<Assumption>);

impl Variants {
    /// Every assumption hostile at once.
    #[must_use]
    pub fn all() -> Self {
        TABLE.iter().map(|row| row.assumption).collect()
    }

    /// Whether this assumption is hostile now.
    #[must_use]
    pub fn hostile(&self, assumption: Assumption) -> bool {
        self.0.contains(&assumption)
    }
}

impl FromIterator<Assumption> for Variants {
    fn from_iter<I: IntoIterator<Item = Assumption>>(rows: I) -> Self {
        Self(rows.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_assumption_has_exactly_one_row() {
        assert_eq!(Variants::all().0.len(), TABLE.len());
        for row in TABLE {
            assert_ne!(row.default, row.hostile, "{:?}", row.assumption);
        }
    }
}
