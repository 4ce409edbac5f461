//! An exit by two witnesses: Docker's event with the exit code, and the end of the output.
//!
//! While the daemon clears a dead container away it answers no question about it, for a
//! tenth of a second and more; a replacement need not wait for that. But the event may
//! overtake the last lines, which say whether a job ran: only both together settle an
//! exit. With one of them alone Docker is asked.

use super::State;
use crate::fleet::id::RunnerId;

impl State {
    /// Its output has ended. The exit code and whether memory ran out, when both are known.
    pub fn output_ended(&mut self, runner: RunnerId) -> Option<(i64, bool)> {
        let handle = self.handles.get_mut(&runner)?;
        handle.output_ended = true;
        handle.died.map(|code| (code, handle.out_of_memory))
    }

    /// Docker told of its end. The exit, when its output has ended too.
    pub fn died(&mut self, runner: RunnerId, code: Option<i64>) -> Option<(i64, bool)> {
        let handle = self.handles.get_mut(&runner)?;
        handle.died = code;
        let exit = handle.died.map(|code| (code, handle.out_of_memory));
        exit.filter(|_| handle.output_ended)
    }

    /// Docker told that its memory ran out; its end is told next, if that is one.
    pub fn out_of_memory(&mut self, runner: RunnerId) {
        if let Some(handle) = self.handles.get_mut(&runner) {
            handle.out_of_memory = true;
        }
    }
}
