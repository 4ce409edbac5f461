//! The stand-in listener as the program of modelled containers.

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use runner_orchestrator::sim::clock::SimClock;
use runner_orchestrator::sim::docker::{ContainerProgram, Process};
use runner_orchestrator::sim::listener::{ListenerOptions, StopSignal, Transport, run};

/// Every modelled container is one listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) transport: Transport,
    pub(crate) clock: SimClock,
}

#[async_trait]
impl ContainerProgram for Listener {
    async fn run(&self, process: Process) -> i64 {
        let Process { stdin, stdout, stop, .. } = process;
        let options = ListenerOptions::new(self.transport.clone(), self.clock);
        let told = stream::once(async move {
            stop.cancelled().await;
            StopSignal::Terminate
        });
        i64::from(run(options, stdin, stdout, told.boxed()).await)
    }
}
