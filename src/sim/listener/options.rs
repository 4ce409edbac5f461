//! How a listener is set up, and how it may end.

use std::time::Duration;

use super::Transport;
use crate::sim::clock::SimClock;

/// Exit codes of the real listener.
pub mod exit {
    /// A job was done, or a clean shutdown.
    pub const DONE: i32 = 0;
    /// A bad configuration, or the registration is gone.
    pub const TERMINATED: i32 = 1;
    /// Another session of this runner exists.
    pub const SESSION_CONFLICT: i32 = 5;
}

/// A signal to the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// Misbehaviour on request.
#[derive(Clone, Debug, Default)]
pub struct ListenerFaults {
    /// Exit with this code before reading anything.
    pub exit_at_start: Option<i32>,
    /// Connect, but never listen for jobs.
    pub never_listen: bool,
    /// Print these lines during the job, as a job could.
    pub forged_lines: Vec<String>,
    /// Let so much pass between a job's message and its start.
    pub late_start: Duration,
    /// Go on when terminated (an interrupt still works).
    pub ignore_term: bool,
}

/// How a listener runs.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// How it reaches the runner service.
    pub transport: Transport,
    /// Time for its lines.
    pub clock: SimClock,
    /// How long it waits for its JIT configuration.
    pub input_limit: Duration,
    /// How long one poll is held, at most 50 seconds.
    pub hold: Duration,
    /// Pause between attempts when another session exists.
    pub conflict_pause: Duration,
    /// When it gives up on that.
    pub conflict_limit: Duration,
    /// Exit like the stock `run.sh`, which turns 1, 5 and unknown codes into 0.
    pub fold_exit_codes: bool,
    /// Misbehaviour.
    pub faults: ListenerFaults,
}

impl ListenerOptions {
    /// The real listener's times, over this transport.
    #[must_use]
    pub fn new(transport: Transport, clock: SimClock) -> Self {
        Self {
            transport,
            clock,
            input_limit: Duration::from_secs(60),
            hold: Duration::from_secs(50),
            conflict_pause: Duration::from_secs(30),
            conflict_limit: Duration::from_secs(240),
            fold_exit_codes: false,
            faults: ListenerFaults::default(),
        }
    }
}
