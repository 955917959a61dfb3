//! The steps of a trace, in words.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use lb_abi::{
    backend::{DOWN, PRESENT},
    flow::{CLOSING, FlowRecord},
    quic::QuicEvent,
    reason::{Fate, Reason},
    slot::{Phase, Slot, TICK_SHIFT},
    source::OWN,
    trace::{
        STEP_ALLOWED, STEP_BACKEND, STEP_CLOCK, STEP_DENY_ASKED, STEP_LIMIT_ASKED, STEP_QUIC,
        STEP_RECORD_ASKED, STEP_RECORD_FOUND, STEP_RECORD_LEFT, STEP_ROUTE_ASKED, STEP_ROUTE_FOUND,
        STEP_SLOT, STEP_SOURCE_ASKED, STEP_SPREAD, STEP_VIP_ASKED, STEP_VIP_FOUND, Trace, VERDICT_COOKIE,
        VERDICT_TRANSLATE,
    },
    vip::{FLOWS_NONE, FORWARD_GUE, FORWARD_IPIP, FORWARD_L2DSR, HASH_PORT, HASH_SOURCE},
};
use serde_json::{Value, json};

use super::{Reading, step};
use crate::{
    admin::view::View,
    model::{BackendId, Question, QuestionProtocol},
};

/// Tells one reading.
pub(super) struct Teller<'a> {
    pub(super) view: &'a View,
    pub(super) question: &'a Question,
    pub(super) reading: &'a Reading,
    pub(super) reason: Reason,
}

impl Teller<'_> {
    /// Every step, in the order of the packet path.
    pub(super) fn tell(&self, steps: &mut Vec<Value>) {
        let ingress = &self.reading.ingress;
        steps.push(step(
            "interface",
            format!("comes in by {ingress}, which carries lb_ingress"),
            json!({ "interface": ingress }),
        ));
        let told = [
            self.deny(),
            self.vip(),
            self.limit(),
            self.quic(),
            self.source(),
            self.slot(),
            self.record(),
            self.backend(),
            self.route(),
        ];
        steps.extend(told.into_iter().flatten());
    }

    /// The end, in one line.
    pub(super) fn conclusion(&self) -> String {
        if self.trace().verdict == VERDICT_COOKIE {
            return "goes on to lb_cookie, in a flood of SYNs: answered with a cookie where the kernel would send one now, \
                    else passes to the kernel"
                .to_owned();
        }
        if self.trace().verdict == VERDICT_TRANSLATE {
            let text = if self.has(STEP_VIP_FOUND) {
                "goes on to lb_nat: the vip translates addresses; `lb show flows` has its flows"
            } else {
                "goes on to lb_nat: a reply of a translated flow, or else for the kernel"
            };
            return text.to_owned();
        }
        match self.reason.fate() {
            Fate::Forward => {
                let (by, to, trace) = (self.forward(), self.backend_name(), self.trace());
                let egress = self.reading.egress.as_deref().unwrap_or("?");
                format!("forwarded by {by} to {to} via {egress} ({})", mac(&trace.hop.addresses[..3]))
            }
            Fate::Answer => {
                format!("answered by XDP itself: {}: {}", self.reason.name(), self.reason.describe())
            }
            Fate::Drop => format!("dropped: {}: {}", self.reason.name(), self.reason.describe()),
            Fate::Pass if self.has(STEP_SPREAD) => {
                format!(
                    "passes to the kernel on core {}, whose worker owns the flow: no vip",
                    self.trace().core
                )
            }
            Fate::Pass if self.reason == Reason::NotOurs => "passes to the kernel: no vip".to_owned(),
            Fate::Pass => {
                format!("passes to the kernel: {}: {}", self.reason.name(), self.reason.describe())
            }
        }
    }

    fn trace(&self) -> &Trace {
        &self.reading.trace
    }

    fn has(&self, step: u32) -> bool {
        self.trace().steps & step != 0
    }

    fn deny(&self) -> Option<Value> {
        let (source, is_denied) = (self.question.source.ip(), self.reason == Reason::Denied);
        let text = match is_denied {
            true => format!("{source} is on the deny list"),
            false if self.has(STEP_ALLOWED) => format!("{source} is let in by the allow list"),
            false => format!("{source} is not on the deny list"),
        };
        self.has(STEP_DENY_ASKED).then(|| step("deny", text, json!({ "denied": is_denied })))
    }

    /// What is asked for, as `192.0.2.53 port 53/udp`.
    fn target(&self) -> String {
        let (ip, port) = (self.question.destination.ip(), self.question.destination.port());
        match self.question.protocol {
            QuestionProtocol::Tcp(_) => format!("{ip} port {port}/tcp"),
            QuestionProtocol::Udp => format!("{ip} port {port}/udp"),
            QuestionProtocol::Echo => format!("{ip} icmp echo"),
        }
    }

    fn vip(&self) -> Option<Value> {
        if !self.has(STEP_VIP_ASKED) {
            return None;
        }
        let target = self.target();
        let name = match &self.reading.vip {
            Some(name) if self.has(STEP_VIP_FOUND) => name,
            _ => {
                let hint = self.near_vips();
                return Some(step("vip", format!("no vip for {target}{hint}"), json!({ "vip": null })));
            }
        };
        let config = self.view.config.vips.get(name);
        let text = match config.filter(|_| self.trace().vip.table_len > 0) {
            Some(vip) => format!("vip {name} by {target}; forward {}, pool {}", self.forward(), vip.pool),
            None => format!("vip {name} by {target}"),
        };
        Some(step("vip", text, json!({ "vip": name })))
    }

    /// VIPs that have the address, but not the port.
    fn near_vips(&self) -> String {
        let ip = self.question.destination.ip();
        let near = self.view.config.vips.iter().filter(|(_, vip)| {
            vip.addresses.contains(&ip) || vip.prefixes.iter().any(|prefix| prefix.contains(&ip))
        });
        let near = near.map(|(name, vip)| {
            let ports = vip.ports.iter().map(ToString::to_string);
            format!("; vip {name} has the address, with {}", ports.collect::<Vec<_>>().join(", "))
        });
        near.collect()
    }

    fn forward(&self) -> &'static str {
        match self.trace().vip.flags {
            flags if flags & FORWARD_IPIP != 0 => "ipip",
            flags if flags & FORWARD_GUE != 0 => "gue",
            flags if flags & FORWARD_L2DSR != 0 => "l2dsr",
            _ => "nothing",
        }
    }

    fn limit(&self) -> Option<Value> {
        let (source, is_over) = (self.question.source.ip(), self.reason == Reason::RateLimited);
        let text = match is_over {
            true => format!("{source} has opened flows faster than xdp.new_flows_per_source allows"),
            false => format!("{source} may open a flow"),
        };
        self.has(STEP_LIMIT_ASKED).then(|| step("limit", text, json!({ "exceeded": is_over })))
    }

    fn quic(&self) -> Option<Value> {
        if !self.has(STEP_QUIC) {
            return None;
        }
        let event = QuicEvent::of_number(self.trace().quic_event);
        let text = match event {
            QuicEvent::ById => format!("its connection id names backend {}", self.backend_name()),
            QuicEvent::Opening => {
                "it opens a connection, or is of an unknown version: goes by hash".to_owned()
            }
            QuicEvent::InvalidId => {
                "it has no connection id that a server of this vip made: goes by hash".to_owned()
            }
            QuicEvent::UnknownServer => {
                "its connection id names no backend of this vip's pools: goes by hash".to_owned()
            }
            QuicEvent::ServerDown => {
                "its connection id names a backend that is down: goes by hash".to_owned()
            }
        };
        Some(step("quic", text, json!({ "led": event.name() })))
    }

    fn source(&self) -> Option<Value> {
        if !self.has(STEP_SOURCE_ASKED) {
            return None;
        }
        let source = self.question.source.ip();
        let vip = self.reading.vip.as_ref().and_then(|name| self.view.config.vips.get(name));
        let prefixes = vip.into_iter().flat_map(|vip| &vip.sources);
        let found = prefixes
            .filter(|(prefix, _)| self.trace().source_table != OWN && prefix.contains(&source))
            .max_by_key(|(prefix, _)| prefix.prefix_len());
        let text = match found {
            Some((prefix, pool)) => format!("{source} is of {prefix}, whose pool is {pool}"),
            None => format!("{source} has no pool of its own"),
        };
        let facts = json!({ "prefix": found.map(|(prefix, _)| prefix), "pool": found.map(|(_, pool)| pool) });
        Some(step("source", text, facts))
    }

    /// What the VIP tells packets apart by.
    fn subject(&self) -> &'static str {
        match self.trace().vip.flags {
            flags if flags & HASH_SOURCE != 0 => "source",
            flags if flags & HASH_PORT != 0 => "destination port",
            _ => "flow",
        }
    }

    fn slot(&self) -> Option<Value> {
        let index = self.reading.slot.filter(|_| self.has(STEP_SLOT))?;
        let slot = Slot(self.trace().slot);
        let pool = self.reading.pool.as_deref().unwrap_or("?");
        let (owner, previous) = (self.name_of(slot.owner()), self.name_of(slot.previous()));
        let age = self.has(STEP_CLOCK).then(|| ago(slot.age(self.trace().now_ticks)));
        let since = age.map_or_else(String::new, |age| format!(" since {}", spoken(age)));
        let (phase, text) = match slot.phase() {
            Phase::Settled => ("settled", format!("settled, owner {owner}")),
            Phase::Open => (
                "open",
                format!(
                    "open{since}: new flows go to owner {owner}, unrecorded others to previous {previous}"
                ),
            ),
            Phase::Sweeping => (
                "sweeping",
                format!(
                    "open{since}, nothing is recorded while ended records are taken away: unrecorded packets go to \
                     previous {previous}"
                ),
            ),
            Phase::Closed => (
                "closed",
                format!("closed{since}: unrecorded packets go to owner {owner}, recorded flows stay"),
            ),
        };
        let facts = json!({
            "pool": pool,
            "slot": index,
            "by": self.subject(),
            "phase": phase,
            "owner": slot.owner(),
            "previous": slot.previous(),
            "epoch": slot.epoch(),
            "word": format!("{:016x}", slot.0),
            "changed_seconds_ago": age.map(|age| age.as_secs()),
        });
        let by = match self.subject() {
            "flow" => String::new(),
            subject => format!(" by {subject} alone"),
        };
        Some(step("slot", format!("slot {index} of pool {pool}{by}: {text}"), facts))
    }

    fn record(&self) -> Option<Value> {
        let trace = self.trace();
        let is_moving = self.has(STEP_SLOT) && Slot(trace.slot).phase() != Phase::Settled;
        if is_moving && trace.vip.flags & FLOWS_NONE != 0 {
            return Some(step("record", "flows of this vip are not recorded".to_owned(), json!({})));
        }
        if !self.has(STEP_RECORD_ASKED) {
            return None;
        }
        let left = self.has(STEP_RECORD_LEFT).then_some(trace.record_left);
        let Some(found) = self.has(STEP_RECORD_FOUND).then_some(trace.record_found) else {
            let would = match left {
                Some(left) => format!("; it would be recorded with {}", self.name_of(left.backend)),
                None => "; it would not be recorded".to_owned(),
            };
            return Some(step(
                "record",
                format!("no record of this {}{would}", self.subject()),
                json!({ "record": null }),
            ));
        };
        let seen = ago(trace.now_ticks.saturating_sub(found.seen));
        let absence = self.absence(&found);
        let text = match absence {
            None => format!(
                "recorded with {}, last packet {} ago{}",
                self.name_of(found.backend),
                spoken(seen),
                if found.state & CLOSING != 0 { ", closing" } else { "" }
            ),
            Some(why) => format!("its record is as good as absent: {why}"),
        };
        let moves = left.filter(|left| absence.is_none() && left.backend != found.backend);
        let moves = moves
            .map_or_else(String::new, |left| format!("; it would move to {}", self.name_of(left.backend)));
        let facts = json!({
            "record": {
                "backend": found.backend,
                "epoch": found.epoch,
                "closing": found.state & CLOSING != 0,
                "seen_seconds_ago": seen.as_secs(),
                "live": absence.is_none(),
            }
        });
        Some(step("record", text + &moves, facts))
    }

    /// Why a record that was found does not count.
    fn absence(&self, found: &FlowRecord) -> Option<&'static str> {
        let trace = self.trace();
        let age = trace.now_ticks.wrapping_sub(found.seen);
        if found.epoch != Slot(trace.slot).epoch() {
            Some("the slot has changed owner and settled since")
        } else if age > trace.vip.flow_idle_ticks && age < u32::MAX / 2 {
            Some("it is older than the flow memory")
        } else {
            None
        }
    }

    fn backend(&self) -> Option<Value> {
        if !self.has(STEP_BACKEND) {
            return None;
        }
        let (name, flags) = (self.backend_name(), self.trace().backend_entry.flags);
        let state = match (flags & PRESENT != 0, flags & DOWN != 0) {
            (false, _) => "absent",
            (true, true) => "down",
            (true, false) => "up",
        };
        let facts = json!({ "backend": self.trace().backend, "name": name, "state": state });
        Some(step("backend", format!("backend {name} is {state}"), facts))
    }

    fn route(&self) -> Option<Value> {
        let trace = self.trace();
        if !self.has(STEP_ROUTE_ASKED) {
            return None;
        }
        let (source, destination) = (address(trace.route_source), address(trace.route_destination));
        let has_outer = !source.is_unspecified();
        let packet = match has_outer {
            true => format!("outer header {source} -> {destination}, {} bytes", trace.length),
            false => format!("{} bytes to the neighbour {destination}", trace.length),
        };
        if !self.has(STEP_ROUTE_FOUND) {
            let facts =
                json!({ "destination": destination, "length": trace.length, "error": self.reason.name() });
            return Some(step("route", format!("{packet}: no way there ({})", self.reason.name()), facts));
        }
        let egress = self.reading.egress.as_deref().unwrap_or("?");
        let (to, from) = (mac(&trace.hop.addresses[..3]), mac(&trace.hop.addresses[3..]));
        let text = format!("{packet}, out by {egress} to {to} (MTU {})", trace.hop.mtu);
        let facts = json!({
            "outer": has_outer.then(|| json!({ "source": source, "destination": destination })),
            "length": trace.length,
            "interface": egress,
            "mac": to,
            "source_mac": from,
            "mtu": trace.hop.mtu,
        });
        Some(step("route", text, facts))
    }

    fn backend_name(&self) -> String {
        // Ids are 16 bits wide; the field is not.
        self.name_of(self.trace().backend as u16)
    }

    fn name_of(&self, id: u16) -> String {
        match id {
            0 => "nobody".to_owned(),
            id => self.view.backend_name(BackendId(id), self.reading.pool.as_deref()),
        }
    }
}

/// An address in the contract's form.
fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

fn mac(words: &[u16]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
    bytes.map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn ago(ticks: u32) -> Duration {
    Duration::from_nanos(u64::from(ticks) << TICK_SHIFT)
}

fn spoken(age: Duration) -> String {
    match age.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
