//! Where settings come from: the process environment, `.env`, and files named by
//! `NAME_FILE`. Which of them wins is decided here.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use super::dotenv::{self, DotEnv};
use super::problem::{Problem, closest};
use super::variables::{self, LEGACY, Variable};

/// The prefix of the spelling that wins.
pub const PREFIX: &str = "ORCHESTRATOR_";

/// The file read in the working directory.
pub const DOTENV_PATH: &str = ".env";

/// Tokens, keys and pool files are far smaller; a device or a log named by mistake is
/// not read into memory.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Everything the configuration is made from.
pub struct Sources<'a> {
    /// The process environment.
    pub env: BTreeMap<String, String>,
    /// The text of `.env`, if there is such a file.
    pub dotenv: Option<String>,
    /// Reads a file named by a setting.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

impl fmt::Debug for Sources<'_> {
    /// Says nothing of the contents: they hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Sources<'_> {
    /// The environment of this process and the `.env` of its working directory.
    ///
    /// # Errors
    /// When `.env` exists and cannot be read.
    pub fn from_process() -> io::Result<Sources<'static>> {
        let dotenv = match read_file(Path::new(DOTENV_PATH)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // A value that is not UTF-8 is kept in a mangled form, so that it is reported
        // where it is used instead of being overlooked.
        let env = std::env::vars_os()
            .map(|(name, value)| {
                (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
            })
            .collect();
        Ok(Sources { env, dotenv, read_file: &read_file })
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Where a setting's value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    Environment,
    DotEnv { line: usize },
    File { path: String },
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::DotEnv { line } => write!(f, "{DOTENV_PATH} line {line}"),
            Self::File { path } => write!(f, "file {path}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value as found.
pub(super) struct Found {
    pub value: String,
    /// The name as the user spelled it.
    pub spelled: String,
    pub origin: Origin,
}

impl Found {
    /// The subject of a problem with this value.
    pub(super) fn subject(&self) -> String {
        match self.origin {
            Origin::DotEnv { .. } => format!("{} ({})", self.spelled, self.origin),
            Origin::Environment | Origin::File { .. } | Origin::Default => self.spelled.clone(),
        }
    }
}

/// The sources, parsed and ready to be asked.
pub(super) struct Lookup<'a> {
    sources: &'a Sources<'a>,
    dotenv: DotEnv,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(sources: &'a Sources<'a>) -> Self {
        let dotenv = sources.dotenv.as_deref().map(dotenv::parse).unwrap_or_default();
        Self { sources, dotenv }
    }

    /// The value of a name that is not empty: the environment before `.env`, and in each
    /// of them the prefixed spelling before the bare one.
    pub(super) fn find(&self, name: &str) -> Option<Found> {
        let spellings = [format!("{PREFIX}{name}"), name.to_owned()];
        spellings
            .iter()
            .find_map(|spelled| self.in_env(spelled))
            .or_else(|| spellings.iter().find_map(|spelled| self.in_dotenv(spelled)))
    }

    /// Whether both spellings are set in one place and say different things.
    pub(super) fn contradicts_itself(&self, name: &str) -> bool {
        let prefixed = format!("{PREFIX}{name}");
        let differ = |a: Option<Found>, b: Option<Found>| match (a, b) {
            (Some(a), Some(b)) => a.value != b.value,
            _ => false,
        };
        differ(self.in_env(&prefixed), self.in_env(name))
            || differ(self.in_dotenv(&prefixed), self.in_dotenv(name))
    }

    pub(super) fn read_file(&self, path: &str) -> io::Result<String> {
        (self.sources.read_file)(Path::new(path))
    }

    /// Lines of `.env` that could not be read.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.dotenv.problems.iter().map(|(line, why)| Problem {
            subject: format!("{DOTENV_PATH} line {line}"),
            text: (*why).to_owned(),
        })
    }

    /// Names that nobody reads but that somebody may have meant for us.
    pub(super) fn unknown(&self) -> Vec<String> {
        let prefixed = self
            .sources
            .env
            .keys()
            .chain(self.dotenv.values.keys())
            .filter(|name| name.strip_prefix(PREFIX).is_some_and(|bare| !is_known(bare)))
            .map(|name| {
                let bare = name.strip_prefix(PREFIX).unwrap_or(name);
                let hint = suggestion(bare, 3)
                    .map_or(String::new(), |known| format!(": did you mean {PREFIX}{known}?"));
                format!("{name} is not a setting of ours{hint}")
            });
        // Other programs share `.env`, so a bare name is only spoken of when it is
        // almost one of ours.
        let bare = self
            .dotenv
            .values
            .iter()
            .filter(|(name, _)| !name.starts_with(PREFIX) && !is_known(name))
            .filter_map(|(name, entry)| {
                let known = suggestion(name, 2)?;
                let line = entry.line;
                Some(format!(
                    "{name} ({DOTENV_PATH} line {line}) is ignored: did you mean {known}?"
                ))
            });
        let mut all: Vec<String> = prefixed.chain(bare).collect();
        all.sort();
        all.dedup();
        all
    }

    fn in_env(&self, spelled: &str) -> Option<Found> {
        let value = self.sources.env.get(spelled)?.trim();
        (!value.is_empty()).then(|| Found {
            value: value.to_owned(),
            spelled: spelled.to_owned(),
            origin: Origin::Environment,
        })
    }

    fn in_dotenv(&self, spelled: &str) -> Option<Found> {
        let entry = self.dotenv.values.get(spelled)?;
        let value = entry.value.trim();
        (!value.is_empty()).then(|| Found {
            value: value.to_owned(),
            spelled: spelled.to_owned(),
            origin: Origin::DotEnv { line: entry.line },
        })
    }
}

fn is_known(bare: &str) -> bool {
    let of_secret = |name: &str| variables::find(name).is_some_and(|variable| variable.secret);
    variables::find(bare).is_some()
        || LEGACY.contains(&bare)
        || bare.strip_suffix("_FILE").is_some_and(of_secret)
}

fn suggestion(bare: &str, distance_max: usize) -> Option<&'static str> {
    /// Short names are close to everything.
    const NAME_CHARS_MIN: usize = 8;
    (bare.len() >= NAME_CHARS_MIN)
        .then(|| {
            let known = variables::all().map(|Variable { name, .. }| *name);
            closest(&bare.to_uppercase(), known, distance_max)
        })
        .flatten()
}
