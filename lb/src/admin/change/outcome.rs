//! A change from its head to its answer.

use futures_lite::future;
use glommio::timer::sleep;
use hyper::{HeaderMap, body::Incoming};
use serde_json::{Value, json};

use super::{Asked, Bodies};
use crate::{
    admin::{
        answer::{Answer, error, json_answer},
        changes::{ANSWER_TIMEOUT, Applied, Refusal},
        view::View,
    },
    sys::Peer,
};

/// Reads the body, has the change made and says what came of it.
pub(in crate::admin) async fn serve(
    asked: Asked,
    headers: &HeaderMap,
    body: Incoming,
    view: &View,
    peer: Option<Peer>,
    bodies: &Bodies,
) -> Answer {
    let Some(changes) = &view.changes else {
        return refused(Refusal::NotReady("nothing can be changed yet".to_owned()));
    };
    let body = match asked.has_body() {
        true => match bodies.read(headers, body).await {
            Ok(body) => Some(body),
            Err(answer) => return answer,
        },
        false => None,
    };
    let wish = match asked.wish(body.as_ref().map_or(&[][..], |body| &body.bytes), peer) {
        Ok(wish) => wish,
        Err(answer) => return answer,
    };
    let silent = async {
        sleep(ANSWER_TIMEOUT).await;
        let message = format!(
            "no answer within {} s; the change may still be made: see /v1/generations",
            ANSWER_TIMEOUT.as_secs()
        );
        Err(Refusal::NotReady(message))
    };
    match future::or(changes.make(wish), silent).await {
        Ok(applied) => made(&applied),
        Err(refusal) => refused(refusal),
    }
}

fn made(applied: &Applied) -> Answer {
    json_answer(200, &json!(applied)).with("etag", &applied.etag)
}

fn refused(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::Invalid(problems) => {
            let first = problems.problems.first();
            let message = match problems.len() + problems.omitted {
                1 => first.map_or_else(String::new, ToString::to_string),
                count => format!("the config has {count} problems"),
            };
            json_answer(
                400,
                &json!({
                    "error": wrong("invalid", &message, first.map_or("", |problem| &problem.key)),
                    "problems": problems.problems,
                    "omitted": problems.omitted,
                }),
            )
        }
        Refusal::NotFound { at, message } => error(404, "not-found", &message, &at),
        Refusal::Lost { current } => {
            let message = format!("the config is another one by now: its ETag is {current}");
            let document = json!({ "error": wrong("lost-race", &message, "if-match"), "etag": current });
            json_answer(409, &document).with("etag", current)
        }
        Refusal::Unappliable { at, message } => error(422, "unappliable", &message, &at),
        Refusal::NotReady(message) => error(503, "not-ready", &message, "control").with("retry-after", "1"),
    }
}

fn wrong(code: &str, message: &str, place: &str) -> Value {
    json!({ "code": code, "message": message, "where": place })
}
