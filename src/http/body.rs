//! Reading a request's body, within its limits.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::pin::pin;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, Version};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use tokio::time::{Instant, timeout_at};

use super::Limits;
use super::error::ApiError;
use super::infer::{Coding, DecodeError};
use super::patience::within;
use crate::json_tensors::in_words_of_json;

/// The largest body where none has to be large.
const SMALL: usize = 64 * 1024;

/// The largest body that declares every model.
const DECLARATION: usize = 4 * 1024 * 1024;

/// What every datatype can be aligned to, as all that is allocated is.
const ALIGNMENT: usize = 16;

/// A body as it came.
#[derive(Debug)]
pub(super) struct Coded {
    body: Bytes,
    coding: Option<Coding>,
}

/// How many times larger a compressed body may be taken to be, before that is known.
const EXPANSION: usize = 8;

impl Coded {
    /// About how many bytes there are to be worked on.
    pub(super) fn work(&self) -> usize {
        self.body.len().saturating_mul(if self.coding.is_some() { EXPANSION } else { 1 })
    }

    /// The body as it was before it was compressed.
    ///
    /// # Errors
    /// Where it has more bytes than the limit then, or is not compressed as it says.
    pub(super) fn plain(self, limit: usize) -> Result<Bytes, ApiError> {
        let Some(coding) = self.coding else { return Ok(self.body) };
        coding.decode(&self.body, limit).map_err(|error| match error {
            DecodeError::TooLarge => ApiError::PayloadTooLarge { limit },
            DecodeError::Damaged(coding) => {
                ApiError::bad_request(format!("the body cannot be read as {coding}"))
            }
        })
    }
}

/// The whole body, which may be compressed. What comes after the first `header` bytes is aligned for every
/// datatype, where it can be without another copy.
///
/// # Errors
/// A body that is too large, broken off, compressed in another way than we know, or not there by
/// `deadline`.
pub(super) async fn read_coded(
    request: Request,
    limits: &Limits,
    (deadline, header): (Instant, usize),
) -> Result<Coded, ApiError> {
    let coding = match encoding(request.headers()) {
        None => None,
        Some(name) => {
            let instead = "use gzip, deflate or zstd, or send the body as it is";
            let coding = Coding::from_name(&name);
            let unknown = || ApiError::UnsupportedEncoding { encoding: name.into_owned(), instead };
            Some(coding.ok_or_else(unknown)?)
        }
    };
    let body = receive(request, limits, (deadline, header)).await?;
    Ok(Coded { body, coding })
}

/// The whole body.
///
/// # Errors
/// A body that is too large, compressed, broken off, or not there by `deadline`.
pub(super) async fn read(
    request: Request,
    limits: &Limits,
    deadline: Instant,
) -> Result<Bytes, ApiError> {
    match encoding(request.headers()) {
        Some(encoding) => Err(ApiError::UnsupportedEncoding {
            encoding: encoding.into_owned(),
            instead: "send the body as it is",
        }),
        None => receive(request, limits, (deadline, 0)).await,
    }
}

async fn receive(
    request: Request,
    limits: &Limits,
    (deadline, header): (Instant, usize),
) -> Result<Bytes, ApiError> {
    let limit = limits.max_body_size;
    if announced(request.headers()).is_some_and(|length| length > limit) {
        return Err(ApiError::PayloadTooLarge { limit });
    }
    let is_asked_once = request.version() == Version::HTTP_11;
    let body = pin!(whole(request, limit, header));
    let received = if is_asked_once {
        within(deadline, body).await
    } else {
        timeout_at(deadline, body).await.ok()
    };
    match received {
        Some(Ok(body)) => Ok(body),
        Some(Err(error)) if error.is::<LengthLimitError>() => {
            Err(ApiError::PayloadTooLarge { limit })
        }
        Some(Err(_)) => Err(ApiError::bad_request("the body broke off before its end")),
        None => Err(ApiError::BodyTimeout { limit: limits.request_timeout }),
    }
}

/// The body in one piece. Its pieces are copied once, to where they stay; a body of one is not.
async fn whole(request: Request, limit: usize, header: usize) -> Result<Bytes, BoxError> {
    let announced = announced(request.headers()).unwrap_or_default();
    let mut body = Limited::new(request.into_body(), limit);
    let first = piece(&mut body).await?.unwrap_or_default();
    if body.is_end_stream() {
        return Ok(first);
    }
    // Memory that was announced and never comes is none: the system gives it when it is written to.
    let before = (ALIGNMENT - header % ALIGNMENT) % ALIGNMENT;
    let mut whole = Vec::new();
    // Where there is not as much, it grows as far as data come.
    whole.try_reserve_exact(before + announced.max(first.len())).ok();
    whole.resize(before, 0);
    let mut next = Some(first);
    while let Some(data) = next {
        whole.extend_from_slice(&data);
        next = piece(&mut body).await?;
    }
    Ok(Bytes::from(whole).slice(before..))
}

/// The next piece of a body; `None` at its end.
async fn piece(body: &mut Limited<Body>) -> Result<Option<Bytes>, BoxError> {
    while let Some(frame) = body.frame().await {
        // What is no data are trailers, which tell nothing here.
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// The whole body of a request that changes something, which is small.
pub(super) async fn read_small(request: Request, limits: &Limits) -> Result<Bytes, ApiError> {
    read_change(request, limits, SMALL).await
}

/// The whole body of a request that declares everything there is, which may be longer.
pub(super) async fn read_declaration(request: Request, limits: &Limits) -> Result<Bytes, ApiError> {
    read_change(request, limits, DECLARATION).await
}

async fn read_change(request: Request, limits: &Limits, most: usize) -> Result<Bytes, ApiError> {
    let bounded = Limits { max_body_size: limits.max_body_size.min(most), ..*limits };
    let body = read(request, &bounded, Instant::now() + limits.request_timeout).await;
    body.map_err(|error| match error {
        ApiError::PayloadTooLarge { limit } if limit == most => ApiError::ChangeTooLarge { limit },
        other => other,
    })
}

/// Reads a JSON body; an empty one is the default.
pub(super) fn parse_or_default<'a, T: Deserialize<'a> + Default>(
    body: &'a [u8],
) -> Result<T, ApiError> {
    if is_blank(body) { Ok(T::default()) } else { parse(body) }
}

/// Whether there is nothing in it.
pub(super) fn is_blank(body: &[u8]) -> bool {
    body.iter().all(u8::is_ascii_whitespace)
}

/// Reads a JSON body.
///
/// # Errors
/// What is wrong, and where: the line and column, and the field where the JSON itself is sound.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    if is_blank(body) {
        return Err(ApiError::EmptyBody);
    }
    let read = serde_json::from_slice(body).map(|Object(value)| value);
    read.map_err(|error| explain::<Object<T>>(body, &error))
}

/// A struct that is written as an object. Without this, serde takes an array of its fields too.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Reads again, this time with an eye on where it goes wrong.
fn explain<'a, T: Deserialize<'a>>(body: &'a [u8], error: &serde_json::Error) -> ApiError {
    if error.classify() != Category::Data {
        return ApiError::bad_request(format!("the body is not valid JSON: {error}"));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let tracked = serde_path_to_error::deserialize::<_, T>(&mut reader).err();
    let path = tracked.map(|error| error.path().to_string()).filter(|path| path != ".");
    let place = path.map(|path| format!("'{path}': ")).unwrap_or_default();
    let problem = in_words_of_json(&error.to_string());
    ApiError::bad_request(format!("the body is not what is expected: {place}{problem}"))
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// How the body is compressed, if it is; all codings where there are several, which is none that we know.
fn encoding(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let lists = headers.get_all(CONTENT_ENCODING).iter();
    let lists = lists.map(|value| value.to_str().unwrap_or("unreadable"));
    let codings = lists.flat_map(|list| list.split(',')).map(str::trim);
    let mut codings =
        codings.filter(|coding| !coding.eq_ignore_ascii_case("identity") && !coding.is_empty());
    let first = Cow::Borrowed(codings.next()?);
    Some(codings.fold(first, |all, coding| Cow::Owned(format!("{all}, {coding}"))))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_body_may_be_compressed_once() {
        let told = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            encoding(&headers).map(Cow::into_owned)
        };
        assert_eq!(told(&[]), None);
        assert_eq!(told(&["", "Identity"]), None);
        assert_eq!(told(&["gzip"]).as_deref(), Some("gzip"));
        assert_eq!(told(&["identity, br"]).as_deref(), Some("br"));
        assert_eq!(told(&["gzip, gzip"]).as_deref(), Some("gzip, gzip"));
        assert_eq!(told(&["gzip", "br"]).as_deref(), Some("gzip, br"));
    }
}
