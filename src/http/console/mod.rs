//! The console: pages for members, auditors and operators, below `/console/`.
//!
//! Its sources are in `console/` at the top of the repository; `console/built` has what they build, compressed, and is part of
//! the program. A path that is no file is a page of the console, which finds out itself which.

mod session;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};

use super::assets::{Asset, Encoding};
pub use session::Local;

static BUILT: Dir = include_dir!("$CARGO_MANIFEST_DIR/console/built");
/// What the console asks a provider for: who it is, and renewals without leaving the page.
const SCOPES: &str = "openid email profile offline_access";
/// The page that all others begin as.
const PAGE: &str = "index.html";

/// How a person signs in.
pub enum SignIn {
    /// By a one-time code that the service printed.
    Local(Local),
    /// At an OpenID provider.
    OpenId {
        /// Its name, which is where it is too.
        issuer: String,
        /// The console's name there.
        client: String,
    },
    /// Nobody can.
    Nobody,
}

/// A line of `manifest.json`.
#[derive(Deserialize)]
struct File {
    file: String,
    #[serde(rename = "type")]
    content_type: String,
    #[serde(default)]
    immutable: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Settings<'a> {
    sign_in: Offered<'a>,
    api_path: &'static str,
    feed_path: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Offered<'a> {
    Local,
    #[serde(rename_all = "camelCase")]
    Oidc {
        issuer: &'a str,
        client_id: &'a str,
        scopes: &'static str,
    },
    None,
}

/// The pages below `/console/`, what they are told, and the way in. They expect the service at `/graphql`.
pub fn routes<S: Clone + Send + Sync + 'static>(sign_in: SignIn) -> Router<S> {
    let (assets, policy) = (Arc::new(assets()), policy(&sign_in));
    let settings = settings(&sign_in);
    let page = {
        let (assets, policy) = (assets.clone(), policy.clone());
        move |headers: HeaderMap| async move { served(&assets, PAGE, &headers, &policy) }
    };
    let file =
        move |Path(path): Path<String>, headers: HeaderMap| async move { served(&assets, &path, &headers, &policy) };
    let router = Router::new()
        .route("/console", get(|| async { Redirect::permanent("/console/") }))
        .route("/console/", get(page))
        .route("/console/{*path}", get(file))
        .route(
            "/console/config.json",
            get(|| async move { ([(header::CACHE_CONTROL, "no-cache")], axum::Json(settings)) }),
        );
    match sign_in {
        SignIn::Local(local) => router.merge(session::routes(local)),
        SignIn::OpenId { .. } | SignIn::Nobody => router,
    }
}

/// What was built, by path.
fn assets() -> HashMap<String, Asset> {
    let manifest = BUILT.get_file("manifest.json").map(include_dir::File::contents).unwrap_or_default();
    let manifest: HashMap<String, File> = serde_json::from_slice(manifest).unwrap_or_default();
    let asset = |(path, file): (String, File)| {
        let bytes = BUILT.get_file(&file.file)?.contents();
        let encoding = match file.file.rsplit_once('.') {
            Some((_, "br")) => Encoding::Brotli,
            Some((_, "gz")) => Encoding::Gzip,
            _ => Encoding::Plain,
        };
        Some((path, Asset::new(file.content_type, encoding, file.immutable, bytes)))
    };
    manifest.into_iter().filter_map(asset).collect()
}

fn served(assets: &HashMap<String, Asset>, path: &str, headers: &HeaderMap, policy: &HeaderValue) -> Response {
    // What looks like a file and is none is a mistake, and no page.
    let is_file = path.rsplit('/').next().is_some_and(|name| name.contains('.'));
    match assets.get(path).or_else(|| assets.get(PAGE).filter(|_| !is_file)) {
        Some(asset) => asset.answer(headers, policy),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What a page may load and whom it may talk to: this service, and the provider where people sign in.
fn policy(sign_in: &SignIn) -> HeaderValue {
    let provider = match sign_in {
        SignIn::OpenId { issuer, .. } => origin(issuer).map(|origin| format!(" {origin}")).unwrap_or_default(),
        SignIn::Local(_) | SignIn::Nobody => String::new(),
    };
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
         connect-src 'self'{provider}; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

fn origin(url: &str) -> Option<String> {
    Some(url::Url::parse(url).ok()?.origin().ascii_serialization())
}

fn settings(sign_in: &SignIn) -> serde_json::Value {
    let sign_in = match sign_in {
        SignIn::Local(_) => Offered::Local,
        SignIn::OpenId { issuer, client } => Offered::Oidc { issuer, client_id: client, scopes: SCOPES },
        SignIn::Nobody => Offered::None,
    };
    serde_json::json!(Settings {
        sign_in,
        api_path: "/graphql",
        feed_path: "/graphql/sse",
        version: env!("CARGO_PKG_VERSION")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_file_is_served_and_nothing_else() {
        let (assets, none) = (assets(), HeaderValue::from_static(""));
        assert!(assets.contains_key(PAGE));
        assert_eq!(assets.len(), BUILT.files().count() - 1, "all but the manifest");
        let status = |path: &str| served(&assets, path, &HeaderMap::new(), &none).status();
        assert!(assets.keys().all(|path| status(path) == StatusCode::OK));
        assert_eq!(status("organizations/acme/members"), StatusCode::OK);
        assert_eq!(status("assets/gone.js"), StatusCode::NOT_FOUND);
        assert_eq!(status("manifest.json"), StatusCode::NOT_FOUND);
    }

    #[test]
    fn pages_talk_to_nobody_but_the_service_and_the_provider() {
        let policy = |sign_in| policy(&sign_in).to_str().unwrap().to_owned();
        assert!(policy(SignIn::Nobody).contains("connect-src 'self';"));
        let provider = SignIn::OpenId { issuer: "https://login.example.com/realms/a".into(), client: "console".into() };
        assert!(policy(provider).contains("connect-src 'self' https://login.example.com;"));
    }
}
