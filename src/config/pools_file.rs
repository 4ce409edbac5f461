//! The file that adds pools. TOML and not JSON, because people write it by hand: it has
//! comments, and its errors name a line.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::{Table, Value};

use super::github::SCOPE_VARIABLES;
use super::pools::{DEFAULT_POOL, FieldSource, Fields, Raw};
use super::problem::{Problem, closest, shown};
use super::reader::Reader;
use super::show::Setting;
use super::sources::Origin;
use super::value;
use crate::fleet::id::PoolName;
use crate::fleet::pool::{Pool, Scope};

/// More pools are a mistake in whatever wrote the file: each costs metric series and a
/// place in every plan.
const POOLS_MAX: usize = 100;

/// What a field is called in the file, and which variable is its like.
const FIELDS: &[(&str, &str)] = &[
    ("min_runners", "MIN_RUNNERS"),
    ("max_runners", "MAX_RUNNERS"),
    ("min_idle_runners", "MIN_IDLE_RUNNERS"),
    ("scale_up_threshold", "SCALE_UP_THRESHOLD"),
    ("scale_down_threshold", "SCALE_DOWN_THRESHOLD"),
    ("scale_up_max_wait", "SCALE_UP_MAX_WAIT"),
    ("idle_timeout", "IDLE_TIMEOUT"),
    ("start_deadline", "START_DEADLINE"),
    ("image", "RUNNER_IMAGE"),
    ("labels", "RUNNER_LABELS"),
    ("command", "RUNNER_COMMAND"),
    ("runner_group_id", "RUNNER_GROUP_ID"),
    ("cpus", "RUNNER_CPUS"),
    ("memory", "RUNNER_MEMORY"),
    ("pids", "RUNNER_PIDS"),
    ("docker", "RUNNER_DOCKER"),
];

/// Whom the pool serves: one of these.
const SCOPE_FIELDS: &[&str] = &["org", "repo", "enterprise"];

/// What else has no variable of the same meaning.
const OWN_FIELDS: &[&str] = &["enterprise_orgs", "weight", "priority"];

/// Adds the pools of the file. A field that is left out has the value of the variable
/// that is its like; labels are never left out, for two pools with the same labels
/// cannot be told apart.
pub(super) fn read(
    reader: &mut Reader<'_>,
    path: &str,
    base: &Fields,
    poll_interval: Option<Duration>,
) -> BTreeMap<PoolName, Pool> {
    let mut pools = BTreeMap::new();
    let Some(tables) = tables(reader, path) else { return pools };
    let scope_set = SCOPE_VARIABLES.iter().any(|name| reader.is_set(name));
    for (name, table) in tables {
        let mut entry = Entry { pool: &name, table: &table, problems: Vec::new() };
        entry.check_presence(scope_set);
        let pool = entry.read(base, poll_interval);
        reader.problems.append(&mut entry.problems);
        if let Some(pool) = pool {
            reader.settings.extend(settings(&pool, &table, path));
            pools.insert(pool.name.clone(), pool);
        }
    }
    pools
}

/// The tables `[pools.NAME]`, or `None` after noting why there are none.
fn tables(reader: &mut Reader<'_>, path: &str) -> Option<Vec<(String, Table)>> {
    let subject = reader.spelled("POOLS_FILE");
    let text = match reader.read_file(path) {
        Ok(text) => text,
        Err(error) => {
            reader.problem(subject, format!("the file {} cannot be read ({error})", shown(path)));
            return None;
        }
    };
    let mut document: Table = match text.parse() {
        Ok(document) => document,
        Err(error) => {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            reader.problem(format!("{path} line {line}"), error.message().to_owned());
            return None;
        }
    };
    let pools = document.remove("pools");
    for key in document.keys() {
        reader.problem(path, format!("unknown key {}; expected [pools.NAME]", shown(key)));
    }
    let Some(Value::Table(pools)) = pools else {
        reader.problem(path, "expected at least one table [pools.NAME]");
        return None;
    };
    if pools.len() > POOLS_MAX {
        reader.problem(path, format!("expected at most {POOLS_MAX} pools, got {}", pools.len()));
        return None;
    }
    let mut tables = Vec::new();
    for (name, pool) in pools {
        match (pool, value::name(&name)) {
            (Value::Table(_), Ok(name)) if name == DEFAULT_POOL => reader.problem(
                format!("pool {name:?}"),
                "the environment describes this pool; choose another name",
            ),
            (Value::Table(table), Ok(name)) => tables.push((name, table)),
            (_, Ok(name)) => reader.problem(format!("pool {name:?}"), "expected a table"),
            (_, Err(allowed)) => reader.problem(format!("pool {}", shown(&name)), allowed),
        }
    }
    Some(tables)
}

/// One table of the file.
struct Entry<'a> {
    pool: &'a str,
    table: &'a Table,
    problems: Vec<Problem>,
}

impl Entry<'_> {
    fn read(&mut self, base: &Fields, poll_interval: Option<Duration>) -> Option<Pool> {
        let scope = self.scope();
        let own = Fields {
            scope,
            weight: self.own("weight", value::whole(1..=1000)),
            priority: self.own("priority", value::whole(-1000..=1000)),
            ..Fields::read(self)
        };
        // A threshold that followed from the environment's other one follows from this
        // pool's own instead.
        let mut fields = own.or(base);
        if self.table.contains_key("scale_up_threshold")
            && !self.table.contains_key("scale_down_threshold")
        {
            fields.scale_down_threshold = None;
        }
        let labels_are_own = self.table.contains_key("labels");
        let pool = self.pool;
        let contradictions =
            fields.contradictions(|variable| format!("pool {pool:?} {}", key_of(variable)));
        self.problems.extend(contradictions);
        fields.finish(self.pool, poll_interval).filter(|_| labels_are_own)
    }

    fn check_presence(&mut self, scope_set: bool) {
        if !self.table.contains_key("labels") {
            self.problem("labels", "missing: the labels that tell this pool from the others");
        }
        if !self.names_scope() && !scope_set {
            self.problem("org", "missing (set it, or repo or enterprise; or GITHUB_ORG for all)");
        }
        let known = || {
            let own = SCOPE_FIELDS.iter().chain(OWN_FIELDS).copied();
            FIELDS.iter().map(|(key, _)| *key).chain(own)
        };
        for key in self.table.keys().filter(|key| !known().any(|known| known == *key)) {
            let hint = closest(key, known(), 3)
                .map_or(String::new(), |known| format!(": did you mean {known}?"));
            self.problem(&shown(key), format!("not a field of a pool{hint}"));
        }
    }

    fn names_scope(&self) -> bool {
        SCOPE_FIELDS.iter().any(|key| self.table.contains_key(*key))
    }

    fn scope(&mut self) -> Option<Scope> {
        let org = self.own("org", value::login);
        let repo = self.own("repo", value::repository);
        let enterprise = self.own("enterprise", value::login);
        let orgs = self.table.get("enterprise_orgs").and_then(raw).map(|raw| match raw {
            Raw::Text(text) => value::logins(&text),
            Raw::List(items) => value::logins(&items.join(",")),
        });
        let given = SCOPE_FIELDS.iter().filter(|key| self.table.contains_key(**key)).count();
        if given > 1 {
            self.problem("org", "set only one of org, repo and enterprise");
            return None;
        }
        match (enterprise, orgs) {
            (Some(slug), Some(Ok(orgs))) => return Some(Scope::Enterprise { slug, orgs }),
            (_, Some(Err(allowed))) => self.problem("enterprise_orgs", allowed),
            (Some(_), None) => {
                self.problem("enterprise_orgs", "missing: the organisations whose queues count");
            }
            (None, Some(Ok(_))) => self.problem("enterprise_orgs", "needs enterprise"),
            (None, None) => {}
        }
        org.map(Scope::Org).or(repo.map(Scope::Repo))
    }

    /// A field that only the file has.
    fn own<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.parse(key, |raw| match raw {
            Raw::Text(text) => parse(text),
            Raw::List(_) => Err("expected one value, not a list".to_owned()),
        })
    }

    fn parse<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.table.get(key)?;
        let parsed = match raw(value) {
            Some(raw) => parse(&raw),
            None => Err("expected a value or a list of texts".to_owned()),
        };
        match parsed {
            Ok(parsed) => Some(parsed),
            Err(allowed) => {
                let got = shown(&raw(value).map_or(value.type_str().to_owned(), raw_text));
                self.problem(key, format!("{allowed}, got {got}"));
                None
            }
        }
    }

    fn problem(&mut self, key: &str, text: impl Into<String>) {
        let subject = format!("pool {:?} {key}", self.pool);
        self.problems.push(Problem { subject, text: text.into() });
    }
}

impl FieldSource for Entry<'_> {
    fn field<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Option<T> {
        self.parse(key_of(variable), parse)
    }
}

fn key_of(variable: &'static str) -> &'static str {
    FIELDS.iter().find(|(_, like)| *like == variable).map_or(variable, |(key, _)| key)
}

/// A TOML value in the form the environment would give it.
fn raw(value: &Value) -> Option<Raw> {
    match value {
        Value::String(text) => Some(Raw::Text(text.trim().to_owned())),
        Value::Integer(number) => Some(Raw::Text(number.to_string())),
        Value::Float(number) => Some(Raw::Text(number.to_string())),
        Value::Boolean(boolean) => Some(Raw::Text(boolean.to_string())),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map(Raw::List),
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

fn raw_text(raw: Raw) -> String {
    match raw {
        Raw::Text(text) => text,
        Raw::List(items) => items.join(","),
    }
}

/// The pool's effective fields, for `config show`.
fn settings(pool: &Pool, table: &Table, path: &str) -> Vec<Setting> {
    let text = |value: Option<String>| value.filter(|text| !text.is_empty());
    let seconds = |span: Duration| Some(span.as_secs().to_string());
    let number = |number: u32| Some(number.to_string());
    let rows = [
        ("labels", text(Some(pool.labels.to_string()))),
        ("image", text(Some(pool.image.clone()))),
        ("command", text(pool.command.as_ref().map(|words| words.join(" ")))),
        ("runner_group_id", Some(pool.runner_group_id.to_string())),
        ("cpus", pool.resources.cpus.map(|cpus| cpus.to_string())),
        ("memory", pool.resources.memory_bytes.map(|bytes| bytes.to_string())),
        ("pids", pool.resources.pids.map(|pids| pids.to_string())),
        ("docker", text(Some(pool.docker.name().to_owned()))),
        ("min_runners", number(pool.min_runners)),
        ("max_runners", number(pool.max_runners)),
        ("min_idle_runners", number(pool.min_idle_runners)),
        ("scale_up_threshold", number(pool.scale_up_threshold)),
        ("scale_down_threshold", number(pool.scale_down_threshold)),
        ("scale_up_max_wait", seconds(pool.scale_up_max_wait)),
        ("idle_timeout", seconds(pool.idle_timeout)),
        ("start_deadline", seconds(pool.start_deadline)),
        ("weight", number(pool.weight)),
        ("priority", Some(pool.priority.to_string())),
    ];
    let file = || Origin::File { path: path.to_owned() };
    let scope_key = SCOPE_FIELDS.iter().any(|key| table.contains_key(*key));
    let setting = |key: &str, value, in_file| Setting {
        name: format!("pools.{}.{key}", pool.name),
        value,
        origin: if in_file { file() } else { Origin::Default },
    };
    std::iter::once(setting("scope", Some(pool.scope.to_string()), scope_key))
        .chain(rows.into_iter().map(|(key, value)| setting(key, value, table.contains_key(key))))
        .collect()
}
