//! What a statement of a reader may see.
//!
//! The role of readers sees rows that name one of the ids in `tenancy.scope`, and none without it. A statement puts them
//! there by itself, for its own transaction and so for no other: no further round trip, and nothing that a pool could
//! carry on to the next request. The order is not left to the planner: what reads rows refers to what `set_config`
//! answers (laterally, in a subquery with a limit, which is never merged), and so cannot run before it. Were it to, it
//! would see nothing.

use sqlx::{Postgres, QueryBuilder};

/// Begins a statement that reads `columns` with these ids in scope, one row each as `wanted.id`; a lateral subquery that
/// refers to it follows.
pub fn begin<'a>(columns: &str, ids: &[impl AsRef<str>]) -> QueryBuilder<'a, Postgres> {
    let ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
    let mut query = QueryBuilder::new(format!("SELECT {columns} FROM set_config('tenancy.scope', "));
    query.push_bind(ids.join(","));
    query.push(", true) AS scope(ids) CROSS JOIN LATERAL unnest(string_to_array(scope.ids, ',')) AS wanted(id)");
    query
}
