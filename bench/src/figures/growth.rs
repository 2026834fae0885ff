//! Commands on an organization that has grown.
//!
//! Ours: one command after the other on an organization with 100,000 members and as many events, by
//! `Commands::execute` in this process: a new project; another role for a random member; an invitation that is taken
//! back. The reference is the same on an organization with 10 members and 12 events in the same database, command by
//! command in turn; medians of each round. Members of the large one are drawn from as many as the small one has, so that
//! the service knows both as well; and, as a further line, from all, where most are read from the log first.

use std::time::{Duration, Instant};

use aggregates::ids::MembershipId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tenancy::commands::invitations::{InviteMember, RevokeInvitation};
use tenancy::commands::members::{Change, ChangeMember};
use tenancy::commands::{Caller, Commands, Person};
use tenancy::database::embedded::Purpose;
use tenancy::service::Core;

use super::commands::slug;
use crate::fill::Filled;
use crate::report::{Figure, Goal};
use crate::run::Context;
use crate::stats::median;
use crate::world::{accept, caller, project};

const GROUP: &str = "growth";
/// Of how many members roles are changed: as many as the small organization has beside its owner.
const WARM: usize = 9;

/// What is done.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Project,
    Roles,
    RolesOfAnybody,
    Invitation,
}

const KINDS: [(Kind, &str, Goal); 4] = [
    (Kind::Project, "createProject", Goal::AtMostTimes(1.3)),
    (Kind::Roles, "changeMemberRoles", Goal::AtMostTimes(1.3)),
    (Kind::Invitation, "inviteMember and revokeInvitation", Goal::AtMostTimes(1.3)),
    (Kind::RolesOfAnybody, "changeMemberRoles, members not in memory", Goal::Shown),
];

/// Everything of this group.
pub async fn measure(context: &mut Context) -> Vec<Figure> {
    let logs = context.logs().await;
    let core = Core::open(&logs.1.database.config(), Purpose::Command).await.expect("the service opens");
    let (large, tiny) = (&logs.1.large, &logs.1.tiny);
    for member in large.members.iter().take(WARM).chain(&tiny.members) {
        core.commands.log().load::<aggregates::Membership>(member).await.expect("a member is there");
    }
    let time = context.options.time() / 4;
    let mut figures = vec![];
    for (kind, name, goal) in KINDS {
        let (mut ours, mut reference) = (vec![], vec![]);
        for _ in 0..context.options.rounds {
            let (of_large, of_tiny) = in_turn(&core.commands, large, tiny, kind, time).await;
            ours.push(of_large);
            reference.push(of_tiny);
        }
        let title = format!("{name}, {} members and {} events", large.members.len() + 1, large.events);
        let beside = format!("{} members and {} events", tiny.members.len() + 1, tiny.events);
        figures.push(Figure::alone(GROUP, title, "ms", ours, goal).beside(beside, &Ok(reference)));
    }
    core.close().await.expect("the service closes");
    figures
}

/// The medians of commands on both, in turn.
async fn in_turn(commands: &Commands, large: &Filled, tiny: &Filled, kind: Kind, time: Duration) -> (f64, f64) {
    let mut random = StdRng::from_os_rng();
    let (of_large, of_tiny) = (owner(large), owner(tiny));
    let (mut first, mut second) = (vec![], vec![]);
    let begin = Instant::now();
    while begin.elapsed() < time {
        first.push(one(commands, large, &of_large, kind, &mut random).await);
        second.push(one(commands, tiny, &of_tiny, kind, &mut random).await);
    }
    (median(&first), median(&second))
}

fn owner(filled: &Filled) -> Caller {
    caller(Person {
        user: filled.owner.clone(),
        email: Some(filled.email.clone()),
        operator: false,
        organization: None,
    })
}

/// One command, and how many milliseconds it took.
async fn one(commands: &Commands, place: &Filled, owner: &Caller, kind: Kind, random: &mut StdRng) -> f64 {
    let members = match kind {
        Kind::RolesOfAnybody => &place.members[..],
        Kind::Project | Kind::Roles | Kind::Invitation => &place.members[..place.members.len().min(WARM)],
    };
    let member = &members[random.random_range(0..members.len())];
    let roles = if random.random() { vec!["member"] } else { vec!["member", "billing"] };
    let begin = Instant::now();
    match kind {
        Kind::Project => {
            accept(commands, owner, &project(&place.id, &slug())).await;
        }
        Kind::Roles | Kind::RolesOfAnybody => {
            accept(commands, owner, &change(member, &roles)).await;
        }
        Kind::Invitation => invite_and_revoke(commands, place, owner).await,
    }
    begin.elapsed().as_secs_f64() * 1000.0
}

fn change(member: &MembershipId, roles: &[&str]) -> ChangeMember {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    ChangeMember { membership: member.clone(), change: Change::Roles(roles), reason: None }
}

async fn invite_and_revoke(commands: &Commands, place: &Filled, owner: &Caller) {
    let invite = InviteMember {
        organization: place.id.clone(),
        email: format!("{}@example.com", slug()),
        roles: vec!["member".to_owned()],
        expires_in_hours: None,
        reason: None,
    };
    let invited = accept(commands, owner, &invite).await;
    let Some((invitation, _)) = invited.entity::<aggregates::Invitation>() else { panic!("no invitation") };
    accept(commands, owner, &RevokeInvitation { invitation, reason: None }).await;
}
