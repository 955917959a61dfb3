//! `GET /v1/show/drops`: whatever did not go well, by reason, and for packets by the interface they came in by.

use lb_abi::reason::{Fate, Reason};
use serde_json::{Map, Value, json};

use super::{packets::Packets, view::View};
use crate::{
    config::ListenerSnapshot,
    metrics::WorkerMetrics,
    model::reason::{CloseReason, Fault},
};

/// Every reason there is, those that never came to pass too; packets' first, where there is a packet path.
///
/// `interfaces` holds those with a count. It may say less than `count`, which also knows the packets of maps that an
/// earlier version made.
pub(super) fn rows(view: &View, packets: Option<&Packets>) -> Vec<Value> {
    let xdp = packets.into_iter().flat_map(|packets| {
        let reasons = Reason::ALL.iter().zip(packets.reasons);
        reasons.filter(|(reason, _)| reason.fate() == Fate::Drop).map(|(reason, count)| {
            json!({
                "plane": "xdp",
                "reason": reason.name(),
                "count": count,
                "interfaces": by_interface(packets, *reason),
                "listeners": null,
                "blame": null,
                "meaning": reason.describe(),
            })
        })
    });
    let workers = |value: fn(&WorkerMetrics, CloseReason) -> u64, reason: CloseReason| -> u64 {
        view.workers.iter().map(|worker| value(&worker.metrics, reason)).sum()
    };
    let closes = CloseReason::ALL.iter().map(|&reason| {
        let count = workers(|metrics, reason| metrics.reason(reason).value(), reason);
        of_worker("worker", reason, count, json!(by_listener(view, reason)))
    });
    let datagrams = CloseReason::OF_DATAGRAMS.iter().map(|&reason| {
        let count = workers(|metrics, reason| metrics.datagrams_dropped.of(reason).value(), reason);
        of_worker("datagrams", reason, count, Value::Null)
    });
    xdp.chain(closes).chain(datagrams).collect()
}

fn of_worker(plane: &str, reason: CloseReason, count: u64, listeners: Value) -> Value {
    json!({
        "plane": plane,
        "reason": reason.name(),
        "count": count,
        "interfaces": null,
        "listeners": listeners,
        "blame": match reason.fault() {
            Fault::Downstream => "downstream",
            Fault::Upstream => "upstream",
            Fault::Us => "us",
        },
        "meaning": reason.describe(),
    })
}

/// Those with a count.
fn by_listener(view: &View, reason: CloseReason) -> Map<String, Value> {
    let of = |listener: &ListenerSnapshot| {
        let counts =
            view.workers.iter().map(|worker| worker.metrics.listener(listener.id).reasons.of(reason).value());
        let count: u64 = counts.sum();
        (count > 0).then(|| (listener.name.to_string(), json!(count)))
    };
    view.snapshot.listeners.iter().filter_map(of).collect()
}

fn by_interface(packets: &Packets, reason: Reason) -> Map<String, Value> {
    let of = |drops: &super::packets::InterfaceDrops| {
        let (_, count) = drops.counts.iter().find(|(of, count)| *of == reason && *count > 0)?;
        Some((drops.name().to_owned(), json!(count)))
    };
    packets.drops.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{fixture, packets::InterfaceDrops};

    #[test]
    fn there_are_no_packet_reasons_without_a_packet_path() {
        let view = fixture::view();
        assert!(rows(&view, None).iter().all(|row| row["plane"] != "xdp"));
        let all = rows(&view, Some(&fixture::packets()));
        assert!(all.iter().any(|row| row["reason"] == "mtu"));
        assert!(all.iter().all(|row| row["reason"] != "forwarded"), "what went well is no drop");
    }

    #[test]
    fn each_reason_knows_the_ways_in() {
        let of = |name: Option<&str>, mtu| InterfaceDrops {
            interface: name.map(str::to_owned),
            counts: vec![(Reason::Mtu, mtu), (Reason::Ttl, 0)],
        };
        let mut packets = fixture::packets();
        packets.reasons[Reason::Mtu as usize] = 12;
        packets.drops = vec![of(Some("eth0"), 7), of(Some("eth1"), 0), of(None, 5)];
        let rows = rows(&fixture::view(), Some(&packets));
        let row = |reason: &str| rows.iter().find(|row| row["reason"] == reason).unwrap();
        assert_eq!(row("mtu")["interfaces"], json!({ "eth0": 7, "other": 5 }));
        assert_eq!(row("ttl")["interfaces"], json!({}));
    }
}
