//! Bodies of requests: how large they may be, how long they may take, and how many bytes wait at once.

use std::{rc::Rc, time::Duration};

use futures_lite::future;
use glommio::{sync::Semaphore, timer::sleep};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    HeaderMap,
    body::{Bytes, Incoming},
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING},
};

use crate::{
    admin::answer::{Answer, error},
    config::FILE_BYTES_MAX,
};

/// Largest body, which is a config.
pub(super) const BODY_BYTES_MAX: usize = FILE_BYTES_MAX;
/// Of all bodies together, from their first byte until the change is answered.
const BODIES_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;
/// From the head to the last byte of the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the head says what the body must be: one of `takes`, not coded, as long as it is.
///
/// # Errors
/// 411, 413 or 415; 400 where there is to be none.
pub(super) fn check(headers: &HeaderMap, takes: &[&str]) -> Result<(), Answer> {
    let number = |value: &HeaderValue| value.to_str().ok()?.parse::<u64>().ok();
    let length = headers.get(CONTENT_LENGTH).and_then(number);
    let is_chunked = headers.contains_key(TRANSFER_ENCODING);
    if takes.is_empty() {
        return match is_chunked || length.is_some_and(|length| length > 0) {
            true => Err(error(400, "body", "this takes no body", "body")),
            false => Ok(()),
        };
    }
    if length.is_none() && !is_chunked {
        return Err(error(411, "length-required", "say the length of the body", "content-length"));
    }
    if length.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = said.split(';').next().unwrap_or_default().trim();
    if !takes.iter().any(|known| known.eq_ignore_ascii_case(essence)) {
        let known = takes.join(" or ");
        let message = format!("the body must be {known}");
        return Err(error(415, "content-type", &message, "content-type").with("accept", takes.join(", ")));
    }
    let coding = headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
    match coding.is_none_or(|coding| coding.eq_ignore_ascii_case(b"identity")) {
        true => Ok(()),
        false => Err(error(415, "content-encoding", "the body must not be compressed", "content-encoding")),
    }
}

fn too_large() -> Answer {
    let message = format!("the body is larger than {} MiB", BODY_BYTES_MAX >> 20);
    error(413, "too-large", &message, "body")
}

/// Room for bodies.
#[derive(Clone)]
pub(in crate::admin) struct Bodies(Rc<Semaphore>);

impl Default for Bodies {
    fn default() -> Self {
        Self(Rc::new(Semaphore::new(BODIES_BYTES_MAX as u64)))
    }
}

/// One body, and the room that it takes.
pub(super) struct Body {
    /// What it says.
    pub(super) bytes: Bytes,
    _room: glommio::sync::StaticPermit,
}

impl Bodies {
    /// Reads a body whose head [`check`] has passed.
    ///
    /// # Errors
    /// 408, 413; 503: there is no room for it now; 400: it breaks off.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Incoming) -> Result<Body, Answer> {
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let units = length.unwrap_or(BODY_BYTES_MAX as u64).min(BODY_BYTES_MAX as u64);
        let room = async { self.0.acquire_static_permit(units).await.map_err(|_| busy()) };
        let room = future::or(room, late(busy())).await?;
        let whole = async {
            let collected = Limited::new(body, BODY_BYTES_MAX).collect().await;
            collected.map(|collected| collected.to_bytes()).map_err(|cause| {
                match cause.is::<LengthLimitError>() {
                    true => too_large(),
                    false => error(400, "body", &format!("the body breaks off: {cause}"), "body"),
                }
            })
        };
        Ok(Body { bytes: future::or(whole, late(timed_out())).await?, _room: room })
    }
}

/// Refuses once time is up.
async fn late<T>(refusal: Answer) -> Result<T, Answer> {
    sleep(BODY_TIMEOUT).await;
    Err(refusal)
}

fn busy() -> Answer {
    error(503, "busy", "too many large changes wait already", "body").with("retry-after", "1")
}

fn timed_out() -> Answer {
    let message = format!("the body did not come within {} s", BODY_TIMEOUT.as_secs());
    error(408, "timeout", &message, "body")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(takes: &[&str], head: &[(&'static str, &'static str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in head {
            headers.append(*name, HeaderValue::from_static(value));
        }
        check(&headers, takes).err().map_or(200, |answer| answer.status)
    }

    #[test]
    fn heads_say_what_comes() {
        let json = ["application/json"];
        let (length, kind) = (("content-length", "2"), ("content-type", "application/json"));
        assert_eq!(status(&json, &[length, kind]), 200);
        assert_eq!(status(&json, &[("transfer-encoding", "chunked"), kind]), 200);
        assert_eq!(status(&json, &[length, ("content-type", "Application/JSON; charset=utf-8")]), 200);
        assert_eq!(status(&json, &[length, kind, ("content-encoding", "identity")]), 200);
        assert_eq!(status(&json, &[kind]), 411);
        assert_eq!(status(&json, &[("content-length", "16777217"), kind]), 413);
        assert_eq!(status(&json, &[("content-length", "16777216"), kind]), 200);
        assert_eq!(status(&json, &[length]), 415, "curl's own type would be another one");
        assert_eq!(status(&json, &[length, ("content-type", "application/merge-patch+json")]), 415);
        assert_eq!(status(&json, &[length, kind, ("content-encoding", "gzip")]), 415);
        assert_eq!(status(&[], &[]), 200);
        assert_eq!(status(&[], &[("content-length", "0")]), 200);
        assert_eq!(status(&[], &[length]), 400);
        assert_eq!(status(&[], &[("transfer-encoding", "chunked")]), 400);
    }
}
