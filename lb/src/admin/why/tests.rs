use lb_abi::{
    backend::{BackendEntry, DOWN, PRESENT},
    flow::FlowRecord,
    hop::HopEntry,
    quic::QuicEvent,
    slot::{Phase, Slot},
    source::OWN,
    trace::*,
    vip::{FLOWS_NONE, FORWARD_IPIP, HASH_SOURCE, VipEntry},
};

use std::sync::Arc;

use super::*;
use crate::admin::fixture;

const NOW: u32 = 10_000;
/// Seconds in ticks, near enough.
const MINUTE: u32 = 448;

/// A packet to the fixture's VIP, forwarded to its one backend.
fn forwarded() -> Reading {
    let route_destination = "::ffff:10.0.1.53".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let word = |high: u8, low: u8| u16::from_ne_bytes([high, low]);
    let trace = Trace {
        steps: STEP_DENY_ASKED
            | STEP_VIP_ASKED
            | STEP_VIP_FOUND
            | STEP_SLOT
            | STEP_BACKEND
            | STEP_ROUTE_ASKED
            | STEP_ROUTE_FOUND
            | STEP_CLOCK
            | STEP_COUNTED,
        reason: Reason::Forwarded as u32,
        verdict: VERDICT_REDIRECT,
        interface: 3,
        now_ticks: NOW,
        vip: VipEntry { table_len: 65_537, flags: FORWARD_IPIP, flow_idle_ticks: 200, ..VipEntry::default() },
        slot: Slot::settled(3, 4, 0).0,
        slot_index: 4711,
        backend: 3,
        backend_entry: BackendEntry { flags: PRESENT, ..BackendEntry::default() },
        length: 48,
        route_source: "::ffff:10.0.0.1".parse::<std::net::Ipv6Addr>().unwrap().octets(),
        route_destination,
        hop: HopEntry {
            mtu: 1500,
            addresses: [
                word(0xaa, 0xbb),
                word(0xcc, 0xdd),
                word(0xee, 0xff),
                word(2, 0),
                word(0, 0),
                word(0, 1),
            ],
            ..HopEntry::default()
        },
        ..Trace::default()
    };
    Reading {
        ingress: "eth0".to_owned(),
        trace,
        egress: Some("eth1".to_owned()),
        vip: Some("dns".into()),
        pool: Some("dns".into()),
        slot: Some(4711),
    }
}

const DNS: &str = "udp 198.51.100.7:1234 -> 192.0.2.53:53";

fn answer(question: &str, reading: Option<&Reading>, local: &[&str]) -> Value {
    let local: Vec<IpAddr> = local.iter().map(|address| address.parse().unwrap()).collect();
    let question = question.parse().unwrap();
    let packets = fixture::packets();
    let asked = Asked { question: &question, reading, packets: Some(&packets), local: &local };
    render(&fixture::view(), asked)
}

fn text<'a>(answer: &'a Value, step: &str) -> &'a str {
    let steps = answer["steps"].as_array().unwrap();
    let found = steps.iter().find(|found| found["step"] == step);
    found.and_then(|found| found["text"].as_str()).unwrap_or_else(|| panic!("no step {step} in {answer:#}"))
}

#[test]
fn a_forwarded_packet_is_told_step_by_step() {
    let answer = answer(DNS, Some(&forwarded()), &[]);
    assert_eq!(answer["outcome"], "forwarded");
    assert_eq!(answer["text"], "forwarded by ipip to dns/10.0.1.53 (id 3) via eth1 (aa:bb:cc:dd:ee:ff)");
    let steps: Vec<_> = answer["steps"].as_array().unwrap().iter().map(|step| &step["step"]).collect();
    assert_eq!(steps, ["interface", "deny", "vip", "slot", "backend", "route"]);
    assert_eq!(text(&answer, "vip"), "vip dns by 192.0.2.53 port 53/udp; forward ipip, pool dns");
    assert_eq!(text(&answer, "slot"), "slot 4711 of pool dns: settled, owner dns/10.0.1.53 (id 3)");
    assert_eq!(
        text(&answer, "route"),
        "outer header 10.0.0.1 -> 10.0.1.53, 48 bytes, out by eth1 to aa:bb:cc:dd:ee:ff (MTU 1500)"
    );
    assert_eq!(answer["steps"][3]["epoch"], 4);
    assert_eq!(answer["steps"][5]["source_mac"], "02:00:00:00:00:01");
}

#[test]
fn a_moving_slot_tells_who_it_moves_between_and_what_the_record_says() {
    let mut reading = forwarded();
    let trace = &mut reading.trace;
    trace.steps |= STEP_RECORD_ASKED;
    trace.slot = Slot::new(3, 9, Phase::Open, 5, NOW - 5 * MINUTE).0;
    let told = answer(DNS, Some(&reading), &[]);
    let slot = "slot 4711 of pool dns: open since 5 min: new flows go to owner dns/10.0.1.53 (id 3), unrecorded \
                others to previous a backend that left the config (id 9)";
    assert_eq!(text(&told, "slot"), slot);
    assert_eq!(text(&told, "record"), "no record of this flow; it would not be recorded");

    let mut with = |found: FlowRecord, left: Option<FlowRecord>| {
        let trace = &mut reading.trace;
        trace.steps |= STEP_RECORD_FOUND | if left.is_some() { STEP_RECORD_LEFT } else { 0 };
        (trace.record_found, trace.record_left) = (found, left.unwrap_or_default());
        text(&answer(DNS, Some(&reading), &[]), "record").to_owned()
    };
    let record = FlowRecord { backend: 3, epoch: 5, state: 1, seen: NOW - 150 };
    assert_eq!(with(record, None), "recorded with dns/10.0.1.53 (id 3), last packet 20 s ago, closing");
    let old = with(FlowRecord { seen: NOW - 300, ..record }, None);
    assert_eq!(old, "its record is as good as absent: it is older than the flow memory");
    let strange = with(FlowRecord { epoch: 4, ..record }, None);
    assert!(strange.contains("settled since"), "{strange}");
    let moves = with(FlowRecord { backend: 9, state: 0, ..record }, Some(record));
    assert!(moves.ends_with("; it would move to dns/10.0.1.53 (id 3)"), "{moves}");
    reading.trace.vip.flags |= FLOWS_NONE;
    assert_eq!(text(&answer(DNS, Some(&reading), &[]), "record"), "flows of this vip are not recorded");
}

#[test]
fn what_leads_a_packet_is_told() {
    let mut reading = forwarded();
    reading.trace.vip.flags |= HASH_SOURCE;
    reading.trace.steps |= STEP_LIMIT_ASKED | STEP_SOURCE_ASKED | STEP_QUIC;
    (reading.trace.source_table, reading.trace.quic_event) = (OWN, QuicEvent::InvalidId as u32);
    let told = answer(DNS, Some(&reading), &[]);
    let steps: Vec<_> = told["steps"].as_array().unwrap().iter().map(|step| &step["step"]).collect();
    assert_eq!(steps, ["interface", "deny", "vip", "limit", "quic", "source", "slot", "backend", "route"]);
    assert_eq!(text(&told, "limit"), "198.51.100.7 may open a flow");
    assert_eq!(text(&told, "source"), "198.51.100.7 has no pool of its own");
    assert_eq!(text(&told, "quic"), "it has no connection id that a server of this vip made: goes by hash");
    let slot = text(&told, "slot");
    assert!(slot.starts_with("slot 4711 of pool dns by source alone: settled"), "{slot}");

    (reading.trace.quic_event, reading.slot) = (QuicEvent::ById as u32, None);
    reading.trace.steps &= !STEP_SLOT;
    let told = answer(DNS, Some(&reading), &[]);
    assert_eq!(text(&told, "quic"), "its connection id names backend dns/10.0.1.53 (id 3)");

    let mut view = fixture::view();
    let mut config = (*view.config).clone();
    let Some(vip) = config.vips.get_mut("dns") else { panic!("no vip") };
    vip.sources = [("198.51.0.0/16", "a"), ("198.51.100.0/24", "b"), ("10.0.0.0/8", "c")]
        .map(|(prefix, pool)| (prefix.parse().unwrap(), pool.into()))
        .into();
    view.config = config.into();
    reading.trace.source_table = 7;
    let question = DNS.parse().unwrap();
    let asked = Asked { question: &question, reading: Some(&reading), packets: None, local: &[] };
    let told = render(&view, asked);
    assert_eq!(text(&told, "source"), "198.51.100.7 is of 198.51.100.0/24, whose pool is b");

    reading.trace.reason = Reason::RateLimited as u32;
    let told = answer(DNS, Some(&reading), &[]);
    assert_eq!(told["outcome"], "dropped");
    let limit = text(&told, "limit");
    assert!(limit.ends_with("has opened flows faster than xdp.new_flows_per_source allows"), "{limit}");
}

#[test]
fn a_drop_says_its_reason_and_what_led_to_it() {
    let mut reading = forwarded();
    reading.egress = None;
    reading.trace.reason = Reason::NoNeighbour as u32;
    reading.trace.steps &= !STEP_ROUTE_FOUND;
    let told = answer(DNS, Some(&reading), &[]);
    assert_eq!((&told["outcome"], &told["reason"]), (&json!("dropped"), &json!("no-neighbour")));
    let line = told["text"].as_str().unwrap();
    assert!(line.starts_with("dropped: no-neighbour: The next hop's Ethernet address"), "{line}");
    assert!(text(&told, "route").ends_with("no way there (no-neighbour)"));

    reading.trace.steps &= !STEP_ROUTE_ASKED;
    reading.trace.reason = Reason::BackendDown as u32;
    reading.trace.backend_entry.flags |= DOWN;
    let told = answer(DNS, Some(&reading), &[]);
    assert_eq!(text(&told, "backend"), "backend dns/10.0.1.53 (id 3) is down");

    let trace = Trace {
        steps: STEP_DENY_ASKED | STEP_COUNTED,
        reason: Reason::Denied as u32,
        verdict: VERDICT_DROP,
        ..Trace::default()
    };
    let reading = Reading { trace, vip: None, pool: None, slot: None, ..reading };
    let told = answer(DNS, Some(&reading), &[]);
    assert_eq!(text(&told, "deny"), "198.51.100.7 is on the deny list");
    assert_eq!(told["steps"].as_array().unwrap().len(), 2);
}

/// The reading of a packet that is no VIP's.
fn passed() -> Reading {
    let trace = Trace {
        steps: STEP_VIP_ASKED | STEP_COUNTED,
        reason: Reason::NotOurs as u32,
        verdict: VERDICT_PASS,
        ..Trace::default()
    };
    Reading { ingress: "eth0".to_owned(), trace, egress: None, vip: None, pool: None, slot: None }
}

#[test]
fn what_passes_is_followed_to_its_listener() {
    let ask = |flow: &str, local: &[&str]| answer(flow, Some(&passed()), local);
    let told = ask("tcp 198.51.100.7:1234 -> 127.0.0.1:8080", &[]);
    assert_eq!(told["outcome"], "passed");
    assert_eq!(
        told["text"],
        "passes to the kernel: no vip; listener web (http) takes it: lb_steer chooses the worker by flow hash (the \
         listener says so); then 1 routes, else pool app, 2 of 2 backends up"
    );
    let told = ask("tcp 198.51.100.7:1234 -> 192.0.2.53:53", &["192.0.2.53"]);
    assert_eq!(text(&told, "vip"), "no vip for 192.0.2.53 port 53/tcp; vip dns has the address, with 53/udp");
    assert!(text(&told, "kernel").starts_with("no listener of ours takes 192.0.2.53 port 53/tcp"));
    let told = ask("tcp 198.51.100.7:1234 -> 192.0.2.99:80", &["192.0.2.53"]);
    assert!(text(&told, "kernel").starts_with("192.0.2.99 is no address of this host"));
    let told = ask("udp 198.51.100.7:1234 -> 127.0.0.1:8080", &[]);
    assert!(text(&told, "kernel").contains("8080/udp"), "a listener is for connections");
    let told = ask("icmp 198.51.100.7 -> 192.0.2.53", &["192.0.2.53"]);
    assert!(text(&told, "kernel").contains("answers echo"));
}

/// Where listeners take cookies or their packets are spread, the kernel comes after that.
#[test]
fn a_listeners_packet_is_followed_to_its_core_and_into_a_flood() {
    const TAKER: &str = "; listener web (http) takes it: ";
    let ask = |reading: &Reading| answer("tcp 198.51.100.7:1234 -> 127.0.0.1:8080", Some(reading), &[]);
    let line = |told: &Value| told["text"].as_str().unwrap().to_owned();
    let on_core = format!("passes to the kernel on core 3, whose worker owns the flow: no vip{TAKER}");
    let mut reading = passed();
    (reading.trace.steps, reading.trace.core) = (reading.trace.steps | STEP_SPREAD, 3);
    let told = ask(&reading);
    assert_eq!((&told["outcome"], &told["reason"]), (&json!("passed"), &json!("not-ours")), "it is there");
    assert!(line(&told).starts_with(&on_core), "{told}");
    (reading.trace.reason, reading.trace.verdict) = (Reason::Spread as u32, VERDICT_MOVED);
    let told = ask(&reading);
    assert_eq!((&told["outcome"], &told["reason"]), (&json!("passed"), &json!("spread")));
    assert!(line(&told).starts_with(&on_core), "{told}");

    let mut reading = passed();
    (reading.trace.steps, reading.trace.verdict) = (STEP_VIP_ASKED, VERDICT_COOKIE);
    let told = ask(&reading);
    assert_eq!(told["outcome"], "flooded");
    assert!(line(&told).starts_with("goes on to lb_cookie") && line(&told).contains(TAKER), "{told}");
}

#[test]
fn a_range_of_addresses_and_ports_goes_before_what_is_bound() {
    let mut view = fixture::view();
    let config = Arc::make_mut(&mut view.config);
    let web = config.listeners.values_mut().next().unwrap();
    let net = "203.0.113.0/24".parse().unwrap();
    web.ranges.push(crate::config::BindRange { net, first: 8000, last: 8999 });
    let ask = |flow: &str| {
        let (question, reading) = (flow.parse().unwrap(), passed());
        let asked = Asked { question: &question, reading: Some(&reading), packets: None, local: &[] };
        render(&view, asked)
    };
    let told = ask("tcp 198.51.100.7:1234 -> 203.0.113.77:8500");
    let taker = text(&told, "listener");
    assert!(taker.starts_with("listener web (http) takes it"), "{taker}");
    assert!(taker.ends_with("; if the kernel has a local route for 203.0.113.77"), "{taker}");
    let told = ask("tcp 198.51.100.7:1234 -> 203.0.113.77:9000");
    assert!(text(&told, "kernel").starts_with("203.0.113.77 is no address of this host"));
}

#[test]
fn a_source_may_be_let_in_by_the_allow_list() {
    let mut reading = forwarded();
    reading.trace.steps |= STEP_ALLOWED;
    let told = answer(DNS, Some(&reading), &[]);
    assert_eq!(text(&told, "deny"), "198.51.100.7 is let in by the allow list");
}

#[test]
fn without_xdp_the_kernel_takes_all() {
    let told = answer("tcp 198.51.100.7:1234 -> 127.0.0.1:8080", None, &[]);
    assert_eq!((&told["reason"], &told["outcome"]), (&Value::Null, &json!("passed")));
    let line = told["text"].as_str().unwrap();
    assert!(
        line.starts_with("passes to the kernel: no interface carries lb_ingress; listener web"),
        "{line}"
    );
}
