//! The programs that test containers run: shell scripts for a real engine, tasks for a
//! modelled host.

use async_trait::async_trait;
use runner_orchestrator::sim::docker::{ContainerProgram, Process};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

/// How many lines [`Program::Talk`] says.
pub(crate) const TALK_LINES: usize = 50;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    /// Prints the SHA-256 of the first line of its input and ends with 3.
    Hash,
    /// Reads one line, says how many bytes it had, and goes on for ever.
    Keep,
    /// Says `ready`; when told to stop, says `stopping` and ends with 7.
    EndOnStop,
    /// Says `ready` and goes on for ever.
    IgnoreStop,
    /// Reads its input to the end, says `drained`.
    Drain,
    /// Says [`TALK_LINES`] numbered lines.
    Talk,
    /// Writes 100 kB without a newline, then a short line.
    Flood,
}

const ALL: [Program; 7] = [
    Program::Hash,
    Program::Keep,
    Program::EndOnStop,
    Program::IgnoreStop,
    Program::Drain,
    Program::Talk,
    Program::Flood,
];

/// The container's command.
pub(crate) fn command(program: Program) -> Vec<String> {
    ["/bin/sh", "-c", script(program)].map(str::to_owned).to_vec()
}

fn script(program: Program) -> &'static str {
    match program {
        // The pause lets the first stream arrive before the second: the two are separate.
        Program::Hash => "head -n 1 | sha256sum; sleep 0.2; echo hashed >&2; exit 3",
        Program::Keep => "read -r line; echo kept $((${#line} + 1)); while :; do sleep 0.05; done",
        Program::EndOnStop => {
            "trap 'echo stopping; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
        }
        Program::IgnoreStop => "trap '' TERM; echo ready; while :; do sleep 0.05; done",
        Program::Drain => "cat >/dev/null; echo drained",
        Program::Talk => "n=0; while [ $n -lt 50 ]; do echo line $n; n=$((n+1)); done",
        Program::Flood => "head -c 100000 /dev/zero; echo; echo short",
    }
}

/// The same programs for a modelled host.
#[derive(Debug)]
pub(crate) struct Modelled;

#[async_trait]
impl ContainerProgram for Modelled {
    async fn run(&self, process: Process) -> i64 {
        let asked = process.spec.command.clone().unwrap_or_default();
        let program = ALL.into_iter().find(|program| command(*program) == asked);
        match program.expect("one of the test programs") {
            Program::Hash => hash(process).await,
            Program::Keep => {
                let mut line = String::new();
                BufReader::new(process.stdin).read_line(&mut line).await.unwrap();
                process.stdout.line(&format!("kept {}", line.len()));
                std::future::pending().await
            }
            Program::EndOnStop => {
                process.stdout.line("ready");
                process.stop.cancelled().await;
                process.stdout.line("stopping");
                7
            }
            Program::IgnoreStop => {
                process.stdout.line("ready");
                std::future::pending().await
            }
            Program::Drain => drain(process).await,
            Program::Talk => {
                for n in 0..TALK_LINES {
                    process.stdout.line(&format!("line {n}"));
                }
                0
            }
            Program::Flood => {
                process.stdout.line(&"\0".repeat(100_000));
                process.stdout.line("short");
                0
            }
        }
    }
}

async fn hash(process: Process) -> i64 {
    let mut input = BufReader::new(process.stdin);
    let mut line = String::new();
    input.read_line(&mut line).await.unwrap();
    process.stdout.line(&format!("{:x}  -", Sha256::digest(&line)));
    process.stderr.line("hashed");
    3
}

async fn drain(mut process: Process) -> i64 {
    let mut input = Vec::new();
    process.stdin.read_to_end(&mut input).await.unwrap();
    process.stdout.line("drained");
    0
}
