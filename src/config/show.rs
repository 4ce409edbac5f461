//! The effective settings, each with where it came from.

use std::fmt::Write;

use super::sources::Origin;

/// One setting as it holds. The value of a secret is `***`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    pub name: String,
    pub value: Option<String>,
    pub origin: Origin,
}

/// A table for people: name, value, where from.
#[must_use]
pub fn render(settings: &[Setting]) -> String {
    /// A longer name or value moves its own row only.
    const COLUMN_CHARS_MAX: usize = 44;
    let value = |setting: &Setting| setting.value.clone().unwrap_or_else(|| "-".to_owned());
    let width = |texts: &mut dyn Iterator<Item = usize>| {
        texts.filter(|chars| *chars <= COLUMN_CHARS_MAX).max().unwrap_or(0)
    };
    let names = width(&mut settings.iter().map(|setting| setting.name.chars().count()));
    let values = width(&mut settings.iter().map(|setting| value(setting).chars().count()));
    let mut out = String::new();
    for setting in settings {
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            out,
            "{:names$}  {:values$}  {}",
            setting.name,
            value(setting),
            setting.origin
        );
    }
    out
}
