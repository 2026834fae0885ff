//! Whether the log is as the service wrote it, for operators' dashboards.

use aggregates::ids::OrganizationId;
use async_graphql::{ComplexObject, Context, Enum, Error, ID, SimpleObject};

use super::proofs::{AuditCheckpoint, checkpoint_of};
use super::scalars::{Long, Time};
use super::session::Session;
use crate::audit::trail::Trail;
use crate::audit::watch::Round;
use crate::audit::witnesses::State;
use crate::log::alarms::{About, Alarm, NoticedBy};

/// What standing verification of this replica has read, and what it, the sealer and the writer have noticed.
#[derive(SimpleObject)]
#[graphql(complex)]
pub struct AuditStatus {
    /// The last round in which everything was read. Null before the first.
    last_round: Option<AuditRound>,
    /// The round that is under way.
    current_round: Option<AuditRound>,
    /// What is not as the service wrote and signed it.
    alarms: Vec<AuditAlarm>,
    /// The witnesses that this replica asks for cosignatures.
    witnesses: Vec<AuditWitness>,
}

/// A witness of checkpoints.
#[derive(SimpleObject)]
pub struct AuditWitness {
    /// Its name.
    name: String,
    /// When it cosigned something for this replica last. Null before the first time.
    cosigned_at: Option<Time>,
    /// Why it did not cosign what it was shown last. Null if it did.
    failure: Option<String>,
}

/// A walk through everything that was sealed.
#[derive(SimpleObject)]
pub struct AuditRound {
    /// When it began.
    began_at: Time,
    /// When it ended. Null while it is under way.
    ended_at: Option<Time>,
    /// How many events it has read along partitions.
    events: Long,
    /// How many audit trails it has gone through.
    organizations: Long,
}

/// Something that no writer of the service can have done.
#[derive(SimpleObject)]
pub struct AuditAlarm {
    /// The organization that it is about, if it is about one.
    organization_id: Option<ID>,
    /// The partition of the log that it is about, if it is about one.
    partition: Option<i32>,
    /// Who noticed it.
    noticed_by: AuditWatcher,
    /// When it was noticed first.
    since: Time,
    /// What is wrong.
    message: String,
}

/// Who noticed something.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub enum AuditWatcher {
    /// The writer, as it followed what others wrote.
    Writer,
    /// The sealer, before it signed.
    Sealer,
    /// Standing verification.
    Verification,
    /// A witness outside, by what it cosigned before.
    Witness,
}

#[ComplexObject]
impl AuditStatus {
    /// The newest signed head of the installation's trail: users, and what operators did to them. Null while nothing of it is
    /// sealed. `/audit/installation/export` has the trail.
    async fn installation_checkpoint(&self, ctx: &Context<'_>) -> Result<Option<AuditCheckpoint>, Error> {
        checkpoint_of(Session::of(ctx), &Trail::Installation).await
    }

    /// The newest signed head of the access trail of all organizations. Null while nothing of it is sealed.
    /// `/audit/access/export` has the trail.
    async fn access_checkpoint(&self, ctx: &Context<'_>) -> Result<Option<AuditCheckpoint>, Error> {
        checkpoint_of(Session::of(ctx), &Trail::Access).await
    }
}

impl AuditStatus {
    /// As this replica knows it.
    pub(super) fn of(session: &Session) -> Self {
        let (current, last) = session.verified().rounds();
        let alarms = session.log().alarms().all().into_iter().map(AuditAlarm::from).collect();
        let witnesses = session.witnesses().all().into_iter().map(AuditWitness::from).collect();
        Self { last_round: last.map(AuditRound::from), current_round: current.map(AuditRound::from), alarms, witnesses }
    }
}

impl From<State> for AuditWitness {
    fn from(state: State) -> Self {
        Self { name: state.name, cosigned_at: state.cosigned_at.map(Time), failure: state.failure }
    }
}

impl From<Round> for AuditRound {
    fn from(round: Round) -> Self {
        let Round { began_at, ended_at, events, organizations } = round;
        let number = |number: u64| Long(number.cast_signed());
        Self {
            began_at: Time(began_at),
            ended_at: ended_at.map(Time),
            events: number(events),
            organizations: number(organizations),
        }
    }
}

impl From<Alarm> for AuditAlarm {
    fn from(alarm: Alarm) -> Self {
        let (organization, partition) = match alarm.about {
            About::Organization(id) => (id.parse::<OrganizationId>().ok().map(|id| ID::from(id.as_ref())), None),
            About::Partition(partition) => (None, Some(partition.into())),
        };
        let noticed_by = match alarm.noticed_by {
            NoticedBy::Writer => AuditWatcher::Writer,
            NoticedBy::Sealer => AuditWatcher::Sealer,
            NoticedBy::Verification => AuditWatcher::Verification,
            NoticedBy::Witness => AuditWatcher::Witness,
        };
        Self { organization_id: organization, partition, noticed_by, since: Time(alarm.since), message: alarm.text }
    }
}
