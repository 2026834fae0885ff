//! What every token has to be and to say, whoever signed it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Refused;

/// The longest subject, in bytes (OpenID Connect Core 1.0, section 2).
const SUBJECT_BYTES_MAX: usize = 255;
/// How much of what a token says is repeated in a message, in characters.
const SHOWN_CHARS_MAX: usize = 120;

/// What a token has to say.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    /// The issuer.
    pub issuer: String,
    /// Whom it is made for: one of these.
    pub audiences: Vec<String>,
    /// How far the issuer's clock may be off.
    pub leeway_seconds: u64,
    /// The claim with the user's id.
    pub subject_claim: String,
}

/// The head of a token that may be looked at further. Nothing of it is proven yet.
#[derive(Debug)]
pub(super) struct Head {
    /// How it is signed.
    pub algorithm: Algorithm,
    /// By which key.
    pub kid: Option<String>,
}

/// What a token says whose signature, issuer, audience and times are right.
#[derive(Debug)]
pub(super) struct Claims {
    /// The user's id.
    pub subject: String,
    /// Until when it says so.
    pub expires_at: DateTime<Utc>,
    /// Everything.
    pub all: Map<String, Value>,
}

/// A verified address that can be one; what cannot (spaces around it, control characters) counts as none. It is never
/// mended: the mended text is not what was verified.
pub(super) fn usable_address(address: Option<String>) -> Option<String> {
    address.filter(|address| aggregates::text::email("email", address).is_ok())
}

/// Why a token says nothing.
#[derive(Debug)]
pub(super) enum Unread {
    /// The key did not sign it.
    Signature,
    /// Something else.
    Refused(Refused),
}

/// The issuer that a token names by its own word, which only says whose keys to try.
pub(super) fn unproven_issuer(token: &str) -> Result<String, Refused> {
    #[derive(Deserialize)]
    struct Issued {
        iss: String,
    }
    let issued: Issued = part(token, 1)?;
    Ok(issued.iss)
}

impl Head {
    /// The head of `token`, refused unless it is signed in one of these ways and asks for nothing unknown.
    pub fn read(token: &str, accepted: &[Algorithm]) -> Result<Self, Refused> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            kid: Option<String>,
            typ: Option<String>,
            crit: Option<Value>,
        }
        let header: Header = part(token, 0)?;
        if header.crit.is_some() {
            return Err(Refused("the token has a critical header (crit), and none is understood here".to_owned()));
        }
        // RFC 9068 for access tokens, with or without "application/" before; anything else is a token for another use.
        let kind = header.typ.unwrap_or_else(|| "JWT".to_owned()).to_ascii_lowercase();
        if !matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt") {
            return Err(Refused(format!("the token is a {}; a JWT or at+jwt is accepted", shown(&kind))));
        }
        let algorithm = accepted.iter().find(|algorithm| format!("{algorithm:?}") == header.alg);
        let algorithm = algorithm.ok_or_else(|| {
            let names: Vec<String> = accepted.iter().map(|algorithm| format!("{algorithm:?}")).collect();
            Refused(format!("the token is signed by {}; accepted is {}", shown(&header.alg), names.join(", ")))
        })?;
        Ok(Self { algorithm: *algorithm, kid: header.kid })
    }
}

impl Expected {
    /// What the token says, if this key signed it.
    pub fn read(&self, token: &str, algorithm: Algorithm, key: &DecodingKey) -> Result<Claims, Unread> {
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, key, &self.validation(algorithm));
        let all = decoded.map_err(|error| self.unread(error.kind()))?.claims;
        self.claims(all).map_err(Unread::Refused)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.leeway_seconds;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&self.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation
    }

    /// What the library does not look at: the subject, and the time of issue.
    fn claims(&self, all: Map<String, Value>) -> Result<Claims, Refused> {
        let subject = all.get(&self.subject_claim).and_then(Value::as_str);
        let subject = subject.ok_or_else(|| Refused(format!("the token says nothing of {}", self.subject_claim)))?;
        if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX || subject.chars().any(char::is_control) {
            let why = format!("the token's subject is empty, has more than {SUBJECT_BYTES_MAX} bytes");
            return Err(Refused(format!("{why} or holds control characters")));
        }
        // A token from the future is a sign of a wrong clock or a wrong hand; the leeway is for the former.
        let latest = Utc::now().timestamp().saturating_add_unsigned(self.leeway_seconds);
        if let Some(issued) = all.get("iat").filter(|issued| !issued.is_null()) {
            let issued = seconds(issued).ok_or_else(|| Refused("the token's iat cannot be read".to_owned()))?;
            if issued > latest {
                return Err(Refused("the token was issued in the future: look at the clocks".to_owned()));
            }
        }
        let expires_at = all.get("exp").and_then(seconds).and_then(|exp| DateTime::from_timestamp(exp, 0));
        let expires_at = expires_at.ok_or_else(|| Refused("the token has no time".to_owned()))?;
        Ok(Claims { subject: subject.to_owned(), expires_at, all })
    }

    fn unread(&self, error: &ErrorKind) -> Unread {
        Unread::Refused(Refused(match error {
            ErrorKind::InvalidSignature => return Unread::Signature,
            ErrorKind::ExpiredSignature => "the token has expired: get a new one".to_owned(),
            ErrorKind::ImmatureSignature => "the token is not valid yet: look at the clocks".to_owned(),
            ErrorKind::InvalidIssuer => format!("the token is not of the issuer {}", self.issuer),
            ErrorKind::InvalidAudience => format!("the token is not made for {}", self.audiences.join(" or ")),
            ErrorKind::MissingRequiredClaim(claim) => format!("the token says nothing of {claim}"),
            ErrorKind::InvalidClaimFormat(claim) => format!("the token's {claim} cannot be read"),
            _ => return Unread::Refused(no_token()),
        }))
    }
}

/// A name out of a token, made fit for a message.
pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{more}")
}

fn no_token() -> Refused {
    Refused("this is no token: give one as `Authorization: Bearer <token>`".to_owned())
}

fn part<T: DeserializeOwned>(token: &str, number: usize) -> Result<T, Refused> {
    let part = token.split('.').nth(number).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    part.and_then(|part| serde_json::from_slice(&part).ok()).ok_or_else(no_token)
}

/// A time of a token: a number of seconds, with or without a fraction.
fn seconds(value: &Value) -> Option<i64> {
    // A cast beyond the ends of i64 gives its ends.
    value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
}
