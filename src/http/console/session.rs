//! Signing in by a one-time code: the code becomes a session, the session gives tokens.
//!
//! The session is a cookie that no script can read and no other site sends; a page keeps the short-lived token in its memory
//! alone. Another site's page cannot call this by accident: it would have to set a header, and is answered no preflight.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::access::codes::{Codes, Person};
use crate::access::issuer::{BuiltinIssuer, Grant};

/// The header that pages of the console send, and those of other sites cannot.
const CONSOLE: HeaderName = HeaderName::from_static("tenancy-console");
const COOKIE: &str = "tenancy-console";
const PATH: &str = "/console/session";
/// For how long a session gives tokens.
const SESSION_TTL: TimeDelta = TimeDelta::hours(12);
/// For how long a token is good.
const TOKEN_TTL: TimeDelta = TimeDelta::minutes(10);
/// The largest body, in bytes.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// What signing in by a code needs.
pub struct Local {
    /// The codes.
    pub codes: Codes,
    /// Signs sessions and tokens.
    pub issuer: Arc<BuiltinIssuer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    code: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    token: String,
    expires_at: DateTime<Utc>,
}

pub(super) fn routes<S: Clone + Send + Sync + 'static>(local: Local) -> Router<S> {
    Router::new()
        .route(PATH, post(sign_in).delete(sign_out))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(local))
}

/// A token for a person with a code or a session. A code begins a new session.
async fn sign_in(State(local): State<Arc<Local>>, headers: HeaderMap, body: Bytes) -> Response {
    let is_json =
        headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if !headers.contains_key(&CONSOLE) || !is_json {
        return refused(
            StatusCode::FORBIDDEN,
            "this is for pages of the console: send JSON and the header tenancy-console",
        );
    }
    let Ok(Ask { code }) = serde_json::from_slice(&body) else {
        return refused(StatusCode::BAD_REQUEST, "the body has to be a JSON object, with a code or without");
    };
    let begins = code.is_some();
    let person = match code {
        Some(code) => {
            let codes = local.codes.clone();
            tokio::task::spawn_blocking(move || codes.take(&code)).await.ok().flatten()
        }
        None => session(&headers)
            .and_then(|session| local.issuer.session(session).ok())
            .map(|identity| Person { email: identity.email.unwrap_or(identity.subject), name: identity.name }),
    };
    let Some(Person { email, name }) = person else {
        let message =
            "the code is not one that waits to be used, or the session has ended: `tenancy console` prints a new link";
        return refused(StatusCode::UNAUTHORIZED, message);
    };
    let grant = |ttl| Grant { email: email.clone(), name: name.clone(), operator: true, ttl };
    let given = || {
        let token = local.issuer.mint(&grant(TOKEN_TTL))?;
        let cookie = if begins { Some(cookie(&local.issuer.mint_session(&grant(SESSION_TTL))?)) } else { None };
        Ok::<_, crate::access::issuer::IssuerError>((Given { token, expires_at: Utc::now() + TOKEN_TTL }, cookie))
    };
    match given() {
        Ok((given, cookie)) => with_cookie(axum::Json(given).into_response(), cookie.as_deref()),
        Err(error) => {
            tracing::error!(%error, "nobody can sign in to the console");
            refused(StatusCode::INTERNAL_SERVER_ERROR, "the service cannot sign tokens")
        }
    }
}

/// Ends the session in this browser.
async fn sign_out(headers: HeaderMap) -> Response {
    if !headers.contains_key(&CONSOLE) {
        return refused(StatusCode::FORBIDDEN, "this is for pages of the console: send the header tenancy-console");
    }
    let ended = format!("{COOKIE}=; Path={PATH}; Max-Age=0; HttpOnly; SameSite=Strict");
    with_cookie(StatusCode::NO_CONTENT.into_response(), Some(&ended))
}

fn cookie(session: &str) -> String {
    format!("{COOKIE}={session}; Path={PATH}; Max-Age={}; HttpOnly; SameSite=Strict", SESSION_TTL.num_seconds())
}

fn session(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn with_cookie(mut response: Response, cookie: Option<&str>) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let cookie = cookie.and_then(|cookie| HeaderValue::from_str(cookie).ok());
    headers.extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    response
}

fn refused(status: StatusCode, message: &str) -> Response {
    with_cookie((status, axum::Json(serde_json::json!({ "message": message }))).into_response(), None)
}
