//! The access trail, as members who may read the audit and operators see it.
//!
//! A member's read of it is on no record, so that looking adds nothing to look at; an operator's read of a tenant's is
//! one like any other read of theirs.

use std::collections::HashMap;
use std::sync::Arc;

use aggregates::roles::Permission;
use async_graphql::connection::{Connection, EmptyFields};
use async_graphql::{Context, Enum, Error, ID, Object};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, Postgres, QueryBuilder};

use super::batch::Load;
use super::connection::{BY_CREATION, Created, Opaque, PageArguments, Slice, push_page};
use super::errors::{database_fault, log_fault};
use super::lists::{Holds, List, connection};
use super::scalars::{Time, int};
use super::session::Session;
use super::user::Actor;
use crate::log::Log;
use crate::requests::trail::{Kind, PREFIX, SealedAddress, open};

/// What kind of access is on record.
#[derive(Debug, Enum, Copy, Clone, Eq, PartialEq)]
#[graphql(remote = "Kind")]
pub enum AccessKind {
    /// Refused for lack of permission, or because it is another tenant's.
    Refused,
    /// An operator read what is a tenant's, without being permitted to as a member.
    OperatorRead,
    /// An audit trail was read.
    AuditRead,
    /// An audit trail was exported.
    AuditExport,
}

/// A record as it is stored.
#[derive(Debug, Clone, FromRow, serde::Deserialize)]
pub struct AccessRow {
    id: String,
    created_at: DateTime<Utc>,
    kind: String,
    actor: String,
    operation: String,
    organization_id: Option<String>,
    target_id: Option<String>,
    times: i64,
    ip: Option<String>,
}

/// Which records: all of an organization's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AccessList;

impl List for AccessList {
    type Row = AccessRow;
    type Node = AccessRecord;
    const PREFIX: &'static str = PREFIX;
    const SELECT: &'static [&'static str] = &["id, created_at, kind, actor, operation, target_id, ip,
        coalesce(organization_id, reached_organization_id) AS organization_id,
        times + coalesce((SELECT r.times FROM access_repeats r WHERE r.id = access_trail.id), 0) AS times
        FROM access_trail"];
    const READ: &'static [Permission] = &[Permission::AuditRead];
    type Place = Created;
    const BY: (&'static str, &'static str) = BY_CREATION;
    type Extra = EmptyFields;

    fn push(&self, _: &mut QueryBuilder<'_, Postgres>) {}

    fn holds(&self, _: &[Self::Row]) -> Holds {
        Holds::Unknown
    }

    fn place(row: &Self::Row) -> Created {
        Created { at: row.created_at, id: row.id.clone() }
    }
}

/// Something that was refused, or read by an operator, or a read of an audit trail: all of one kind by one caller within
/// a minute.
#[derive(Debug, Clone)]
pub struct AccessRecord(AccessRow);

impl From<AccessRow> for AccessRecord {
    fn from(row: AccessRow) -> Self {
        Self(row)
    }
}

/// Something that was asked for and is on record: a refusal, an operator's read, a read of the audit trail.
#[Object]
impl AccessRecord {
    /// When, the first time of that minute.
    async fn at(&self) -> Time {
        Time(self.0.created_at)
    }
    /// What kind.
    async fn kind(&self) -> AccessKind {
        Kind::of(&self.0.kind).unwrap_or(Kind::Refused).into()
    }
    /// The caller.
    async fn actor(&self, ctx: &Context<'_>) -> async_graphql::Result<Actor> {
        Actor::named(ctx, &self.0.actor.parse().unwrap_or_default()).await
    }
    /// By which mutation, or by which field at the root of a query; several where the query had several.
    async fn operation(&self) -> &str {
        &self.0.operation
    }
    /// The organization that it concerns. Of a reach across tenants, which operators alone read: whom it was for.
    async fn organization_id(&self) -> Option<ID> {
        self.0.organization_id.clone().map(ID)
    }
    /// The id that the caller gave, the first time of that minute.
    async fn target_id(&self) -> Option<ID> {
        self.0.target_id.clone().map(ID)
    }
    /// How often; complete when the minute is over.
    async fn times(&self) -> i32 {
        int(self.0.times.unsigned_abs())
    }
    /// The network address that the request came from, the first time of that minute; null where erased.
    async fn ip(&self, ctx: &Context<'_>) -> async_graphql::Result<Option<String>> {
        let AccessRow { id, actor, ip: Some(sealed), .. } = self.0.clone() else { return Ok(None) };
        Session::of(ctx).loaders().addresses.load_one(SealedAddress { id, actor, sealed }).await
    }
}

/// Opens addresses.
pub struct AddressLoader {
    /// The log, which has the keys.
    pub log: Arc<Log>,
}

impl Load<SealedAddress> for AddressLoader {
    type Value = String;

    async fn load(&self, keys: &[SealedAddress]) -> Result<HashMap<SealedAddress, String>, Error> {
        open(&self.log, keys).await.map_err(log_fault)
    }
}

/// A page of all records, for operators.
pub async fn access_trail(ctx: &Context<'_>, page: PageArguments) -> Result<Connection<Opaque, AccessRecord>, Error> {
    let page = page.page_of::<Created>(PREFIX, Session::of(ctx).page_size_max())?;
    let mut query = QueryBuilder::new("SELECT ");
    query.push(AccessList::SELECT.concat()).push(" WHERE true");
    push_page(&mut query, AccessList::BY, &page);
    let rows: Vec<AccessRow> =
        query.build_query_as().fetch_all(Session::of(ctx).log().operators()).await.map_err(database_fault)?;
    Ok(connection::<AccessList>(Slice::new(rows, &page), EmptyFields))
}
