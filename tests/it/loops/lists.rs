//! Runner lists that change while they are read, and what they lack for it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, ETAG, IF_NONE_MATCH};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use runner_orchestrator::docker::Docker;
use runner_orchestrator::fleet::id::{ContainerId, HostId, PoolName, RunnerId, RunnerName};
use runner_orchestrator::fleet::intent::Wish;
use runner_orchestrator::sim::github::{Fault, PlantedRunners};
use runner_orchestrator::sim::listener::ListenerFaults;
use serde_json::Value;
use uuid::Uuid;

use super::world::{REPO, World};

/// What becomes of a scope's runner lists on their way here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bend {
    /// The whole list tells of one more than it shows, as one does that has just changed.
    moves: bool,
    /// The whole list lacks our runners.
    lacks_ours: bool,
    /// So does the list of a name.
    lacks_names: bool,
}

pub(super) type Lists = Arc<Mutex<Bend>>;

/// The modelled GitHub behind lists that are bent.
pub(super) fn bent(router: Router, lists: &Lists) -> Router {
    let lists = Arc::clone(lists);
    router.layer(from_fn(move |mut request: Request, next: Next| {
        let bend = *lists.lock().unwrap();
        async move {
            let is_list = request.method() == Method::GET
                && request.uri().path().ends_with("/actions/runners");
            if !is_list || !(bend.moves || bend.lacks_ours) {
                return next.run(request).await;
            }
            let by_name = request.uri().query().unwrap_or_default().contains("name=");
            request.headers_mut().remove(IF_NONE_MATCH);
            bend.apply(next.run(request).await, by_name).await
        }
    }))
}

impl Bend {
    async fn apply(self, answer: Response, by_name: bool) -> Response {
        let (parts, body) = answer.into_parts();
        assert_eq!(parts.status, StatusCode::OK);
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let mut list: Value = serde_json::from_slice(&body).unwrap();
        let rows = list["runners"].as_array_mut().unwrap();
        let lacks = if by_name { self.lacks_names } else { self.lacks_ours };
        if lacks {
            rows.retain(|row| !row["name"].as_str().unwrap().starts_with("orchestrated-"));
        }
        list["total_count"] = (rows.len() + usize::from(self.moves && !by_name)).into();
        let mut answer = Json(list).into_response();
        for (name, value) in &parts.headers {
            if name != CONTENT_LENGTH && name != ETAG {
                answer.headers_mut().insert(name, value.clone());
            }
        }
        answer
    }
}

impl World {
    fn bend(&self, bend: Bend) {
        *self.lists.lock().unwrap() = bend;
    }

    async fn container_ids(&self) -> BTreeSet<ContainerId> {
        let containers = self.docker.containers(&Self::mark()).await.unwrap();
        containers.into_iter().map(|container| container.id).collect()
    }
}

fn up(count: u32) -> Wish {
    Wish::ScaleUp { pool: PoolName::from("default"), count }
}

/// Regression: such a list counted as unread for ever. Nothing was placed, no idle runner
/// retired, and no registration of a dead one deleted.
#[tokio::test(start_paused = true)]
async fn a_list_that_never_holds_still_holds_nothing_up() {
    let mut world = World::new(ListenerFaults::default());
    world.bend(Bend { moves: true, ..Bend::default() });
    let (host, runner) = (HostId(Uuid::from_u128(1 << 100)), RunnerId(Uuid::from_u128(7)));
    let ghost = RunnerName::compose(&World::mark(), &host, &runner);
    let planted = PlantedRunners {
        name_prefix: ghost.to_string(),
        repo: Some(REPO.to_owned()),
        ..PlantedRunners::default()
    };
    world.sim.plant_runners(&planted).unwrap();
    world.start();
    world.jobs(&[3.0; 12]);
    world.until_all_done(Duration::from_secs(120)).await;
    world.wish(up(2)).await;
    let idle = |state: &runner_orchestrator::sim::github::StateReport| {
        state.runners.iter().filter(|runner| runner.status == "online").count() == 2
    };
    world.until(Duration::from_secs(30), "two idle ones", idle).await;
    world.wish(Wish::ScaleDown { pool: PoolName::from("default"), count: 2 }).await;
    let within = Duration::from_secs(180);
    world.until(within, "no registration", |state| state.runners.is_empty()).await;
    world.end().await;
}

/// GitHub answers 404 to a delete, and the list that is to confirm it moved while it was
/// read: what it lacks may have slipped past.
#[tokio::test(start_paused = true)]
async fn a_runner_that_a_moving_list_lacks_goes_only_if_its_name_is_not_listed_either() {
    const DELETE: &str = "DELETE /repos/{owner}/{repo}/actions/runners/{runner_id}";
    let mut world = World::new(ListenerFaults::default());
    world.start();
    // Until the host has reported.
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.wish(up(1)).await;
    let within = Duration::from_secs(30);
    world.until(within, "it listens", |s| s.runners.iter().any(|r| r.status == "online")).await;
    let runner = world.container_ids().await;
    assert_eq!(runner.len(), 1);
    let not_found = Fault { route: DELETE.to_owned(), status: Some(404), ..Fault::default() };
    world.sim.add_fault(not_found).unwrap();
    // Two such readings in a row, twice: it is denied, and ordered to go.
    let bend = Bend { moves: true, lacks_ours: true, ..Bend::default() };
    world.bend(bend);
    let asked = |state: &runner_orchestrator::sim::github::StateReport| {
        state.calls.get(DELETE).is_some_and(|calls| *calls > 3)
    };
    world.until(Duration::from_secs(180), "asked again and again", asked).await;
    assert!(world.container_ids().await.is_superset(&runner), "it is online by its name");
    world.bend(Bend { lacks_names: true, ..bend });
    let mut waited = 0;
    while world.container_ids().await.is_superset(&runner) {
        waited += 1;
        assert!(waited < 60, "neither list shows it, and it stays");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.bend(Bend::default());
    world.sim.clear_faults();
    world.stop().await;
}
