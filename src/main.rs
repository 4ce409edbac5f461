//! The binary: parse the command line, run one subcommand, turn its end into an exit
//! code. 0 = done, 1 = failed, 2 = the configuration or the command line is unusable.

use std::process::ExitCode;

fn main() -> ExitCode {
    runner_orchestrator::cli::main()
}
