//! OpenID providers: the one value that has parts, each with a message of its own.
//!
//! In the file they are tables, `[[access.providers]]`. In the environment the whole list is one value, written as
//! TOML (`[{issuer = "…", audience = "…"}]`) or as JSON.

use std::net::IpAddr;

use jsonwebtoken::Algorithm;
use reqwest::Url;
use toml::{Table, Value};

use super::parts::{self, Part, WrongPart};
use super::settings::Shown;
use super::values::{Range, Setting};

/// What can be set of a provider.
const KEYS: [&str; 12] = [
    "issuer",
    "audience",
    "jwks_url",
    "algorithms",
    "clock_leeway_seconds",
    "subject_claim",
    "email_claim",
    "email_verified_claim",
    "name_claim",
    "organization_claim",
    "organization_role",
    "console_client",
];
/// Signatures that need no secret of ours: whoever can check an HS256 can also make one.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
const PROVIDERS_MAX: usize = 20;
const AUDIENCES_MAX: usize = 20;
const ADDRESS_BYTES_MAX: usize = 255;
const CLAIM_BYTES_MAX: usize = 200;
const CLAIM_LEVELS_MAX: usize = 8;
const LEEWAY_SECONDS_MAX: i64 = 300;

/// An OpenID provider whose tokens count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name, exactly as it stands in its tokens ("iss").
    pub issuer: String,
    /// Whom its tokens have to be made for ("aud"); one of these is enough.
    pub audience: Vec<String>,
    /// Where its keys are; `None`: where `<issuer>/.well-known/openid-configuration` says.
    pub jwks_url: Option<Url>,
    /// How its tokens may be signed.
    pub algorithms: Vec<Algorithm>,
    /// How far its clock may be off; `None`: as far as `access.clock_leeway_seconds` says.
    pub clock_leeway_seconds: Option<u32>,
    /// The claim that is the user's id.
    pub subject_claim: String,
    /// The claim with the address.
    pub email_claim: String,
    /// The claim that says whether the address was verified.
    pub email_verified_claim: String,
    /// The claim with the name.
    pub name_claim: String,
    /// What says which organization a user belongs to.
    pub organization: Option<OrganizationClaim>,
    /// The console's name there, if people sign in to it by this provider.
    pub console_client: Option<String>,
}

/// The claim that names an organization, and what its users are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganizationClaim {
    /// The keys on the way to the claim. A name with dots, colons or slashes in it is one key.
    pub path: Vec<String>,
    /// The role.
    pub role: String,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Providers(pub Vec<Provider>);

impl Setting for Providers {
    fn of_text(text: &str) -> Value {
        parts::of_text(text)
    }

    fn of_toml(value: &Value, _: Range) -> Result<Self, String> {
        let tables = parts::tables(value, PROVIDERS_MAX).ok_or_else(|| {
            format!("at most {PROVIDERS_MAX} tables, such as [{{ issuer = \"https://…\", audience = \"…\" }}]")
        })?;
        read_all(&tables).map(Self).map_err(|wrong| wrong.right())
    }

    fn wrong_part(value: &Value) -> Option<WrongPart> {
        read_all(&parts::tables(value, PROVIDERS_MAX)?).err()
    }

    fn shown(&self) -> Shown {
        let shown = |provider: &Provider| Value::Table(provider.shown());
        (!self.0.is_empty()).then(|| Value::Array(self.0.iter().map(shown).collect()))
    }
}

fn read_all(tables: &[&Table]) -> Result<Vec<Provider>, WrongPart> {
    let mut providers: Vec<Provider> = Vec::new();
    for (number, table) in tables.iter().enumerate() {
        let part = Part::new(number, table, &KEYS)?;
        let provider = part.provider()?;
        if providers.iter().any(|other| other.issuer == provider.issuer) {
            return Err(part.wrong("issuer", "an issuer that stands in the list once"));
        }
        providers.push(provider);
    }
    Ok(providers)
}

impl Part<'_> {
    fn provider(&self) -> Result<Provider, WrongPart> {
        let claim = |key, usual: &str| match self.table.get(key) {
            None => Ok(usual.to_owned()),
            Some(value) => claim(value).ok_or_else(|| self.wrong(key, &claim_right())),
        };
        Ok(Provider {
            issuer: self.issuer()?,
            audience: self.audience()?,
            jwks_url: self.jwks_url()?,
            algorithms: self.algorithms()?,
            clock_leeway_seconds: self.clock_leeway()?,
            subject_claim: claim("subject_claim", "sub")?,
            email_claim: claim("email_claim", "email")?,
            email_verified_claim: claim("email_verified_claim", "email_verified")?,
            name_claim: claim("name_claim", "name")?,
            organization: self.organization()?,
            console_client: self.console_client()?,
        })
    }

    fn issuer(&self) -> Result<String, WrongPart> {
        let fits = |text: &&str| web_address(text).is_some_and(|url| url.query().is_none());
        let issuer = self.table.get("issuer").and_then(Value::as_str).filter(fits);
        issuer.map(str::to_owned).ok_or_else(|| {
            let right = "an address such as \"https://login.example.com\", exactly as it stands in the tokens (http:// \
                only on this machine), without user, \"?\" or \"#\"";
            self.wrong("issuer", right)
        })
    }

    fn console_client(&self) -> Result<Option<String>, WrongPart> {
        let Some(value) = self.table.get("console_client") else { return Ok(None) };
        let client = value.as_str().filter(|text| self.audience().is_ok_and(|all| all.iter().any(|one| one == text)));
        let right = "one of the provider's audience: its tokens for the console name it there";
        client.map(|text| Some(text.to_owned())).ok_or_else(|| self.wrong("console_client", right))
    }

    fn audience(&self) -> Result<Vec<String>, WrongPart> {
        let read = |value: &Value| text(value, ADDRESS_BYTES_MAX);
        let audience = self.table.get("audience").and_then(|value| one_or_several(value, AUDIENCES_MAX, read));
        let right = || format!("whom its tokens are made for (\"aud\"): one text or up to {AUDIENCES_MAX}");
        audience.ok_or_else(|| self.wrong("audience", &right()))
    }

    fn jwks_url(&self) -> Result<Option<Url>, WrongPart> {
        let Some(value) = self.table.get("jwks_url") else { return Ok(None) };
        let url = value.as_str().and_then(web_address);
        let right = "an address such as \"https://login.example.com/keys\" (http:// only on this machine)";
        url.map(Some).ok_or_else(|| self.wrong("jwks_url", right))
    }

    fn algorithms(&self) -> Result<Vec<Algorithm>, WrongPart> {
        let Some(value) = self.table.get("algorithms") else {
            return Ok(vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]);
        };
        let read = |value: &Value| {
            let name = value.as_str()?;
            ALGORITHMS.into_iter().find(|algorithm| format!("{algorithm:?}") == name)
        };
        let algorithms = value.as_array().filter(|list| !list.is_empty());
        let algorithms = algorithms.and_then(|list| list.iter().map(read).collect());
        algorithms.ok_or_else(|| self.wrong("algorithms", &format!("a list of some of {ALGORITHMS:?}")))
    }

    fn clock_leeway(&self) -> Result<Option<u32>, WrongPart> {
        let Some(value) = self.table.get("clock_leeway_seconds") else { return Ok(None) };
        let fits = |number: &i64| (0..=LEEWAY_SECONDS_MAX).contains(number);
        let seconds = value.as_integer().filter(fits).and_then(|number| u32::try_from(number).ok());
        let right = || format!("a whole number from 0 to {LEEWAY_SECONDS_MAX}");
        seconds.map(Some).ok_or_else(|| self.wrong("clock_leeway_seconds", &right()))
    }

    fn organization(&self) -> Result<Option<OrganizationClaim>, WrongPart> {
        let role = self.table.get("organization_role");
        let Some(value) = self.table.get("organization_claim") else {
            let right = "nothing: it counts only where there is an organization_claim";
            return role.map_or(Ok(None), |_| Err(self.wrong("organization_role", right)));
        };
        let path = one_or_several(value, CLAIM_LEVELS_MAX, claim);
        let path = path.ok_or_else(|| {
            let right =
                format!("{}, or a list of up to {CLAIM_LEVELS_MAX} of them, from outside to inside", claim_right());
            self.wrong("organization_claim", &right)
        })?;
        // Every member of an organization there would own it here.
        let role = role.and_then(Value::as_str).filter(|name| !aggregates::roles::is_owner(&[name]));
        let role = role.filter(|name| aggregates::text::role_name("organization_role", name).is_ok());
        let right =
            "the role of those whom organization_claim names: any, also one of the organization's own, but owner";
        let role = role.ok_or_else(|| self.wrong("organization_role", right))?;
        Ok(Some(OrganizationClaim { path, role: role.to_owned() }))
    }
}

impl Provider {
    fn shown(&self) -> Table {
        let text = |text: &str| Value::String(text.to_owned());
        let list = |texts: &[String]| Value::Array(texts.iter().cloned().map(Value::String).collect());
        let algorithms = self.algorithms.iter().map(|algorithm| text(&format!("{algorithm:?}")));
        let organization = self.organization.as_ref();
        let entries = [
            ("issuer", Some(text(&self.issuer))),
            ("audience", Some(list(&self.audience))),
            ("jwks_url", self.jwks_url.as_ref().map(|url| text(url.as_str()))),
            ("algorithms", Some(Value::Array(algorithms.collect()))),
            ("clock_leeway_seconds", self.clock_leeway_seconds.map(|seconds| Value::Integer(seconds.into()))),
            ("subject_claim", Some(text(&self.subject_claim))),
            ("email_claim", Some(text(&self.email_claim))),
            ("email_verified_claim", Some(text(&self.email_verified_claim))),
            ("name_claim", Some(text(&self.name_claim))),
            ("organization_claim", organization.map(|organization| list(&organization.path))),
            ("organization_role", organization.map(|organization| text(&organization.role))),
            ("console_client", self.console_client.as_deref().map(text)),
        ];
        entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

/// An address that can be asked without being heard by others: secured, or on this machine.
pub(crate) fn web_address(text: &str) -> Option<Url> {
    // The parser would silently leave these out.
    if text.len() > ADDRESS_BYTES_MAX || text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let secured = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
    let anonymous = url.username().is_empty() && url.password().is_none();
    (secured && anonymous && url.fragment().is_none()).then_some(url)
}

/// Whether the address is on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

fn claim(value: &Value) -> Option<String> {
    text(value, CLAIM_BYTES_MAX)
}

fn claim_right() -> String {
    format!("the name of a claim, of at most {CLAIM_BYTES_MAX} bytes")
}

pub(super) fn text(value: &Value, bytes_max: usize) -> Option<String> {
    let fits = |text: &&str| (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control);
    value.as_str().filter(fits).map(str::to_owned)
}

/// One text, or a list that is not empty.
fn one_or_several(value: &Value, most: usize, read: impl Fn(&Value) -> Option<String>) -> Option<Vec<String>> {
    match value {
        Value::Array(entries) if (1..=most).contains(&entries.len()) => entries.iter().map(read).collect(),
        Value::Array(_) => None,
        one => read(one).map(|one| vec![one]),
    }
}
