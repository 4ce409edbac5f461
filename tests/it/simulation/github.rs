//! One replica's way to the modelled GitHub: the product's own client, behind the
//! process's gate and its host's network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use runner_orchestrator::fleet::budget::{Budget, BudgetShare};
use runner_orchestrator::fleet::id::{GitHubRunnerId, ReplicaId, RepoName, RunnerName};
use runner_orchestrator::fleet::pool::Scope;
use runner_orchestrator::github::{
    CallCount, Deregistered, GitHub, GitHubError, MintRequest, Minted, Preflight, QueueReading,
    Registration, RegistrationReading, Repository, RestGitHub,
};
use runner_orchestrator::sim::random::Random;
use tokio::sync::watch;

use super::gate::{Gate, Moment, Point, Signal, lock};
use super::witness::Witness;

/// The network between a host and GitHub; `true` while it carries.
pub(super) type Uplink = Signal<bool>;

/// GitHub as one process reaches it.
#[derive(Debug)]
pub(super) struct GatedGitHub {
    pub(super) inner: RestGitHub,
    pub(super) gate: Arc<Gate>,
    pub(super) uplink: Arc<Uplink>,
    pub(super) witness: Arc<Witness>,
    pub(super) replica: usize,
    pub(super) lag: Mutex<Random>,
}

impl GatedGitHub {
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, GitHubError>>,
    ) -> Result<T, GitHubError> {
        self.gate.pass().await;
        self.lag().await;
        let answer = if self.uplink.get() {
            call.await
        } else {
            tokio::time::sleep(Duration::from_secs(15)).await;
            Err(GitHubError::Timeout { route: "anything", timeout_ms: 15_000 })
        };
        self.lag().await;
        self.gate.pass().await;
        answer
    }

    async fn lag(&self) {
        let ms = 5 + lock(&self.lag).below(60) as u64;
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

#[async_trait]
impl GitHub for GatedGitHub {
    async fn preflight(&self, scopes: &[Scope]) -> Preflight {
        self.gate.pass().await;
        let found = self.inner.preflight(scopes).await;
        self.gate.pass().await;
        found
    }

    async fn repositories(&self, scope: &Scope) -> Result<Vec<Repository>, GitHubError> {
        self.call(self.inner.repositories(scope)).await
    }

    async fn queue(&self, repo: &RepoName) -> Result<QueueReading, GitHubError> {
        self.call(self.inner.queue(repo)).await
    }

    async fn registrations(&self, scope: &Scope) -> Result<RegistrationReading, GitHubError> {
        self.call(self.inner.registrations(scope)).await
    }

    async fn find(
        &self,
        scope: &Scope,
        name: &RunnerName,
    ) -> Result<Option<Registration>, GitHubError> {
        self.call(self.inner.find(scope, name)).await
    }

    async fn mint(&self, request: &MintRequest) -> Result<Minted, GitHubError> {
        self.gate.at(Point::Mint, Moment::Before).await;
        let minted = self.call(self.inner.mint(request)).await;
        self.witness.minted(self.replica, &request.name, minted.as_ref().err());
        self.gate.at(Point::Mint, Moment::After).await;
        minted
    }

    async fn deregister(
        &self,
        scope: &Scope,
        id: GitHubRunnerId,
    ) -> Result<Deregistered, GitHubError> {
        self.gate.at(Point::Deregister, Moment::Before).await;
        let answer = self.call(self.inner.deregister(scope, id)).await;
        self.witness.deregistered(self.replica, id, &answer);
        self.gate.at(Point::Deregister, Moment::After).await;
        answer
    }

    fn share(&self, replica: ReplicaId) -> Option<BudgetShare> {
        self.inner.share(replica)
    }

    fn heed(&self, others: Vec<BudgetShare>) -> Vec<BudgetShare> {
        self.inner.heed(others)
    }

    fn spending(&self) -> watch::Receiver<u64> {
        self.inner.spending()
    }

    fn learnt(&self) -> BTreeMap<String, Option<String>> {
        self.inner.learnt()
    }

    fn recall(&self, learnt: &BTreeMap<String, String>) {
        self.inner.recall(learnt);
    }

    fn budget(&self) -> Budget {
        self.inner.budget()
    }

    fn calls(&self) -> Vec<CallCount> {
        self.inner.calls()
    }
}
