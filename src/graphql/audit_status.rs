//! Whether the log is as the service wrote it, for operators' dashboards.

use aggregates::ids::OrganizationId;
use async_graphql::{Enum, ID, SimpleObject};

use super::scalars::{Long, Time};
use super::session::Session;
use crate::audit::watch::Round;
use crate::log::alarms::{About, Alarm, NoticedBy};

/// What standing verification of this replica has read, and what it, the sealer and the writer have noticed.
#[derive(SimpleObject)]
pub struct AuditStatus {
    /// The last round in which everything was read. Null before the first.
    last_round: Option<AuditRound>,
    /// The round that is under way.
    current_round: Option<AuditRound>,
    /// What is not as the service wrote and signed it.
    alarms: Vec<AuditAlarm>,
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
}

impl AuditStatus {
    /// As this replica knows it.
    pub(super) fn of(session: &Session) -> Self {
        let (current, last) = session.verified().rounds();
        let alarms = session.log().alarms().all().into_iter().map(AuditAlarm::from).collect();
        Self { last_round: last.map(AuditRound::from), current_round: current.map(AuditRound::from), alarms }
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
        };
        Self { organization_id: organization, partition, noticed_by, since: Time(alarm.since), message: alarm.text }
    }
}
