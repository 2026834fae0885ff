//! Reads a folder of GitHub organizations kept as peribolos YAML.
//!
//! Communities that keep their organizations in Git (Kubernetes is the best known) have one folder an organization:
//! `org.yaml` names its admins and members, and YAML files in sub-folders name teams, nested as deep as they like,
//! with the repositories that each may use. This module turns such a folder into plain values and says what it left
//! out; it writes nothing, asks nobody and knows no database, so that the import itself can be tried without one.
//!
//! The folder comes from outside and is treated so. Nothing in it can make the reader follow a link, wait for a
//! pipe, fill the memory or overflow the stack: every size has a limit, and the YAML reader counts events,
//! aliases and depth. What is wrong with one entry costs that entry, what is wrong with one file costs that file,
//! and only a folder without any usable organization is an error. Each loss is a [`Skipped`] that names the place.
//!
//! The result depends on the content alone, never on the order in which a file system lists its entries:
//! organizations, members and projects are sorted by their canonical names.

mod files;
mod names;

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, IgnoredAny};

pub use files::{FILE_BYTES_MAX, FILES_MAX, FOLDER_DEPTH_MAX, YAML_DEPTH_MAX, YAML_EVENTS_MAX};
pub use names::{LOGIN_CHARS_MAX, REPOSITORY_CHARS_MAX, SLUG_CHARS_MAX, slug_of};

use files::{
    Item, Kind, ORGANIZATION_KEYS, OrganizationFile, Teams, TeamsFile, entries, is_organization_file, is_yaml, open,
    parsed,
};
use names::{NO_LOGIN, is_email, is_permission, login_of, quoted, shown};

/// The issuer under which a GitHub login is a user's subject.
pub const ISSUER: &str = "https://github.com";

/// Longest organization name that is taken over.
pub const NAME_CHARS_MAX: usize = 200;
/// How much of a project's metadata the teams may take, in bytes, so that a repository with hundreds of teams stays
/// below the service's own limit for metadata.
pub const TEAMS_BYTES_MAX: usize = 8_000;

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// By login.
    pub organizations: Vec<Organization>,
    /// What was left out, in the order in which it was met.
    pub skipped: Vec<Skipped>,
}

/// One GitHub organization; always with at least one owner, because tenancy has none without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// `github.com/<login in lower case>`: what a later import recognises it by.
    pub external_id: String,
    /// The login made to fit, see [`slug_of`]; unique in the folder.
    pub slug: String,
    /// The display name, or the login where there is none.
    pub name: String,
    /// `email` where the file has it, otherwise `billing_email`.
    pub contact_email: Option<String>,
    /// By subject.
    pub members: Vec<Member>,
    /// By slug.
    pub projects: Vec<Project>,
}

/// One person in one organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// For display: the first spelling in the folder, the same in every organization, so that importing does not
    /// rename people back and forth.
    pub login: String,
    /// The login in lower case, because GitHub compares logins so; with [`ISSUER`] it says who this is.
    pub subject: String,
    /// An admin on GitHub.
    pub owner: bool,
}

/// A repository that at least one team names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The name made to fit, see [`slug_of`]; unique in its organization.
    pub slug: String,
    /// The repository's name as the files write it first.
    pub name: String,
    /// `organization/repository` on GitHub.
    pub repository: String,
    /// Permission (`admin`, `maintain`, `write`, `triage`, `read`, or a custom role) by team.
    pub teams: BTreeMap<String, String>,
}

impl Project {
    /// What tenancy keeps of the teams until it has teams of its own.
    #[must_use]
    pub fn metadata(&self) -> serde_json::Value {
        serde_json::json!({ "repository": self.repository, "teams": self.teams })
    }
}

/// Something that was left out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// File, relative to the folder, and the path in it where there is one.
    pub place: String,
    /// The entry, file or setting.
    pub what: String,
    /// The reason, for a person.
    pub why: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.what, self.why)
    }
}

/// Why a folder cannot be imported at all.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say it.
pub enum Error {
    #[error("{path} cannot be read: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a folder\ngive the folder that holds one folder an organization")]
    NotAFolder { path: PathBuf },
    #[error("{path} is one organization (it holds org.yaml itself)\ngive the folder above it")]
    OneOrganization { path: PathBuf },
    #[error("{path} holds no organization that can be imported\n{hint}")]
    NoOrganizations { path: PathBuf, hint: String },
    #[error("{path} holds more than {FILES_MAX} YAML files\ngive a folder with fewer")]
    TooManyFiles { path: PathBuf },
}

/// Reads all organizations below `folder`.
///
/// # Errors
/// Only if nothing can be imported: the folder cannot be read, is not of this kind, or holds no usable organization.
pub fn read(folder: &Path) -> Result<Folder, Error> {
    let root = open(folder)?;
    let mut reader = Reader { root, skipped: Vec::new(), files: 0 };
    let mut organizations = reader.organizations()?;
    if organizations.is_empty() {
        return Err(reader.nothing_found(folder));
    }
    one_spelling_a_login(&mut organizations);
    Ok(Folder { organizations, skipped: reader.skipped })
}

/// What is known of one organization while its files are read.
struct Draft {
    login: String,
    /// By subject.
    members: BTreeMap<String, Member>,
    /// By name in lower case.
    repositories: BTreeMap<String, Project>,
    /// Logins of teams that the organization does not have: where first, and in how many places.
    strangers: BTreeMap<String, (String, String, usize)>,
    team_names: BTreeSet<String>,
    team_memberships: usize,
}

/// Reads files and remembers what it left out.
struct Reader {
    root: PathBuf,
    skipped: Vec<Skipped>,
    files: usize,
}

impl Reader {
    fn organizations(&mut self) -> Result<Vec<Organization>, Error> {
        let mut organizations: BTreeMap<String, Organization> = BTreeMap::new();
        for entry in entries(&self.root).map_err(|source| Error::Unreadable { path: self.root.clone(), source })? {
            let organization = match entry.kind {
                _ if entry.name.starts_with('.') => None,
                Kind::Folder => self.organization(&entry)?,
                Kind::Link => self.link(&entry.name),
                Kind::File if is_yaml(&entry.name) => self.loose_file(&entry.name),
                Kind::File | Kind::Other => None,
            };
            let Some(organization) = organization else {
                continue;
            };
            match organizations.entry(organization.slug.clone()) {
                Entry::Occupied(first) => self.skip(
                    &entry.name,
                    "organization",
                    format!("its name in tenancy would be that of {}", first.get().external_id),
                ),
                Entry::Vacant(place) => {
                    place.insert(organization);
                }
            }
        }
        Ok(organizations.into_values().collect())
    }

    fn organization(&mut self, folder: &Item) -> Result<Option<Organization>, Error> {
        let Some(file) = self.organization_file(folder)? else {
            return Ok(None);
        };
        let (Some(login), Some(slug)) = (login_of(&folder.name), slug_of(&folder.name)) else {
            self.skip(&folder.name, "organization", "the folder's name is no GitHub login");
            return Ok(None);
        };
        let place = format!("{login}/org.yaml");
        let mut draft = Draft::new(&login);
        self.members(&mut draft, &place, "admins", file.admins, true);
        self.members(&mut draft, &place, "members", file.members, false);
        if !draft.members.values().any(|member| member.owner) {
            self.skip(place, "organization", "it has no admins, and an organization in tenancy needs an owner");
            return Ok(None);
        }
        self.teams(&mut draft, &place, "teams", file.teams);
        self.team_files(&mut draft, &folder.path, &login, 0)?;
        Ok(Some(Organization {
            external_id: format!("github.com/{}", login.to_ascii_lowercase()),
            name: self.name(&place, file.name, &login),
            contact_email: self.contact_email(&place, file.email, file.billing_email),
            slug,
            projects: self.projects(&mut draft),
            members: self.settle(draft),
        }))
    }

    /// The organization's own file, if there is a usable one.
    fn organization_file(&mut self, folder: &Item) -> Result<Option<OrganizationFile>, Error> {
        let items = self.entries(&folder.path, &folder.name);
        let Some(item) = items.into_iter().find(|item| is_organization_file(&item.name)) else {
            self.skip(&folder.name, "folder", "there is no org.yaml in it, so it is no organization");
            return Ok(None);
        };
        let place = format!("{}/{}", folder.name, item.name);
        let Some(text) = self.text(&place, &item)? else {
            return Ok(None);
        };
        let Some(file) = self.parse::<OrganizationFile>(&place, &text) else {
            return Ok(None);
        };
        self.settings_without_a_place(&place, &text);
        Ok(Some(file))
    }

    /// One line for all settings of GitHub that tenancy has no counterpart of, and for keys nobody knows.
    fn settings_without_a_place(&mut self, place: &str, text: &str) {
        let keys: BTreeMap<String, IgnoredAny> = parsed(text).ok().flatten().unwrap_or_default();
        let others: Vec<&str> =
            keys.keys().map(String::as_str).filter(|key| !ORGANIZATION_KEYS.contains(key)).take(20).collect();
        if !others.is_empty() {
            self.skip(place, others.join(", "), "tenancy has no place for these");
        }
    }

    fn members(&mut self, draft: &mut Draft, place: &str, key: &str, list: Option<Vec<Option<String>>>, owner: bool) {
        for entry in list.unwrap_or_default() {
            let text = entry.unwrap_or_default();
            match login_of(&text) {
                Some(login) => draft.add(login, owner),
                None => self.skip(format!("{place}: {key}"), quoted(&text), NO_LOGIN),
            }
        }
    }

    /// Reads every YAML file of teams at and below `folder`.
    fn team_files(&mut self, draft: &mut Draft, folder: &Path, place: &str, depth: usize) -> Result<(), Error> {
        if depth > FOLDER_DEPTH_MAX {
            self.skip(place, "folder", format!("it lies more than {FOLDER_DEPTH_MAX} folders deep"));
            return Ok(());
        }
        for item in self.entries(folder, place) {
            let inner = format!("{place}/{}", item.name);
            if item.name.starts_with('.') || (depth == 0 && is_organization_file(&item.name)) {
                continue;
            }
            match item.kind {
                Kind::Folder => self.team_files(draft, &item.path, &inner, depth + 1)?,
                Kind::Link => {
                    self.link::<()>(&inner);
                }
                Kind::File | Kind::Other if !is_yaml(&item.name) => {}
                Kind::File | Kind::Other => self.team_file(draft, &inner, &item)?,
            }
        }
        Ok(())
    }

    fn team_file(&mut self, draft: &mut Draft, place: &str, item: &Item) -> Result<(), Error> {
        let Some(text) = self.text(place, item)? else {
            return Ok(());
        };
        let Some(file) = self.parse::<TeamsFile>(place, &text) else {
            return Ok(());
        };
        match file.teams {
            Some(teams) => self.teams(draft, place, "teams", Some(teams)),
            None => self.skip(place, "file", "there is no `teams` in it"),
        }
        Ok(())
    }

    /// Recursion is bounded: the YAML reader refuses what nests deeper than [`YAML_DEPTH_MAX`].
    fn teams(&mut self, draft: &mut Draft, place: &str, path: &str, teams: Option<Teams>) {
        for (name, team) in teams.unwrap_or_default() {
            let inner = format!("{path}.{}", shown(&name));
            let team = team.unwrap_or_default();
            if name.trim().is_empty() || name.chars().any(char::is_control) {
                self.skip(format!("{place}: {path}"), quoted(&name), "that is no name of a team");
                continue;
            }
            if !draft.team_names.insert(name.trim().to_lowercase()) {
                let why = "another team has this name; the permissions of the first count";
                self.skip(format!("{place}: {inner}"), "team", why);
            }
            for (key, list) in [("maintainers", team.maintainers), ("members", team.members)] {
                self.team_members(draft, &format!("{place}: {inner}.{key}"), list);
            }
            self.repositories(draft, &format!("{place}: {inner}.repos"), name.trim(), team.repos);
            self.teams(draft, place, &format!("{inner}.teams"), team.teams);
        }
    }

    fn team_members(&mut self, draft: &mut Draft, place: &str, list: Option<Vec<Option<String>>>) {
        for entry in list.unwrap_or_default() {
            let text = entry.unwrap_or_default();
            match login_of(&text) {
                Some(login) => draft.in_team(login, place),
                None => self.skip(place, quoted(&text), NO_LOGIN),
            }
        }
    }

    fn repositories(
        &mut self,
        draft: &mut Draft,
        place: &str,
        team: &str,
        list: Option<BTreeMap<String, Option<String>>>,
    ) {
        for (name, permission) in list.unwrap_or_default() {
            let name = name.trim();
            let Some(slug) = slug_of(name) else {
                let why =
                    "GitHub has no such names: 1–100 of letters, digits, \"-\", \"_\", \".\", with a letter or digit";
                self.skip(place, quoted(name), why);
                continue;
            };
            let repository = format!("{}/{name}", draft.login);
            let project = draft.repositories.entry(name.to_ascii_lowercase()).or_insert_with(|| Project {
                slug,
                name: name.to_owned(),
                repository,
                teams: BTreeMap::new(),
            });
            match permission.as_deref().map(str::trim).filter(|text| is_permission(text)) {
                Some(permission) => {
                    project.teams.entry(team.to_owned()).or_insert_with(|| permission.to_owned());
                }
                None => self.skip(
                    format!("{place}.{name}"),
                    quoted(permission.as_deref().unwrap_or_default()),
                    "that is no permission (such as read, triage, write, maintain, admin); the repository is imported",
                ),
            }
        }
    }

    /// Names become slugs. A name that is a slug by itself has it whatever else there is; only where a changed name
    /// meets another one is a repository left out, so no other import decides differently.
    fn projects(&mut self, draft: &mut Draft) -> Vec<Project> {
        let mut projects: BTreeMap<String, Project> = BTreeMap::new();
        let (natural, changed): (Vec<_>, Vec<_>) =
            std::mem::take(&mut draft.repositories).into_iter().partition(|(lower, project)| *lower == project.slug);
        for (_, mut project) in natural.into_iter().chain(changed) {
            self.shorten_teams(&mut project);
            match projects.entry(project.slug.clone()) {
                Entry::Occupied(first) => {
                    let why = format!("its slug {} is that of {}", project.slug, first.get().repository);
                    self.skip(&draft.login, format!("repository {}", project.repository), why);
                }
                Entry::Vacant(place) => {
                    place.insert(project);
                }
            }
        }
        projects.into_values().collect()
    }

    fn shorten_teams(&mut self, project: &mut Project) {
        let before = project.teams.len();
        let mut bytes = 0;
        project.teams.retain(|team, permission| {
            bytes += team.len() + permission.len() + 6;
            bytes <= TEAMS_BYTES_MAX
        });
        let lost = before - project.teams.len();
        if lost > 0 {
            let what = format!("permissions of {lost} teams");
            self.skip(&project.repository, what, format!("a project keeps {TEAMS_BYTES_MAX} bytes of them"));
        }
    }

    /// Says what the teams held that tenancy cannot keep, in few lines, and gives the members.
    fn settle(&mut self, draft: Draft) -> Vec<Member> {
        for (login, place, places) in draft.strangers.into_values() {
            let more = if places > 1 { format!(" (and {} more teams)", places - 1) } else { String::new() };
            self.skip(place, login, format!("a member of this team{more}, but not of the organization"));
        }
        if !draft.team_names.is_empty() {
            let what = format!("{} teams with {} memberships", draft.team_names.len(), draft.team_memberships);
            self.skip(&draft.login, what, "tenancy has no teams yet; their permissions are in the projects' metadata");
        }
        draft.members.into_values().collect()
    }

    fn name(&mut self, place: &str, name: Option<String>, login: &str) -> String {
        let Some(name) = name else {
            return login.to_owned();
        };
        let name = name.trim();
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
            let why =
                format!("a name has 1–{NAME_CHARS_MAX} characters and none that controls; its login serves instead");
            self.skip(format!("{place}: name"), quoted(name), why);
            return login.to_owned();
        }
        name.to_owned()
    }

    fn contact_email(&mut self, place: &str, email: Option<String>, billing: Option<String>) -> Option<String> {
        for (key, value) in [("email", email), ("billing_email", billing)] {
            let Some(value) = value.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()) else {
                continue;
            };
            if is_email(&value) {
                return Some(value);
            }
            self.skip(format!("{place}: {key}"), quoted(&value), "that is no e-mail address");
        }
        None
    }

    /// The content of a file, or `None` with a line about why it is left out.
    fn text(&mut self, place: &str, item: &Item) -> Result<Option<String>, Error> {
        if item.kind != Kind::File {
            self.skip(place, "file", "it is a link or no ordinary file, and those are not read");
            return Ok(None);
        }
        self.files += 1;
        if self.files > FILES_MAX {
            return Err(Error::TooManyFiles { path: self.root.clone() });
        }
        let mut bytes = Vec::new();
        // One byte more than allowed, so that a file that grows meanwhile is noticed as well.
        let outcome = fs::File::open(&item.path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| format!("it cannot be read: {error}"))
            .and_then(|_| match bytes.len() as u64 {
                0 => Err("it is empty".to_owned()),
                length if length > FILE_BYTES_MAX => Err(format!("it is larger than {FILE_BYTES_MAX} bytes")),
                _ => String::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {}", error.utf8_error())),
            });
        match outcome {
            Ok(text) => Ok(Some(text)),
            Err(why) => {
                self.skip(place, "file", why);
                Ok(None)
            }
        }
    }

    fn parse<T: DeserializeOwned>(&mut self, place: &str, text: &str) -> Option<T> {
        match parsed(text) {
            Ok(Some(value)) => Some(value),
            Ok(None) => {
                self.skip(place, "file", "there is nothing in it");
                None
            }
            Err(why) => {
                self.skip(place, "file", format!("it does not parse: {why}"));
                None
            }
        }
    }

    /// What lies in a folder below the root; a folder that cannot be read costs only itself.
    fn entries(&mut self, folder: &Path, place: &str) -> Vec<Item> {
        entries(folder).unwrap_or_else(|error| {
            self.skip(place, "folder", format!("it cannot be read: {error}"));
            Vec::new()
        })
    }

    fn link<T>(&mut self, place: &str) -> Option<T> {
        self.skip(place, "link", "links are not followed, because they may lead out of the folder");
        None
    }

    fn loose_file<T>(&mut self, place: &str) -> Option<T> {
        self.skip(place, "file", "it lies beside the organizations' folders, and only those are read");
        None
    }

    fn skip(&mut self, place: impl AsRef<str>, what: impl Into<String>, why: impl Into<String>) {
        self.skipped.push(Skipped { place: shown(place.as_ref()), what: what.into(), why: why.into() });
    }

    fn nothing_found(&self, folder: &Path) -> Error {
        if self.root.join("org.yaml").is_file() {
            return Error::OneOrganization { path: folder.to_owned() };
        }
        let hint = match self.skipped.first() {
            _ if self.root.join("config").is_dir() => {
                format!("try {}", folder.join("config").display())
            }
            None => "it has no folder with an org.yaml in it".to_owned(),
            Some(first) => format!(
                "{first}{}",
                match self.skipped.len() - 1 {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                }
            ),
        };
        Error::NoOrganizations { path: folder.to_owned(), hint }
    }
}

impl Draft {
    fn new(login: &str) -> Self {
        Self {
            login: login.to_owned(),
            members: BTreeMap::new(),
            repositories: BTreeMap::new(),
            strangers: BTreeMap::new(),
            team_names: BTreeSet::new(),
            team_memberships: 0,
        }
    }

    /// Somebody who is named twice is one person, and an owner if either place says so.
    fn add(&mut self, login: String, owner: bool) {
        let subject = login.to_ascii_lowercase();
        let member = self.members.entry(subject.clone()).or_insert(Member { login, subject, owner: false });
        member.owner |= owner;
    }

    fn in_team(&mut self, login: String, place: &str) {
        let subject = login.to_ascii_lowercase();
        if self.members.contains_key(&subject) {
            self.team_memberships += 1;
        } else {
            self.strangers.entry(subject).or_insert_with(|| (login, place.to_owned(), 0)).2 += 1;
        }
    }
}

/// The first spelling in the folder's order wins everywhere.
fn one_spelling_a_login(organizations: &mut [Organization]) {
    let mut spelling: BTreeMap<String, String> = BTreeMap::new();
    for member in organizations.iter_mut().flat_map(|organization| &mut organization.members) {
        member.login.clone_from(spelling.entry(member.subject.clone()).or_insert_with(|| member.login.clone()));
    }
}

#[cfg(test)]
mod tests;
