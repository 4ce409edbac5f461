//! `cargo bench --bench figures [-- FIGURE]`: what the product must reach, measured.
//!
//! Prints one JSON line for each figure, writes each to `target/bench/<figure>.json`, and
//! fails when a value is over its limit. Messages go to standard error.

use std::process::ExitCode;

mod figures {
    mod burst;
    mod cluster;
    mod commands;
    mod efficiency;
    mod figure;
    mod footprint;
    mod github_cost;
    mod hosts;
    mod minting;
    mod reaction;
    mod real;
    mod remote;
    mod scale;
    mod takeover;
    mod timed;
    mod world;

    use std::process::ExitCode;

    use runner_orchestrator::cli::print;

    use self::figure::{Figure, Measured};

    /// Every figure, in the order in which they are measured: those that need the machine
    /// for themselves first.
    const ALL: [Figure; 19] = [
        burst::RATIO,
        efficiency::RATIO,
        reaction::API,
        reaction::EXIT,
        remote::EXTRA,
        scale::LEADER_TURN,
        scale::API_RUNNERS,
        scale::LEADER_RSS,
        scale::REDIS_MB,
        takeover::CRASH_MAX,
        takeover::CRASH_MEDIAN,
        takeover::GRACEFUL,
        commands::COMMANDS,
        minting::MINT_100,
        footprint::READY,
        footprint::RSS_IDLE,
        github_cost::IDLE_POINTS,
        github_cost::MUTATIONS,
        footprint::RSS_1000,
    ];

    /// Measures the figures named, or all.
    pub(crate) fn main(arguments: &[String]) -> ExitCode {
        if let Err(error) = chosen(arguments) {
            print::message(&error);
            return ExitCode::from(2);
        }
        // One TLS implementation for everything; a second call is refused and harmless.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut all_within = true;
        for figure in chosen(arguments).unwrap_or_default() {
            print::message(&format!("measuring {} …", figure.name));
            let reached = match (figure.measure)() {
                Ok(measured) => reached(&figure, &measured),
                Err(error) => {
                    print::message(&format!("{}: not measured: {error:#}", figure.name));
                    false
                }
            };
            all_within &= reached;
        }
        if all_within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn chosen(arguments: &[String]) -> Result<Vec<Figure>, String> {
        // Cargo adds `--bench` for harnesses that distinguish tests from benches.
        let names: Vec<&String> = arguments.iter().filter(|name| *name != "--bench").collect();
        let known = |name: &str| ALL.iter().any(|figure| figure.name == name);
        if let Some(unknown) = names.iter().find(|name| !known(name)) {
            let all: Vec<&str> = ALL.iter().map(|figure| figure.name).collect();
            return Err(format!("no figure is named {unknown:?}; there are {}", all.join(", ")));
        }
        let wanted =
            |figure: &Figure| names.is_empty() || names.iter().any(|name| *name == figure.name);
        Ok(ALL.into_iter().filter(wanted).collect())
    }

    /// Prints and writes a figure. Whether it is within its limit and nothing else that
    /// must hold was broken.
    fn reached(figure: &Figure, measured: &Measured) -> bool {
        let within = measured.value <= figure.limit;
        if !within {
            let (value, limit) = (measured.value, figure.limit);
            print::message(&format!("{}: {value:.3} is over {limit}", figure.name));
        }
        for broken in &measured.broken {
            print::message(&format!("{}: {broken}", figure.name));
        }
        let sound = measured.broken.is_empty();
        match figure.publish(measured) {
            Ok(()) => within && sound,
            Err(error) => {
                print::message(&format!("{}: could not write it: {error:#}", figure.name));
                false
            }
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    figures::main(&arguments)
}
