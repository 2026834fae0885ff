//! Lists within an organization. A list is declared by what its rows are, who may read it, and which rows a filter leaves:
//! see [`List`]. Loading, pages and cursors are the same for all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use aggregates::Limit;
use aggregates::ids::OrganizationId;
use aggregates::roles::Permission;
use async_graphql::connection::{Connection, Edge, EmptyFields};
use async_graphql::{Context, Error, Object, ObjectType, OutputType};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sqlx::{Postgres, QueryBuilder};

use super::batch::{Batcher, Load};
use super::connection::{Called, Cursor, Opaque, Page, PageArguments, Place, Slice, push_page};
use super::errors::database_fault;
use super::kept::Reads;
use super::scalars::int;
use super::session::Session;
use crate::database::Connections;
use crate::log::{EventsOf, StoredEvent, scope};

/// A kind of list within an organization; a value of it says which rows are wanted.
pub trait List: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// What is shown, made from a row.
    type Row: DeserializeOwned + Clone + Send + Sync + 'static;
    /// What is shown.
    type Node: OutputType + From<Self::Row>;
    /// How the ids of its rows begin.
    const PREFIX: &'static str;
    /// The columns of a row, and the table, after `SELECT`; in parts.
    const SELECT: &'static [&'static str];
    /// What a member needs to read it; all of these.
    const READ: &'static [Permission];
    /// By what it is sorted.
    type Place: Place;
    /// The columns of that: what is compared, and the id.
    const BY: (&'static str, &'static str);
    /// What its connection has beside a page: a [`Total`], or nothing.
    type Extra: Extra;
    /// Adds ` AND …` for each condition.
    fn push(&self, query: &mut QueryBuilder<'_, Postgres>);
    /// How long these rows are what it shows.
    fn holds(&self, rows: &[Self::Row]) -> Holds;
    /// Where a row stands in the list.
    fn place(row: &Self::Row) -> Self::Place;
    /// The limit whose tally counts exactly these rows.
    fn counted(&self) -> Option<Limit> {
        None
    }
}

/// What a connection has beside a page.
pub trait Extra: ObjectType {
    /// Of a list of an organization, of which this is counted.
    fn new(organization: &OrganizationId, counted: Option<Limit>) -> Self;
}

impl Extra for EmptyFields {
    fn new(_: &OrganizationId, _: Option<Limit>) -> Self {
        Self
    }
}

impl Extra for Total {
    fn new(organization: &OrganizationId, counted: Option<Limit>) -> Self {
        Self(counted.map(|limit| (organization.clone(), limit)))
    }
}

/// A page of a list, as the engine takes it.
pub type ConnectionOf<L> = Connection<Opaque, <L as List>::Node, <L as List>::Extra>;

/// How many rows a list has, where a tally counts exactly those.
pub struct Total(pub Option<(OrganizationId, Limit)>);

#[Object]
impl Total {
    /// How many there are on all pages; null where they are not counted, as with some filters.
    async fn total_count(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<i32>> {
        let (organization, limit) = self.0.as_ref()?;
        let count = async {
            let counted = Session::of(ctx).tallies(organization).await?;
            let used = counted.iter().find(|(name, _)| name == limit.name).map(|(_, tally)| tally.used);
            Ok(int(used.unwrap_or_default().max(0).unsigned_abs()))
        };
        Some(count.await)
    }
}

/// How long rows are what a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Until something is recorded in the organization.
    UntilEvents,
    /// And no longer than this.
    UntilTime(DateTime<Utc>),
    /// Nobody knows: they change without an event.
    Unknown,
}

/// Declares a struct that is a row of a read model: its columns are named once.
macro_rules! row {
    ($(#[$meta:meta])* pub struct $name:ident of $table:literal {
        $(#[$first_meta:meta])* $first:ident: $first_type:ty, $($(#[$column_meta:meta])* $column:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, sqlx::FromRow, serde::Deserialize)]
        pub struct $name { $(#[$first_meta])* $first: $first_type, $($(#[$column_meta])* $column: $type,)* }

        impl $name {
            /// Its columns.
            pub const COLUMNS: &'static str = concat!(stringify!($first) $(, ", ", stringify!($column))*);
            /// Its columns and its table.
            pub const SELECT: &'static [&'static str] = &[Self::COLUMNS, concat!(" FROM ", $table)];
        }
    };
}
pub(super) use row;

/// A row in a list by what things are called.
#[derive(Debug, Clone, Deserialize)]
pub struct Sorted<R> {
    #[serde(flatten)]
    row: R,
    /// The word that it is sorted by.
    word: String,
}

impl<R> Sorted<R> {
    /// Where it stands, as what has this id.
    pub fn place(&self, id: impl Fn(&R) -> &str) -> Called {
        Called { name: self.word.clone(), id: id(&self.row).to_owned() }
    }

    /// The row.
    pub fn into_row(self) -> R {
        self.row
    }
}

/// The organizations that the caller turned out to see, in this request. The database shows lists of no other.
#[derive(Default)]
pub struct Established(Mutex<HashSet<OrganizationId>>);

impl Established {
    /// Adds one that the caller sees.
    pub fn add(&self, id: &OrganizationId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
    }

    fn holds(&self, id: &OrganizationId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

/// Loads lists for a request: what resolvers of a level ask for is read by one statement, whatever the kinds and however
/// many the organizations.
pub struct Lists {
    parts: Batcher<PartOf, PartLoader>,
    reads: Arc<Reads>,
}

impl Lists {
    /// Of organizations that are `established` by then; what is read is noted.
    pub fn new(pool: Connections, established: Arc<Established>, reads: Arc<Reads>) -> Self {
        Self { parts: Batcher::new(PartLoader { pool, established }), reads }
    }

    /// A page of a list of an organization that the caller may read it of.
    async fn load<L: List>(
        &self,
        organization: OrganizationId,
        list: L,
        page: Page<L::Place>,
    ) -> Result<Slice<L::Row>, Error> {
        let part = Rows { list: list.clone(), page: page.clone() };
        let rows: Vec<L::Row> = self.rows(organization, part).await?;
        match list.holds(&rows) {
            Holds::UntilEvents => {}
            Holds::UntilTime(time) => self.reads.until(time),
            Holds::Unknown => self.reads.other(),
        }
        Ok(Slice::new(rows, &page))
    }

    /// The newest or oldest events of an organization that the caller may read the audit trail of.
    pub async fn events(&self, organization: OrganizationId, events: EventsOf) -> Result<Vec<StoredEvent>, Error> {
        self.rows(organization, events).await
    }

    async fn rows<R: DeserializeOwned>(&self, organization: OrganizationId, part: impl Part) -> Result<Vec<R>, Error> {
        self.reads.organization(&organization);
        let key = PartOf { organization, name: part.name().into(), part: Arc::new(part) };
        let Some(text) = self.parts.load_one(key).await? else { return Ok(vec![]) };
        serde_json::from_str(&text).map_err(|error| database_fault(sqlx::Error::Decode(error.into())))
    }
}

/// Rows of one organization, as a part of a statement.
trait Part: Send + Sync + 'static {
    /// Which; parts of one name are the same.
    fn name(&self) -> String;
    /// Adds `SELECT …` of the organization `wanted.id`.
    fn push(&self, query: &mut QueryBuilder<'_, Postgres>);
}

struct Rows<L: List> {
    list: L,
    page: Page<L::Place>,
}

impl<L: List> Part for Rows<L> {
    fn name(&self) -> String {
        format!("{} {:?} {:?}", std::any::type_name::<L>(), self.list, self.page)
    }

    fn push(&self, query: &mut QueryBuilder<'_, Postgres>) {
        query.push("SELECT ");
        L::SELECT.iter().for_each(|part| _ = query.push(part));
        query.push(" WHERE organization_id = wanted.id");
        self.list.push(query);
        push_page(query, L::BY, &self.page);
    }
}

impl Part for EventsOf {
    fn name(&self) -> String {
        format!("{self:?}")
    }

    fn push(&self, query: &mut QueryBuilder<'_, Postgres>) {
        Self::push(self, query);
    }
}

/// A part that is wanted of an organization.
#[derive(Clone)]
struct PartOf {
    organization: OrganizationId,
    name: Arc<str>,
    part: Arc<dyn Part>,
}

impl PartialEq for PartOf {
    fn eq(&self, other: &Self) -> bool {
        self.organization == other.organization && self.name == other.name
    }
}

impl Eq for PartOf {}

impl std::hash::Hash for PartOf {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.organization.hash(state);
        self.name.hash(state);
    }
}

/// Reads parts as JSON, since rows of several kinds have no columns in common.
struct PartLoader {
    pool: Connections,
    established: Arc<Established>,
}

impl PartLoader {
    /// The rows of each part, in their order, by organization.
    async fn read(&self, of: &[&OrganizationId], parts: &[&PartOf]) -> Result<Vec<(String, Vec<String>)>, Error> {
        let columns: Vec<String> = (0..parts.len()).map(|number| format!("p{number}.rows")).collect();
        let mut query = scope::begin(&format!("wanted.id, ARRAY[{}]", columns.join(", ")), of);
        for (number, part) in parts.iter().enumerate() {
            query.push(" CROSS JOIN LATERAL (SELECT COALESCE(json_agg(r), '[]')::text AS rows FROM (");
            part.part.push(&mut query);
            query.push(format!(") r LIMIT 1) p{number}"));
        }
        query.build_query_as().fetch_all(&self.pool).await.map_err(database_fault)
    }
}

impl Load<PartOf> for PartLoader {
    type Value = Arc<str>;

    async fn load(&self, keys: &[PartOf]) -> Result<HashMap<PartOf, Arc<str>>, Error> {
        let mut of_each: BTreeMap<&OrganizationId, BTreeMap<&str, &PartOf>> = BTreeMap::new();
        for key in keys.iter().filter(|key| self.established.holds(&key.organization)) {
            of_each.entry(&key.organization).or_default().insert(&key.name, key);
        }
        // Organizations of which the same is wanted: mostly all of them.
        let mut alike: BTreeMap<Vec<&str>, Vec<&OrganizationId>> = BTreeMap::new();
        for (organization, parts) in &of_each {
            alike.entry(parts.keys().copied().collect()).or_default().push(*organization);
        }
        let mut found = HashMap::new();
        for (names, organizations) in alike {
            let parts: Vec<&PartOf> =
                names.iter().filter_map(|name| of_each[organizations[0]].get(name).copied()).collect();
            for (of, texts) in self.read(&organizations, &parts).await? {
                let keys = of_each.iter().find(|(id, _)| id.as_ref() == of).map(|(_, keys)| keys);
                let keys = keys.into_iter().flat_map(BTreeMap::values);
                found.extend(keys.map(|key| (*key).clone()).zip(texts.into_iter().map(Arc::from)));
            }
        }
        Ok(found)
    }
}

/// Requires that the caller sees the organization and may read what needs these permissions; an operator's read goes on
/// record.
pub async fn require(ctx: &Context<'_>, id: &OrganizationId, target: &str, all: &[Permission]) -> Result<(), Error> {
    let session = Session::of(ctx);
    let seen = session.see(id).await?;
    for permission in all.iter().copied() {
        let Some(seen) = &seen else { return Err(session.lacks(permission)) };
        if !seen.may(permission) {
            session.note_refusal(Some(id), Some(target));
            return Err(session.lacks(permission));
        }
        if seen.may_only_as_operator(permission) {
            session.note_operator_read(id);
        }
    }
    Ok(())
}

/// A page of a list of an organization. What was listed below something else in it is named by `target` where it is
/// refused.
pub async fn list<L: List>(
    ctx: &Context<'_>,
    id: &OrganizationId,
    target: &str,
    list: L,
    page: PageArguments,
) -> Result<ConnectionOf<L>, Error> {
    require(ctx, id, target, L::READ).await?;
    let session = Session::of(ctx);
    let page = page.page_of(L::PREFIX, session.page_size_max())?;
    let extra = L::Extra::new(id, list.counted());
    Ok(connection::<L>(session.lists().load(id.clone(), list, page).await?, extra))
}

/// A connection of rows of a list.
pub fn connection<L: List>(slice: Slice<L::Row>, extra: L::Extra) -> ConnectionOf<L> {
    connection_of(slice, L::place, L::Node::from, extra)
}

/// A connection of any rows.
pub fn connection_of<R, N: OutputType, P: Cursor, E: ObjectType>(
    slice: Slice<R>,
    place: impl Fn(&R) -> P,
    node: impl Fn(R) -> N,
    extra: E,
) -> Connection<Opaque, N, E> {
    let mut connection = Connection::with_additional_fields(slice.has_previous, slice.has_next, extra);
    connection.edges = slice.rows.into_iter().map(|row| Edge::new(Opaque::of(&place(&row)), node(row))).collect();
    connection
}
