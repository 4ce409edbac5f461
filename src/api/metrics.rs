//! Metrics: of this replica, and of the cluster as all replicas show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, header};

use super::ApiState;
use crate::fleet::replica::disagreements;
use crate::fleet::view::View;
use crate::store::Snapshot;
use crate::telemetry::metrics::cluster::{self, Cluster, Decided};

type Text = ([(HeaderName, &'static str); 1], String);

const TEXT_FORMAT: [(HeaderName, &str); 1] =
    [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];

/// Metrics of this replica
///
/// Prometheus' text format 0.0.4. Scrape every replica. What only a leader knows is there
/// while this replica leads.
#[utoipa::path(get, path = "/metrics", tag = "observe",
    responses((status = 200, description = "One sample a line", body = String,
        content_type = "text/plain; version=0.0.4; charset=utf-8")))]
pub async fn metrics(State(state): State<ApiState>) -> Text {
    (TEXT_FORMAT, (state.metrics_text)())
}

/// Metrics of the cluster
///
/// Prometheus' text format 0.0.4, the same on every replica: scrape any one of them. Made
/// of what the replicas share; `orchestrator_cluster_store_up` is 0 while that is older.
#[utoipa::path(get, path = "/api/v1/metrics", tag = "observe",
    responses((status = 200, description = "One sample a line", body = String,
        content_type = "text/plain; version=0.0.4; charset=utf-8")))]
pub async fn cluster_metrics(State(state): State<ApiState>) -> Text {
    (TEXT_FORMAT, state.cluster_text().await)
}

impl ApiState {
    fn store_warnings(&self) -> usize {
        self.handle.edges.store.health().borrow().warnings.len()
    }

    async fn cluster_text(&self) -> String {
        match self.snapshot().await {
            Ok(snapshot) => self.rendered(snapshot),
            Err(_) => self.rendered_as_remembered().await,
        }
    }

    fn rendered(&self, snapshot: Snapshot) -> String {
        let digest = snapshot.digest.clone();
        let problems = counts(&snapshot);
        let (replicas, unreadable) = (snapshot.replicas.len(), snapshot.unreadable.len());
        let leader = snapshot.leader;
        // A replica that shares nothing leaves no digest: it is the leader itself.
        let published = self.handle.published.borrow().clone();
        let shared = self.handle.edges.store.health().borrow().shared;
        let told = digest.as_deref().filter(|told| Some(told.term) == leader.map(|(_, term)| term));
        let decided = match told {
            Some(told) => Some(Decided { plan: &told.plan, at: told.at }),
            None if shared || published.term.is_none() => None,
            None => Some(Decided { plan: &published.plan, at: published.at }),
        };
        let (ledger, budget) = match digest.as_deref() {
            Some(told) => (told.ledger.clone(), told.budget.clone()),
            None if shared => (Arc::default(), published.view.budget.clone()),
            None => (published.view.ledger.clone(), published.view.budget.clone()),
        };
        let view = View {
            cluster: published.view.cluster.clone(),
            pools: published.view.pools.clone(),
            hosts: snapshot.hosts,
            assignments: snapshot.assignments,
            operator: snapshot.operator,
            intents: snapshot.intents,
            ledger,
            budget,
            withheld: snapshot.withheld,
        };
        cluster::render(&Cluster {
            view: &view,
            policy: &self.handle.settings.policy,
            decided,
            term: leader.map(|(_, term)| term.0),
            replicas,
            problems,
            unreadable,
            store_up: true,
            store_warnings: self.store_warnings(),
        })
    }

    /// While the store is away: what this replica last saw of it, without what only a
    /// leader knows.
    async fn rendered_as_remembered(&self) -> String {
        let published = self.handle.published.borrow().clone();
        let known = self.company().await;
        let company = &known.company;
        cluster::render(&Cluster {
            view: &published.view,
            policy: &self.handle.settings.policy,
            decided: None,
            term: known.leader().map(|(_, term)| term.0),
            replicas: company.replicas.len(),
            problems: counted(disagreements(
                &company.replicas,
                company.leader.map(|(leader, _)| leader),
            )),
            unreadable: company.unreadable.len(),
            store_up: false,
            store_warnings: self.store_warnings(),
        })
    }
}

fn counts(snapshot: &Snapshot) -> BTreeMap<&'static str, usize> {
    counted(disagreements(&snapshot.replicas, snapshot.leader.map(|(leader, _)| leader)))
}

fn counted(found: Vec<crate::fleet::replica::Disagreement>) -> BTreeMap<&'static str, usize> {
    found.into_iter().fold(BTreeMap::new(), |mut counts, it| {
        *counts.entry(it.what.code()).or_default() += 1;
        counts
    })
}
