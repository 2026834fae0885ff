//! Lists within an organization. A list is declared by what its rows are, who may read it, and which rows a filter leaves:
//! see [`List`]. Loading, pages and cursors are the same for all.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use aggregates::ids::OrganizationId;
use aggregates::roles::Permission;
use async_graphql::connection::{Connection, Edge};
use async_graphql::{Context, Error, OutputType};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, Postgres, QueryBuilder};

use super::batch::{Batcher, Load};
use super::connection::{Created, Opaque, Page, PageArguments, Slice, push_page};
use super::errors::database_fault;
use super::kept::Reads;
use super::session::Session;
use crate::database::Connections;
use crate::log::scope;

/// A kind of list within an organization; a value of it says which rows are wanted.
pub trait List: Clone + Eq + std::hash::Hash + Send + Sync + 'static {
    /// What is shown, made from a row.
    type Row: for<'r> FromRow<'r, sqlx::postgres::PgRow> + Clone + Send + Sync + Unpin + 'static;
    /// What is shown.
    type Node: OutputType + From<Self::Row>;
    /// How the ids of its rows begin.
    const PREFIX: &'static str;
    /// The columns of a row, and the table, after `SELECT`.
    const SELECT: &'static str;
    /// What a member needs to read it; all of these.
    const READ: &'static [Permission];
    /// Adds ` AND …` for each condition.
    fn push(&self, query: &mut QueryBuilder<'_, Postgres>);
    /// How long these rows are what it shows.
    fn holds(&self, rows: &[Self::Row]) -> Holds;
    /// Where a row stands in the list.
    fn place(row: &Self::Row) -> Created;
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
        #[derive(Debug, Clone, sqlx::FromRow)]
        pub struct $name { $(#[$first_meta])* $first: $first_type, $($(#[$column_meta])* $column: $type,)* }

        impl $name {
            /// Its columns and its table.
            pub const SELECT: &'static str =
                concat!(stringify!($first) $(, ", ", stringify!($column))*, " FROM ", $table);
        }
    };
}
pub(super) use row;

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

/// Loads lists of all kinds for a request: the same page of the same list of many organizations by one statement.
pub struct Lists {
    loader: ListLoader,
    kinds: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Lists {
    /// Of organizations that are `established` by then; what is read is noted.
    pub fn new(pool: Connections, established: Arc<Established>, reads: Arc<Reads>) -> Self {
        Self { loader: ListLoader { pool, established, reads }, kinds: Mutex::default() }
    }

    /// A page of a list of an organization that the caller may read it of.
    async fn load<L: List>(
        &self,
        organization: OrganizationId,
        list: L,
        page: Page<Created>,
    ) -> Result<Slice<L::Row>, Error> {
        let kind = {
            let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            let new =
                || Arc::new(Batcher::<ListKey<L>, ListLoader>::new(self.loader.clone())) as Arc<dyn Any + Send + Sync>;
            kinds.entry(TypeId::of::<L>()).or_insert_with(new).clone()
        };
        let slice = match kind.downcast_ref::<Batcher<ListKey<L>, ListLoader>>() {
            Some(lists) => lists.load_one(ListKey { organization, list, page }).await?,
            None => unreachable!("kept under its own type"),
        };
        Ok(slice.unwrap_or(Slice { rows: vec![], has_previous: false, has_next: false }))
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
) -> Result<Connection<Opaque, L::Node>, Error> {
    require(ctx, id, target, L::READ).await?;
    let session = Session::of(ctx);
    let page = page.page_of(L::PREFIX, session.page_size_max())?;
    Ok(connection::<L>(session.lists().load(id.clone(), list, page).await?))
}

/// A connection of rows of a list.
pub fn connection<L: List>(slice: Slice<L::Row>) -> Connection<Opaque, L::Node> {
    connection_of(slice, L::place, L::Node::from)
}

/// A connection of any rows.
pub fn connection_of<R, N: OutputType>(
    slice: Slice<R>,
    place: impl Fn(&R) -> Created,
    node: impl Fn(R) -> N,
) -> Connection<Opaque, N> {
    let mut connection = Connection::new(slice.has_previous, slice.has_next);
    connection.edges = slice.rows.into_iter().map(|row| Edge::new(Opaque::of(&place(&row)), node(row))).collect();
    connection
}

/// A page of a list that is wanted: what parents of one level have in common, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ListKey<L> {
    organization: OrganizationId,
    list: L,
    page: Page<Created>,
}

#[derive(Clone)]
struct ListLoader {
    pool: Connections,
    established: Arc<Established>,
    reads: Arc<Reads>,
}

impl ListLoader {
    fn note<L: List>(&self, key: &ListKey<L>, rows: &[L::Row]) {
        self.reads.organization(&key.organization);
        match key.list.holds(rows) {
            Holds::UntilEvents => {}
            Holds::UntilTime(time) => self.reads.until(time),
            Holds::Unknown => self.reads.other(),
        }
    }
}

#[derive(FromRow)]
struct Of<T> {
    of: String,
    #[sqlx(flatten)]
    row: T,
}

impl<L: List> Load<ListKey<L>> for ListLoader {
    type Value = Slice<L::Row>;

    async fn load(&self, keys: &[ListKey<L>]) -> Result<HashMap<ListKey<L>, Slice<L::Row>>, Error> {
        let mut alike: HashMap<(L, Page<Created>), Vec<String>> = HashMap::new();
        for key in keys.iter().filter(|key| self.established.holds(&key.organization)) {
            alike.entry((key.list.clone(), key.page.clone())).or_default().push(key.organization.to_string());
        }
        let mut found: HashMap<(L, Page<Created>, String), Vec<L::Row>> = HashMap::new();
        for ((list, page), organizations) in alike {
            let mut query = scope::begin("wanted.id AS of, r.*", &organizations);
            query.push(" CROSS JOIN LATERAL (SELECT ").push(L::SELECT).push(" WHERE organization_id = wanted.id");
            list.push(&mut query);
            push_page(&mut query, &page);
            query.push(") r");
            let rows: Vec<Of<L::Row>> = query.build_query_as().fetch_all(&self.pool).await.map_err(database_fault)?;
            for row in rows {
                found.entry((list.clone(), page.clone(), row.of)).or_default().push(row.row);
            }
        }
        let slice = |key: &ListKey<L>| {
            let rows = found.remove(&(key.list.clone(), key.page.clone(), key.organization.to_string()));
            let rows = rows.unwrap_or_default();
            self.note(key, &rows);
            (key.clone(), Slice::new(rows, &key.page))
        };
        Ok(keys.iter().map(slice).collect::<Vec<_>>().into_iter().collect())
    }
}
