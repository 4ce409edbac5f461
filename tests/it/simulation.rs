//! The cluster in one process: several real orchestrators on modelled hosts, one modelled
//! GitHub and one store, under a paused clock, with faults and work drawn from a seed.
//!
//! `SEED=n cargo test --locked --test it simulation::` replays one seed and prints its
//! trace; `SEEDS=n` runs so many instead of the usual number.

mod clock;
mod docker;
mod fault;
mod gate;
mod github;
mod invariants;
mod older;
mod plan;
mod run;
mod scenarios;
mod seeds;
mod shown;
mod store;
mod witness;
mod world;
