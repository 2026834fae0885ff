//! Media types: what the client takes, and what it sends.

use super::*;

/// The two media types of an answer. They differ in how much the status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// `application/json`: older clients take any other status than 200 as "no GraphQL behind this address".
    Json,
    /// `application/graphql-response+json`: nobody but a GraphQL service sends it, so the status can tell.
    GraphQL,
}

impl Media {
    const fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::GraphQL => "application/graphql-response+json",
        }
    }

    pub(super) const fn content_type(self) -> HeaderValue {
        match self {
            Self::Json => HeaderValue::from_static("application/json; charset=utf-8"),
            Self::GraphQL => HeaderValue::from_static("application/graphql-response+json; charset=utf-8"),
        }
    }

    /// The status for a document that cannot be executed.
    pub(super) const fn refusal(self) -> StatusCode {
        match self {
            Self::Json => StatusCode::OK,
            Self::GraphQL => StatusCode::BAD_REQUEST,
        }
    }

    /// The media type that `Accept` likes best; JSON where it says nothing or does not care.
    pub(super) fn negotiate(headers: &HeaderMap) -> Result<Self, Fault> {
        let values = || headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        if values().all(|value| value.trim().is_empty()) {
            return Ok(Self::Json);
        }
        let ranges: Vec<_> = values().flat_map(|value| value.split(',')).filter_map(Range::parse).collect();
        let json = Self::Json.wanted(&ranges);
        let graphql = Self::GraphQL.wanted(&ranges);
        match (json, graphql) {
            (None, None) => {
                let message = format!(
                    "Accept is {:?}, which this address cannot answer with. Accept {} or {}.",
                    values().collect::<Vec<_>>().join(", "),
                    Self::GraphQL.name(),
                    Self::Json.name()
                );
                Err(Fault::new(StatusCode::NOT_ACCEPTABLE, code::BAD_USER_INPUT, message))
            }
            // Both named alike: the newer one, which says more. Both meant by a wildcard: the one all can read.
            (json, graphql) if graphql > json || (graphql == json && graphql.is_some_and(|rank| rank.1 == 2)) => {
                Ok(Self::GraphQL)
            }
            _ => Ok(Self::Json),
        }
    }

    /// How much the ranges want this type: the quality and precision of the most precise one; `None` if not at all.
    fn wanted(self, ranges: &[Range]) -> Option<(u16, u8)> {
        let matching = ranges.iter().filter_map(|range| Some((range.precision(self)?, range.quality)));
        let (precision, quality) = matching.max()?;
        (quality > 0).then_some((quality, precision))
    }
}

/// Whether the client takes server-sent events, which answer a subscription.
pub(super) fn takes_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = values.flat_map(|value| value.split(',')).filter_map(Range::parse);
    ranges.any(|range| range.quality > 0 && range.essence.eq_ignore_ascii_case("text/event-stream"))
}

/// One media range of an `Accept` header.
pub(super) struct Range<'a> {
    essence: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    /// `None` for what is no range, or asks for another encoding than UTF-8.
    fn parse(text: &'a str) -> Option<Self> {
        let (essence, parameters) = split_media_type(text);
        let mut quality = 1000;
        for (name, value) in parameters {
            if name.eq_ignore_ascii_case("charset") && !is_utf8(value) {
                return None;
            }
            if name.eq_ignore_ascii_case("q") {
                let value: f32 = value.parse().ok().filter(|value| (0.0..=1.0).contains(value))?;
                // In range by the filter; a float's cast saturates in any case.
                quality = (value * 1000.0).round() as u16;
            }
        }
        (!essence.is_empty()).then_some(Self { essence, quality })
    }

    fn precision(&self, media: Media) -> Option<u8> {
        match self.essence {
            "*/*" => Some(0),
            essence if essence.eq_ignore_ascii_case("application/*") => Some(1),
            essence if essence.eq_ignore_ascii_case(media.name()) => Some(2),
            _ => None,
        }
    }
}

pub(super) fn split_media_type(text: &str) -> (&str, impl Iterator<Item = (&str, &str)>) {
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let parameters = parts.filter_map(|part| part.split_once('='));
    (essence, parameters.map(|(name, value)| (name.trim(), value.trim().trim_matches('"'))))
}

pub(super) fn is_utf8(charset: &str) -> bool {
    charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
}
