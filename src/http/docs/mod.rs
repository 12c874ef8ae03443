//! `/docs/`: `openapi.yaml` as a page, by Swagger UI. All of it is in the binary, compressed, and is
//! sent as it lies there to whoever takes gzip.

use std::io::Read;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    LOCATION, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::read::GzDecoder;

use super::error::ApiError;
use super::infer::Coding;

/// The page's own scripts and styles, and nobody else's; its icons are in its style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'self'";

/// A file of the page.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    gzip: &'static [u8],
}

macro_rules! asset {
    ($name:literal, $content_type:literal) => {
        Asset {
            name: $name,
            content_type: $content_type,
            gzip: include_bytes!(concat!(env!("OUT_DIR"), "/docs/", $name, ".gz")),
        }
    };
}

const INDEX: &Asset = &asset!("index.html", "text/html; charset=utf-8");

const OTHERS: [Asset; 6] = [
    asset!("start.js", "text/javascript; charset=utf-8"),
    asset!("swagger-ui.css", "text/css; charset=utf-8"),
    asset!("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    asset!("LICENSE", "text/plain; charset=utf-8"),
    asset!("NOTICE", "text/plain; charset=utf-8"),
    asset!("favicon-32x32.png", "image/png"),
];

/// `GET /docs`: what the page refers to is beside it only behind the slash. The address is relative,
/// for a proxy may have put a prefix before it.
pub(super) async fn to_index() -> Response {
    (StatusCode::PERMANENT_REDIRECT, [(LOCATION, "docs/")]).into_response()
}

/// `GET /docs/`
pub(super) async fn index(headers: HeaderMap) -> Response {
    INDEX.answer(&headers)
}

/// `GET /docs/{asset}`
pub(super) async fn asset(uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let path = uri.path();
    let named = |asset: &&Asset| path.strip_prefix("/docs/") == Some(asset.name);
    let asset = OTHERS.iter().find(named);
    let asset = asset.ok_or_else(|| ApiError::NoSuchPath(path.to_owned()))?;
    Ok(asset.answer(&headers))
}

impl Asset {
    fn answer(&self, headers: &HeaderMap) -> Response {
        let compressed = Coding::Gzip.is_accepted(headers);
        let tag = self.tag(compressed);
        let mut response = if knows(headers, &tag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            self.content(compressed)
        };
        let tag = HeaderValue::try_from(tag).expect("it is ASCII");
        let about = [
            (ETAG, tag),
            (VARY, HeaderValue::from_static("accept-encoding")),
            // Asked for anew each time, or what a newer server needs would be missing.
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ];
        response.headers_mut().extend(about);
        response
    }

    fn content(&self, compressed: bool) -> Response {
        let content_type = [(CONTENT_TYPE, self.content_type)];
        if compressed {
            let encoding = [(CONTENT_ENCODING, "gzip")];
            return (content_type, encoding, Bytes::from_static(self.gzip)).into_response();
        }
        let mut plain = Vec::new();
        GzDecoder::new(self.gzip).read_to_end(&mut plain).expect("it was compressed by the build");
        (content_type, plain).into_response()
    }

    /// Gzip ends with the checksum and the length of what is in it. Each form has its own tag.
    fn tag(&self, compressed: bool) -> String {
        let end = self.gzip.last_chunk().expect("it has an end");
        let form = if compressed { "-gzip" } else { "" };
        format!("\"{:016x}{form}\"", u64::from_le_bytes(*end))
    }
}

/// Whether the client has what this tag is of.
fn knows(headers: &HeaderMap, tag: &str) -> bool {
    let lists = headers.get_all(IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
    // A proxy may have weakened it.
    let given =
        lists.flat_map(|list| list.split(',')).map(|one| one.trim().trim_start_matches("W/"));
    given.into_iter().any(|one| one == tag || one == "*")
}
