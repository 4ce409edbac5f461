//! Everything the modelled GitHub remembers. Sync, without I/O: the caller holds
//! the lock and says what time it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;

use super::auth::Accounts;
use super::faults::Faults;
use super::ids::{JobId, RepoKey, RunId, RunnerId, Scope};
use super::jobs::{Job, Run};
use super::limits::Limits;
use super::options::SimOptions;
use super::runners::{Removed, Runner};
use super::settings::Settings;
use super::webhooks::Outbox;
use crate::sim::random::Random;

/// Repositories one model holds at most; ten times what the design aims at.
pub(crate) const REPOS_MAX: usize = 5_000;
/// Registrations at one time. GitHub itself allows 10,000 in a scope.
pub(crate) const RUNNERS_MAX: usize = 10_000;
/// Jobs remembered; the oldest completed runs are forgotten first.
pub(crate) const JOBS_MAX: usize = 100_000;
/// Removals remembered for `/_sim/state`.
pub(crate) const REMOVED_MAX: usize = 20_000;
/// How long a removed registration is kept for stale lists; twice the oldest list.
pub(crate) const GRAVE_MS: u64 = 120_000;

/// A repository of the model.
#[derive(Clone, Debug)]
pub(crate) struct Repo {
    pub(crate) id: u64,
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) private: bool,
    pub(crate) archived: bool,
    pub(crate) disabled: bool,
    pub(crate) created_ms: u64,
    pub(crate) pushed_ms: u64,
    /// Runs of this repository, oldest first.
    pub(crate) runs: Vec<RunId>,
}

impl Repo {
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

/// An organisation of the model.
#[derive(Clone, Debug)]
pub(crate) struct Org {
    pub(crate) id: u64,
    pub(crate) login: String,
}

/// The whole state behind one lock.
pub(crate) struct World {
    pub(crate) settings: Settings,
    /// Decides which runner gets a job.
    pub(crate) random: Random,
    /// Decides which requests a fault hits.
    pub(crate) fault_random: Random,
    /// Makes ids and secrets; apart, so that they do not disturb the decisions.
    pub(crate) id_random: Random,
    pub(crate) started_ms: u64,
    /// Where this model answers, for what is written without a request at hand.
    pub(crate) base_url: String,
    pub(crate) orgs: Vec<Org>,
    pub(crate) enterprise: Option<String>,
    pub(crate) repos: BTreeMap<RepoKey, Repo>,
    pub(crate) runners: BTreeMap<RunnerId, Runner>,
    /// Names in use: unique in each scope, in lower case.
    pub(crate) names: HashMap<(Scope, String), RunnerId>,
    pub(crate) sessions: HashMap<String, RunnerId>,
    /// Online runners without a job.
    pub(crate) idle: BTreeSet<RunnerId>,
    /// Removed less than [`GRAVE_MS`] ago, for stale lists.
    pub(crate) graves: VecDeque<Runner>,
    pub(crate) removed: VecDeque<Removed>,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) runs: BTreeMap<RunId, Run>,
    /// Queued and unassigned jobs, oldest first.
    pub(crate) queue: BTreeSet<(u64, JobId)>,
    pub(crate) accounts: Accounts,
    pub(crate) limits: Limits,
    pub(crate) faults: Faults,
    pub(crate) outbox: Outbox,
    /// Answers given, by method and route template.
    pub(crate) calls: BTreeMap<String, u64>,
    /// Primary-limit points used by all tokens.
    pub(crate) points: u64,
    /// No deadline is due before this; see [`World::advance`].
    pub(crate) next_due_ms: u64,
    /// Woken when [`World::next_due_ms`] moved.
    pub(crate) changed: Arc<Notify>,
    last_id: u64,
}

impl World {
    pub(crate) fn new(options: &SimOptions, now: u64) -> Self {
        let mut world = Self {
            settings: options.settings.clone(),
            random: Random::seeded(options.seed),
            fault_random: Random::seeded(options.seed.wrapping_add(1)),
            id_random: Random::seeded(options.seed.wrapping_add(2)),
            started_ms: now,
            base_url: "http://localhost".to_owned(),
            orgs: Vec::new(),
            enterprise: options.enterprise.as_ref().map(|slug| slug.to_ascii_lowercase()),
            repos: BTreeMap::new(),
            runners: BTreeMap::new(),
            names: HashMap::new(),
            sessions: HashMap::new(),
            idle: BTreeSet::new(),
            graves: VecDeque::new(),
            removed: VecDeque::new(),
            jobs: BTreeMap::new(),
            runs: BTreeMap::new(),
            queue: BTreeSet::new(),
            accounts: Accounts::new(options),
            limits: Limits::default(),
            faults: Faults::default(),
            outbox: Outbox::default(),
            calls: BTreeMap::new(),
            points: 0,
            next_due_ms: u64::MAX,
            changed: Arc::new(Notify::new()),
            last_id: 100,
        };
        for login in &options.orgs {
            let id = world.next_id();
            world.orgs.push(Org { id, login: login.clone() });
        }
        for number in 1..=options.repos.min(REPOS_MAX) {
            world.add_repo(&options.default_owner(), &format!("repo-{number}"), now);
        }
        world
    }

    /// A number no other thing of this model has.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn default_owner(&self) -> String {
        self.orgs.first().map_or_else(|| "octo".to_owned(), |org| org.login.clone())
    }

    pub(crate) fn org(&self, login: &str) -> Option<&Org> {
        self.orgs.iter().find(|org| org.login.eq_ignore_ascii_case(login))
    }

    /// Adds a repository unless it exists; `None` when the model is full.
    pub(crate) fn add_repo(&mut self, owner: &str, name: &str, now: u64) -> Option<RepoKey> {
        let key = RepoKey::new(owner, name);
        if !self.repos.contains_key(&key) {
            if self.repos.len() >= REPOS_MAX {
                return None;
            }
            let repo = Repo {
                id: self.next_id(),
                owner: owner.to_owned(),
                name: name.to_owned(),
                private: true,
                archived: false,
                disabled: false,
                created_ms: now,
                pushed_ms: now,
                runs: Vec::new(),
            };
            self.repos.insert(key.clone(), repo);
        }
        Some(key)
    }

    /// Remembers that something is to be done at `at_ms`.
    pub(crate) fn due(&mut self, at_ms: u64) {
        if at_ms < self.next_due_ms {
            self.next_due_ms = at_ms;
            self.changed.notify_one();
        }
    }

    /// Carries out everything whose time has come. Cheap while nothing is due.
    pub(crate) fn advance(&mut self, now: u64) {
        if now < self.next_due_ms {
            return;
        }
        self.next_due_ms = u64::MAX;
        let ids: Vec<RunnerId> = self.runners.keys().copied().collect();
        for id in ids {
            self.advance_runner(id, now);
        }
        self.expire_queue(now);
        while self
            .graves
            .front()
            .is_some_and(|grave| grave.buried_ms().saturating_add(GRAVE_MS) <= now)
        {
            self.graves.pop_front();
        }
        while self.graves.len() > REMOVED_MAX {
            self.graves.pop_front();
        }
        if let Some(oldest) = self.graves.front() {
            self.due(oldest.buried_ms().saturating_add(GRAVE_MS));
        }
        self.dispatch(now);
    }
}
