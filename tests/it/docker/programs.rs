//! The programs that test containers run, as shell scripts for a real engine.

/// How many lines [`Program::Talk`] says.
pub(crate) const TALK_LINES: usize = 50;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    /// Prints the SHA-256 of the first line of its input and ends with 3.
    Hash,
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

pub(crate) const ALL: [Program; 6] = [
    Program::Hash,
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
        Program::EndOnStop => {
            "trap 'echo stopping; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
        }
        Program::IgnoreStop => "trap '' TERM; echo ready; while :; do sleep 0.05; done",
        Program::Drain => "cat >/dev/null; echo drained",
        Program::Talk => "n=0; while [ $n -lt 50 ]; do echo line $n; n=$((n+1)); done",
        Program::Flood => "head -c 100000 /dev/zero; echo; echo short",
    }
}
