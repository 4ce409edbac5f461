//! The pure core: decides, and does nothing else. No I/O, no clock, no randomness.

pub mod budget;
pub mod id;
pub mod pool;
pub mod time;
