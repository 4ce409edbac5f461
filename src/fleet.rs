//! The pure core: decides, and does nothing else. No I/O, no clock, no randomness.
//!
//! Someone looking for the scaling rule opens [`plan`]; for what an agent does with
//! its containers, [`converge`]; for what counts as supply, [`view`].

pub mod budget;
pub mod converge;
pub mod demand;
pub mod digest;
pub mod drain;
pub mod host;
pub mod id;
pub mod intent;
pub mod ledger;
pub mod listener;
pub mod plan;
pub mod policy;
pub mod pool;
pub mod reason;
pub mod rebuild;
pub mod refusals;
pub mod registration;
pub mod replica;
pub mod runner;
pub mod time;
pub mod view;
