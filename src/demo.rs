//! A believable world for a fresh installation, to look at: organizations in every status, people, projects, refusals, webhooks
//! whose receiver fails. Everything is a command of the person who would give it, so the log tells it as if it had happened.

use std::collections::HashMap;
use std::sync::Arc;

use aggregates::ids::{InvitationId, MembershipId, OrganizationId, ProjectId, UserId};
use aggregates::membership::MembershipSource;
use aggregates::user::Profile;
use aggregates::{Invitation, Organization, Project};
use indicatif::ProgressBar;
use serde_json::json;
use uuid::Uuid;

use crate::commands::invitations::{AcceptInvitation, By, DeclineInvitation, InviteMember};
use crate::commands::members::{Change, ChangeMember};
use crate::commands::organizations::{
    Act, CreateOrganization, DeleteOrganization, ReviewOrganization, SetOrganizationLimit, SubmitOrganization,
    UpdateOrganizationSettings,
};
use crate::commands::projects::{Change as ProjectChange, ChangeProject, CreateProject};
use crate::commands::roles::DefineRole;
use crate::commands::tokens::CreateApiToken;
use crate::commands::webhooks::{CreateWebhookEndpoint, Wishes};
use crate::commands::{Caller, Commands, Conditions, Fault, Person, Principal, Receipt, UseCase};

/// The domain of all addresses: reserved, so no mail can leave for it (RFC 2606).
const DOMAIN: &str = "example.com";

/// Where an organization's story ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    InSetup,
    Pending,
    /// By an operator, with a reason.
    Reviewed(&'static [(Act, &'static str)]),
    Deleted,
}

const VERIFIED: &[(Act, &str)] = &[(Act::Verify, "commercial register checked")];

/// An organization: name, slug, its owner, members with their roles, projects, and its end.
struct Story {
    name: &'static str,
    slug: &'static str,
    owner: &'static str,
    members: &'static [(&'static str, &'static [&'static str])],
    projects: &'static [&'static str],
    end: End,
}

const fn small(name: &'static str, slug: &'static str, owner: &'static str, end: End) -> Story {
    Story { name, slug, owner, members: &[], projects: &[], end }
}

const STORIES: &[Story] = &[
    Story {
        name: "Northwind Logistics",
        slug: "northwind",
        owner: "Ada Okafor",
        members: &[
            ("Bruno Keller", &["admin"]),
            ("Chiara Conti", &["member", "billing"]),
            ("Dmitri Volkov", &["member"]),
            ("Elif Yilmaz", &["member"]),
            ("Farid Haddad", &["auditor"]),
            ("Grace Mwangi", &["member"]),
            ("Hiro Tanaka", &["guest"]),
        ],
        projects: &["Fleet Tracking", "Warehouse Robots", "Customs Portal", "Driver App", "Old Billing"],
        end: End::Reviewed(VERIFIED),
    },
    Story {
        name: "Blue Harbor Health",
        slug: "blue-harbor",
        owner: "Ines Moreau",
        members: &[("Jonas Lind", &["admin"]), ("Kemal Aydin", &["member"]), ("Leila Rahimi", &["auditor"])],
        projects: &["Patient Intake", "Lab Results"],
        end: End::Reviewed(VERIFIED),
    },
    Story {
        name: "Quarry & Sons",
        slug: "quarry",
        owner: "Marek Nowak",
        members: &[("Nadia Petrova", &["member"]), ("Ada Okafor", &["billing"])],
        projects: &["Stone Shop"],
        end: End::Reviewed(VERIFIED),
    },
    Story {
        name: "Lumen Studio",
        slug: "lumen",
        owner: "Olu Adeyemi",
        members: &[("Priya Nair", &["admin"])],
        projects: &["Portfolio", "Client Reviews"],
        end: End::Reviewed(VERIFIED),
    },
    small("Pine Street Books", "pine-street", "Quentin Faure", End::InSetup),
    small("Aurora Robotics", "aurora", "Rosa Jimenez", End::Pending),
    small("Tidewater Energy", "tidewater", "Sven Dahl", End::Pending),
    small("Kestrel Games", "kestrel", "Tara Singh", End::Pending),
    small(
        "Meridian Foods",
        "meridian",
        "Umar Farouk",
        End::Reviewed(&[(Act::Waitlist, "their region opens in spring")]),
    ),
    small(
        "Definitely Real Ltd",
        "definitely-real",
        "Viktor Hale",
        End::Reviewed(&[(Act::Reject, "no such company in the register")]),
    ),
    small(
        "Ostrich Payments",
        "ostrich",
        "Wanda Schulz",
        End::Reviewed(&[(Act::Verify, "license seen"), (Act::Block, "chargebacks over the threshold")]),
    ),
    small(
        "Harvest Moon Farm",
        "harvest-moon",
        "Xavier Roy",
        End::Reviewed(&[(Act::Verify, "known from the fair"), (Act::Deactivate, "pauses over the winter, on request")]),
    ),
    small("Yesterday Inc", "yesterday", "Yara Haddad", End::Deleted),
];

/// Why there is no demonstration.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Something is there already.
    #[error("this installation has organizations: the demonstration is for a fresh one")]
    NotFresh,
    /// A command failed.
    #[error("the demonstration stopped: {0}")]
    Fault(#[from] Fault),
    /// A command had another outcome than it was to have.
    #[error("the demonstration stopped at {operation}: {why}")]
    Refused {
        /// Which.
        operation: &'static str,
        /// Why.
        why: String,
    },
}

/// What was made.
#[derive(Debug, Default)]
pub struct Summary {
    /// Organizations.
    pub organizations: usize,
    /// People.
    pub people: usize,
    /// Events.
    pub events: usize,
    /// Commands that were refused, as they were meant to be.
    pub refusals: usize,
}

/// Fills a fresh installation, as this operator. People are users of `issuer`, by their addresses.
pub async fn fill(
    commands: &Arc<Commands>,
    issuer: &str,
    operator: Person,
    progress: &ProgressBar,
) -> Result<Summary, Failed> {
    if commands.log().has_organizations().await.map_err(Fault::from)? {
        return Err(Failed::NotFresh);
    }
    let mut world = World { commands, issuer, operator, people: HashMap::new(), summary: Summary::default() };
    progress.set_length(STORIES.len() as u64);
    for story in STORIES {
        progress.set_message(story.slug);
        world.tell(story).await?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    world.summary.people = world.people.len();
    Ok(world.summary)
}

struct World<'a> {
    commands: &'a Arc<Commands>,
    issuer: &'a str,
    operator: Person,
    people: HashMap<&'static str, Person>,
    summary: Summary,
}

impl World<'_> {
    async fn person(&mut self, name: &'static str) -> Result<Person, Failed> {
        if let Some(person) = self.people.get(name) {
            return Ok(person.clone());
        }
        let email = address(name);
        let profile = Profile { email: Some(email.clone()), display_name: Some(name.to_owned()) };
        let user: UserId = self.commands.ensure_user(self.issuer, &email, profile, true).await?;
        let person = Person { user, email: Some(email), operator: false, organization: None };
        self.people.insert(name, person.clone());
        Ok(person)
    }

    async fn run<U: UseCase>(&mut self, person: &Person, case: U) -> Result<Receipt, Failed> {
        let mut receipt = self.attempt(person, &case).await?;
        match receipt.rejections.pop() {
            None => Ok(receipt),
            Some(rejection) => {
                Err(Failed::Refused { operation: case.operation(), why: crate::graphql::describe(rejection) })
            }
        }
    }

    /// Does what the rules are to refuse.
    async fn refused<U: UseCase>(&mut self, person: &Person, case: U) -> Result<(), Failed> {
        match self.attempt(person, &case).await {
            Ok(Receipt { rejections, .. }) if rejections.is_empty() => {
                Err(Failed::Refused { operation: case.operation(), why: "it was accepted".into() })
            }
            Ok(_) | Err(Failed::Fault(Fault::Forbidden(_) | Fault::NotFound)) => {
                self.summary.refusals += 1;
                Ok(())
            }
            Err(failed) => Err(failed),
        }
    }

    async fn attempt<U: UseCase>(&mut self, person: &Person, case: &U) -> Result<Receipt, Failed> {
        let caller = Caller {
            principal: Principal::User(person.clone()),
            ip: None,
            user_agent: Some("tenancy demo".to_owned()),
            request_id: None,
            correlation_id: Uuid::now_v7(),
            meter: None,
        };
        match self.commands.execute(&caller, case, Conditions::default()).await {
            Ok(receipt) => {
                self.summary.events += receipt.events.len();
                Ok(receipt)
            }
            Err(fault) => Err(fault.into()),
        }
    }

    async fn tell(&mut self, story: &Story) -> Result<(), Failed> {
        let owner = self.person(story.owner).await?;
        let create = CreateOrganization {
            name: story.name.to_owned(),
            slug: story.slug.to_owned(),
            contact_email: owner.email.clone(),
            external_id: None,
            owner: None,
            reason: None,
            source: MembershipSource::Founder,
        };
        let receipt = self.run(&owner, create).await?;
        let Some((organization, _)) = receipt.entity::<Organization>() else { return Ok(()) };
        self.summary.organizations += 1;
        let id = || organization.clone();
        if story.end == End::InSetup {
            return Ok(());
        }
        self.run(&owner, SubmitOrganization { organization: id(), reason: None }).await?;
        let operator = self.operator.clone();
        match story.end {
            End::InSetup | End::Pending => {}
            End::Reviewed(acts) => {
                for (act, reason) in acts {
                    let case = ReviewOrganization { organization: id(), act: *act, reason: (*reason).to_owned() };
                    self.run(&operator, case).await?;
                }
            }
            End::Deleted => {
                self.run(&owner, DeleteOrganization { organization: id(), reason: Some("we closed".into()) }).await?;
            }
        }
        if story.members.is_empty() {
            return Ok(());
        }
        self.grow(story, &organization, &owner).await?;
        match story.slug {
            "northwind" => self.northwind(&organization, &owner).await,
            "quarry" => self.quarry(&organization, &owner).await,
            _ => Ok(()),
        }
    }

    /// Members come by invitation, and projects.
    async fn grow(&mut self, story: &Story, organization: &OrganizationId, owner: &Person) -> Result<(), Failed> {
        for (name, roles) in story.members {
            let member = self.person(name).await?;
            let roles = roles.iter().map(|role| (*role).to_owned()).collect();
            let invitation = self.invite(organization, owner, name, roles).await?;
            self.run(&member, AcceptInvitation { by: By::Id(invitation) }).await?;
        }
        for name in story.projects {
            self.project(organization, owner, name).await?;
        }
        Ok(())
    }

    async fn invite(
        &mut self,
        organization: &OrganizationId,
        by: &Person,
        name: &str,
        roles: Vec<String>,
    ) -> Result<InvitationId, Failed> {
        let case = InviteMember {
            organization: organization.clone(),
            email: address(name),
            roles,
            expires_in_hours: None,
            reason: None,
        };
        let receipt = self.run(by, case).await?;
        let invitation = receipt.entity::<Invitation>().map(|(id, _)| id);
        invitation.ok_or(Failed::Refused { operation: "inviteMember", why: "there is no invitation".into() })
    }

    async fn project(
        &mut self,
        organization: &OrganizationId,
        by: &Person,
        name: &str,
    ) -> Result<Option<ProjectId>, Failed> {
        let case = CreateProject {
            organization: organization.clone(),
            name: name.to_owned(),
            slug: name.to_lowercase().replace(' ', "-"),
            metadata: Some(json!({"region": "eu-central", "tier": "standard"})),
            reason: None,
        };
        Ok(self.run(by, case).await?.entity::<Project>().map(|(id, _)| id))
    }

    /// The one with everything: own roles, tokens, webhooks, somebody suspended, somebody removed, refusals.
    async fn northwind(&mut self, organization: &OrganizationId, ada: &Person) -> Result<(), Failed> {
        let id = || organization.clone();
        let (bruno, dmitri) = (self.person("Bruno Keller").await?, self.person("Dmitri Volkov").await?);
        let (elif, grace) = (self.person("Elif Yilmaz").await?, self.person("Grace Mwangi").await?);
        let role = DefineRole {
            organization: id(),
            name: "dispatcher".into(),
            description: "Plans routes and looks after projects.".into(),
            permissions: vec!["organization:read".into(), "project:read".into(), "project:create".into()],
            reason: None,
        };
        self.run(ada, role).await?;
        let of = |person: &Person, change| ChangeMember {
            membership: MembershipId::of(organization, &person.user),
            change,
            reason: None,
        };
        self.run(ada, of(&dmitri, Change::Roles(vec!["dispatcher".into()]))).await?;
        self.run(&bruno, of(&elif, Change::Suspend(Some("laptop lost; until it is found".into())))).await?;
        self.run(&bruno, of(&grace, Change::Remove(Some("moved to another company".into())))).await?;
        // What people try who may not.
        self.refused(&dmitri, of(&bruno, Change::Remove(None))).await?;
        self.refused(
            &dmitri,
            UpdateOrganizationSettings {
                organization: id(),
                namespace: "theme".into(),
                value: json!({"color": "red"}),
                reason: None,
            },
        )
        .await?;
        let settings = json!({"color": "teal", "logo": "ship"});
        self.run(
            ada,
            UpdateOrganizationSettings { organization: id(), namespace: "theme".into(), value: settings, reason: None },
        )
        .await?;
        if let Some(project) = self.project(organization, ada, "Retired Pilot").await? {
            self.run(ada, ChangeProject { project, change: ProjectChange::Archive, reason: Some("it ended".into()) })
                .await?;
        }
        for name in ["Zoe Laurent", "Pavel Horak"] {
            self.invite(organization, &bruno, name, vec!["member".into()]).await?;
        }
        let declined = self.invite(organization, &bruno, "Tara Singh", vec!["guest".into()]).await?;
        let tara = self.person("Tara Singh").await?;
        self.run(&tara, DeclineInvitation { by: By::Id(declined) }).await?;
        for (name, permissions) in [
            ("Nightly reports", &["organization:read", "audit:read"][..]),
            ("Deploy robot", &["project:read", "project:create"]),
        ] {
            let permissions = permissions.iter().map(|permission| (*permission).to_owned()).collect();
            let (name, expires_at) = (name.to_owned(), None);
            self.run(ada, CreateApiToken { organization: id(), name, permissions, expires_at, reason: None }).await?;
        }
        // Nothing answers at a name under .invalid (RFC 2606), so its deliveries fail.
        for (url, description) in [
            ("https://hooks.northwind.invalid/tenancy", "Staff directory"),
            ("https://billing.northwind.invalid/events", "Billing"),
        ] {
            let wishes = Wishes {
                url: Some(url.into()),
                description: Some(Some(description.into())),
                events: Some(vec!["*".into()]),
                ..Wishes::default()
            };
            self.run(ada, CreateWebhookEndpoint { organization: id(), wishes, reason: None }).await?;
        }
        self.project(organization, ada, "Spring Campaign").await?;
        Ok(())
    }

    /// The one that is at its limit.
    async fn quarry(&mut self, organization: &OrganizationId, marek: &Person) -> Result<(), Failed> {
        let operator = self.operator.clone();
        let limit = SetOrganizationLimit {
            organization: organization.clone(),
            limit: "projects".into(),
            maximum: Some(1),
            from_plan: false,
            reason: "agreed until they pay".into(),
        };
        self.run(&operator, limit).await?;
        let more = CreateProject {
            organization: organization.clone(),
            name: "Gravel Shop".into(),
            slug: "gravel-shop".into(),
            metadata: None,
            reason: None,
        };
        self.refused(marek, more).await
    }
}

/// `Ada Okafor` is at `ada.okafor@…`.
fn address(name: &str) -> String {
    format!("{}@{DOMAIN}", name.to_lowercase().replace(' ', "."))
}
