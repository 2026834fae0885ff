//! API tokens.

use aggregates::Recorded;
use aggregates::api_token::{ApiTokenEvent, ApiTokenState};
use chrono::{DateTime, Utc};

use crate::read_model::{Named, projection_of_rows, read_model};

read_model! {
    api_tokens of ApiToken in organization_id {
        name: String,
        hint: String,
        permissions: Vec<String>,
        created_by: String,
        responsible: String,
        state: Named<ApiTokenState>,
        expires_at: Option<DateTime<Utc>>,
        revoked_at: Option<DateTime<Utc>>,
    }
    personal [name]
}

projection_of_rows!();

impl Row {
    fn apply(&mut self, recorded: &Recorded, event: &ApiTokenEvent) {
        use ApiTokenEvent as E;
        match event {
            E::TokenCreated {
                name,
                hint,
                permissions,
                created_by,
                responsible,
                token_expires_at,
                created_at,
                secret_digest: _,
                reason: _,
            } => {
                self.begin(recorded, *created_at);
                self.name = name.clone();
                self.hint = hint.clone();
                self.permissions = permissions.clone();
                self.created_by = created_by.to_string();
                self.responsible = responsible.to_string();
                self.expires_at = *token_expires_at;
                self.state = Named(ApiTokenState::Active);
            }
            E::TokenRevoked { revoked_at, .. } => {
                self.state = Named(ApiTokenState::Revoked);
                self.revoked_at = Some(*revoked_at);
            }
            E::TokenExpired { .. } => self.state = Named(ApiTokenState::Expired),
        }
    }
}
