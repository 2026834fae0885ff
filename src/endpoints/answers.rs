//! What receivers answered.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

/// How many answers are looked at by one statement.
const ANSWERS_MAX: i64 = 2_000;

/// Forgets what receivers of these organizations' webhooks answered: they may have repeated what they were sent. Of
/// what is under way the lease moves a little, so that its answer is not kept either. A page at a time, for there may
/// be very many.
pub async fn forget_answers(pool: impl PgExecutor<'_> + Copy, organizations: &[&str]) -> Result<(), sqlx::Error> {
    let endpoints = sqlx::query_scalar!(
        "SELECT id FROM webhook_endpoints WHERE organization_id = ANY($1)",
        organizations as &[&str]
    );
    for endpoint in endpoints.fetch_all(pool).await? {
        let mut after = (DateTime::<Utc>::UNIX_EPOCH, String::new());
        loop {
            let page = sqlx::query!(
                "SELECT id, created_at FROM webhook_deliveries WHERE endpoint_id = $1 AND (created_at, id) > ($2, $3)
                 ORDER BY created_at, id LIMIT $4",
                endpoint,
                after.0,
                after.1,
                ANSWERS_MAX
            );
            let page = page.fetch_all(pool).await?;
            let Some(last) = page.last() else { break };
            after = (last.created_at, last.id.clone());
            sqlx::query!(
                "UPDATE webhook_deliveries d SET attempts = COALESCE((
                     SELECT json_agg(a.value::jsonb - 'responseExcerpt') FROM json_array_elements(d.attempts) a
                 ), '[]'), leased_until = leased_until + interval '1 microsecond'
                 WHERE id = ANY($1)
                   AND (attempts::text LIKE '%\"responseExcerpt\":\"%' OR leased_until IS NOT NULL)",
                &page.iter().map(|row| row.id.clone()).collect::<Vec<_>>()
            )
            .execute(pool)
            .await?;
        }
    }
    Ok(())
}
