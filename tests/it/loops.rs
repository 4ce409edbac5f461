//! The real loops, client and rule on a modelled host and a modelled GitHub, in one
//! process under a paused clock: modelled minutes pass in milliseconds.

mod agents;
mod draining;
mod faults;
mod leading;
mod life;
mod lists;
mod replicas;
mod world;
