//! The Docker edge against a real engine, and the modelled host against the same suite.

#[path = "docker/conformance.rs"]
mod conformance;
#[path = "docker/programs.rs"]
mod programs;

use conformance::Subject;

use crate::engine::Engine;

fn subject(engine: &Engine) -> Subject {
    Subject {
        docker: engine.docker.clone(),
        mark: engine.mark.clone(),
        image: engine.image.reference.clone(),
    }
}

#[tokio::test]
async fn a_runner_is_fed_followed_and_removed() {
    let engine = Engine::new().await;
    for bytes in [4_000, 200_000] {
        conformance::a_runner_is_fed_followed_and_removed(&subject(&engine), bytes).await;
    }
}

#[tokio::test]
async fn a_stop_is_graceful_bounded_and_repeatable() {
    let engine = Engine::new().await;
    conformance::a_stop_is_graceful_bounded_and_repeatable(&subject(&engine)).await;
}

#[tokio::test]
async fn a_dropped_writer_ends_the_input() {
    let engine = Engine::new().await;
    conformance::a_dropped_writer_ends_the_input(&subject(&engine)).await;
}

#[tokio::test]
async fn a_waiting_container_can_be_attached_late() {
    let engine = Engine::new().await;
    conformance::a_waiting_container_can_be_attached_late(&subject(&engine)).await;
}

#[tokio::test]
async fn logs_are_tailed_and_followed() {
    let engine = Engine::new().await;
    conformance::logs_are_tailed_and_followed(&subject(&engine)).await;
}

#[tokio::test]
async fn a_flood_without_newline_is_cut() {
    let engine = Engine::new().await;
    conformance::a_flood_without_newline_is_cut(&subject(&engine)).await;
}

#[tokio::test]
async fn what_is_missing_is_told_by_kind() {
    let engine = Engine::new().await;
    conformance::what_is_missing_is_told_by_kind(&subject(&engine)).await;
}

#[tokio::test]
async fn one_identity_wins() {
    let engine = Engine::new().await;
    conformance::one_identity_wins(&subject(&engine)).await;
}

#[tokio::test]
async fn a_network_is_made_once() {
    let engine = Engine::new().await;
    conformance::a_network_is_made_once(&subject(&engine)).await;
}

#[tokio::test]
async fn events_arrive() {
    let (engine, elsewhere) = (Engine::new().await, Engine::new().await);
    conformance::events_arrive(&subject(&engine), &subject(&elsewhere)).await;
}

#[tokio::test]
async fn a_running_container_is_adopted() {
    let engine = Engine::new().await;
    let next = crate::engine::connect();
    conformance::a_running_container_is_adopted(&subject(&engine), &next).await;
}

#[tokio::test]
async fn forgetting_is_complete_and_narrow() {
    let (engine, elsewhere) = (Engine::new().await, Engine::new().await);
    conformance::forgetting_is_complete_and_narrow(&subject(&engine), &subject(&elsewhere)).await;
}
