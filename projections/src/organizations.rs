//! Organizations and their settings.

use std::collections::{BTreeMap, HashMap};

use aggregates::organization::OrganizationEvent;
use aggregates::personal::readable;
use aggregates::status::{Lifecycle, Verification};
use aggregates::{Event, Recorded};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::{column, name};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Row {
    id: String,
    slug: String,
    name: String,
    contact_email: Option<String>,
    external_id: Option<String>,
    verification: Verification,
    verification_reason: Option<String>,
    before_block: Verification,
    once_verified: bool,
    lifecycle: Lifecycle,
    before_deletion: Lifecycle,
    deleted_by_operator: bool,
    purge_at: Option<DateTime<Utc>>,
    plan: String,
    version: i64,
    created_at: DateTime<Utc>,
    partition: i16,
    offset: i64,
    /// Purged: its row goes.
    #[serde(skip)]
    purged: bool,
}

pub async fn apply(connection: &mut PgConnection, events: &[&Recorded]) -> Result<(), sqlx::Error> {
    let own: Vec<&Recorded> = events.iter().copied().filter(|e| matches!(e.event, Event::Organization(_))).collect();
    let mut rows = load(connection, &own).await?;
    for recorded in &own {
        if let Event::Organization(event) = &recorded.event {
            let row = rows.entry(recorded.stream.id().to_owned()).or_default();
            if row.offset < recorded.offset {
                row.apply(recorded, event);
            }
        }
    }
    let (gone, kept): (Vec<Row>, Vec<Row>) =
        rows.into_values().filter(|row| !row.id.is_empty()).partition(|row| row.purged);
    save(connection, &kept).await?;
    save_settings(connection, &own).await?;
    // One whose trail is half pruned has no row, and may have settings.
    let gone: Vec<&str> = gone.iter().map(|row| row.id.as_str()).chain(crate::purged(&own)).collect();
    forget(connection, &gone).await
}

async fn load(connection: &mut PgConnection, events: &[&Recorded]) -> Result<HashMap<String, Row>, sqlx::Error> {
    let ids = crate::begun_before(events.iter().copied());
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query_scalar!(
        r#"SELECT to_json(o) AS "row!: Json<Row>" FROM unnest($1::text[]) AS w(id)
           CROSS JOIN LATERAL (SELECT * FROM organizations WHERE id = w.id) o"#,
        &ids as &[&str]
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|Json(row)| (row.id.clone(), row)).collect())
}

async fn save(connection: &mut PgConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r#"INSERT INTO organizations
           SELECT id, slug, name, contact_email, external_id, verification, verification_reason, before_block, once_verified,
                  lifecycle, before_deletion, deleted_by_operator, purge_at, plan, version, created_at,
                  partition, at
           FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::boolean[],
                       $10::text[], $11::text[], $12::boolean[], $13::timestamptz[], $14::text[], $15::bigint[],
                       $16::timestamptz[], $17::smallint[], $18::bigint[])
                AS r(id, slug, name, contact_email, external_id, verification, verification_reason, before_block,
                     once_verified, lifecycle, before_deletion, deleted_by_operator, purge_at, plan, version,
                     created_at, partition, at)
           ON CONFLICT (id) DO UPDATE SET
               slug = EXCLUDED.slug, name = EXCLUDED.name, contact_email = EXCLUDED.contact_email,
               external_id = EXCLUDED.external_id, verification = EXCLUDED.verification,
               verification_reason = EXCLUDED.verification_reason, before_block = EXCLUDED.before_block,
               once_verified = EXCLUDED.once_verified, lifecycle = EXCLUDED.lifecycle,
               before_deletion = EXCLUDED.before_deletion, deleted_by_operator = EXCLUDED.deleted_by_operator,
               purge_at = EXCLUDED.purge_at, plan = EXCLUDED.plan,
               version = EXCLUDED.version, "offset" = EXCLUDED."offset"
           WHERE organizations."offset" < EXCLUDED."offset""#,
        column!(rows, |row| row.id.as_str()) as &[&str],
        column!(rows, |row| row.slug.as_str()) as &[&str],
        column!(rows, |row| row.name.as_str()) as &[&str],
        column!(rows, |row| row.contact_email.as_deref()) as &[Option<&str>],
        column!(rows, |row| row.external_id.as_deref()) as &[Option<&str>],
        column!(rows, |row| name(row.verification)),
        column!(rows, |row| row.verification_reason.as_deref()) as &[Option<&str>],
        column!(rows, |row| name(row.before_block)),
        column!(rows, |row| row.once_verified),
        column!(rows, |row| name(row.lifecycle)),
        column!(rows, |row| name(row.before_deletion)),
        column!(rows, |row| row.deleted_by_operator),
        column!(rows, |row| row.purge_at) as &[Option<DateTime<Utc>>],
        column!(rows, |row| row.plan.as_str()) as &[&str],
        column!(rows, |row| row.version),
        column!(rows, |row| row.created_at),
        column!(rows, |row| row.partition),
        column!(rows, |row| row.offset)
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes these organizations and their settings.
pub async fn forget(connection: &mut PgConnection, ids: &[&str]) -> Result<(), sqlx::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!("DELETE FROM organizations WHERE id = ANY($1)", ids as &[&str]).execute(&mut *connection).await?;
    sqlx::query!("DELETE FROM settings WHERE organization_id = ANY($1)", ids as &[&str]).execute(connection).await?;
    Ok(())
}

/// Writes the last document of each namespace that the events name.
async fn save_settings(connection: &mut PgConnection, events: &[&Recorded]) -> Result<(), sqlx::Error> {
    let mut last: BTreeMap<(&str, &str), (&Recorded, Option<&Value>)> = BTreeMap::new();
    for recorded in events {
        if let Event::Organization(OrganizationEvent::OrgSettingsUpdated { namespace, value, .. }) = &recorded.event {
            last.insert((recorded.stream.id(), namespace), (recorded, value.as_ref()));
        }
    }
    let written: Vec<(&str, &str, &Recorded, &Value)> = last
        .iter()
        .filter_map(|((organization, namespace), (recorded, value))| {
            Some((*organization, *namespace, *recorded, (*value)?))
        })
        .collect();
    let cleared: (Vec<&str>, Vec<&str>) =
        last.iter().filter(|(_, (_, value))| value.is_none()).map(|(key, _)| *key).unzip();
    if !written.is_empty() {
        sqlx::query!(
            r#"INSERT INTO settings
               SELECT organization_id, namespace, value::json, partition, at
               FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::bigint[])
                    AS r(organization_id, namespace, value, partition, at)
               ON CONFLICT (organization_id, namespace) DO UPDATE SET value = EXCLUDED.value, "offset" = EXCLUDED."offset"
               WHERE settings."offset" < EXCLUDED."offset""#,
            column!(written, |(organization, ..)| *organization) as &[&str],
            column!(written, |(_, namespace, ..)| *namespace) as &[&str],
            column!(written, |(.., value)| value.to_string()),
            column!(written, |(_, _, recorded, _)| recorded.partition),
            column!(written, |(_, _, recorded, _)| recorded.offset)
        )
        .execute(&mut *connection)
        .await?;
    }
    if !cleared.0.is_empty() {
        sqlx::query!(
            "DELETE FROM settings USING unnest($1::text[], $2::text[]) AS c(organization_id, namespace)
             WHERE settings.organization_id = c.organization_id AND settings.namespace = c.namespace",
            &cleared.0 as &[&str],
            &cleared.1 as &[&str]
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

impl Row {
    fn apply(&mut self, recorded: &Recorded, event: &OrganizationEvent) {
        use OrganizationEvent as E;
        self.offset = recorded.offset;
        self.version = recorded.sequence.cast_signed();
        match event {
            E::OrgCreated { name, slug, contact_email, external_id, plan, created_at, limits: _, reason: _ } => {
                self.id = recorded.stream.id().to_owned();
                self.partition = recorded.partition;
                self.name = name.clone();
                self.slug = slug.clone();
                self.contact_email = readable(contact_email).map(str::to_owned);
                self.external_id = external_id.clone();
                self.plan = plan.clone();
                self.created_at = *created_at;
            }
            E::OrgRenamed { name, .. } => self.name = name.clone(),
            E::OrgSlugChanged { slug, .. } => self.slug = slug.clone(),
            E::OrgContactChanged { contact_email, .. } => {
                self.contact_email = readable(contact_email).map(str::to_owned);
            }
            E::OrgExternalIdChanged { external_id, .. } => self.external_id = external_id.clone(),
            E::OrgBlocked { verification, previous_verification, reason } => {
                self.before_block = *previous_verification;
                self.verified_as(*verification, reason);
            }
            E::OrgSubmitted { verification, reason, .. }
            | E::OrgVerified { verification, reason, .. }
            | E::OrgRejected { verification, reason, .. }
            | E::OrgWaitlisted { verification, reason, .. }
            | E::OrgReopened { verification, reason, .. }
            | E::OrgReviewRestarted { verification, reason, .. }
            | E::OrgUnblocked { verification, reason, .. } => self.verified_as(*verification, reason),
            E::OrgDeactivated { .. } => self.lifecycle = Lifecycle::Inactive,
            E::OrgActivated { .. } => self.lifecycle = Lifecycle::Active,
            E::OrgDeleted { previous_lifecycle, purge_at, by_operator, .. } => {
                self.before_deletion = *previous_lifecycle;
                self.lifecycle = Lifecycle::Deleted;
                self.deleted_by_operator = *by_operator;
                self.purge_at = Some(*purge_at);
            }
            E::OrgRestored { lifecycle, .. } => {
                self.lifecycle = *lifecycle;
                self.deleted_by_operator = false;
                self.purge_at = None;
            }
            E::OrgPurged { .. } => self.purged = true,
            E::OrgPlanChanged { plan, .. } => self.plan = plan.clone(),
            // It has no row any more.
            E::OrgPruned { .. } => {}
            // Settings have a table of their own; limits are read where commands are held against them.
            E::OrgSettingsUpdated { .. }
            | E::OrgLimitSet { .. }
            | E::RoleDefined { .. }
            | E::RoleChanged { .. }
            | E::RoleRemoved { .. }
            | E::OwnershipOffered { .. }
            | E::OwnershipAccepted { .. }
            | E::OwnershipOfferWithdrawn { .. }
            // Who looks at a hold asks the log.
            | E::OrgLegalHoldSet { .. }
            | E::OrgLegalHoldReleased { .. }
            | E::LimitReached { .. } => {}
        }
    }

    fn verified_as(&mut self, verification: Verification, reason: &Option<String>) {
        self.verification = verification;
        self.once_verified |= verification == Verification::Verified;
        self.verification_reason = reason.clone();
    }
}
