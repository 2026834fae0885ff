//! What a client does next: any mutation, on something that others are at as well. Few organizations, few slugs, few
//! addresses and low limits, so that most commands meet another one.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::world::{Member, Organization, Thing, User, World};

/// A command to be given.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The mutation.
    pub operation: &'static str,
    /// Who gives it.
    pub user: User,
    /// The input, without key.
    pub input: Value,
    /// The version of what the input names, as far as it is known.
    pub version: Option<i64>,
}

/// How often each kind of command is chosen.
const MIX: [(u32, &str); 22] = [
    (14, "createProject"),
    (7, "updateProject"),
    (3, "archiveProject"),
    (3, "unarchiveProject"),
    (10, "deleteProject"),
    (5, "restoreProject"),
    (12, "inviteMember"),
    (2, "resendInvitation"),
    (4, "revokeInvitation"),
    (12, "acceptInvitation"),
    (3, "declineInvitation"),
    (4, "addMember"),
    (9, "changeMemberRoles"),
    (4, "suspendMember"),
    (4, "reinstateMember"),
    (4, "removeMember"),
    (3, "leaveOrganization"),
    (6, "updateOrganization"),
    (4, "updateOrganizationSettings"),
    (14, "status"),
    (6, "limits"),
    (2, "createOrganization"),
];

const SLUGS: u32 = 9;
const PROJECT_SLUGS: u32 = 6;
const STRANGERS: u32 = 3;

/// The type of the input of a mutation, and what is asked of its payload beside what all have.
pub fn signature(operation: &str) -> (&'static str, &'static str) {
    let organization = "organization { id version }";
    let membership = "membership { id version }";
    let invitation = "invitation { id version }";
    let project = "project { id version }";
    match operation {
        "createProject" => ("CreateProjectInput", project),
        "updateProject" => ("UpdateProjectInput", project),
        "archiveProject" | "unarchiveProject" | "deleteProject" | "restoreProject" => ("ProjectCommandInput", project),
        "inviteMember" => ("InviteMemberInput", "invitation { id version } token"),
        "resendInvitation" => ("InvitationCommandInput", "invitation { id version } token"),
        "revokeInvitation" => ("InvitationCommandInput", invitation),
        "acceptInvitation" => ("InvitationTokenInput", "invitation { id version } membership { id version }"),
        "declineInvitation" => ("InvitationTokenInput", invitation),
        "addMember" => ("AddMemberInput", membership),
        "changeMemberRoles" => ("ChangeMemberRolesInput", membership),
        "suspendMember" | "reinstateMember" | "removeMember" => ("MembershipCommandInput", membership),
        "leaveOrganization" => ("OrganizationCommandInput", membership),
        "createOrganization" => ("CreateOrganizationInput", organization),
        "updateOrganization" => ("UpdateOrganizationInput", organization),
        "updateOrganizationSettings" => ("UpdateOrganizationSettingsInput", organization),
        "setOrganizationLimit" => ("SetOrganizationLimitInput", organization),
        "changeOrganizationPlan" => ("ChangeOrganizationPlanInput", organization),
        "submitOrganizationForVerification" | "deleteOrganization" | "restoreOrganization" => {
            ("OrganizationCommandInput", organization)
        }
        _ => ("OrganizationReviewInput", organization),
    }
}

/// The next command; none where the chosen one finds nothing to be about.
pub fn next(world: &World, random: &mut StdRng) -> Option<Planned> {
    let kind = MIX.choose_weighted(random, |(weight, _)| *weight).ok()?.1;
    let organization = world.any_organization(random)?;
    Planner { world, random, organization }.plan(kind)
}

/// Several commands that cannot all succeed, to be given at the same moment.
pub fn rush(world: &World, random: &mut StdRng) -> Vec<Planned> {
    let Some(organization) = world.any_organization(random) else { return vec![] };
    let kind = random.random_range(0..5);
    let mut planner = Planner { world, random, organization };
    let planned = match kind {
        0 => planner.rush_for_a_slug(),
        1 => planner.rush_of_owners(),
        2 => planner.rush_for_an_invitation(),
        3 => planner.rush_for_seats(),
        _ => (0..4).map(|_| planner.create_project()).collect(),
    };
    planned.into_iter().flatten().collect()
}

/// A command as this user gives it; operators say why.
fn give(operation: &'static str, user: User, mut input: Value, version: Option<i64>) -> Planned {
    let takes_reason = !matches!(operation, "acceptInvitation" | "declineInvitation" | "createOrganization");
    if user.operator && takes_reason && input["reason"].is_null() {
        input["reason"] = json!("a run of faults");
    }
    Planned { operation, user, input, version }
}

struct Planner<'a> {
    world: &'a World,
    random: &'a mut StdRng,
    organization: Organization,
}

impl Planner<'_> {
    fn plan(mut self, kind: &'static str) -> Option<Planned> {
        match kind {
            "createProject" => self.create_project(),
            "updateProject" | "archiveProject" | "unarchiveProject" | "deleteProject" | "restoreProject" => {
                self.change_project(kind)
            }
            "inviteMember" => self.invite(),
            "resendInvitation" | "revokeInvitation" => self.change_invitation(kind),
            "acceptInvitation" | "declineInvitation" => self.answer_invitation(kind),
            "addMember" => self.add_member(),
            "changeMemberRoles" | "suspendMember" | "reinstateMember" | "removeMember" => self.change_member(kind),
            "leaveOrganization" => self.leave(),
            "updateOrganization" => self.update(),
            "updateOrganizationSettings" => self.settings(),
            "status" => self.status(),
            "limits" => self.limits(),
            _ => self.create_organization(),
        }
    }

    fn chance(&mut self, of: f64) -> bool {
        self.random.random_bool(of)
    }

    /// Mostly an owner; sometimes any member, an operator or a stranger.
    fn actor(&mut self) -> Option<User> {
        let owners: Vec<&Member> =
            self.organization.members.iter().filter(|member| member.owner && member.state == "ACTIVE").collect();
        let draw = self.random.random_range(0..100);
        let member = match draw {
            0..70 => owners.choose(self.random).map(|member| member.user.clone()),
            70..85 => self.organization.members.choose(self.random).map(|member| member.user.clone()),
            _ => None,
        };
        match member.and_then(|id| self.world.user(&id).cloned()) {
            Some(user) => Some(user),
            None if draw < 94 => self.world.operators.choose(self.random).cloned(),
            None => self.world.users.choose(self.random).cloned(),
        }
    }

    fn operator(&mut self) -> Option<User> {
        self.world.operators.choose(self.random).cloned()
    }

    /// Organizations of different partitions want the same slug.
    fn rush_for_a_slug(&mut self) -> Vec<Option<Planned>> {
        // Some that nobody holds as well, or all would be refused.
        let slug = format!("slug-{}", self.random.random_range(0..2 * SLUGS));
        let mut planned = vec![];
        for _ in 0..4 {
            let (Some(organization), Some(operator)) = (self.world.any_organization(self.random), self.operator())
            else {
                continue;
            };
            let input = json!({"organizationId": organization.id, "slug": slug});
            planned.push(Some(give("updateOrganization", operator, input, None)));
        }
        let user = self.world.users.choose(self.random).filter(|_| self.random.random_bool(0.2)).cloned();
        planned.push(user.map(|user| give("createOrganization", user, json!({"name": slug, "slug": slug}), None)));
        planned
    }

    /// Owners take the ownership from each other, or go.
    fn rush_of_owners(&mut self) -> Vec<Option<Planned>> {
        let owners: Vec<Member> = self
            .organization
            .members
            .iter()
            .filter(|member| member.owner && member.state == "ACTIVE")
            .cloned()
            .collect();
        let others = owners.iter().cycle().skip(1);
        let each = owners.iter().zip(others).map(|(owner, other)| {
            let user = self.world.user(&owner.user)?.clone();
            Some(match self.random.random_range(0..4) {
                0 => give("leaveOrganization", user, json!({"organizationId": self.organization.id}), None),
                1 => give("suspendMember", user, json!({"membershipId": other.id}), None),
                2 => give("removeMember", user, json!({"membershipId": other.id}), None),
                _ => give("changeMemberRoles", user, json!({"membershipId": other.id, "roles": ["member"]}), None),
            })
        });
        each.collect()
    }

    /// One invitation is accepted, declined and taken back.
    fn rush_for_an_invitation(&mut self) -> Vec<Option<Planned>> {
        let Some(invitation) = self.open_invitation() else { return vec![] };
        let Some(user) = self.world.users.iter().find(|user| user.email == invitation.name).cloned() else {
            return vec![];
        };
        let named = json!({"invitationId": invitation.id});
        let accept = give("acceptInvitation", user.clone(), named.clone(), None);
        let decline = give("declineInvitation", user, named.clone(), None);
        let revoke = self.operator().map(|operator| give("revokeInvitation", operator, named, None));
        vec![Some(accept.clone()), Some(accept), Some(decline), revoke]
    }

    /// The last seats, and the same address twice.
    fn rush_for_seats(&mut self) -> Vec<Option<Planned>> {
        let mut planned: Vec<Option<Planned>> = (0..3).map(|_| self.invite()).collect();
        planned.push(planned[0].clone());
        planned.push(self.add_member());
        planned
    }

    fn roles(&mut self) -> Value {
        let all =
            [["owner"].as_slice(), &["admin"], &["member"], &["guest"], &["member", "billing"], &["owner", "admin"]];
        json!(all.choose(self.random))
    }

    fn create_project(&mut self) -> Option<Planned> {
        let slug = format!("p{}", self.random.random_range(0..PROJECT_SLUGS));
        let input = json!({"organizationId": self.organization.id, "name": slug, "slug": slug,
                           "metadata": {"n": self.random.random_range(0..1000)}});
        Some(give("createProject", self.actor()?, input, None))
    }

    fn change_project(&mut self, kind: &'static str) -> Option<Planned> {
        let wanted = match kind {
            "archiveProject" => "ACTIVE",
            "unarchiveProject" => "ARCHIVED",
            "restoreProject" => "DELETED",
            _ => "",
        };
        let usual = self.chance(0.85);
        let fits = |project: &&Thing| !usual || wanted.is_empty() || project.state == wanted;
        let fitting: Vec<Thing> = self.organization.projects.iter().filter(fits).cloned().collect();
        let project = fitting.choose(self.random)?.clone();
        let mut input = json!({"projectId": project.id});
        if kind == "updateProject" {
            let number = self.random.random_range(0..PROJECT_SLUGS);
            match self.random.random_range(0..3) {
                0 => input["slug"] = json!(format!("p{number}")),
                1 => input["name"] = json!(format!("Project {number}")),
                _ => input["metadata"] = json!({"n": number}),
            }
        }
        Some(give(kind, self.actor()?, input, Some(project.version)))
    }

    fn invite(&mut self) -> Option<Planned> {
        let stranger = format!("stranger-{}@faults.test", self.random.random_range(0..STRANGERS));
        let email = if self.chance(0.1) { stranger } else { self.world.users.choose(self.random)?.email.clone() };
        let mut input = json!({"organizationId": self.organization.id, "email": email, "roles": self.roles()});
        if self.chance(0.3) {
            input["expiresInHours"] = json!(1);
        }
        Some(give("inviteMember", self.actor()?, input, None))
    }

    fn open_invitation(&mut self) -> Option<Thing> {
        let usual = self.chance(0.9);
        let fits = |invitation: &&Thing| !usual || invitation.state == "PENDING";
        let fitting: Vec<Thing> = self.organization.invitations.iter().filter(fits).cloned().collect();
        fitting.choose(self.random).cloned()
    }

    fn change_invitation(&mut self, kind: &'static str) -> Option<Planned> {
        let invitation = self.open_invitation()?;
        Some(give(kind, self.actor()?, json!({"invitationId": invitation.id}), Some(invitation.version)))
    }

    fn answer_invitation(&mut self, kind: &'static str) -> Option<Planned> {
        let invitation = self.open_invitation()?;
        let invited = self.world.users.iter().find(|user| user.email == invitation.name).cloned();
        let user = match invited {
            Some(user) if self.chance(0.92) => user,
            _ => self.world.users.choose(self.random)?.clone(),
        };
        let token = self.world.token(&invitation.id).filter(|_| self.random.random_bool(0.5));
        let input = token.map_or_else(|| json!({"invitationId": invitation.id}), |token| json!({"token": token}));
        Some(give(kind, user, input, None))
    }

    fn add_member(&mut self) -> Option<Planned> {
        let whom = self.world.users.choose(self.random)?.id().to_owned();
        let input = json!({"organizationId": self.organization.id, "userId": whom, "roles": self.roles()});
        Some(give("addMember", self.actor()?, input, None))
    }

    fn change_member(&mut self, kind: &'static str) -> Option<Planned> {
        let wanted = if kind == "reinstateMember" { "SUSPENDED" } else { "ACTIVE" };
        let usual = self.chance(0.85);
        // Owners who take the ownership from each other are what the floor is for.
        let owners = kind == "changeMemberRoles" && self.chance(0.4);
        let fits = |member: &&Member| (!usual || member.state == wanted) && (!owners || member.owner);
        let fitting: Vec<Member> = self.organization.members.iter().filter(fits).cloned().collect();
        let member = fitting.choose(self.random)?.clone();
        let mut input = json!({"membershipId": member.id});
        if kind == "changeMemberRoles" {
            input["roles"] = if owners { json!(["member"]) } else { self.roles() };
        }
        Some(give(kind, self.actor()?, input, Some(member.version)))
    }

    fn leave(&mut self) -> Option<Planned> {
        let id = self.organization.members.choose(self.random)?.user.clone();
        let user = self.world.user(&id)?.clone();
        Some(give("leaveOrganization", user, json!({"organizationId": self.organization.id}), None))
    }

    fn update(&mut self) -> Option<Planned> {
        let mut input = json!({"organizationId": self.organization.id});
        let mut user = self.actor()?;
        match self.random.random_range(0..10) {
            0..6 => input["slug"] = json!(format!("slug-{}", self.random.random_range(0..SLUGS))),
            6 => input["name"] = json!(format!("Organization {}", self.random.random_range(0..50))),
            7 => input["contactEmail"] = json!(format!("c{}@faults.test", self.random.random_range(0..5))),
            _ => {
                user = self.operator()?;
                input["externalId"] = json!(format!("crm-{}", self.random.random_range(0..4)));
            }
        }
        Some(give("updateOrganization", user, input, Some(self.organization.version)))
    }

    fn settings(&mut self) -> Option<Planned> {
        let value = if self.chance(0.2) { json!({}) } else { json!({"n": self.random.random_range(0..100)}) };
        let namespace = format!("n{}", self.random.random_range(0..3));
        let input = json!({"organizationId": self.organization.id, "namespace": namespace, "value": value});
        Some(give("updateOrganizationSettings", self.actor()?, input, Some(self.organization.version)))
    }

    /// Mostly a step towards an organization in which everything is possible, as else nothing would be soon.
    fn status(&mut self) -> Option<Planned> {
        let onwards = self.chance(0.8);
        let idle = onwards && self.chance(0.8);
        let step = match (self.organization.lifecycle.as_str(), self.organization.verification.as_str()) {
            ("DELETED", _) if onwards => "restoreOrganization",
            ("INACTIVE", _) if onwards => "activateOrganization",
            (_, "BLOCKED") if onwards => "unblockOrganization",
            (_, "IN_SETUP") if onwards => "submitOrganizationForVerification",
            (_, "PENDING") if onwards => "verifyOrganization",
            (_, "REJECTED" | "WAITLISTED") if onwards => "reopenOrganization",
            _ if idle => return None,
            _ => [
                "rejectOrganization",
                "waitlistOrganization",
                "reopenOrganization",
                "reviewOrganizationAgain",
                "blockOrganization",
                "deactivateOrganization",
                "deleteOrganization",
                "submitOrganizationForVerification",
                "verifyOrganization",
            ]
            .choose(self.random)?,
        };
        let own = matches!(step, "submitOrganizationForVerification" | "deleteOrganization" | "restoreOrganization");
        let user = if own && self.chance(0.6) { self.actor()? } else { self.operator()? };
        Some(give(step, user, json!({"organizationId": self.organization.id}), Some(self.organization.version)))
    }

    fn limits(&mut self) -> Option<Planned> {
        let user = self.operator()?;
        if self.chance(0.3) {
            let plan = if self.chance(0.5) { "free" } else { "team" };
            let input = json!({"organizationId": self.organization.id, "plan": plan});
            return Some(give("changeOrganizationPlan", user, input, Some(self.organization.version)));
        }
        let limit = if self.chance(0.5) { "members" } else { "projects" };
        let value = match self.random.random_range(0..10) {
            0 => json!({"fromPlan": true}),
            _ => json!({"maximum": self.random.random_range(3..=6)}),
        };
        let input = json!({"organizationId": self.organization.id, "limit": limit, "value": value});
        Some(give("setOrganizationLimit", user, input, Some(self.organization.version)))
    }

    fn create_organization(&mut self) -> Option<Planned> {
        let slug = format!("slug-{}", self.random.random_range(0..SLUGS));
        let user = self.world.users.choose(self.random)?.clone();
        Some(give("createOrganization", user, json!({"name": slug, "slug": slug}), None))
    }
}
