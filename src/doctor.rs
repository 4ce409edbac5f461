//! The doctor: everything an installation needs, checked by reading alone, each finding
//! with the one step that mends it. Only [`live`] changes anything, and it takes back
//! what it made.

use serde::Serialize;

pub mod docker;
pub mod github;
pub mod live;
pub mod redis;

/// Everything found, in groups.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Findings {
    pub groups: Vec<Group>,
}

/// What belongs together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Group {
    pub name: &'static str,
    pub rows: Vec<Finding>,
}

/// One thing that was checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    pub what: String,
    pub level: Level,
    /// What was seen, in one line.
    pub detail: Option<String>,
    /// What to do about it; there is one unless all is well.
    pub fix: Option<String>,
}

/// How bad it is; the worst comes last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Fine,
    Warning,
    Broken,
}

impl Level {
    /// The mark that a person sees.
    #[must_use]
    pub fn mark(self) -> char {
        match self {
            Self::Fine => '✓',
            Self::Warning => '!',
            Self::Broken => '✗',
        }
    }
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn fine(what: impl Into<String>, detail: impl Into<String>) -> Self {
        let detail = Some(detail.into()).filter(|text| !text.is_empty());
        Self { what: what.into(), level: Level::Fine, detail, fix: None }
    }

    /// It works, and could be better.
    #[must_use]
    pub fn warning(
        what: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warning, fix: Some(fix.into()), ..Self::fine(what, detail) }
    }

    /// It does not work.
    #[must_use]
    pub fn broken(
        what: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { level: Level::Broken, fix: Some(fix.into()), ..Self::fine(what, detail) }
    }
}

impl Findings {
    /// The worst of all findings.
    #[must_use]
    pub fn worst(&self) -> Level {
        let rows = self.groups.iter().flat_map(|group| &group.rows);
        rows.map(|row| row.level).max().unwrap_or(Level::Fine)
    }

    /// For people: a mark, what was checked, what was seen, and the fix beneath.
    #[must_use]
    pub fn render(&self) -> String {
        let mut lines = Vec::new();
        for group in &self.groups {
            lines.push(group.name.to_owned());
            for row in &group.rows {
                let detail = row.detail.as_ref().map(|detail| format!(": {detail}"));
                let mark = row.level.mark();
                lines.push(format!("  {mark} {}{}", row.what, detail.unwrap_or_default()));
                lines.extend(row.fix.iter().map(|fix| format!("      fix: {fix}")));
            }
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

/// An error with its causes, in one line.
#[must_use]
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Libraries repeat their cause's words in their own.
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides() {
        let mut findings = Findings::default();
        assert_eq!(findings.worst(), Level::Fine);
        let rows = vec![Finding::warning("a", "b", "c"), Finding::fine("d", "")];
        findings.groups.push(Group { name: "Group", rows });
        assert_eq!(findings.worst(), Level::Warning);
        assert_eq!(findings.render(), "Group\n  ! a: b\n      fix: c\n  ✓ d\n");
    }
}
