//! `GET /v1/why?flow=...`: what would become of a packet, asked of the loaded program and the live tables.
//!
//! The packet of the question (see [`crate::model::Question`]) is run through `lb_why`: it reads what `lb_ingress`
//! reads, and counts, records and sends nothing. What it cannot know is whether the flow table has room, whether a core
//! has told as many senders as it may that packets do not fit, and whether another core than its own is flooded with SYNs.

mod handshake;
mod kernel;
pub mod request;
mod sni;
mod steps;

use std::net::IpAddr;

use lb_abi::{
    reason::{Fate, Reason},
    trace::{VERDICT_COOKIE, VERDICT_TRANSLATE},
};
use serde_json::{Value, json};

use self::steps::Teller;
use super::{
    packets::{Packets, Reading, Refusal},
    view::View,
};
use crate::model::{Question, RequestQuestion, Scheme};

/// What an answer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The packet.
    pub question: &'a Question,
    /// What XDP would do; none where no interface carries it.
    pub reading: Option<&'a Reading>,
    /// Counters: how listeners are steered.
    pub packets: Option<&'a Packets>,
    /// Addresses of this host.
    pub local: &'a [IpAddr],
}

/// `{ "question", "outcome", "reason", "text", "steps": [{ "step", "text", ... }, ...] }`.
///
/// `outcome` is forwarded, translated (on to `lb_nat`, which is not asked), flooded (on to `lb_cookie`, the same: in a flood
/// of SYNs on the core that was asked), answered, dropped or passed (to the kernel); `text` says all of it in one line, and
/// each step what it found. `reason` is null where XDP does not see the packet.
pub fn render(view: &View, asked: Asked<'_>) -> Value {
    let mut steps = Vec::new();
    let reason = asked.reading.map(|reading| {
        let reason = Reason::of_number(reading.trace.reason).unwrap_or(Reason::Abi);
        Teller { view, question: asked.question, reading, reason }.tell(&mut steps);
        reason
    });
    let verdict = asked.reading.map(|reading| reading.trace.verdict);
    let outcome = match reason.map(Reason::fate) {
        _ if verdict == Some(VERDICT_TRANSLATE) => "translated",
        _ if verdict == Some(VERDICT_COOKIE) => "flooded",
        Some(Fate::Forward) => "forwarded",
        Some(Fate::Answer) => "answered",
        Some(Fate::Drop) => "dropped",
        Some(Fate::Pass) | None => "passed",
    };
    let may_pass = ["passed", "flooded"].contains(&outcome);
    if may_pass {
        steps.extend(kernel::steps(view, &asked));
    }
    let text = match (reason, asked.reading) {
        (Some(reason), Some(reading)) => {
            Teller { view, question: asked.question, reading, reason }.conclusion()
        }
        _ => "passes to the kernel: no interface carries lb_ingress".to_owned(),
    };
    let text = match steps.last().filter(|_| may_pass).and_then(|step| step["text"].as_str()) {
        Some(taker) => format!("{text}; {taker}"),
        None => text,
    };
    json!({
        "question": asked.question.to_string(),
        "outcome": outcome,
        "reason": reason.map(Reason::name),
        "text": text,
        "steps": steps,
    })
}

/// What becomes of a request, or of a TLS client that is passed on.
///
/// # Errors
/// No listener is meant, or more than one can be.
pub fn route(view: &View, question: &RequestQuestion) -> Result<Value, Refusal> {
    match question.scheme {
        Scheme::Tls => sni::render(view, question),
        Scheme::Http | Scheme::Https => request::render(view, question),
    }
}

/// One step: its name, in words, and whatever belongs to it for programs.
fn step(name: &str, text: String, facts: Value) -> Value {
    let mut step = json!({ "step": name, "text": text });
    if let (Value::Object(step), Value::Object(facts)) = (&mut step, facts) {
        step.extend(facts);
    }
    step
}

#[cfg(test)]
mod tests;
