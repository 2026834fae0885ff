//! Read models with a row for each aggregate of a kind. Their columns are named once, by [`read_model!`]; what an event
//! changes is for [`ReadModel::apply`] to say.

use std::collections::HashMap;

use aggregates::organization::OrganizationEvent;
use aggregates::{Aggregate, Event, Recorded, Registered};
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::types::Json;
use sqlx::{PgConnection, Postgres};

/// A row, and the table that it lies in.
pub(crate) trait ReadModel: Default + Serialize + DeserializeOwned + Unpin + Send + Sync + 'static {
    /// The aggregate that has a row each.
    type Of: Registered;
    /// The table.
    const TABLE: &'static str;
    /// The column that names the organization, or the aggregate itself where it belongs to none.
    const OWNER: &'static str;
    /// The columns.
    const COLUMNS: &'static [Described];

    /// The id; empty before the row begins.
    fn id(&self) -> &str;
    /// The offset of the last event that it shows.
    fn offset(&self) -> i64;
    /// Whether what it shows is gone for good.
    fn is_gone(&self) -> bool;
    /// Notes which event is shown from now on, and whose it is.
    fn follow(&mut self, recorded: &Recorded);
    /// What the event changes.
    fn apply(&mut self, recorded: &Recorded, event: &<Self::Of as Aggregate>::Event);
    /// Binds the columns of these rows, an array each.
    fn bind<'q>(rows: &'q [Self], query: Statement<'q>) -> Statement<'q>;
}

/// A statement with arguments.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Declares a read model: its table, the aggregate, and the columns beside those that all have. `in` names the column of
/// the organization; an aggregate that belongs to none has no such column.
macro_rules! read_model {
    (
        $(#[$meta:meta])*
        $table:ident of $kind:ident $(in $organization:ident)? {
            $($column:ident: $type:ty,)*
        }
        personal [$($personal:ident),*]
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
        struct Row {
            id: String,
            $($organization: String,)?
            $($column: $type,)*
            version: i64,
            created_at: chrono::DateTime<chrono::Utc>,
            partition: i16,
            offset: i64,
            /// Gone for good: the row goes too.
            #[serde(skip)]
            gone: bool,
        }

        impl Row {
            /// The row begins with this event.
            fn begin(&mut self, recorded: &aggregates::Recorded, created_at: chrono::DateTime<chrono::Utc>) {
                self.id = recorded.stream.id().to_owned();
                self.partition = recorded.partition;
                self.created_at = created_at;
            }
        }

        impl $crate::read_model::ReadModel for Row {
            type Of = aggregates::$kind;
            const TABLE: &'static str = stringify!($table);
            const OWNER: &'static str = [$(stringify!($organization),)? "id"][0];
            const COLUMNS: &'static [$crate::read_model::Described] = &[
                $crate::read_model::column::<String>("id"),
                $($crate::read_model::column::<String>(stringify!($organization)),)?
                $($crate::read_model::column::<$type>(stringify!($column)),)*
                $crate::read_model::column::<i64>("version"),
                $crate::read_model::column::<chrono::DateTime<chrono::Utc>>("created_at"),
                $crate::read_model::column::<i16>("partition"),
                $crate::read_model::column::<i64>("offset"),
            ];

            fn id(&self) -> &str { &self.id }
            fn offset(&self) -> i64 { self.offset }
            fn is_gone(&self) -> bool { self.gone }

            fn follow(&mut self, recorded: &aggregates::Recorded) {
                self.offset = recorded.offset;
                self.version = recorded.sequence.cast_signed();
                $(self.$organization = recorded.organization.as_ref().map(ToString::to_string).unwrap_or_default();)?
            }

            fn apply(&mut self, recorded: &aggregates::Recorded, event: &<aggregates::$kind as aggregates::Aggregate>::Event) {
                Self::apply(self, recorded, event);
            }

            fn bind<'q>(
                rows: &'q [Self],
                query: $crate::read_model::Statement<'q>,
            ) -> $crate::read_model::Statement<'q> {
                use $crate::read_model::Column;
                let query = Column::bind(rows, |row: &Self| &row.id, query);
                $(let query = Column::bind(rows, |row: &Self| &row.$organization, query);)?
                $(let query = Column::bind(rows, |row: &Self| &row.$column, query);)*
                let query = Column::bind(rows, |row: &Self| &row.version, query);
                let query = Column::bind(rows, |row: &Self| &row.created_at, query);
                let query = Column::bind(rows, |row: &Self| &row.partition, query);
                Column::bind(rows, |row: &Self| &row.offset, query)
            }
        }

        /// Columns of which may be said that they differ, but not what is in them.
        pub const PERSONAL: &[(&str, &str)] = &[$((stringify!($table), stringify!($personal))),*];
    };
}
pub(crate) use read_model;

/// Makes a module with a [`read_model!`] a projection: nothing but its rows comes of the events.
macro_rules! projection_of_rows {
    () => {
        /// Whether lists are read from it.
        pub const IS_SHOWN: bool = true;
        /// Whether something comes of its events that is kept nowhere else.
        pub const HAS_OUTBOX: bool = false;

        /// Whether events of streams of this kind change its tables.
        pub fn reads(aggregate_type: &str) -> bool {
            $crate::read_model::reads::<Row>(aggregate_type)
        }

        pub async fn apply(
            connection: &mut sqlx::PgConnection,
            events: &[&aggregates::Recorded],
            _: &$crate::fold::Outbox<'_>,
        ) -> Result<(), sqlx::Error> {
            $crate::read_model::apply::<Row>(connection, events).await
        }

        /// Removes what is shown of these organizations, or these users.
        pub async fn forget(connection: &mut sqlx::PgConnection, owners: &[&str]) -> Result<(), sqlx::Error> {
            $crate::read_model::forget::<Row>(connection, owners).await
        }

        /// The table in which deleted things wait to be purged, if there is one.
        pub fn purged_from() -> Option<&'static str> {
            $crate::read_model::purged_from::<Row>()
        }
    };
}
pub(crate) use projection_of_rows;

/// Whether events of streams of this kind change a read model: its own, and the organization's, with which rows go.
pub(crate) fn reads<M: ReadModel>(aggregate_type: &str) -> bool {
    aggregate_type == M::Of::TYPE || (M::OWNER != "id" && aggregate_type == aggregates::Organization::TYPE)
}

/// Shows these events.
pub(crate) async fn apply<M: ReadModel>(
    connection: &mut PgConnection,
    events: &[&Recorded],
) -> Result<(), sqlx::Error> {
    show::<M>(connection, events).await?;
    forget::<M>(connection, &purged(events.iter().copied())).await
}

/// The organizations that are gone for good by these events; whatever shows something of them lets it go.
pub(crate) fn purged<'a>(events: impl Iterator<Item = &'a Recorded>) -> Vec<&'a str> {
    let purged =
        |recorded: &&Recorded| matches!(&recorded.event, Event::Organization(OrganizationEvent::OrgPurged { .. }));
    events.filter(purged).map(|recorded| recorded.stream.id()).collect()
}

/// Removes the rows of these organizations, or of these users.
pub(crate) async fn forget<M: ReadModel>(connection: &mut PgConnection, owners: &[&str]) -> Result<(), sqlx::Error> {
    if owners.is_empty() {
        return Ok(());
    }
    let statement = format!("DELETE FROM {} WHERE {} = ANY($1)", M::TABLE, M::OWNER);
    sqlx::query(&statement).bind(owners).execute(connection).await?;
    Ok(())
}

/// The table, if what was deleted waits there to be purged.
pub(crate) fn purged_from<M: ReadModel>() -> Option<&'static str> {
    M::COLUMNS.iter().any(|column| column.name == "purge_at").then_some(M::TABLE)
}

async fn show<M: ReadModel>(connection: &mut PgConnection, events: &[&Recorded]) -> Result<(), sqlx::Error> {
    let own: Vec<&Recorded> =
        events.iter().copied().filter(|recorded| M::Of::event(&recorded.event).is_some()).collect();
    if own.is_empty() {
        return Ok(());
    }
    let mut rows: HashMap<String, M> = HashMap::new();
    for row in load::<M>(connection, &begun_before(own.iter().copied())).await? {
        rows.insert(row.id().to_owned(), row);
    }
    for recorded in own {
        let is_lost = M::OWNER != "id" && recorded.organization.is_none();
        if let Some(event) = M::Of::event(&recorded.event).filter(|_| !is_lost) {
            let row = rows.entry(recorded.stream.id().to_owned()).or_default();
            if row.offset() < recorded.offset {
                row.follow(recorded);
                row.apply(recorded, event);
            }
        }
    }
    // What still happens in a purged organization has no row to show it.
    let (gone, kept): (Vec<M>, Vec<M>) =
        rows.into_values().filter(|row| !row.id().is_empty()).partition(|row| row.is_gone());
    save(connection, &kept).await?;
    let gone: Vec<&str> = gone.iter().map(ReadModel::id).collect();
    if !gone.is_empty() {
        let statement = format!("DELETE FROM {} WHERE id = ANY($1)", M::TABLE);
        sqlx::query(&statement).bind(gone).execute(connection).await?;
    }
    Ok(())
}

/// The ids of streams that `events` do not begin: only those can have rows.
pub(crate) fn begun_before<'a>(events: impl Iterator<Item = &'a Recorded>) -> Vec<&'a str> {
    let mut begun = std::collections::HashSet::new();
    let mut ids = vec![];
    for recorded in events {
        let id = recorded.stream.id();
        if begun.insert(id) && recorded.sequence > 1 {
            ids.push(id);
        }
    }
    ids
}

async fn load<M: ReadModel>(connection: &mut PgConnection, ids: &[&str]) -> Result<Vec<M>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let statement = format!(
        "SELECT to_json(r) FROM unnest($1::text[]) AS w(id)
         CROSS JOIN LATERAL (SELECT * FROM {} WHERE id = w.id) r",
        M::TABLE
    );
    let rows: Vec<Json<M>> = sqlx::query_scalar(&statement).bind(ids).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|Json(row)| row).collect())
}

/// Writes these rows, but none over one that shows a later event.
pub(crate) async fn save<M: ReadModel>(connection: &mut PgConnection, rows: &[M]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    M::bind(rows, sqlx::query(&upsert::<M>())).execute(connection).await?;
    Ok(())
}

/// Columns as arrays for `unnest`: several times cheaper for the database than rows as JSON.
fn upsert<M: ReadModel>() -> String {
    let list = |part: fn((usize, &Described)) -> String| {
        M::COLUMNS.iter().enumerate().map(part).collect::<Vec<_>>().join(", ")
    };
    let names = list(|(_, column)| format!("\"{}\"", column.name));
    let values = list(|(_, column)| format!("r.\"{}\"{}", column.name, column.cast));
    let arrays = list(|(n, column)| format!("${}::{}[]", n + 1, column.element));
    // The id is the key, and changes nothing.
    let changes = list(|(_, column)| format!("\"{0}\" = EXCLUDED.\"{0}\"", column.name));
    format!(
        "INSERT INTO {table} ({names}) SELECT {values} FROM unnest({arrays}) AS r({names})
         ON CONFLICT (id) DO UPDATE SET {changes} WHERE {table}.\"offset\" < EXCLUDED.\"offset\"",
        table = M::TABLE
    )
}

/// A type that a column can have.
pub(crate) trait Column: Sized + 'static {
    /// The type of the elements of an array of them.
    const ELEMENT: &'static str;
    /// The cast from that to the type of the column.
    const CAST: &'static str = "";
    /// Binds the column of these rows.
    fn bind<'q, R>(rows: &'q [R], get: impl Fn(&'q R) -> &'q Self, query: Statement<'q>) -> Statement<'q>;
}

/// A column of a read model.
pub(crate) struct Described {
    name: &'static str,
    /// The type of the elements of an array of it.
    element: &'static str,
    /// The cast from that to the type of the column.
    cast: &'static str,
}

/// Describes a column of this type.
pub(crate) const fn column<C: Column>(name: &'static str) -> Described {
    Described { name, element: C::ELEMENT, cast: C::CAST }
}

macro_rules! columns {
    ($($type:ty: $element:literal $($cast:literal)? = $value:ident => $bound:expr;)*) => {$(
        impl Column for $type {
            const ELEMENT: &'static str = $element;
            $(const CAST: &'static str = $cast;)?
            fn bind<'q, R>(rows: &'q [R], get: impl Fn(&'q R) -> &'q Self, query: Statement<'q>) -> Statement<'q> {
                query.bind(rows.iter().map(|row| { let $value = get(row); $bound }).collect::<Vec<_>>())
            }
        }
    )*};
}

columns! {
    String: "text" = value => value.as_str();
    Option<String>: "text" = value => value.as_deref();
    bool: "boolean" = value => *value;
    i16: "smallint" = value => *value;
    i64: "bigint" = value => *value;
    Option<i64>: "bigint" = value => *value;
    Option<u64>: "bigint" = value => value.map(u64::cast_signed);
    DateTime<Utc>: "timestamptz" = value => *value;
    Option<DateTime<Utc>>: "timestamptz" = value => *value;
    Vec<String>: "text" "::text[]" = value => list(value);
    Value: "text" "::json" = value => value.to_string();
}

/// A state, stored by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Named<T>(pub T);

impl<T: Serialize + 'static> Column for Named<T> {
    const ELEMENT: &'static str = "text";
    fn bind<'q, R>(rows: &'q [R], get: impl Fn(&'q R) -> &'q Self, query: Statement<'q>) -> Statement<'q> {
        let name = |row| {
            let name = aggregates::event::shown(&get(row).0);
            debug_assert!(!name.is_empty(), "a state is stored by a name");
            name
        };
        query.bind(rows.iter().map(name).collect::<Vec<_>>())
    }
}

/// A document, stored as JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Document<T>(pub T);

impl<T: Serialize + 'static> Column for Document<T> {
    const ELEMENT: &'static str = "text";
    const CAST: &'static str = "::json";
    fn bind<'q, R>(rows: &'q [R], get: impl Fn(&'q R) -> &'q Self, query: Statement<'q>) -> Statement<'q> {
        query.bind(rows.iter().map(|row| serde_json::to_string(&get(row).0).unwrap_or_default()).collect::<Vec<_>>())
    }
}

/// Names of roles, permissions or events as the text of an array. They hold no quotes, commas or braces.
pub(crate) fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    format!("{{{}}}", quoted.join(","))
}
