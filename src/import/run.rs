//! Carries out an import: brings the organizations of a folder into the log, as an operator.
//!
//! May be repeated: it adds and changes, and never removes; who is no longer named is listed. What it compares with
//! is the log. Commands run many at once, so that the writer commits them together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use aggregates::ids::{MembershipId, OrganizationId, ProjectId, UserId};
use aggregates::membership::{MembershipSource, MembershipState};
use aggregates::roles::{OWNER, is_owner};
use aggregates::status::Verification;
use aggregates::user::Profile;
use aggregates::{Membership, Organization, Project, StreamId};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use uuid::Uuid;

use super::peribolos::{Folder, ISSUER, Organization as Wanted, Skipped};
use crate::commands::organizations::{
    Act, CreateOrganization, ReviewOrganization, SubmitOrganization, UpdateOrganization,
};
use crate::commands::{Caller, Commands, Conditions, Fault, Receipt, UseCase, members, projects};
use crate::commands::{Person, Principal};
use crate::log::{Log, LogError};

/// How many commands are on their way at once.
const CONCURRENT_MAX: usize = 128;
/// How many streams are compared with the log by one statement.
const COMPARED_MAX: usize = 500;
/// What stands as the reason in the audit trail.
const REASON: &str = "imported from GitHub (peribolos)";

/// How to import.
pub struct Options {
    /// As which operator.
    pub operator: Person,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// The import could not go on; what was done stays, and repeating it goes on from there.
#[derive(Debug, thiserror::Error)]
#[error("the import stopped: {0}")]
pub struct Failed(#[from] Fault);

impl From<LogError> for Failed {
    fn from(error: LogError) -> Self {
        Self(Fault::Log(error))
    }
}

/// What an import did, or would do.
#[derive(Debug, Default)]
pub struct Summary {
    /// Counts by what was done, such as "members added".
    pub done: BTreeMap<&'static str, usize>,
    /// What was left out, and why.
    pub skipped: Vec<Skipped>,
    /// Members by an earlier import who are no longer named.
    pub no_longer_named: Vec<String>,
    dry_run: bool,
}

impl Summary {
    fn count(&mut self, what: &'static str, number: usize) {
        *self.done.entry(what).or_default() += number;
    }

    fn skip(&mut self, place: &str, what: impl Into<String>, why: impl Into<String>) {
        self.skipped.push(Skipped { place: place.to_owned(), what: what.into(), why: why.into() });
    }

    /// Whether nothing had to be done.
    pub fn is_unchanged(&self) -> bool {
        self.done.iter().all(|(what, number)| *number == 0 || what.ends_with("unchanged"))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", if self.dry_run { "This would be done:" } else { "Done:" })?;
        for (what, number) in self.done.iter().filter(|(_, number)| **number > 0) {
            writeln!(f, "  {number:>6} {what}")?;
        }
        if !self.skipped.is_empty() {
            writeln!(f, "Skipped:")?;
            for skipped in &self.skipped {
                writeln!(f, "  {skipped}")?;
            }
        }
        if !self.no_longer_named.is_empty() {
            writeln!(f, "No longer named, and not removed:")?;
            for member in &self.no_longer_named {
                writeln!(f, "  {member}")?;
            }
        }
        Ok(())
    }
}

/// Imports the organizations of a folder. The read models must be up to the log.
pub async fn import(
    commands: &Arc<Commands>,
    folder: Folder,
    options: &Options,
    progress: &ProgressBar,
) -> Result<Summary, Failed> {
    let caller = Caller {
        principal: Principal::User(options.operator.clone()),
        ip: None,
        user_agent: None,
        request_id: None,
        correlation_id: Uuid::now_v7(),
        meter: None,
    };
    let mut import = Import {
        commands,
        caller,
        dry_run: options.dry_run,
        progress,
        summary: Summary { skipped: folder.skipped, dry_run: options.dry_run, ..Summary::default() },
    };
    let work = folder.organizations.iter().map(|wanted| 1 + wanted.members.len() + wanted.projects.len());
    progress.set_length(work.sum::<usize>() as u64);
    let users = import.users(&folder.organizations).await?;
    for wanted in &folder.organizations {
        import.organization(wanted, &users).await?;
    }
    progress.finish_and_clear();
    Ok(import.summary)
}

struct Import<'a> {
    commands: &'a Arc<Commands>,
    caller: Caller,
    dry_run: bool,
    progress: &'a ProgressBar,
    summary: Summary,
}

/// What became of one command: refused ones are listed, faults of the service stop the import.
enum Done {
    Accepted(Receipt),
    Refused(String),
}

impl Import<'_> {
    fn log(&self) -> &Log {
        self.commands.log()
    }

    async fn execute<U: UseCase>(&self, case: U) -> Result<Done, Failed> {
        match self.commands.execute(&self.caller, &case, Conditions::default()).await {
            Ok(mut receipt) => Ok(match receipt.rejections.pop() {
                None => Done::Accepted(receipt),
                Some(rejection) => Done::Refused(crate::graphql::describe(rejection)),
            }),
            Err(Fault::Log(error)) => Err(error.into()),
            Err(fault) => Ok(Done::Refused(fault.to_string())),
        }
    }

    /// The users of all logins, registered now where they were not.
    async fn users(&mut self, organizations: &[Wanted]) -> Result<HashMap<String, UserId>, Failed> {
        let logins: BTreeMap<&str, &str> = organizations
            .iter()
            .flat_map(|organization| &organization.members)
            .map(|member| (member.subject.as_str(), member.login.as_str()))
            .collect();
        self.progress.set_message("users");
        let (commands, dry_run) = (self.commands, self.dry_run);
        let found: Vec<(String, Option<UserId>, bool)> = stream::iter(logins)
            .map(|(subject, login)| async move {
                let identity = crate::commands::identity_claim(commands, ISSUER, subject);
                let known = commands.user_of(&identity).await?;
                if known.is_some() || dry_run {
                    return Ok((subject.to_owned(), known, false));
                }
                let profile = Profile { email: None, display_name: Some(login.to_owned()) };
                let user = commands.ensure_user(ISSUER, subject, profile, true).await?;
                Ok::<_, Fault>((subject.to_owned(), Some(user), true))
            })
            .buffer_unordered(CONCURRENT_MAX)
            .try_collect()
            .await?;
        let new = found.iter().filter(|(_, user, registered)| *registered || user.is_none()).count();
        self.summary.count("users registered", new);
        self.summary.count("users unchanged", found.len() - new);
        Ok(found.into_iter().filter_map(|(subject, user, _)| Some((subject, user?))).collect())
    }

    async fn organization(&mut self, wanted: &Wanted, users: &HashMap<String, UserId>) -> Result<(), Failed> {
        self.progress.set_message(wanted.slug.clone());
        let known = self.log().claim(Organization::EXTERNAL_ID, &wanted.external_id, None).await?;
        let known: Option<OrganizationId> = known.and_then(|id| id.parse().ok());
        let is_new = known.is_none();
        let id = match known {
            Some(id) => self.update(wanted, id).await?,
            None => self.create(wanted, users).await?,
        };
        self.progress.inc(1);
        match id {
            Some(id) => {
                self.members(wanted, &id, users, is_new).await?;
                self.projects(wanted, &id).await
            }
            // A dry run of a new organization counts what would come; a refused one was listed.
            None if self.dry_run && known_missing(&self.summary, wanted) => {
                self.summary.count("members added", wanted.members.len());
                self.summary.count("projects created", wanted.projects.len());
                self.progress.inc((wanted.members.len() + wanted.projects.len()) as u64);
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn create(
        &mut self,
        wanted: &Wanted,
        users: &HashMap<String, UserId>,
    ) -> Result<Option<OrganizationId>, Failed> {
        if self.dry_run {
            self.summary.count("organizations created", 1);
            return Ok(None);
        }
        let Some(owner) =
            wanted.members.iter().find(|member| member.owner).and_then(|member| users.get(&member.subject))
        else {
            self.summary.skip(
                &wanted.slug,
                "the organization",
                "it names no admin, and an organization needs an owner",
            );
            return Ok(None);
        };
        let create = |contact_email: Option<String>| CreateOrganization {
            name: wanted.name.clone(),
            slug: wanted.slug.clone(),
            contact_email,
            external_id: Some(wanted.external_id.clone()),
            owner: Some(owner.clone()),
            reason: Some(REASON.to_owned()),
            source: MembershipSource::Import,
        };
        match self.execute(create(wanted.contact_email.clone())).await? {
            Done::Accepted(receipt) => {
                self.summary.count("organizations created", 1);
                let id = receipt.entity::<Organization>().map(|(id, _)| id);
                if let Some(id) = &id {
                    self.verify(wanted, id).await?;
                }
                Ok(id)
            }
            Done::Refused(why) => {
                self.summary.skip(&wanted.slug, "the organization, its members and its projects", why);
                Ok(None)
            }
        }
    }

    /// Projects need a verified organization; the importing operator vouches for what is imported.
    async fn verify(&mut self, wanted: &Wanted, id: &OrganizationId) -> Result<(), Failed> {
        let organization = self.log().load::<Organization>(id).await?;
        if organization.state.status.verification == Verification::Verified {
            return Ok(());
        }
        let submit = SubmitOrganization { organization: id.clone(), reason: Some(REASON.to_owned()) };
        let verify = ReviewOrganization { organization: id.clone(), act: Act::Verify, reason: REASON.to_owned() };
        for done in [self.execute(submit).await?, self.execute(verify).await?] {
            if let Done::Refused(why) = done {
                self.summary.skip(&wanted.slug, "its verification", why);
            }
        }
        Ok(())
    }

    async fn update(&mut self, wanted: &Wanted, id: OrganizationId) -> Result<Option<OrganizationId>, Failed> {
        self.log().bring_up_to_date(&[id.clone().into()]).await?;
        let now = self.log().load::<Organization>(&id).await?;
        let name = Some(wanted.name.clone())
            .filter(|name| aggregates::text::name("name", name).ok().as_ref() != Some(&now.state.name));
        let contact = aggregates::personal::readable(&now.state.contact_email);
        let contact_email = wanted.contact_email.clone().filter(|email| Some(email.as_str()) != contact).map(Some);
        if name.is_none() && contact_email.is_none() {
            self.summary.count("organizations unchanged", 1);
            return Ok(Some(id));
        }
        let update = UpdateOrganization {
            organization: id.clone(),
            name,
            slug: None,
            contact_email,
            external_id: None,
            reason: Some(REASON.to_owned()),
        };
        let done = if self.dry_run { Done::Accepted(Receipt::default()) } else { self.execute(update).await? };
        match done {
            Done::Accepted(_) => self.summary.count("organizations changed", 1),
            Done::Refused(why) => self.summary.skip(&wanted.slug, "the organization's name and address", why),
        }
        Ok(Some(id))
    }

    async fn members(
        &mut self,
        wanted: &Wanted,
        id: &OrganizationId,
        users: &HashMap<String, UserId>,
        is_new: bool,
    ) -> Result<(), Failed> {
        let mut cases = vec![];
        let mut unknown = 0;
        for chunk in wanted.members.chunks(COMPARED_MAX) {
            let known: Vec<_> = chunk.iter().filter_map(|member| Some((member, users.get(&member.subject)?))).collect();
            unknown += chunk.len() - known.len();
            let streams: Vec<StreamId> = known.iter().map(|(_, user)| MembershipId::of(id, user).into()).collect();
            let now = self.log().current(&streams).await?;
            for (member, user) in known {
                let membership = now.get::<Membership>(&MembershipId::of(id, user));
                match wanted_change(member.owner, &membership.state) {
                    // The user who came in with a new organization is its first owner.
                    Change::None if is_new => self.summary.count("members added", 1),
                    Change::None => self.summary.count("members unchanged", 1),
                    Change::Suspended => {
                        self.summary.skip(
                            &wanted.slug,
                            format!("the member {}", member.login),
                            "suspended here, and left so",
                        );
                    }
                    Change::Add(role) => cases.push((
                        member.login.clone(),
                        MemberCase::Add(members::AddMember {
                            organization: id.clone(),
                            user: user.clone(),
                            roles: vec![role.to_owned()],
                            source: MembershipSource::Import,
                            reason: Some(REASON.to_owned()),
                        }),
                    )),
                    Change::Roles(roles) => cases.push((
                        member.login.clone(),
                        MemberCase::Change(members::ChangeMember {
                            membership: MembershipId::of(id, user),
                            change: members::Change::Roles(roles),
                            reason: Some(REASON.to_owned()),
                        }),
                    )),
                }
            }
        }
        // Of users that a dry run does not register.
        self.summary.count("members added", unknown);
        self.progress.inc((wanted.members.len() - cases.len()) as u64);
        // Members who become owners come first: then nobody who steps down is the last one.
        cases.sort_by_key(|(_, case)| !case.makes_owner());
        let promotions = cases.iter().take_while(|(_, case)| case.makes_owner()).count();
        let rest = cases.split_off(promotions);
        self.run_members(wanted, cases).await?;
        self.run_members(wanted, rest).await?;
        self.list_no_longer_named(wanted, id, users).await
    }

    async fn run_members(&mut self, wanted: &Wanted, cases: Vec<(String, MemberCase)>) -> Result<(), Failed> {
        let this = &*self;
        let done: Vec<(String, &'static str, Done)> = stream::iter(cases)
            .map(|(login, case)| async move {
                let what = case.what();
                let done = match case {
                    _ if this.dry_run => Done::Accepted(Receipt::default()),
                    MemberCase::Add(case) => this.execute(case).await?,
                    MemberCase::Change(case) => this.execute(case).await?,
                };
                this.progress.inc(1);
                Ok::<_, Failed>((login, what, done))
            })
            .buffer_unordered(CONCURRENT_MAX)
            .try_collect()
            .await?;
        for (login, what, done) in done {
            match done {
                Done::Accepted(_) => self.summary.count(what, 1),
                Done::Refused(why) => self.summary.skip(&wanted.slug, format!("the member {login}"), why),
            }
        }
        Ok(())
    }

    async fn list_no_longer_named(
        &mut self,
        wanted: &Wanted,
        id: &OrganizationId,
        users: &HashMap<String, UserId>,
    ) -> Result<(), Failed> {
        let named: BTreeSet<&str> =
            wanted.members.iter().filter_map(|member| users.get(&member.subject)).map(AsRef::as_ref).collect();
        let rows = sqlx::query!(
            r#"SELECT m.user_id, u.name FROM members m LEFT JOIN users u ON u.id = m.user_id
               WHERE m.organization_id = $1 AND m.state <> 'REMOVED' AND m.source = 'IMPORT' ORDER BY u.name"#,
            id.as_ref()
        )
        .fetch_all(self.log().pool())
        .await
        .map_err(LogError::from)?;
        for row in rows.into_iter().filter(|row| !named.contains(row.user_id.as_str())) {
            let name = row.name.unwrap_or(row.user_id);
            self.summary.no_longer_named.push(format!("{}: {name}", wanted.slug));
        }
        Ok(())
    }

    async fn projects(&mut self, wanted: &Wanted, id: &OrganizationId) -> Result<(), Failed> {
        let this = &*self;
        let done: Vec<(String, &'static str, Done)> = stream::iter(&wanted.projects)
            .map(|project| async move {
                let (what, done) = this.project(id, project).await?;
                this.progress.inc(1);
                Ok::<_, Failed>((project.name.clone(), what, done))
            })
            .buffer_unordered(CONCURRENT_MAX)
            .try_collect()
            .await?;
        for (name, what, done) in done {
            match done {
                Done::Accepted(_) => self.summary.count(what, 1),
                Done::Refused(why) => self.summary.skip(&wanted.slug, format!("the project {name}"), why),
            }
        }
        Ok(())
    }

    async fn project(
        &self,
        id: &OrganizationId,
        wanted: &super::peribolos::Project,
    ) -> Result<(&'static str, Done), Failed> {
        let key = format!("{id}/{}", wanted.slug);
        let known: Option<ProjectId> =
            self.log().claim(Project::SLUG, &key, None).await?.and_then(|id| id.parse().ok());
        let unchanged = || Done::Accepted(Receipt::default());
        let Some(known) = known else {
            let create = projects::CreateProject {
                organization: id.clone(),
                name: wanted.name.clone(),
                slug: wanted.slug.clone(),
                metadata: Some(wanted.metadata()),
                reason: Some(REASON.to_owned()),
            };
            let done = if self.dry_run { unchanged() } else { self.execute(create).await? };
            return Ok(("projects created", done));
        };
        let now = self.log().current(&[known.clone().into()]).await?.get::<Project>(&known);
        if now.state.name == wanted.name && now.state.metadata == wanted.metadata() {
            return Ok(("projects unchanged", unchanged()));
        }
        let change = projects::ChangeProject {
            project: known,
            change: projects::Change::Update {
                name: Some(wanted.name.clone()),
                slug: None,
                metadata: Some(wanted.metadata()),
            },
            reason: Some(REASON.to_owned()),
        };
        let done = if self.dry_run { unchanged() } else { self.execute(change).await? };
        Ok(("projects changed", done))
    }
}

fn known_missing(summary: &Summary, wanted: &Wanted) -> bool {
    !summary.skipped.iter().any(|skipped| skipped.place == wanted.slug && skipped.what.starts_with("the organization,"))
}

enum MemberCase {
    Add(members::AddMember),
    Change(members::ChangeMember),
}

impl MemberCase {
    fn what(&self) -> &'static str {
        match self {
            Self::Add(_) => "members added",
            Self::Change(_) => "members changed",
        }
    }

    fn makes_owner(&self) -> bool {
        match self {
            Self::Add(case) => is_owner(&case.roles),
            Self::Change(members::ChangeMember { change: members::Change::Roles(roles), .. }) => is_owner(roles),
            Self::Change(_) => false,
        }
    }
}

enum Change {
    None,
    Suspended,
    Add(&'static str),
    Roles(Vec<String>),
}

/// What the file wants of a membership: admins own, others are members; other roles that were given here stay.
fn wanted_change(owner: bool, now: &Membership) -> Change {
    let role = if owner { OWNER } else { "member" };
    match now.state {
        // A suspension outlives the membership.
        MembershipState::Removed if now.barred => Change::Suspended,
        MembershipState::Removed => Change::Add(role),
        MembershipState::Suspended => Change::Suspended,
        MembershipState::Active if owner == is_owner(&now.roles) => Change::None,
        MembershipState::Active => {
            let kept = now.roles.iter().filter(|name| name.as_str() != OWNER && name.as_str() != "member").cloned();
            Change::Roles(kept.chain([role.to_owned()]).collect())
        }
    }
}
