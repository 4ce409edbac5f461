//! The store: what every implementation does, and what only a real Redis can be made to do.

mod cluster;
mod conformance;
mod cost;
mod election;
mod faults;
mod memory_only;
mod records;
mod redis_only;
mod scripts;
mod sentinel;
mod world;

use world::Subject;

/// Every sentence of the suite, on each store.
macro_rules! on_every_store {
    ($($sentence:ident),+ $(,)?) => {
        mod memory {
            use super::{Subject, conformance};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    conformance::$sentence(&mut Subject::memory()).await;
                }
            )+
        }
        mod redis {
            use super::{Subject, conformance};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    conformance::$sentence(&mut Subject::redis()).await;
                }
            )+
        }
    };
}

on_every_store!(
    a_lease_has_one_holder,
    asking_for_a_lease_that_is_ours_does_not_prolong_it,
    a_lease_ends_when_it_is_not_renewed,
    a_lease_that_is_given_up_is_free_at_once,
    terms_grow_with_every_holder,
    terms_grow_over_a_flush_when_what_was_seen_is_told,
    a_superseded_leader_writes_nothing,
    a_superseded_agent_reports_nothing,
    a_commit_is_read_back_whole,
    an_intent_is_recorded_once,
    intents_wait_in_their_order_and_not_without_limit,
    a_settled_intent_is_not_recorded_again,
    an_announcement_is_forgotten_after_its_time,
    an_older_operator_state_changes_nothing,
    shares_are_those_of_the_others,
    what_is_put_by_is_recalled,
    changes_are_heard_by_the_other_store,
    a_flush_is_another_incarnation,
    a_digest_is_read_by_the_others,
    time_goes_on,
);
