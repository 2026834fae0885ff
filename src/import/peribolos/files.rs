//! The folder and its files: what is opened, how much of it is read, and the shape of the YAML.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Error;
use super::names::shown;

/// Largest YAML file that is read, in bytes. The largest of Kubernetes, with 1,276 people, has 26,072.
pub const FILE_BYTES_MAX: u64 = 1_048_576;
/// Most YAML files in one folder. Kubernetes has 72.
pub const FILES_MAX: usize = 10_000;
/// How deep files may lie below an organization's folder.
pub const FOLDER_DEPTH_MAX: usize = 8;
/// How deep YAML may nest; a nested team takes two levels.
pub const YAML_DEPTH_MAX: usize = 48;
/// Most YAML events (keys, values, starts and ends) of one file, aliases unfolded.
pub const YAML_EVENTS_MAX: usize = 200_000;

/// `org.yaml`, as far as tenancy has a place for it. Lists may be null (the real files have that).
#[derive(Debug, Default, Deserialize)]
pub(super) struct OrganizationFile {
    pub name: Option<String>,
    pub email: Option<String>,
    pub billing_email: Option<String>,
    pub admins: Option<Vec<Option<String>>>,
    pub members: Option<Vec<Option<String>>>,
    pub teams: Option<Teams>,
}

/// A file of teams.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TeamsFile {
    pub teams: Option<Teams>,
}

pub(super) type Teams = BTreeMap<String, Option<Team>>;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Team {
    pub members: Option<Vec<Option<String>>>,
    pub maintainers: Option<Vec<Option<String>>>,
    pub repos: Option<BTreeMap<String, Option<String>>>,
    pub teams: Option<Teams>,
}

/// What an import uses of `org.yaml`; every other key of it is named once in the list of what was left out.
pub(super) const ORGANIZATION_KEYS: [&str; 6] = ["name", "email", "billing_email", "admins", "members", "teams"];

/// Strict where YAML is generous: a key that stands twice is an error, and so is whatever grows or nests too much.
pub(super) fn parsed<T: DeserializeOwned>(text: &str) -> Result<Option<T>, String> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: YAML_DEPTH_MAX,
            flow_nesting_limit: YAML_DEPTH_MAX,
            max_events: YAML_EVENTS_MAX,
            max_aliases: 1_000,
            max_anchors: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: YAML_EVENTS_MAX,
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| shown(&error.to_string().replace('\n', " ")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Link,
    /// Pipes, sockets, devices: opening one could wait for ever.
    Other,
}

pub(super) struct Item {
    pub name: String,
    pub path: PathBuf,
    pub kind: Kind,
}

pub(super) fn open(folder: &Path) -> Result<PathBuf, Error> {
    let unreadable = |source| Error::Unreadable { path: folder.to_owned(), source };
    let root = folder.canonicalize().map_err(unreadable)?;
    if root.is_dir() { Ok(root) } else { Err(Error::NotAFolder { path: folder.to_owned() }) }
}

/// What lies in a folder, by name; links are seen as links.
pub(super) fn entries(folder: &Path) -> std::io::Result<Vec<Item>> {
    let mut items = fs::read_dir(folder)?
        .map(|entry| {
            let entry = entry?;
            let kind = match entry.file_type()? {
                kind if kind.is_symlink() => Kind::Link,
                kind if kind.is_dir() => Kind::Folder,
                kind if kind.is_file() => Kind::File,
                _ => Kind::Other,
            };
            Ok(Item { name: entry.file_name().to_string_lossy().into_owned(), path: entry.path(), kind })
        })
        .collect::<std::io::Result<Vec<Item>>>()?;
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(items)
}

pub(super) fn is_organization_file(name: &str) -> bool {
    matches!(name, "org.yaml" | "org.yml")
}

pub(super) fn is_yaml(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "yaml" || ending == "yml")
}
