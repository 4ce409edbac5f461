//! What we read from GitHub's answers, and nothing more. Only what identifies a thing is
//! required; an unknown field, a missing optional one or a status that GitHub invents
//! tomorrow is accepted. octocrab's own models refuse a whole page for one odd value.

use serde::{Deserialize, Serialize};

use super::cache::Digest;
use super::{Registration, Repository};
use crate::fleet::id::{GitHubRunnerId, JobId, RepoName, RunnerName};
use crate::fleet::pool::Labels;
use crate::fleet::time::Timestamp;

/// One page of a list, read down to what we need.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Listing<T> {
    /// How many there are over all pages, where GitHub says so.
    pub(crate) total: Option<u64>,
    /// How many this page listed, also those that do not concern us.
    pub(crate) listed: usize,
    pub(crate) items: Vec<T>,
}

/// Something GitHub lists in pages.
pub(crate) trait Item: Clone + PartialEq + Send + Sync + 'static {
    fn read(body: &[u8]) -> serde_json::Result<Listing<Self>>;
    /// Whether two rows are of the same thing, whatever has become of it.
    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
    /// A page as a text for the next leader, where that saves it calls.
    fn keep(_page: &Listing<Self>) -> Option<String> {
        None
    }
    /// Reads it back.
    fn kept(_text: &str) -> Option<Listing<Self>> {
        None
    }
    /// About how many bytes it takes beyond its own size.
    fn bytes(&self) -> usize;
}

impl<T: Item> Digest for Listing<T> {
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.items.iter().map(|item| size_of::<T>() + item.bytes()).sum::<usize>()
    }

    fn text(&self) -> Option<String> {
        T::keep(self)
    }

    fn of_text(text: &str) -> Option<Self> {
        T::kept(text)
    }
}

/// A run that is queued or in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) id: u64,
    pub(crate) attempt: u64,
    pub(crate) in_progress: bool,
    pub(crate) updated_at: Option<Timestamp>,
}

/// A job that waits for a runner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) id: JobId,
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) queued_at: Option<Timestamp>,
}

impl Item for Run {
    fn read(body: &[u8]) -> serde_json::Result<Listing<Self>> {
        #[derive(Deserialize)]
        struct Page {
            total_count: Option<u64>,
            workflow_runs: Vec<Element>,
        }
        #[derive(Deserialize)]
        struct Element {
            id: u64,
            status: Option<String>,
            run_attempt: Option<u64>,
            updated_at: Option<String>,
        }
        let page: Page = serde_json::from_slice(body)?;
        Ok(Listing {
            total: page.total_count,
            listed: page.workflow_runs.len(),
            items: page
                .workflow_runs
                .into_iter()
                .map(|run| Self {
                    id: run.id,
                    attempt: run.run_attempt.unwrap_or(1),
                    in_progress: run.status.as_deref() == Some("in_progress"),
                    updated_at: instant(run.updated_at.as_deref()),
                })
                .collect(),
        })
    }

    fn keep(page: &Listing<Self>) -> Option<String> {
        serde_json::to_string(page).ok()
    }

    fn kept(text: &str) -> Option<Listing<Self>> {
        serde_json::from_str(text).ok()
    }

    fn bytes(&self) -> usize {
        0
    }
}

impl Item for Waiting {
    fn read(body: &[u8]) -> serde_json::Result<Listing<Self>> {
        #[derive(Deserialize)]
        struct Page {
            total_count: Option<u64>,
            jobs: Vec<Element>,
        }
        #[derive(Deserialize)]
        struct Element {
            id: u64,
            status: Option<String>,
            name: Option<String>,
            labels: Option<Vec<String>>,
            created_at: Option<String>,
            started_at: Option<String>,
        }
        let page: Page = serde_json::from_slice(body)?;
        let listed = page.jobs.len();
        let items = page.jobs.into_iter().filter(|job| job.status.as_deref() == Some("queued"));
        Ok(Listing {
            total: page.total_count,
            listed,
            items: items
                .map(|job| Self {
                    id: JobId(job.id),
                    name: job.name.unwrap_or_default(),
                    labels: job.labels.unwrap_or_default().into_iter().collect(),
                    // While a job is queued, GitHub gives its creation as its start.
                    queued_at: instant(job.created_at.as_deref())
                        .or_else(|| instant(job.started_at.as_deref())),
                })
                .collect(),
        })
    }

    fn keep(page: &Listing<Self>) -> Option<String> {
        serde_json::to_string(page).ok()
    }

    fn kept(text: &str) -> Option<Listing<Self>> {
        serde_json::from_str(text).ok()
    }

    fn bytes(&self) -> usize {
        // A set of strings: a node of a tree, and each string's own allocation.
        self.name.len() + 300 + self.labels.iter().map(|label| label.len() + 40).sum::<usize>()
    }
}

impl Item for Repository {
    fn read(body: &[u8]) -> serde_json::Result<Listing<Self>> {
        #[derive(Deserialize)]
        struct Element {
            full_name: String,
            archived: Option<bool>,
            disabled: Option<bool>,
            pushed_at: Option<String>,
        }
        let page: Vec<Element> = serde_json::from_slice(body)?;
        let listed = page.len();
        let open = page
            .into_iter()
            .filter(|repo| repo.archived != Some(true) && repo.disabled != Some(true));
        Ok(Listing {
            total: None,
            listed,
            items: open
                .map(|repo| Self {
                    pushed_at: instant(repo.pushed_at.as_deref()),
                    name: RepoName(repo.full_name),
                })
                .collect(),
        })
    }

    fn bytes(&self) -> usize {
        self.name.as_str().len()
    }
}

impl Item for Registration {
    fn read(body: &[u8]) -> serde_json::Result<Listing<Self>> {
        #[derive(Deserialize)]
        struct Page {
            total_count: Option<u64>,
            runners: Vec<Runner>,
        }
        let page: Page = serde_json::from_slice(body)?;
        Ok(Listing {
            total: page.total_count,
            listed: page.runners.len(),
            items: page.runners.into_iter().map(Self::from).collect(),
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }

    fn bytes(&self) -> usize {
        self.name.as_str().len() + self.labels.iter().map(|label| label.len() + 40).sum::<usize>()
    }
}

/// A runner as GitHub lists it.
#[derive(Deserialize)]
struct Runner {
    id: u64,
    name: String,
    os: Option<String>,
    status: Option<String>,
    busy: Option<bool>,
    labels: Option<Vec<Label>>,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

impl From<Runner> for Registration {
    fn from(runner: Runner) -> Self {
        let labels = runner.labels.unwrap_or_default();
        Self {
            id: GitHubRunnerId(runner.id),
            name: RunnerName(runner.name),
            online: runner.status.as_deref() == Some("online"),
            // What is not said to be free is left alone.
            busy: runner.busy.unwrap_or(true),
            os: runner.os,
            labels: labels.into_iter().map(|label| label.name.to_lowercase()).collect(),
        }
    }
}

/// Reads an RFC 3339 date with any offset. What is none is unknown, and so is the year
/// one, GitHub's other way to say so.
fn instant(text: Option<&str>) -> Option<Timestamp> {
    let date = chrono::DateTime::parse_from_rfc3339(text?).ok()?;
    Some(Timestamp::from_utc(date.to_utc())).filter(|at| at.0 > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_status_and_missing_fields_are_accepted() {
        let body = br#"{"total_count":3,"new":{},"jobs":[
            {"id":1,"status":"hibernating","labels":["x"]},
            {"id":2,"status":"queued","labels":null,"workflow_name":null,"steps":7},
            {"id":3,"status":"queued","name":"build","labels":["Self-Hosted","LINUX"],
             "created_at":"2026-01-02T03:04:05.5+01:00"}]}"#;
        let page = Waiting::read(body).expect("readable");
        assert_eq!((page.total, page.listed), (Some(3), 3));
        assert_eq!(page.items.iter().map(|job| job.id.0).collect::<Vec<_>>(), [2, 3]);
        assert!(page.items[0].labels.is_empty());
        assert_eq!(page.items[1].labels.to_string(), "linux,self-hosted");
        let queued_at = page.items[1].queued_at.expect("a date").to_string();
        assert_eq!(queued_at, "2026-01-02T02:04:05.500Z");
    }

    #[test]
    fn an_answer_without_its_list_or_an_id_is_corrupt() {
        assert!(Run::read(br#"{"total_count":0}"#).is_err());
        assert!(Waiting::read(br#"{"jobs":[{"status":"queued"}]}"#).is_err());
        assert!(Registration::read(br#"{"runners":[{"id":1}]}"#).is_err());
        assert!(Repository::read(br#"{"message":"x"}"#).is_err());
        assert!(Run::read(br#"{"workflow_runs":[{"id":1"#).is_err());
    }

    #[test]
    fn closed_repositories_are_left_out_but_counted() {
        let body = br#"[{"full_name":"a/b","archived":true},{"full_name":"a/c","disabled":true},
            {"full_name":"a/d","pushed_at":null}]"#;
        let page = Repository::read(body).expect("readable");
        assert_eq!(page.listed, 3);
        assert_eq!(page.items, [Repository { name: "a/d".into(), pushed_at: None }]);
    }

    #[test]
    fn a_runner_that_is_not_said_to_be_free_is_busy() {
        let body = br#"{"runners":[{"id":1,"name":"a","labels":[{"name":"Self-Hosted"}]},
            {"id":2,"name":"b","status":"online","busy":false}]}"#;
        let page = Registration::read(body).expect("readable");
        assert!(page.items[0].busy && !page.items[0].online);
        assert!(!page.items[1].busy && page.items[1].online);
        assert_eq!(page.items[0].labels, ["self-hosted"]);
    }
}
