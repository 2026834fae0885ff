//! Asks a provider for its keys. An answer is bounded in time, size and place.

use std::time::Duration;

use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Url};
use serde::Deserialize;

use super::Pace;
use super::keys::Keys;
use crate::config::{self, is_loopback_url, web_address};

/// The largest answer. Sets of keys have some thousand bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
const REDIRECTS_MAX: usize = 3;

/// Where the keys of one provider are.
#[derive(Debug)]
pub(super) struct Source {
    client: Client,
    issuer: String,
    jwks_url: Option<Url>,
    time_max: Duration,
}

/// An answer with the keys.
pub(super) struct Fetched {
    pub keys: Keys,
    /// For how long the provider lets them be kept, if it says so.
    pub max_age: Option<Duration>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Source {
    pub fn new(provider: &config::Provider, pace: &Pace) -> reqwest::Result<Self> {
        let mut client = Client::builder()
            .connect_timeout(pace.connect_max)
            .timeout(pace.fetch_max)
            .redirect(Policy::custom(stay))
            .user_agent(concat!("tenancy/", env!("CARGO_PKG_VERSION")));
        let issuer = Url::parse(&provider.issuer).ok();
        if issuer.as_ref().is_some_and(is_loopback_url) {
            client = client.no_proxy();
        }
        // A provider elsewhere does not send this service to one on this machine.
        let addresses = [issuer.as_ref(), provider.jwks_url.as_ref()];
        client = client.https_only(addresses.into_iter().flatten().all(|url| url.scheme() == "https"));
        Ok(Self {
            client: client.build()?,
            issuer: provider.issuer.clone(),
            jwks_url: provider.jwks_url.clone(),
            time_max: pace.fetch_max,
        })
    }

    /// The keys as they are now, or why there are none.
    pub async fn fetch(&self) -> Result<Fetched, String> {
        let fetch = async {
            let url = match &self.jwks_url {
                Some(url) => url.clone(),
                None => self.discover().await?,
            };
            let (json, headers) = self.get(&url).await?;
            let keys = Keys::read(&json).map_err(|error| format!("{url} holds no JWKS: {error}"))?;
            Ok(Fetched { keys, max_age: max_age(&headers) })
        };
        let late = |_| Err(format!("it took longer than {:?}", self.time_max));
        tokio::time::timeout(self.time_max, fetch).await.unwrap_or_else(late)
    }

    /// OpenID Connect Discovery 1.0, section 4: the answer has to be of the issuer that was asked.
    async fn discover(&self) -> Result<Url, String> {
        let address = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let url = Url::parse(&address).map_err(|error| format!("{address}: {error}"))?;
        let (json, _) = self.get(&url).await?;
        let found: Discovery = serde_json::from_slice(&json).map_err(|error| format!("{url}: {error}"))?;
        if found.issuer != self.issuer {
            return Err(format!("{url} is of the issuer {:?}, and {:?} is configured", found.issuer, self.issuer));
        }
        let no_address = || format!("{url}: jwks_uri cannot be {:?}", found.jwks_uri);
        web_address(&found.jwks_uri).ok_or_else(no_address)
    }

    async fn get(&self, url: &Url) -> Result<(Vec<u8>, HeaderMap), String> {
        let failed = |error: reqwest::Error| format!("{url}: {}", cause(&error));
        let mut response = self.client.get(url.clone()).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("{url}: the answer is {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(format!("{url}: the answer has more than {ANSWER_BYTES_MAX} bytes"));
            }
        }
        Ok((body, response.headers().clone()))
    }
}

/// Follows a redirect within the place that was asked, and stops at any other.
fn stay(attempt: Attempt) -> reqwest::redirect::Action {
    let asked = attempt.previous().first().map(Url::origin);
    if attempt.previous().len() <= REDIRECTS_MAX && asked == Some(attempt.url().origin()) {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

/// RFC 9111: `max-age` counts from when the answer was made, which may have lain in a cache since.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    let directives: Vec<String> =
        directives.flat_map(|value| value.split(',')).map(|text| text.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|directive| directive == "no-store" || directive == "no-cache") {
        return Some(Duration::ZERO);
    }
    let seconds = directives.iter().find_map(|text| text.strip_prefix("max-age=")?.trim_matches('"').parse().ok())?;
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok()).unwrap_or_default();
    Some(Duration::from_secs(seconds).saturating_sub(Duration::from_secs(age)))
}

/// The innermost cause says what is wrong; what is around it says again which address it was.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_old_as_its_way_through_caches() {
        let headers = |entries: &[(reqwest::header::HeaderName, &str)]| {
            entries.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        let seconds = |entries: &[_]| max_age(&headers(entries)).map(|age| age.as_secs());
        assert_eq!(seconds(&[]), None);
        assert_eq!(seconds(&[(CACHE_CONTROL, "public, Max-Age=600, must-revalidate")]), Some(600));
        assert_eq!(seconds(&[(CACHE_CONTROL, "max-age=600"), (AGE, "200")]), Some(400));
        assert_eq!(seconds(&[(CACHE_CONTROL, "max-age=600"), (AGE, "900")]), Some(0));
        assert_eq!(seconds(&[(CACHE_CONTROL, "no-store")]), Some(0));
        assert_eq!(seconds(&[(CACHE_CONTROL, "max-age=-1")]), None);
    }
}
