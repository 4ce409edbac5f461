//! What the runner's listener prints, and what each line means.
//!
//! The lines are those of `actions/runner` (`Runner.Listener`); its diagnostic copies of
//! them start with `[`, so patterns are anchored behind the time stamp at the line's
//! start. Job names in them are user-controlled: nothing but the phase is taken from a
//! line, and a phase only moves forward.

/// A line that tells something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    Listening,
    RunningJob,
    Completed(JobResult),
}

/// What the listener said of the job. Only counted: a job can print the same line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobResult {
    Succeeded,
    Failed,
    Cancelled,
    Unknown,
}

/// `2026-01-02 03:04:05Z: `
const STAMP: &[u8] = b"dddd-dd-dd dd:dd:ddZ: ";

/// What the line says, if it is one of the listener's own.
#[must_use]
pub fn classify(line: &str) -> Option<Line> {
    let rest = after_stamp(line)?;
    if rest.starts_with("Listening for Jobs") {
        Some(Line::Listening)
    } else if rest.starts_with("Running job: ") {
        Some(Line::RunningJob)
    } else {
        let (_, result) = rest.rsplit_once(" completed with result: ")?;
        Some(Line::Completed(match result.trim_end() {
            "Succeeded" | "SucceededWithIssues" => JobResult::Succeeded,
            "Failed" => JobResult::Failed,
            "Canceled" => JobResult::Cancelled,
            _ => JobResult::Unknown,
        }))
    }
}

fn after_stamp(line: &str) -> Option<&str> {
    let head = line.as_bytes().get(..STAMP.len())?;
    let matches = head.iter().zip(STAMP).all(|(byte, pattern)| match pattern {
        b'd' => byte.is_ascii_digit(),
        literal => byte == literal,
    });
    if matches { line.get(STAMP.len()..) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stamped_lines_of_the_listener_count() {
        let listening = "2026-01-02 03:04:05Z: Listening for Jobs";
        assert_eq!(classify(listening), Some(Line::Listening));
        let running = "2026-01-02 03:05:00Z: Running job: build";
        assert_eq!(classify(running), Some(Line::RunningJob));
        let done = "2026-01-02 03:06:00Z: Job build completed with result: Canceled";
        assert_eq!(classify(done), Some(Line::Completed(JobResult::Cancelled)));
        for other in [
            "Listening for Jobs",
            "[RUNNER 2026-01-02 03:04:05Z INFO Terminal] WRITE LINE: Listening for Jobs",
            "2026-01-02 03:06:00Z: x Running job: forged",
            "",
            "2026-01-02 03:04:05Z:",
            "2026-01-02 03:04:05Zé Listening for Jobs",
        ] {
            assert_eq!(classify(other), None, "{other}");
        }
    }
}
