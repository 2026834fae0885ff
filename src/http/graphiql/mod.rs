//! GraphiQL, the page to try the service with.
//!
//! Everything it needs is part of the binary, so it works where there is no internet, and nobody else's server is
//! told who reads which schema. A vendored file carries its version in its name and never changes under it, so a
//! browser may keep it for ever; our own two are small and asked for again each time.
//!
//! To update: take the new release's files as `assets/LICENSES.md` says and change their names here and in
//! `page.html`; a test compares the two.

use axum::Router;
use axum::http::{HeaderMap, HeaderValue};
use axum::routing::get;

use super::assets::{Asset, Encoding};

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// What is served by path: the type, how it is compressed, and the content. What is compressed was vendored.
type File = (&'static str, &'static str, Encoding, &'static [u8]);

const FILES: [File; 6] = [
    ("/graphiql", "text/html; charset=utf-8", Encoding::Plain, include_bytes!("page.html")),
    ("/graphiql/start.js", JAVASCRIPT, Encoding::Plain, include_bytes!("start.js")),
    (
        "/graphiql/react-18.3.1.production.min.js",
        JAVASCRIPT,
        Encoding::Gzip,
        include_bytes!("assets/react-18.3.1.production.min.js.gz"),
    ),
    (
        "/graphiql/react-dom-18.3.1.production.min.js",
        JAVASCRIPT,
        Encoding::Gzip,
        include_bytes!("assets/react-dom-18.3.1.production.min.js.gz"),
    ),
    ("/graphiql/graphiql-3.9.0.min.js", JAVASCRIPT, Encoding::Gzip, include_bytes!("assets/graphiql-3.9.0.min.js.gz")),
    (
        "/graphiql/graphiql-3.9.0.min.css",
        "text/css; charset=utf-8",
        Encoding::Gzip,
        include_bytes!("assets/graphiql-3.9.0.min.css.gz"),
    ),
];

/// What the page may load and whom it may talk to: this service only. A pasted token can thus go nowhere else, even
/// if a script were smuggled into an answer that the page shows.
///
/// Fonts lie in the style sheet. Styles are allowed inline, because GraphiQL's parts write style elements.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src data:; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The page at `/graphiql` and its files below it. It expects the service at `/graphql`.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (path, content_type, encoding, bytes)| {
        let asset = Asset::new(content_type, encoding, encoding != Encoding::Plain, bytes);
        let answer = move |headers: HeaderMap| async move { asset.answer(&headers, &CONTENT_SECURITY_POLICY) };
        router.route(path, get(answer))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_but_what_is_served() {
        let page = include_str!("page.html");
        let named = page.split(['"', '\'']).filter(|text| text.ends_with(".js") || text.ends_with(".css"));
        let named: Vec<_> = named.collect();
        let served: Vec<_> = FILES.iter().map(|(path, ..)| path.trim_start_matches('/')).collect();
        assert_eq!(named.len(), FILES.len() - 1, "every file but the page itself is used");
        for name in named {
            assert!(served.contains(&name), "{name} is not served");
        }
        assert!(!page.contains("http://") && !page.contains("https://"));
    }

    #[test]
    fn vendored_files_are_gzip_and_stay_below_a_mebibyte() {
        let vendored: Vec<_> = FILES.iter().filter(|(_, _, encoding, _)| *encoding == Encoding::Gzip).collect();
        assert!(vendored.iter().all(|(.., bytes)| bytes.starts_with(&[0x1f, 0x8b])));
        assert!(vendored.iter().map(|(.., bytes)| bytes.len()).sum::<usize>() < 1024 * 1024);
    }
}
