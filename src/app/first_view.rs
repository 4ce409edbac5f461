//! What there is to show before the first turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Edges, Settings};
use crate::fleet::budget::Budget;
use crate::fleet::id::ClusterMark;
use crate::fleet::intent::Operator;
use crate::fleet::view::{View, Withheld};
use crate::loops::lead::Published;

/// What the API shows before the first turn.
pub(super) fn nothing_yet(edges: &Edges, settings: &Settings) -> Published {
    let name = settings.cluster_name.as_deref().unwrap_or_default();
    Published {
        at: edges.clock.now(),
        view: View {
            cluster: ClusterMark::derive(name),
            pools: Arc::new(settings.pools.clone()),
            hosts: BTreeMap::new(),
            assignments: BTreeMap::new(),
            operator: Operator::default(),
            intents: Vec::new(),
            ledger: Arc::default(),
            budget: Budget::open(0),
            withheld: Withheld::default(),
        },
        plan: Arc::default(),
        term: None,
        store_error: None,
    }
}
