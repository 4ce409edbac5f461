//! Reads one variable after the other and remembers what is wrong, what is odd and
//! where each value came from.

use std::fmt::Display;

use secrecy::SecretString;

use super::pools::{FieldSource, Raw};
use super::problem::{Problem, shown};
use super::show::Setting;
use super::sources::{Found, Lookup, Origin, Sources};
use super::variables::{self, Fallback};

pub(super) struct Reader<'a> {
    lookup: Lookup<'a>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    pub(super) settings: Vec<Setting>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a Sources<'a>) -> Self {
        let lookup = Lookup::new(sources);
        let problems = lookup.problems().collect();
        let warnings = lookup.unknown();
        Self { lookup, problems, warnings, settings: Vec::new() }
    }

    /// The value of a variable that is no secret, or its default. `None` when it has
    /// neither, or when it is wrong: then the problem is noted, and nobody needs to
    /// speak of it again.
    pub(super) fn get<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let found = self.find(name).or_else(|| fallback(name));
        self.note(name, found.as_ref());
        let found = found?;
        match parse(&found.value) {
            Ok(value) => Some(value),
            Err(allowed) => {
                let text = format!("{allowed}, got {}", shown(&found.value));
                self.problem(found.subject(), text);
                None
            }
        }
    }

    /// The text of a variable that may say anything.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.get(name, |text| Ok(text.to_owned()))
    }

    /// A secret, from its variable or from the file that `NAME_FILE` names.
    pub(super) fn secret(
        &mut self,
        name: &'static str,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) -> Option<SecretString> {
        let direct = self.find(name);
        let in_file = self.find(&format!("{name}_FILE"));
        let found = match (direct, in_file) {
            (Some(direct), Some(file)) => {
                let text = format!("set either this or {}, not both", file.subject());
                self.problem(direct.subject(), text);
                self.note(name, Some(&direct));
                return None;
            }
            (Some(direct), None) => Some(direct),
            (None, Some(file)) => self.read_secret_file(&file),
            (None, None) => None,
        };
        self.note(name, found.as_ref());
        let found = found?;
        match check(&found.value) {
            Ok(()) => Some(SecretString::from(found.value)),
            Err(allowed) => {
                self.problem(found.subject(), allowed);
                None
            }
        }
    }

    fn read_secret_file(&mut self, file: &Found) -> Option<Found> {
        let path = &file.value;
        match self.lookup.read_file(path) {
            // A file that ends in a newline is what every editor writes.
            Ok(text) => match text.trim_end_matches(['\n', '\r']) {
                "" => self.problem(file.subject(), format!("the file {} is empty", shown(path))),
                value => {
                    return Some(Found {
                        value: value.to_owned(),
                        spelled: file.spelled.clone(),
                        origin: Origin::File { path: path.clone() },
                    });
                }
            },
            Err(error) => {
                let text = format!("the file {} cannot be read ({error})", shown(path));
                self.problem(file.subject(), text);
            }
        }
        None
    }

    /// The text of a file that a setting names.
    pub(super) fn read_file(&self, path: &str) -> std::io::Result<String> {
        self.lookup.read_file(path)
    }

    /// Whether the user set the variable (for a secret: or its file), be it right or wrong.
    pub(super) fn is_set(&self, name: &str) -> bool {
        let secret = variables::find(name).is_some_and(|variable| variable.secret);
        self.lookup.find(name).is_some()
            || (secret && self.lookup.find(&format!("{name}_FILE")).is_some())
    }

    /// The name as the user spelled it; the bare one when it is not set.
    pub(super) fn spelled(&self, name: &str) -> String {
        self.lookup.find(name).map_or_else(|| name.to_owned(), |found| found.subject())
    }

    pub(super) fn problem(&mut self, subject: impl Into<String>, text: impl Into<String>) {
        self.problems.push(Problem { subject: subject.into(), text: text.into() });
    }

    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// Records the effective value of a variable whose default follows from elsewhere.
    pub(super) fn derived(&mut self, name: &'static str, value: impl Display) {
        let unset = |setting: &&mut Setting| setting.name == name && setting.value.is_none();
        if let Some(setting) = self.settings.iter_mut().find(unset) {
            setting.value = Some(value.to_string());
        }
    }

    fn find(&mut self, name: &str) -> Option<Found> {
        let found = self.lookup.find(name)?;
        if self.lookup.contradicts_itself(name) {
            let winner = found.subject();
            self.warn(format!("{name} is set in both spellings; {winner} wins"));
        }
        Some(found)
    }

    fn note(&mut self, name: &'static str, found: Option<&Found>) {
        let secret = variables::find(name).is_some_and(|variable| variable.secret);
        self.settings.push(Setting {
            name: name.to_owned(),
            value: found.map(|found| if secret { "***".to_owned() } else { found.value.clone() }),
            origin: found.map_or(Origin::Default, |found| found.origin.clone()),
        });
    }
}

impl FieldSource for Reader<'_> {
    fn field<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Option<T> {
        self.get(variable, |text| parse(&Raw::Text(text.to_owned())))
    }
}

/// The table's default, as if it had been found.
fn fallback(name: &'static str) -> Option<Found> {
    match variables::find(name)?.fallback {
        Fallback::Value(value) => Some(Found {
            value: value.to_owned(),
            spelled: name.to_owned(),
            origin: Origin::Default,
        }),
        Fallback::Unset | Fallback::Derived(_) => None,
    }
}
