//! `GET /v1/why?flow=...`: what would become of a packet, asked of the loaded program and the live tables.
//!
//! The packet of the question (see [`crate::model::Question`]) is run through `lb_why`: it reads what `lb_ingress`
//! reads, and counts, records and sends nothing. What it cannot know is whether the flow table has room, and whether a core
//! has told as many senders as it may that packets do not fit.

mod kernel;
pub mod request;
mod steps;

use std::{net::IpAddr, sync::Arc};

use lb_abi::{
    reason::{Fate, Reason},
    trace::{Trace, VERDICT_TRANSLATE},
};
use serde_json::{Value, json};

use self::steps::Teller;
use super::{packets::Packets, view::View};
use crate::model::Question;

/// What XDP would do with a packet.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Interface that the packet was said to come in by.
    pub ingress: String,
    /// Each step.
    pub trace: Trace,
    /// Interface that it would leave by.
    pub egress: Option<String>,
    /// VIP it is addressed to.
    pub vip: Option<Arc<str>>,
    /// Pool whose table was read.
    pub pool: Option<Arc<str>>,
    /// Slot in that table.
    pub slot: Option<u32>,
}

/// Why there is no reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The question cannot be meant so.
    Question(String),
    /// It has to wait until something else is over.
    Busy(String),
    /// The packet path would not answer.
    Failed(String),
}

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
/// `outcome` is forwarded, translated (on to `lb_nat`, which is not asked), answered, dropped or passed (to the kernel);
/// `text` says all of it in one line, and each
/// step what it found. `reason` is null where XDP does not see the packet.
pub fn render(view: &View, asked: Asked<'_>) -> Value {
    let mut steps = Vec::new();
    let reason = asked.reading.map(|reading| {
        let reason = Reason::ALL.get(reading.trace.reason as usize).copied().unwrap_or(Reason::Abi);
        Teller { view, question: asked.question, reading, reason }.tell(&mut steps);
        reason
    });
    let translated = asked.reading.is_some_and(|reading| reading.trace.verdict == VERDICT_TRANSLATE);
    let outcome = match reason.map(Reason::fate) {
        _ if translated => "translated",
        Some(Fate::Forward) => "forwarded",
        Some(Fate::Answer) => "answered",
        Some(Fate::Drop) => "dropped",
        Some(Fate::Pass) | None => "passed",
    };
    if outcome == "passed" {
        steps.extend(kernel::steps(view, &asked));
    }
    let text = match (reason, asked.reading) {
        (Some(reason), Some(reading)) => {
            Teller { view, question: asked.question, reading, reason }.conclusion()
        }
        _ => "passes to the kernel: no interface carries lb_ingress".to_owned(),
    };
    let text = match steps.last().filter(|_| outcome == "passed").and_then(|step| step["text"].as_str()) {
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
