//! GraphiQL, the page to try the service with.
//!
//! Everything it needs is part of the binary, so it works where there is no internet, and nobody else's server is
//! told who reads which schema. A vendored file carries its version in its name and never changes under it, so a
//! browser may keep it for ever; our own two are small and asked for again each time.
//!
//! To update: take the new release's files as `assets/LICENSES.md` says and change their names here and in
//! `page.html`; a test compares the two.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
    routing::get,
};

/// One file as it is served.
#[derive(Clone, Copy)]
struct Asset {
    path: &'static str,
    content_type: &'static str,
    /// Whether `bytes` are gzip. There is no other form of them: every browser reads it.
    gzip: bool,
    /// Whether the path names a version, so that the content never changes.
    immutable: bool,
    bytes: &'static [u8],
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

const ASSETS: [Asset; 6] = [
    own("/", "text/html; charset=utf-8", include_bytes!("page.html")),
    own("/graphiql/start.js", JAVASCRIPT, include_bytes!("start.js")),
    vendored(
        "/graphiql/react-18.3.1.production.min.js",
        JAVASCRIPT,
        include_bytes!("assets/react-18.3.1.production.min.js.gz"),
    ),
    vendored(
        "/graphiql/react-dom-18.3.1.production.min.js",
        JAVASCRIPT,
        include_bytes!("assets/react-dom-18.3.1.production.min.js.gz"),
    ),
    vendored("/graphiql/graphiql-3.9.0.min.js", JAVASCRIPT, include_bytes!("assets/graphiql-3.9.0.min.js.gz")),
    vendored(
        "/graphiql/graphiql-3.9.0.min.css",
        "text/css; charset=utf-8",
        include_bytes!("assets/graphiql-3.9.0.min.css.gz"),
    ),
];

/// What the page may load and whom it may talk to: this service only. A pasted token can thus go nowhere else, even
/// if a script were smuggled into an answer that the page shows.
///
/// Fonts lie in the style sheet. Styles are allowed inline, because GraphiQL's parts write style elements.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     font-src data:; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

const fn own(path: &'static str, content_type: &'static str, bytes: &'static [u8]) -> Asset {
    Asset { path, content_type, gzip: false, immutable: false, bytes }
}

const fn vendored(path: &'static str, content_type: &'static str, bytes: &'static [u8]) -> Asset {
    Asset { path, content_type, gzip: true, immutable: true, bytes }
}

/// The page at `/` and its files below `/graphiql/`. It expects the service at `/graphql`.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.into_iter().fold(Router::new(), |router, asset| {
        let etag = asset.etag();
        router.route(asset.path, get(move |headers: HeaderMap| async move { asset.answer(&etag, &headers) }))
    })
}

impl Asset {
    /// Follows from the content alone, so that all replicas of a release agree on it.
    fn etag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.bytes.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }

    fn answer(&self, etag: &str, request: &HeaderMap) -> Response {
        let known = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let unchanged = known.flat_map(|value| value.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == etag);

        let mut response = if unchanged {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            Response::new(Body::from(Bytes::from_static(self.bytes)))
        };
        let headers = response.headers_mut();
        if self.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let caching = if self.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if let Ok(etag) = HeaderValue::from_str(etag) {
            headers.insert(header::ETAG, etag);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_but_what_is_served() {
        let page = include_str!("page.html");
        let named = page.split(['"', '\'']).filter(|text| text.ends_with(".js") || text.ends_with(".css"));
        let named: Vec<_> = named.collect();
        let served: Vec<_> = ASSETS.iter().map(|asset| asset.path.trim_start_matches('/')).collect();
        assert_eq!(named.len(), ASSETS.len() - 1, "every file but the page itself is used");
        for name in named {
            assert!(served.contains(&name), "{name} is not served");
        }
        assert!(!page.contains("http://") && !page.contains("https://"));
    }

    #[test]
    fn an_unchanged_file_is_not_sent_again() {
        let asset = ASSETS[0];
        let etag = asset.etag();
        let mut headers = HeaderMap::new();
        assert_eq!(asset.answer(&etag, &headers).status(), StatusCode::OK);
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(&format!("\"x\", W/{etag}")).expect("ascii"));
        assert_eq!(asset.answer(&etag, &headers).status(), StatusCode::NOT_MODIFIED);
    }

    #[test]
    fn vendored_files_are_gzip_and_stay_below_a_mebibyte() {
        let vendored: Vec<_> = ASSETS.iter().filter(|asset| asset.gzip).collect();
        assert!(vendored.iter().all(|asset| asset.bytes.starts_with(&[0x1f, 0x8b])));
        assert!(vendored.iter().map(|asset| asset.bytes.len()).sum::<usize>() < 1024 * 1024);
    }
}
