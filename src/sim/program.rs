//! The stand-in listener as the program of a modelled host's containers.

use async_trait::async_trait;
use futures_util::stream;

use super::clock::SimClock;
use super::docker::{ContainerProgram, Process};
use super::listener::{ListenerFaults, ListenerOptions, StopSignal, Transport, run};

/// Runs one listener in each container.
#[derive(Clone, Debug)]
pub struct ListenerProgram {
    /// How listeners reach the modelled GitHub.
    pub transport: Transport,
    pub clock: SimClock,
    /// What goes wrong in every container.
    pub faults: ListenerFaults,
}

#[async_trait]
impl ContainerProgram for ListenerProgram {
    async fn run(&self, process: Process) -> i64 {
        let Process { stdin, stdout, stderr: _stderr, stop, spec: _spec } = process;
        let mut options = ListenerOptions::new(self.transport.clone(), self.clock);
        options.faults = self.faults.clone();
        let signal = Box::pin(async move {
            stop.cancelled().await;
            StopSignal::Terminate
        });
        i64::from(run(options, stdin, stdout, stream::once(signal)).await)
    }
}
