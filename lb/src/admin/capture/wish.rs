//! What somebody wants to be captured, from the query of a request.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use lb_abi::{
    capture::{CaptureFilter, FLAG_PAYLOAD, SNAP_MAX},
    reason::{Fate, Reason},
    slot::TICK_SHIFT,
};

use crate::admin::{
    answer::{Answer, error},
    query::Query,
    view::View,
};

/// Parameters of the query, each with what it takes.
pub const PARAMETERS: [(&str, &str); 14] = [
    ("vip", "a vip's name"),
    ("backend", "pool/backend, as in `lb show backends`"),
    ("reason", "reasons as in `lb show drops`, and others, with commas between"),
    ("outcome", "forwarded, answered, dropped or passed, with commas between"),
    ("source", "an address or prefix"),
    ("destination", "an address or prefix"),
    ("protocol", "tcp, udp, icmp, icmpv6 or a number"),
    ("sample", "1 in so many packets is looked at; 1 unless said"),
    ("snap", "bytes of each frame; 128 unless said"),
    ("payload", "yes: not only headers"),
    ("count", "packets, then it ends"),
    ("duration", "seconds, then it ends"),
    ("rate", "bytes per second that are captured at most; 8000000 unless said"),
    ("interface", "an interface that carries lb_ingress"),
];

const SNAP: u32 = 128;
/// Shorter frames do not exist.
const SNAP_MIN: u32 = 14;
const RATE: u64 = 8_000_000;
const RATE_MAX: u64 = 1_000_000_000;

/// A capture as it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// What packets have to meet; its VIP is [`Self::vip`].
    pub filter: CaptureFilter,
    /// Only packets of this one.
    pub vip: Option<String>,
    /// Only packets that came in by this one.
    pub interface: Option<String>,
    /// Packets, then it ends.
    pub count: Option<u64>,
    /// Then it ends.
    pub duration: Option<Duration>,
}

fn wrong(key: &str, message: String) -> Answer {
    error(400, "capture", &message, key)
}

impl Wish {
    /// Reads a query.
    ///
    /// # Errors
    /// 400: which parameter, and what is wrong with it.
    pub(in crate::admin) fn parse(query: &Query, view: &View) -> Result<Self, Answer> {
        query.only(&PARAMETERS.map(|(key, _)| key))?;
        let mut filter = CaptureFilter { snap: SNAP, ..CaptureFilter::ALL };
        if let Some(name) = query.one("backend")? {
            filter.backend = backend(view, name)?;
        }
        if let Some(number) = number(query, "sample", 1, u64::from(u32::MAX))? {
            filter.sample = u32::try_from(u64::from(u32::MAX) / number).unwrap_or(u32::MAX);
        }
        if let Some(number) = number(query, "snap", u64::from(SNAP_MIN), SNAP_MAX as u64)? {
            filter.snap = u32::try_from(number).unwrap_or(SNAP);
        }
        match query.one("payload")? {
            None | Some("no") => {}
            Some("yes") => filter.flags |= FLAG_PAYLOAD,
            Some(other) => return Err(wrong("payload", format!("{other:?} is neither yes nor no"))),
        }
        if let Some(text) = query.one("protocol")? {
            filter.protocol = protocol(text)?;
        }
        filter.reasons = reasons(query)?;
        (filter.source, filter.source_mask) = prefix(query, "source")?;
        (filter.destination, filter.destination_mask) = prefix(query, "destination")?;
        let rate = number(query, "rate", 1, RATE_MAX)?.unwrap_or(RATE);
        filter.bytes_per_tick =
            u32::try_from((rate << TICK_SHIFT) / 1_000_000_000).unwrap_or(u32::MAX).max(1);
        let vip = match query.one("vip")? {
            Some(name) if !view.config.vips.contains_key(name) => {
                return Err(wrong("vip", format!("no vip {name:?}")));
            }
            name => name.map(str::to_owned),
        };
        Ok(Self {
            filter,
            vip,
            interface: query.one("interface")?.map(str::to_owned),
            count: number(query, "count", 1, u64::MAX)?,
            duration: number(query, "duration", 1, 86_400)?.map(Duration::from_secs),
        })
    }
}

fn number(query: &Query, key: &str, min: u64, max: u64) -> Result<Option<u64>, Answer> {
    let Some(text) = query.one(key)? else { return Ok(None) };
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    match number {
        Some(number) => Ok(Some(number)),
        None if max == u64::MAX => Err(wrong(key, format!("{text:?} is no number from {min}"))),
        None => Err(wrong(key, format!("{text:?} is no number from {min} to {max}"))),
    }
}

fn backend(view: &View, name: &str) -> Result<u32, Answer> {
    let found = view.backends().find(|(pool, backend)| format!("{pool}/{}", backend.name) == name);
    match found {
        Some((_, backend)) => Ok(u32::from(backend.id.0)),
        None => Err(wrong("backend", format!("no backend {name:?}: pool/backend, as in `lb show backends`"))),
    }
}

fn protocol(text: &str) -> Result<u32, Answer> {
    match text {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "icmp" => Ok(1),
        "icmpv6" => Ok(58),
        text => text.parse::<u8>().map(u32::from).map_err(|_| {
            wrong("protocol", format!("{text:?} is no protocol: tcp, udp, icmp, icmpv6 or a number"))
        }),
    }
}

/// Those named by themselves or by what becomes of the packet; all, unless any is named.
fn reasons(query: &Query) -> Result<u64, Answer> {
    let bits = |is_meant: &dyn Fn(Reason) -> bool| {
        Reason::ALL
            .into_iter()
            .filter(|reason| is_meant(*reason))
            .fold(0, |bits, one| bits | 1u64 << one as u32)
    };
    let mut wanted = None;
    if let Some(names) = query.one("reason")? {
        for name in names.split(',') {
            let one = bits(&|reason| reason.name() == name);
            if one == 0 {
                let known = Reason::ALL.map(Reason::name).join(", ");
                return Err(wrong("reason", format!("{name:?} is no reason: {known}")));
            }
            wanted = Some(wanted.unwrap_or(0) | one);
        }
    }
    if let Some(names) = query.one("outcome")? {
        for name in names.split(',') {
            let fate = match name {
                "forwarded" => Fate::Forward,
                "answered" => Fate::Answer,
                "dropped" => Fate::Drop,
                "passed" => Fate::Pass,
                other => {
                    let message = format!("{other:?} is no outcome: forwarded, answered, dropped or passed");
                    return Err(wrong("outcome", message));
                }
            };
            wanted = Some(wanted.unwrap_or(0) | bits(&|reason| reason.fate() == fate));
        }
    }
    Ok(wanted.unwrap_or(u64::MAX))
}

/// Prefix and mask in the contract's form.
fn prefix(query: &Query, key: &str) -> Result<([u8; 16], [u8; 16]), Answer> {
    let Some(text) = query.one(key)? else { return Ok(([0; 16], [0; 16])) };
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let Some(net) = net else {
        return Err(wrong(key, format!("{text:?} is neither an address nor a prefix such as 192.0.2.0/24")));
    };
    let (address, bits) = match net.trunc() {
        IpNet::V4(net) => (net.addr().to_ipv6_mapped(), u32::from(net.prefix_len()) + 96),
        IpNet::V6(net) => (net.addr(), u32::from(net.prefix_len())),
    };
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    Ok((address.octets(), mask.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fixture;

    fn wish(query: &str) -> Result<Wish, (u16, String)> {
        let view = fixture::view();
        let query = Query::parse(query).unwrap();
        Wish::parse(&query, &view).map_err(|answer| (answer.status, answer.body))
    }

    #[test]
    fn nothing_said_is_every_packets_headers_at_a_bounded_rate() {
        let wish = wish("").unwrap();
        let bounded = CaptureFilter { bytes_per_tick: 1_073_741, ..CaptureFilter::ALL };
        assert_eq!(wish.filter, bounded);
        assert_eq!((wish.vip, wish.count, wish.duration), (None, None, None));
    }

    #[test]
    fn everything_can_be_said() {
        let wish = wish(
            "vip=dns&backend=dns/10.0.1.53&reason=mtu,ttl&outcome=answered&source=198.51.100.7/24\
             &destination=2001:db8::1&protocol=udp&sample=4&snap=64&payload=yes&count=9&duration=3&rate=1000\
             &interface=eth0",
        )
        .unwrap();
        let filter = wish.filter;
        assert_eq!((filter.backend, filter.protocol, filter.snap, filter.flags), (3, 17, 64, FLAG_PAYLOAD));
        let answered = [Reason::Echo, Reason::TooBig, Reason::SynCookie];
        let bits = [Reason::Mtu, Reason::Ttl].into_iter().chain(answered).map(|reason| 1u64 << reason as u32);
        assert_eq!(filter.reasons, bits.sum::<u64>());
        assert_eq!(filter.sample, u32::MAX / 4);
        assert_eq!(filter.source[10..], [0xff, 0xff, 198, 51, 100, 0]);
        assert_eq!(filter.source_mask[10..], [0xff, 0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(filter.destination_mask, [0xff; 16]);
        assert_eq!(filter.bytes_per_tick, 134);
        assert_eq!((wish.vip.as_deref(), wish.interface.as_deref()), (Some("dns"), Some("eth0")));
        assert_eq!((wish.count, wish.duration), (Some(9), Some(Duration::from_secs(3))));
        let all = super::tests::wish("source=::/0").unwrap().filter;
        assert_eq!((all.source, all.source_mask), ([0; 16], [0; 16]));
    }

    #[test]
    fn mistakes_are_named() {
        for (query, place) in [
            ("vip=web", "vip"),
            ("backend=10.0.1.53", "backend"),
            ("reason=mtu,", "reason"),
            ("outcome=gone", "outcome"),
            ("source=192.0.2.0/33", "source"),
            ("destination=x", "destination"),
            ("protocol=256", "protocol"),
            ("sample=0", "sample"),
            ("snap=13", "snap"),
            ("snap=2049", "snap"),
            ("payload=maybe", "payload"),
            ("count=0", "count"),
            ("duration=1s", "duration"),
            ("rate=0", "rate"),
            ("vlan=1", "vlan"),
        ] {
            let (status, body) = wish(query).unwrap_err();
            assert_eq!(status, 400, "{query}");
            assert!(body.contains(&format!("\"where\":\"{place}\"")), "{query}: {body}");
        }
    }
}
