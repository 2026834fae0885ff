//! Organizations: the type, made of parts that other modules have too.

mod inputs;
mod list;
mod mutation;
mod own;
mod profile;

use aggregates::ids::OrganizationId;
use aggregates::roles::Permission;
use async_graphql::connection::Connection;
use async_graphql::{Context, Object, SimpleObject};
use chrono::{DateTime, NaiveTime, TimeDelta, Utc};

use super::Organization;
use super::access_trail::{AccessList, AccessRecord};
use super::audit::{AuditConnection, AuditFilter, trail};
use super::connection::{Opaque, PageArguments, cost};
use super::errors::{bad_input, log_fault};
use super::loaders::Seen;
use super::node::{Seeing, Shown};
use super::payload::payloads;
use super::scalars::{Time, int};
use super::session::Session;
use crate::log::{Loaded, Log};

pub use inputs::OrganizationCommandInput;
pub use list::organizations;
pub use mutation::OrganizationMutation;
pub use own::{Limit, Own};
pub use profile::Profile;

/// Makes the type of an organization out of parts. Each is one of the fields' owners, with the profile to go by.
macro_rules! merged {
    ($($module:ident::$part:ident),* $(,)?) => {
        /// A tenant: its profile, its status, its members and what belongs to it.
        #[derive(Clone, async_graphql::MergedObject)]
        pub struct Organization($($module::$part),*);

        impl From<organization::Profile> for Organization {
            fn from(profile: organization::Profile) -> Self {
                let profile = std::sync::Arc::new(profile);
                Self($($module::$part(profile.clone())),*)
            }
        }
    };
}
pub(super) use merged;

impl Organization {
    /// The organization of this id as the caller sees it now, if at all.
    pub async fn of(ctx: &Context<'_>, id: &str) -> Option<async_graphql::Result<Self>> {
        let seen = Session::of(ctx).see(&id.parse().ok()?).await.transpose()?;
        Some(seen.map(|seen| Profile::new(seen.id, &seen.organization).into()))
    }
}

impl From<Seen> for Organization {
    fn from(seen: Seen) -> Self {
        Profile::new(seen.id, &seen.organization).into()
    }
}

impl Shown for Organization {
    type Of = aggregates::Organization;

    fn new(id: OrganizationId, loaded: &Loaded<aggregates::Organization>) -> Option<Self> {
        Some(Profile::new(id, loaded).into())
    }

    async fn is_visible(session: &Session, id: &OrganizationId, _: &Loaded<aggregates::Organization>) -> Seeing {
        Ok(session.see(id).await?.is_some())
    }
}

/// What an organization shows of what happened in it.
#[derive(Clone)]
pub struct Trails(pub std::sync::Arc<Profile>);

#[Object]
impl Trails {
    /// The audit trail, straight from the log; the newest through `last`.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn audit_trail(
        &self,
        ctx: &Context<'_>,
        filter: Option<AuditFilter>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Option<async_graphql::Result<AuditConnection>> {
        let page = PageArguments { first, after, last, before };
        Some(match self.0.require(ctx, &[Permission::AuditRead]).await {
            Ok(()) => trail(ctx, Some(&self.0.id), filter, page).await,
            Err(error) => Err(error),
        })
    }

    /// How many events the audit trail has by day in UTC; the newest day last.
    #[graphql(complexity = "days.clamp(1, DAYS_MAX).unsigned_abs() as usize")]
    async fn activity(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many days, today among them: 1 to 90.", default = 30)] days: i32,
    ) -> Option<async_graphql::Result<Vec<ActivityDay>>> {
        let read = async {
            self.0.require(ctx, &[Permission::AuditRead]).await?;
            by_day(Session::of(ctx).log(), &self.0.id, days).await
        };
        Some(read.await)
    }

    /// What was refused here, what operators read, and who read the audit trail; by time, the newest through `last`.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn access_trail(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Option<async_graphql::Result<Connection<Opaque, AccessRecord>>> {
        let page = PageArguments { first, after, last, before };
        Some(self.0.list(ctx, AccessList, page).await)
    }
}

/// What a day had.
#[derive(SimpleObject)]
pub struct ActivityDay {
    /// When it began, in UTC.
    since: Time,
    /// How many events were recorded on it.
    events: i32,
}

/// The most days of activity.
const DAYS_MAX: i32 = 90;

async fn by_day(log: &Log, organization: &OrganizationId, days: i32) -> async_graphql::Result<Vec<ActivityDay>> {
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(bad_input(format!("days is {days}: give 1 to {DAYS_MAX}")));
    }
    let today = Utc::now().date_naive();
    let midnight = |days: i32| (today + TimeDelta::days(days.into())).and_time(NaiveTime::MIN).and_utc();
    let midnights: Vec<DateTime<Utc>> = (1 - days..=1).map(midnight).collect();
    let sequences = log.sequences_before(organization, &midnights).await.map_err(log_fault)?;
    let day = |(since, sequences): (DateTime<Utc>, &[i64])| ActivityDay {
        since: Time(since),
        events: int(sequences[1].abs_diff(sequences[0])),
    };
    Ok(midnights.into_iter().zip(sequences.windows(2)).map(day).collect())
}

payloads! {
    /// What became of a command on an organization.
    OrganizationPayload {
        /// The organization after the command.
        organization: Option<Organization> = Organization::after,
    }
}
