//! A figure: what is measured, its limit, and how it is told.

use std::path::Path;

use anyhow::Context;
use runner_orchestrator::cli::print;
use serde::Serialize;
use serde_json::Value;

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// The value may be as high as this.
    pub(crate) limit: f64,
    pub(crate) unit: &'static str,
    pub(crate) measure: fn() -> anyhow::Result<Measured>,
}

/// What came out.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Measured {
    pub(crate) value: f64,
    /// How it was measured, and what else was seen.
    pub(crate) detail: Value,
    /// What must hold beside the value and did not.
    pub(crate) broken: Vec<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    figure: &'a str,
    value: f64,
    limit: f64,
    unit: &'a str,
    detail: &'a Value,
}

impl Figure {
    /// Prints the line and writes it to `target/bench`.
    pub(crate) fn publish(&self, measured: &Measured) -> anyhow::Result<()> {
        let line = Line {
            figure: self.name,
            value: rounded(measured.value),
            limit: self.limit,
            unit: self.unit,
            detail: &measured.detail,
        };
        let line = serde_json::to_string(&line)?;
        print::result(&line);
        // Cargo names a folder for benches to write to; ours is its neighbour.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("no target folder")?;
        let folder = target.join("bench");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("{}.json", self.name)), line + "\n")?;
        Ok(())
    }
}

/// Three digits after the point are what any of these is good for.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The value below which `share` (0 to 1) of the sorted samples lie, by the nearest rank.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among at most a few hundred samples"
    )]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// The samples in order.
pub(crate) fn sorted(mut samples: Vec<f64>) -> Vec<f64> {
    samples.sort_by(f64::total_cmp);
    samples
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let sorted = sorted(samples.to_vec());
    let (low, high) = ((sorted.len().saturating_sub(1)) / 2, sorted.len() / 2);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}
