//! What is wrong with a configuration, all of it at once.

use std::fmt;

/// Everything that keeps the configuration from being used. Its text has one line per
/// mistake and never shows the value of a secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The variable or file, as the user spelled it; with its value where that may be
    /// shown and the rule is about it.
    pub subject: String,
    /// What is allowed, or what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.text)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "configuration is not usable ({count} problem{plural}):")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// A longer value is cut: it is shown so that it is recognised, not in full.
const SHOWN_CHARS_MAX: usize = 80;

/// A value as it may be shown in a message: on one line, cut, without credentials.
pub(super) fn shown(value: &str) -> String {
    const SECRET_MARKS: [&str; 7] =
        ["ghp_", "gho_", "ghs_", "ghu_", "ghr_", "github_pat_", "PRIVATE KEY"];
    if SECRET_MARKS.iter().any(|mark| value.contains(mark)) {
        return "a value that looks like a secret".to_owned();
    }
    if value.contains("://") && value.contains('@') {
        return "a URL with credentials in it".to_owned();
    }
    let mut text: String = value.chars().take(SHOWN_CHARS_MAX).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    format!("{text:?}")
}

/// The known name closest to a misspelled one, when it is close enough to be meant.
pub(super) fn closest<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str>,
    distance_max: usize,
) -> Option<&'a str> {
    known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_lists_every_problem_on_its_own_line() {
        let one = Problem { subject: "A".into(), text: "missing".into() };
        let mut error = ConfigError { problems: vec![one.clone()] };
        assert_eq!(error.to_string(), "configuration is not usable (1 problem):\n  A: missing");
        error.problems.push(one);
        assert!(error.to_string().starts_with("configuration is not usable (2 problems):\n"));
    }

    #[test]
    fn what_looks_secret_is_not_shown() {
        for value in ["ghp_1234", "x github_pat_1", "https://me:pw@host", "-----BEGIN PRIVATE KEY"]
        {
            assert!(!shown(value).contains(value), "{value}");
        }
        assert_eq!(shown("two"), "\"two\"");
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
        assert!(shown(&"x".repeat(500)).chars().count() < 90);
    }

    #[test]
    fn a_typing_error_finds_its_name() {
        let known = ["MIN_RUNNERS", "MAX_RUNNERS", "POLL_INTERVAL"];
        assert_eq!(closest("MAX_RUNERS", known.into_iter(), 2), Some("MAX_RUNNERS"));
        assert_eq!(closest("POLL_INTERVALL", known.into_iter(), 2), Some("POLL_INTERVAL"));
        assert_eq!(closest("SOMETHING", known.into_iter(), 2), None);
    }
}
