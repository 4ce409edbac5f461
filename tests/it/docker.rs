//! The Docker edge against a real engine, and the modelled host against the same suite.

mod conformance;
mod connecting;
mod engine_only;
mod model_only;
mod programs;

use std::sync::Arc;

use conformance::Subject;
use programs::Modelled;
use runner_orchestrator::clock::SystemClock;
use runner_orchestrator::docker::Docker;
use runner_orchestrator::sim::docker::{ModelDocker, ModelSettings};
use tokio_util::task::TaskTracker;

use crate::it::support::engine::{Engine, connect, random_mark};

/// The image that modelled hosts have in these tests.
const MODEL_IMAGE: &str = "shell:model";

fn on_engine(engine: &Engine) -> Subject {
    Subject {
        docker: engine.docker.clone(),
        mark: engine.mark.clone(),
        image: engine.image.reference.clone(),
    }
}

fn model(mut settings: ModelSettings) -> Arc<ModelDocker> {
    settings.images.push(MODEL_IMAGE.to_owned());
    let clock = Arc::new(SystemClock::new());
    Arc::new(ModelDocker::new(TaskTracker::new(), clock, Arc::new(Modelled), settings))
}

fn on_model(docker: &Arc<ModelDocker>) -> Subject {
    let docker: Arc<dyn Docker> = docker.clone();
    Subject { docker, mark: random_mark(), image: MODEL_IMAGE.to_owned() }
}

/// One sentence of the suite as two tests.
macro_rules! conforms {
    ($($sentence:ident),* $(,)?) => {
        mod engine {
            use super::*;
            $(#[tokio::test]
            async fn $sentence() {
                let engine = Engine::new().await;
                conformance::$sentence(&on_engine(&engine)).await;
            })*
        }
        mod model {
            use super::*;
            $(#[tokio::test(start_paused = true)]
            async fn $sentence() {
                conformance::$sentence(&on_model(&model(ModelSettings::default()))).await;
            })*
        }
    };
}

conforms! {
    a_runner_is_fed_followed_and_removed,
    a_stop_is_graceful_bounded_and_repeatable,
    a_dropped_writer_ends_the_input,
    a_waiting_container_can_be_attached_late,
    logs_are_tailed_and_followed,
    a_flood_without_newline_is_cut,
    what_is_missing_is_told_by_kind,
    one_identity_wins,
    the_newest_marker_stands_until_its_boot_takes_it_away,
    an_identity_is_replaced_only_if_it_is_the_one_meant,
    a_network_is_made_once,
}

#[tokio::test]
async fn events_arrive_from_an_engine() {
    let (engine, elsewhere) = (Engine::new().await, Engine::new().await);
    conformance::events_arrive(&on_engine(&engine), &on_engine(&elsewhere)).await;
}

#[tokio::test(start_paused = true)]
async fn events_arrive_from_a_model() {
    let docker = model(ModelSettings::default());
    conformance::events_arrive(&on_model(&docker), &on_model(&docker)).await;
}

#[tokio::test]
async fn a_running_container_is_adopted_on_an_engine() {
    let engine = Engine::new().await;
    conformance::a_running_container_is_adopted(&on_engine(&engine), &connect()).await;
}

#[tokio::test(start_paused = true)]
async fn a_running_container_is_adopted_on_a_model() {
    let docker = model(ModelSettings::default());
    conformance::a_running_container_is_adopted(&on_model(&docker), &*docker).await;
}

#[tokio::test]
async fn forgetting_is_complete_and_narrow_on_an_engine() {
    let (engine, elsewhere) = (Engine::new().await, Engine::new().await);
    conformance::forgetting_is_complete_and_narrow(&on_engine(&engine), &on_engine(&elsewhere))
        .await;
}

#[tokio::test(start_paused = true)]
async fn forgetting_is_complete_and_narrow_on_a_model() {
    let docker = model(ModelSettings::default());
    conformance::forgetting_is_complete_and_narrow(&on_model(&docker), &on_model(&docker)).await;
}
