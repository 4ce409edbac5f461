//! The table of variables in the forms people read: `.env.example` and the README.

use std::fmt::Write;

use super::variables::{Fallback, VARIABLES, Variable};

/// What the README's table stands between.
pub const MARKDOWN_BEGIN: &str = "<!-- configuration: begin -->";
/// The end of the README's table.
pub const MARKDOWN_END: &str = "<!-- configuration: end -->";

/// These are what a first start needs: they are not commented out.
const ESSENTIAL: &[&str] = &["GITHUB_TOKEN", "GITHUB_ORG", "GITHUB_REPO"];

/// The whole text of `.env.example`.
#[must_use]
pub fn dotenv_example() -> String {
    let mut out = String::from(
        "# Settings of runner-orchestrator. Copy to .env and fill in the first lines.\n\
         # Every variable also works with the prefix ORCHESTRATOR_, which wins. Empty means\n\
         # not set. A secret may be given as NAME_FILE instead: the path of a file that holds it.\n",
    );
    for section in VARIABLES {
        let _ = write!(out, "\n# --- {} ---\n", section.title);
        for variable in section.variables {
            out.push('\n');
            for line in wrap(variable.help, 86) {
                let _ = writeln!(out, "# {line}");
            }
            let _ = writeln!(out, "# Default: {}.", default_text(variable));
            let (comment, value) = match variable.fallback {
                Fallback::Value(value) => ("# ", value),
                Fallback::Unset if ESSENTIAL.contains(&variable.name) => ("", ""),
                Fallback::Unset | Fallback::Derived(_) => ("# ", ""),
            };
            let _ = writeln!(out, "{comment}{}={value}", variable.name);
        }
    }
    out
}

/// The README's table, without the markers.
#[must_use]
pub fn markdown_table() -> String {
    let mut out = String::from("| Variable | Default | Meaning |\n|---|---|---|\n");
    for section in VARIABLES {
        let _ = writeln!(out, "| **{}** | | |", section.title);
        for variable in section.variables {
            let help = variable.help.replace('|', "\\|");
            let file = if variable.secret {
                format!(" Secret; also `{}_FILE`.", variable.name)
            } else {
                String::new()
            };
            let default = match variable.fallback {
                Fallback::Unset => "–".to_owned(),
                Fallback::Value(value) if variable.unit.is_empty() => format!("`{value}`"),
                Fallback::Value(value) => format!("`{value}` {}", variable.unit),
                Fallback::Derived(words) => words.replace('<', "&lt;").replace('>', "&gt;"),
            };
            let _ = writeln!(out, "| `{}` | {default} | {help}{file} |", variable.name);
        }
    }
    out
}

fn default_text(variable: &Variable) -> String {
    let unit = variable.unit;
    match variable.fallback {
        Fallback::Unset if unit.is_empty() => "none".to_owned(),
        Fallback::Unset => format!("none; in {unit}"),
        Fallback::Value(value) if unit.is_empty() => value.to_owned(),
        Fallback::Value(value) => format!("{value} {unit}"),
        Fallback::Derived(words) if unit.is_empty() => words.to_owned(),
        Fallback::Derived(words) => format!("{words}; in {unit}"),
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
