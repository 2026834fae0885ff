//! The list of all organizations.

use aggregates::ids::{Id, OrganizationId};
use async_graphql::connection::{Connection, EmptyFields};
use async_graphql::{Context, Error};
use sqlx::QueryBuilder;

use super::profile::{OrganizationRow, Profile};
use crate::graphql::Organization;
use crate::graphql::connection::{BY_CREATION, Created, Opaque, PageArguments, Slice, push_page};
use crate::graphql::errors::database_fault;
use crate::graphql::lists::connection_of;
use crate::graphql::scalars::{OrganizationLifecycle, OrganizationVerification, stored};
use crate::graphql::session::Session;

/// A page of all organizations, for operators.
pub async fn organizations(
    ctx: &Context<'_>,
    page: PageArguments,
    verification: Option<OrganizationVerification>,
    lifecycle: Option<OrganizationLifecycle>,
    search: Option<String>,
) -> Result<Connection<Opaque, Organization>, Error> {
    let page = page.page_of::<Created>(OrganizationId::PREFIX, Session::of(ctx).page_size_max())?;
    let mut query = QueryBuilder::new(
        "SELECT id, slug, name, contact_email, external_id, verification, verification_reason, once_verified, lifecycle,
                deleted_by_operator, purge_at, plan, version, created_at FROM organizations WHERE true",
    );
    if let Some(verification) = verification {
        query.push(" AND verification = ").push_bind(stored(verification));
    }
    if let Some(lifecycle) = lifecycle {
        query.push(" AND lifecycle = ").push_bind(stored(lifecycle));
    }
    if let Some(search) = search.map(|text| text.trim().to_lowercase()).filter(|text| !text.is_empty()) {
        let pattern = format!("%{}%", search.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_"));
        query
            .push(" AND (slug LIKE ")
            .push_bind(pattern.clone())
            .push(" OR lower(name) LIKE ")
            .push_bind(pattern)
            .push(")");
    }
    push_page(&mut query, BY_CREATION, &page);
    let rows: Vec<OrganizationRow> =
        query.build_query_as().fetch_all(Session::of(ctx).log().operators()).await.map_err(database_fault)?;
    let place = |row: &OrganizationRow| Created { at: row.created_at, id: row.id.clone() };
    Ok(connection_of(Slice::new(rows, &page), place, |row| Profile::from(row).into(), EmptyFields))
}
