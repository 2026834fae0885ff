//! Where values come from: the file, the environment and the flags, laid over each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::plan_limits;
use super::settings::SECTIONS;
use super::values::{Plan, PlanName, Range, Setting};

/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1_048_576;

/// The variable that names the file. It is no value, so it has no place in the file.
const FILE_VARIABLE: &str = "TENANCY_CONFIG";

/// The one name outside the rule, and what it stands for.
const ALIAS: (&str, &str) = ("DATABASE_URL", "database.url");

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File {
        /// As it was named.
        path: PathBuf,
        /// Its place in the file.
        key: String,
    },
    /// A variable.
    Environment {
        /// Of the variable.
        name: String,
    },
    /// The command line.
    Flag {
        /// With its dashes.
        name: String,
    },
}

impl Source {
    /// The name in the environment of a place in the file: `TENANCY_`, upper case, `__` between levels.
    #[must_use]
    pub fn variable(key: &str) -> String {
        format!("TENANCY_{}", key.replace('.', "__").to_uppercase())
    }

    /// The flag for a place in the file: `-` instead of `_` and between levels.
    #[must_use]
    pub fn flag(key: &str) -> String {
        format!("--{}", key.replace(['.', '_'], "-"))
    }

    /// The same source with the place of a part of the value, such as `[1].issuer`.
    pub(super) fn part(&self, at: &str) -> Self {
        match self {
            Self::Default => Self::Default,
            Self::File { path, key } => Self::File { path: path.clone(), key: format!("{key}{at}") },
            Self::Environment { name } => Self::Environment { name: format!("{name}{at}") },
            Self::Flag { name } => Self::Flag { name: format!("{name}{at}") },
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, key } => write!(f, "file {}: {key}", path.display()),
            Self::Environment { name } => write!(f, "environment: {name}"),
            Self::Flag { name } => write!(f, "flag: {name}"),
        }
    }
}

/// What is wrong with a configuration: the reason in one line, what to do in a second.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say it.
pub enum Error {
    #[error("{source_of}: there is no such setting\n{}", suggestion(.nearest.as_deref()))]
    Unknown { source_of: Source, nearest: Option<String> },
    #[error("{source_of}: {key} cannot be {value}\nset it to {right}")]
    Value { source_of: Source, key: String, value: String, right: String },
    #[error("{} and {} are both set, to different values\nset only one of them", ALIAS.0, Source::variable(ALIAS.1))]
    TwoDatabases,
    #[error("the configuration file {path} ({named_by}) cannot be used: {why}\n{remedy}")]
    File { path: PathBuf, named_by: Source, why: String, remedy: &'static str },
    #[error("there is no folder for data: {why}\nset {} to a folder", Source::variable("data_dir"))]
    NoDataDir { why: String },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "`tenancy config` prints all settings; remove or correct this one".to_owned(),
        |name| format!("did you mean {name}?"),
    )
}

/// What the command line sets.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    file: Option<PathBuf>,
    values: BTreeMap<String, String>,
}

impl Flags {
    /// With the file of `--config`, if that was given.
    #[must_use]
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, values: BTreeMap::new() }
    }

    /// Sets the value at a place in the file, such as `listen`, if the flag was given.
    #[must_use]
    pub fn with(mut self, key: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.values.insert(key.to_owned(), value.to_string());
        }
        self
    }
}

/// What a process knows of itself that defaults and values depend on.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The environment.
    pub variables: BTreeMap<String, String>,
    /// Whether it runs as root.
    pub root: bool,
    /// The user's home.
    pub home: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process. Text that is no UTF-8 is kept as far as it can be, so that it is refused by name and
    /// not passed over.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self {
            variables: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
            root: is_root(),
            home: std::env::home_dir(),
        }
    }

    /// A variable that is set; an empty one is not.
    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The folder for data where none is configured, by the custom of the system.
    pub(super) fn data_dir(&self) -> Result<PathBuf, Error> {
        if self.root {
            return Ok(PathBuf::from("/var/lib/tenancy"));
        }
        let custom = self.variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let usual = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
        let home = self.home.as_ref().filter(|home| home.is_absolute()).map(|home| home.join(usual));
        let why = || "this user has no home".to_owned();
        custom.or(home).map(|folder| folder.join("tenancy")).ok_or_else(|| Error::NoDataDir { why: why() })
    }
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

enum Raw {
    Toml(Value),
    Text(String),
}

struct Given {
    raw: Raw,
    source: Source,
}

/// The values that somebody set, later ones over earlier ones, by place in the file.
pub(super) struct Layers {
    given: BTreeMap<String, Given>,
    /// Plans that are named, with limits or without.
    plans: BTreeSet<String>,
    /// Where each value that was taken comes from.
    pub sources: BTreeMap<String, Source>,
}

impl Layers {
    pub(super) fn read(flags: &Flags, surroundings: &Surroundings) -> Result<Self, Error> {
        let mut layers = Self { given: BTreeMap::new(), plans: BTreeSet::new(), sources: BTreeMap::new() };
        layers.file(flags, surroundings)?;
        layers.environment(surroundings)?;
        for (key, value) in &flags.values {
            let source = Source::Flag { name: Source::flag(key) };
            if !is_known(key) {
                return Err(Error::Unknown { source_of: source, nearest: nearest(key).map(|key| Source::flag(&key)) });
            }
            layers.give(key, Raw::Text(value.clone()), source);
        }
        Ok(layers)
    }

    /// The value of a key, or its default.
    pub(super) fn take<T: Setting>(&mut self, key: &'static str, range: Range, default: T) -> Result<T, Error> {
        let Some(Given { raw, source }) = self.given.remove(key) else {
            self.sources.insert(key.to_owned(), Source::Default);
            return Ok(default);
        };
        let value = read(key, range, &raw, &source)?;
        self.sources.insert(key.to_owned(), source);
        Ok(value)
    }

    /// All plans. The one without limits is there even if nobody names it.
    pub(super) fn plans(&mut self) -> Result<BTreeMap<PlanName, Plan>, Error> {
        let mut plans = BTreeMap::from([(PlanName::default(), Plan::default())]);
        for name in std::mem::take(&mut self.plans) {
            let mut plan = Plan::default();
            for (limit, smallest, largest) in plan_limits() {
                let key = format!("plans.{name}.limits.{limit}");
                let Some(Given { raw, source }) = self.given.remove(&key) else {
                    continue;
                };
                plan.limits.insert(limit.to_owned(), read(&key, Some((smallest, largest)), &raw, &source)?);
                self.sources.insert(key, source);
            }
            if let Ok(name) = name.parse() {
                plans.insert(name, plan);
            }
        }
        Ok(plans)
    }

    fn give(&mut self, key: &str, raw: Raw, source: Source) {
        if let Some((plan, _)) = key.strip_prefix("plans.").and_then(|rest| rest.split_once('.')) {
            self.plans.insert(plan.to_owned());
        }
        self.given.insert(key.to_owned(), Given { raw, source });
    }

    fn file(&mut self, flags: &Flags, surroundings: &Surroundings) -> Result<(), Error> {
        let (path, named_by) = match (&flags.file, surroundings.variable(FILE_VARIABLE)) {
            (Some(path), _) => (path.clone(), Source::Flag { name: "--config".to_owned() }),
            (None, Some(path)) => (PathBuf::from(path), Source::Environment { name: FILE_VARIABLE.to_owned() }),
            (None, None) => return Ok(()),
        };
        let table = table(&path, &named_by)?;
        self.tables(&path, "", &table)
    }

    /// Goes through the tables of the file; every leaf must be a key.
    fn tables(&mut self, path: &Path, prefix: &str, table: &Table) -> Result<(), Error> {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let source = Source::File { path: path.to_owned(), key: key.clone() };
            match (value, kind_of(&key)) {
                (_, Place::Unknown) => {
                    return Err(Error::Unknown { source_of: source, nearest: nearest(&key) });
                }
                (_, Place::BadPlan) => {
                    let value = name.clone();
                    return Err(Error::Value { source_of: source, key, value, right: PlanName::RIGHT.to_owned() });
                }
                (Value::Table(inner), Place::Table) => {
                    if prefix == "plans" {
                        self.plans.insert(name.clone());
                    }
                    self.tables(path, &key, inner)?;
                }
                (value, Place::Table) => {
                    let right = format!("a table, under [{key}]");
                    return Err(Error::Value { source_of: source, key, value: short(value), right });
                }
                (value, Place::Value) => self.give(&key, Raw::Toml(value.clone()), source),
            }
        }
        Ok(())
    }

    fn environment(&mut self, surroundings: &Surroundings) -> Result<(), Error> {
        let alias = surroundings.variable(ALIAS.0);
        let regular = surroundings.variable(&Source::variable(ALIAS.1));
        if let (Some(one), Some(other)) = (alias, regular)
            && one != other
        {
            return Err(Error::TwoDatabases);
        }
        if let Some(url) = alias {
            self.give(ALIAS.1, Raw::Text(url.to_owned()), Source::Environment { name: ALIAS.0.to_owned() });
        }
        for (name, value) in &surroundings.variables {
            if !name.starts_with("TENANCY_") || name == FILE_VARIABLE || value.is_empty() {
                continue;
            }
            let source = Source::Environment { name: name.clone() };
            match key_of_variable(name) {
                Some(key) => self.give(&key, Raw::Text(value.clone()), source),
                None if is_service_link(name) => {}
                None => {
                    return Err(Error::Unknown { source_of: source, nearest: nearest_variable(name) });
                }
            }
        }
        Ok(())
    }
}

fn read<T: Setting>(key: &str, range: Range, raw: &Raw, source: &Source) -> Result<T, Error> {
    let value = match raw {
        Raw::Toml(value) => value.clone(),
        Raw::Text(text) => T::of_text(text),
    };
    T::of_toml(&value, range).map_err(|right| {
        if let Some(wrong) = T::wrong_part(&value) {
            return wrong.error(key, source);
        }
        let value = if T::SECRET { "what it is (hidden, because it is a secret)".to_owned() } else { short(&value) };
        Error::Value { source_of: source.clone(), key: key.to_owned(), value, right }
    })
}

/// A value for a message: in one line, not long.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string().replace('\n', " ");
    let cut: String = text.chars().take(80).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { text }
}

fn table(path: &Path, named_by: &Source) -> Result<Table, Error> {
    let unusable = |why: String, remedy| Error::File { path: path.to_owned(), named_by: named_by.clone(), why, remedy };
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| unusable(error.to_string(), "name a TOML file that can be read, or none"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unusable(format!("it is larger than {FILE_BYTES_MAX} bytes"), "name another file"));
    }
    // The parser's own display repeats the line, and a secret may stand in it.
    text.parse().map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
        unusable(format!("line {line}: {}", error.message().replace('\n', " ")), "correct that line; it is no TOML")
    })
}

/// What may stand at a place in the file.
enum Place {
    Value,
    Table,
    Unknown,
    BadPlan,
}

fn kind_of(key: &str) -> Place {
    let levels: Vec<&str> = key.split('.').collect();
    match levels.as_slice() {
        ["plans", name] if name.parse::<PlanName>().is_err() => Place::BadPlan,
        ["plans"] | ["plans", _] | ["plans", _, "limits"] => Place::Table,
        [section] if SECTIONS.iter().any(|known| known.name == *section) => Place::Table,
        _ if is_known(key) => Place::Value,
        _ => Place::Unknown,
    }
}

pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().flat_map(|section| section.keys).map(|key| key.path)
}

fn is_known(key: &str) -> bool {
    let of_plan = || match key.split('.').collect::<Vec<_>>().as_slice() {
        ["plans", plan, "limits", limit] => {
            plan.parse::<PlanName>().is_ok() && plan_limits().any(|(known, ..)| known == *limit)
        }
        _ => false,
    };
    keys().any(|known| known == key) || of_plan()
}

/// The way back from a variable; only what is written by the rule is known.
fn key_of_variable(name: &str) -> Option<String> {
    let key = name.strip_prefix("TENANCY_")?.replace("__", ".").to_lowercase();
    (is_known(&key) && Source::variable(&key) == name).then_some(key)
}

/// Kubernetes gives every container the addresses of the services beside it, and one named `tenancy` makes
/// `TENANCY_SERVICE_HOST`, `TENANCY_PORT_8080_TCP` and so on. Nobody meant these for us.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split("_PORT_").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The known key that was probably meant: the same name in another section, or one a few letters away.
fn nearest(key: &str) -> Option<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let plan_keys = || {
        let plan = key.strip_prefix("plans.").and_then(|rest| rest.split('.').next()).unwrap_or("free").to_owned();
        plan_limits().map(move |(limit, ..)| format!("plans.{plan}.limits.{limit}"))
    };
    let places = keys().map(str::to_owned).chain(SECTIONS.iter().map(|section| section.name.to_owned()));
    let scored = places.chain(plan_keys()).filter(|known| !known.is_empty()).map(|known| {
        let same_name = last(&known) == last(key);
        (if same_name { 1 } else { strsim::damerau_levenshtein(&known, key) }, known)
    });
    scored.min().filter(|(distance, _)| *distance <= 1 + key.len() / 4).map(|(_, known)| known)
}

fn nearest_variable(name: &str) -> Option<String> {
    let variables = keys().map(Source::variable).chain([ALIAS.0, FILE_VARIABLE].map(str::to_owned));
    let near = variables.map(|known| (strsim::damerau_levenshtein(&known, name), known)).min();
    let near = near.filter(|(distance, _)| *distance <= 3).map(|(_, known)| known);
    let key = name.trim_start_matches("TENANCY_").replace("__", ".").to_lowercase();
    near.or_else(|| nearest(&key).filter(|key| is_known(key)).map(|key| Source::variable(&key)))
}
