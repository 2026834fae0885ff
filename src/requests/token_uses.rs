//! When API tokens were used last.
//!
//! Noting a use costs a look into a map; writing happens behind it, about once a minute and token, and nothing waits
//! for it. So what is shown may be a minute old, and a process that is killed loses what it had not written. What is
//! in memory is bounded; past that, uses are left out until there is room.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aggregates::ids::ApiTokenId;
use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use crate::database::Connections;

/// How many tokens are kept in memory.
const NOTED_MAX: usize = 10_000;
/// How often is written.
const EVERY: Duration = Duration::from_secs(1);
/// For how long further uses of a token change nothing.
const COALESCED: TimeDelta = TimeDelta::seconds(60);
/// How long a service that stops tries to write what is left.
const LAST_WRITE_MAX: Duration = Duration::from_secs(5);

/// The first use of a token within a minute.
struct Use {
    at: DateTime<Utc>,
    written: bool,
}

/// What was used within the last minute.
#[derive(Default)]
pub struct TokenUses {
    noted: Mutex<HashMap<ApiTokenId, Use>>,
}

impl TokenUses {
    /// Notes that a token is used. Never waits.
    pub fn note(&self, token: &ApiTokenId, at: DateTime<Utc>) {
        let mut noted = self.noted();
        if !noted.contains_key(token) && noted.len() < NOTED_MAX {
            noted.insert(token.clone(), Use { at, written: false });
        }
    }

    /// Writes until `stop` says so; what is left then is for [`Self::finish`].
    pub async fn run(&self, pool: &Connections, stop: CancellationToken) {
        while !stop.is_cancelled() {
            stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
            if let Err(error) = self.write(pool).await {
                tracing::debug!(%error, "the uses of API tokens could not be written; they wait");
            }
        }
    }

    /// Writes everything that is left, for as long as a service that stops has time.
    pub async fn finish(&self, pool: &Connections) {
        let _ = tokio::time::timeout(LAST_WRITE_MAX, self.write(pool)).await;
    }

    async fn write(&self, pool: &Connections) -> Result<(), sqlx::Error> {
        let due = self.due(Utc::now());
        if due.is_empty() {
            return Ok(());
        }
        let (ids, times): (Vec<String>, Vec<DateTime<Utc>>) = due.iter().map(|(id, at)| (id.to_string(), *at)).unzip();
        sqlx::query!(
            "INSERT INTO token_uses (token_id, last_used_at)
             SELECT * FROM unnest($1::text[], $2::timestamptz[]) AS used(id, at) ORDER BY used.id
             ON CONFLICT (token_id) DO UPDATE SET last_used_at = EXCLUDED.last_used_at
             WHERE token_uses.last_used_at < EXCLUDED.last_used_at",
            &ids,
            &times
        )
        .execute(pool)
        .await?;
        let mut noted = self.noted();
        for (id, at) in due {
            noted.entry(id).and_modify(|used| used.written |= used.at == at);
        }
        Ok(())
    }

    /// What is not written yet. Forgets what is, once its minute is over.
    fn due(&self, now: DateTime<Utc>) -> Vec<(ApiTokenId, DateTime<Utc>)> {
        let mut noted = self.noted();
        noted.retain(|_, used| !used.written || now.signed_duration_since(used.at) < COALESCED);
        noted.iter().filter(|(_, used)| !used.written).map(|(id, used)| (id.clone(), used.at)).collect()
    }

    fn noted(&self) -> MutexGuard<'_, HashMap<ApiTokenId, Use>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use aggregates::ids::Id;

    use super::*;

    #[test]
    fn a_token_is_written_once_a_minute_and_memory_is_bounded() {
        let (uses, token, at) = (TokenUses::default(), ApiTokenId::random(), Utc::now());
        (0..5).for_each(|second| uses.note(&token, at + TimeDelta::seconds(second)));
        assert_eq!(uses.due(at), [(token.clone(), at)]);
        // What could not be written stays, however long that lasts.
        assert_eq!(uses.due(at + COALESCED * 9), [(token.clone(), at)]);
        uses.noted().values_mut().for_each(|used| used.written = true);
        assert!(uses.due(at + TimeDelta::seconds(59)).is_empty() && uses.noted().len() == 1);
        assert!(uses.due(at + COALESCED).is_empty() && uses.noted().is_empty());
        uses.note(&token, at + COALESCED);
        assert_eq!(uses.due(at + COALESCED).len(), 1);
        (0..NOTED_MAX + 5).for_each(|_| uses.note(&ApiTokenId::random(), at));
        assert_eq!(uses.noted().len(), NOTED_MAX);
    }
}
