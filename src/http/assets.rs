//! Files that are part of the program, served as they are.

use std::borrow::Cow;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// How a file's bytes are compressed. There is no other form of it: every browser reads both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// They are not.
    Plain,
    Gzip,
    Brotli,
}

/// One file as it is served.
#[derive(Debug, Clone)]
pub(super) struct Asset {
    pub content_type: Cow<'static, str>,
    pub encoding: Encoding,
    /// Whether the path names a version, so that the content never changes.
    pub immutable: bool,
    pub bytes: &'static [u8],
    etag: String,
}

impl Asset {
    pub fn new(
        content_type: impl Into<Cow<'static, str>>,
        encoding: Encoding,
        immutable: bool,
        bytes: &'static [u8],
    ) -> Self {
        // Follows from the content alone, so that all replicas of a release agree on it.
        let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(bytes)[..12]));
        Self { content_type: content_type.into(), encoding, immutable, bytes, etag }
    }

    /// The file, or that it has not changed since the browser asked last. `policy` says what a page may load.
    pub fn answer(&self, request: &HeaderMap, policy: &HeaderValue) -> Response {
        let known = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let unchanged =
            known.flat_map(|value| value.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == self.etag);
        let mut response = Response::new(match unchanged {
            true => Body::empty(),
            false => Body::from(Bytes::from_static(self.bytes)),
        });
        if unchanged {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        let encoding = match self.encoding {
            Encoding::Plain => None,
            Encoding::Gzip => Some("gzip"),
            Encoding::Brotli => Some("br"),
        };
        headers.extend(encoding.map(|name| (header::CONTENT_ENCODING, HeaderValue::from_static(name))));
        let caching = if self.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
        headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        let texts = [(header::CONTENT_TYPE, &*self.content_type), (header::ETAG, &self.etag)];
        headers.extend(texts.into_iter().filter_map(|(name, text)| Some((name, HeaderValue::from_str(text).ok()?))));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_file_is_not_sent_again() {
        let (asset, policy) =
            (Asset::new("text/html", Encoding::Plain, false, b"x"), HeaderValue::from_static("default-src 'none'"));
        let mut headers = HeaderMap::new();
        assert_eq!(asset.answer(&headers, &policy).status(), StatusCode::OK);
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(&format!("\"x\", W/{}", asset.etag)).unwrap());
        assert_eq!(asset.answer(&headers, &policy).status(), StatusCode::NOT_MODIFIED);
    }
}
