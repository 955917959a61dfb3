//! `GET /v1/show/flows`: what XDP remembers of flows.

use std::net::SocketAddr;

use lb_abi::subject;
use serde_json::{Value, json};

use super::{
    packets::{Flow, FlowList},
    view::View,
};
use crate::config::{Transport, Vip};

/// `{ "flows": [...], "omitted": n }`: flows that are translated, and flows through slots that are moving, as
/// others of settled slots are remembered nowhere. `omitted` is null where the packet path did not answer.
pub fn render(view: &View, list: Option<&FlowList>) -> Value {
    let backend = |id| view.backends().find(|(_, backend)| backend.id == id);
    let vip_of = |at: SocketAddr, protocol| {
        let transport = if protocol == 17 { Transport::Udp } else { Transport::Tcp };
        let exactness = |vip: &Vip| vip.exactness(at.ip(), at.port(), transport);
        let vips = view.config.vips.iter().filter_map(|(name, vip)| Some((exactness(vip)?, name)));
        vips.max_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, name)| name)
    };
    let row = |flow: &Flow| {
        let backend = backend(flow.backend);
        json!({
            "vip": flow.group_of.as_ref().or_else(|| vip_of(flow.destination, flow.protocol)),
            "source": flow.source,
            "destination": flow.destination,
            "protocol": match flow.protocol {
                6 => "tcp",
                17 => "udp",
                subject::SOURCE => "all of the source",
                subject::PORT => "all to the port",
                _ => "other",
            },
            "backend_id": flow.backend,
            "backend": backend.map(|(pool, backend)| format!("{pool}/{}", backend.name)),
            "age_seconds": flow.age.as_secs(),
            "state": flow.state,
            "translated": flow.translated,
        })
    };
    let rows: Vec<Value> = list.map_or(&[][..], |list| &list.flows).iter().map(row).collect();
    json!({ "flows": rows, "omitted": list.map(|list| list.omitted) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fixture;

    #[test]
    fn flows_name_their_vip_and_backend() {
        let view = fixture::view();
        let list = fixture::flows();
        let document = render(&view, Some(&list));
        let rows = &document["flows"];
        assert_eq!((&rows[0]["vip"], &rows[0]["backend"]), (&json!("dns"), &json!("dns/10.0.1.53")));
        assert_eq!((&rows[0]["age_seconds"], &rows[0]["state"]), (&json!(12), &json!("closing")));
        assert_eq!(
            (&rows[1]["translated"], &rows[1]["state"]),
            (&json!("10.0.9.1:1024"), &json!("half-open"))
        );
        let silent = render(&view, None);
        assert_eq!(silent, json!({ "flows": [], "omitted": null }), "nobody answered");
    }
}
