//! DNS messages, by way of `hickory_proto`. Whatever is read here was written by a stranger.
//!
//! Source: RFC 1035, 4; RFC 2782 (SRV); RFC 6891 (EDNS, for answers of more than 512 bytes by UDP).

use std::{net::IpAddr, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
};

use super::answer::{Denial, Failure};
use crate::model::DomainName;

/// Longest answer that is asked for by UDP: fits every path without fragments (dnsflagday.net/2020).
const UDP_BYTES_MAX: u16 = 1232;
/// Longest chain of aliases that is followed.
pub const ALIASES_MAX: usize = 8;
/// Most records that are taken of one answer.
pub const RECORDS_MAX: usize = 512;

/// Type of the records that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Services.
    Srv,
}

impl Kind {
    const fn record_type(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Srv => RecordType::SRV,
        }
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Whose records.
    pub name: DomainName,
    /// Which.
    pub kind: Kind,
}

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The lowest ones are used first.
    pub priority: u16,
    /// Share among those of one priority.
    pub weight: u16,
    /// Never 0.
    pub port: u16,
    /// The host that has it.
    pub target: DomainName,
}

/// What a server said to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// At least one; at most [`RECORDS_MAX`].
    Addresses(Vec<IpAddr>, Duration),
    /// At least one; at most [`RECORDS_MAX`].
    Services(Vec<Service>, Duration),
    /// There is nothing, and for how long that holds where it says so.
    Nothing(Denial, Option<Duration>),
    /// It is longer than this transport carries: ask by TCP.
    Truncated,
    /// The server has no answer.
    Failed(Failure),
}

/// The message that asks a question.
///
/// # Errors
/// None for a [`DomainName`], which is valid on the wire.
pub fn ask(id: u16, question: &Question) -> Result<Vec<u8>, Failure> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name_of(&question.name)?, question.kind.record_type()));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX);
    message.set_edns(edns);
    message.to_vec().map_err(|_| Failure::Malformed)
}

fn name_of(name: &DomainName) -> Result<Name, Failure> {
    Name::from_ascii(format!("{name}.")).map_err(|_| Failure::Malformed)
}

/// The answer to a question in a message; `None`: the message is something else, and the answer may still come.
pub fn read(bytes: &[u8], id: u16, question: &Question) -> Option<Reply> {
    let [high, low, flags, ..] = *bytes else { return None };
    if u16::from_be_bytes([high, low]) != id {
        return None;
    }
    // What was cut off may end within a record: the rest is not looked at.
    const RESPONSE: u8 = 0x80;
    const TRUNCATED: u8 = 0x02;
    if flags & (RESPONSE | TRUNCATED) == RESPONSE | TRUNCATED {
        return Some(Reply::Truncated);
    }
    let message = Message::from_vec(bytes).ok()?;
    let is_answer =
        message.metadata.message_type == MessageType::Response && message.metadata.op_code == OpCode::Query;
    let name = name_of(&question.name).ok()?;
    match &message.queries[..] {
        [asked]
            if is_answer
                && asked.name == name
                && asked.query_type == question.kind.record_type()
                && asked.query_class == DNSClass::IN => {}
        _ => return None,
    }
    Some(match message.metadata.response_code {
        ResponseCode::NoError => records(&message, name, question.kind),
        ResponseCode::NXDomain => Reply::Nothing(Denial::NoName, negative_ttl(&message)),
        ResponseCode::ServFail => Reply::Failed(Failure::ServerFailed),
        ResponseCode::Refused => Reply::Failed(Failure::Refused),
        _ => Reply::Failed(Failure::ServerError),
    })
}

/// Follows aliases to the records that were asked for.
fn records(message: &Message, mut name: Name, kind: Kind) -> Reply {
    let mut ttl = u32::MAX;
    for _ in 0..ALIASES_MAX {
        let alias = message.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == name => Some((target.0.clone(), record.ttl)),
            _ => None,
        });
        let Some((target, alias_ttl)) = alias else { break };
        (name, ttl) = (target, ttl.min(whole(alias_ttl)));
    }
    let own = || message.answers.iter().filter(|record| record.name == name).take(RECORDS_MAX);
    let mut ttl_of = |record: &Record| ttl = ttl.min(whole(record.ttl));
    let (mut addresses, mut services) = (Vec::new(), Vec::new());
    for record in own() {
        match (&record.data, kind) {
            (RData::A(address), Kind::A) => addresses.push(IpAddr::V4(address.0)),
            (RData::AAAA(address), Kind::Aaaa) => addresses.push(IpAddr::V6(address.0)),
            (RData::SRV(service), Kind::Srv) => services.extend(service_of(service)),
            _ => continue,
        }
        ttl_of(record);
    }
    addresses.retain(|address| is_backend(*address));
    let ttl = Duration::from_secs(ttl.into());
    match (addresses.is_empty(), services.is_empty()) {
        (false, _) => Reply::Addresses(addresses, ttl),
        (true, false) => Reply::Services(services, ttl),
        (true, true) => Reply::Nothing(Denial::NoRecord, negative_ttl(message)),
    }
}

/// `None`: the service says that it is not there (target `.`), or what nobody could dial.
fn service_of(service: &hickory_proto::rr::rdata::SRV) -> Option<Service> {
    let target = DomainName::new(&service.target.to_ascii())?;
    let port = Some(service.port).filter(|port| *port != 0)?;
    Some(Service { priority: service.priority, weight: service.weight, port, target })
}

/// As the config takes them: what is no host, or the same address in another dress, is no backend.
fn is_backend(address: IpAddr) -> bool {
    let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || is_mapped || is_broadcast)
}

/// Seconds with the highest bit are none (RFC 2181, 8).
const fn whole(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

/// The lesser of the SOA's own and its MINIMUM (RFC 2308, 5).
fn negative_ttl(message: &Message) -> Option<Duration> {
    message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(Duration::from_secs(whole(record.ttl).min(whole(soa.minimum)).into())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};

    use super::*;

    const ID: u16 = 0x1234;

    fn question(name: &str, kind: Kind) -> Question {
        Question { name: DomainName::new(name).unwrap(), kind }
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(format!("{text}.")).unwrap()
    }

    fn answer(asked: &Question, records: Vec<Record>) -> Message {
        let mut message = Message::new(ID, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(name_of(&asked.name).unwrap(), asked.kind.record_type()));
        message.insert_answers(records);
        message
    }

    fn a(owner: &str, last: u8, ttl: u32) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A([10, 0, 0, last].into())))
    }

    fn alias(owner: &str, target: &str, ttl: u32) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn read_back(message: &Message, asked: &Question) -> Option<Reply> {
        read(&message.to_vec().unwrap(), ID, asked)
    }

    fn addresses(last: &[u8], ttl: u64) -> Option<Reply> {
        let ips = last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect();
        Some(Reply::Addresses(ips, Duration::from_secs(ttl)))
    }

    #[test]
    fn a_question_can_be_read_by_a_server() {
        let asked = question("api.internal", Kind::Aaaa);
        let message = Message::from_vec(&ask(ID, &asked).unwrap()).unwrap();
        assert!(message.metadata.recursion_desired);
        assert_eq!((message.metadata.id, message.max_payload()), (ID, UDP_BYTES_MAX));
        assert_eq!(message.queries[0].name.to_ascii(), "api.internal.");
        assert_eq!(message.queries[0].query_type, RecordType::AAAA);
    }

    #[test]
    fn addresses_hold_as_long_as_the_shortest_of_the_chain() {
        let asked = question("api.internal", Kind::A);
        let plain =
            answer(&asked, vec![a("API.internal", 1, 30), a("api.internal", 2, 20), a("other", 3, 1)]);
        assert_eq!(read_back(&plain, &asked), addresses(&[1, 2], 20));
        let aliased = vec![a("c", 1, 30), alias("api.internal", "b", 9), alias("b", "c", 60)];
        assert_eq!(read_back(&answer(&asked, aliased), &asked), addresses(&[1], 9));
        assert_eq!(
            read_back(&answer(&asked, vec![a("api.internal", 1, u32::MAX)]), &asked),
            addresses(&[1], 0)
        );
    }

    #[test]
    fn aliases_that_lead_nowhere_are_nothing() {
        let asked = question("a", Kind::A);
        let nothing = Some(Reply::Nothing(Denial::NoRecord, None));
        let circle = vec![alias("a", "b", 9), alias("b", "a", 9)];
        assert_eq!(read_back(&answer(&asked, circle), &asked), nothing);
        let names: Vec<_> =
            (0..20).map(|at| if at == 0 { "a".to_owned() } else { format!("n{at}") }).collect();
        let mut chain: Vec<_> = names.windows(2).map(|pair| alias(&pair[0], &pair[1], 9)).collect();
        chain.push(a("n19", 1, 9));
        assert_eq!(read_back(&answer(&asked, chain), &asked), nothing, "too long");
    }

    #[test]
    fn what_nobody_can_dial_is_no_backend() {
        let asked = question("a", Kind::Aaaa);
        let of = |ip: &str| Record::from_rdata(name("a"), 9, RData::AAAA(AAAA(ip.parse().unwrap())));
        let mixed = answer(&asked, vec![of("::"), of("ff02::1"), of("::ffff:10.0.0.1"), of("fd00::1")]);
        let one = Reply::Addresses(vec!["fd00::1".parse().unwrap()], Duration::from_secs(9));
        assert_eq!(read_back(&mixed, &asked), Some(one));
        assert_eq!(
            read_back(&answer(&asked, vec![of("::")]), &asked),
            Some(Reply::Nothing(Denial::NoRecord, None))
        );
    }

    #[test]
    fn services_have_ports_and_targets() {
        let asked = question("_http._tcp.a", Kind::Srv);
        let of = |port, target| {
            Record::from_rdata(name("_http._tcp.a"), 9, RData::SRV(SRV::new(1, 2, port, target)))
        };
        let some = answer(&asked, vec![of(80, name("B.a")), of(0, name("c")), of(80, Name::root())]);
        let service = Service { priority: 1, weight: 2, port: 80, target: DomainName::new("b.a").unwrap() };
        assert_eq!(read_back(&some, &asked), Some(Reply::Services(vec![service], Duration::from_secs(9))));
        let none = answer(&asked, vec![of(80, Name::root())]);
        assert_eq!(read_back(&none, &asked), Some(Reply::Nothing(Denial::NoRecord, None)));
    }

    #[test]
    fn codes_are_told_apart() {
        let asked = question("a", Kind::A);
        for (code, reply) in [
            (ResponseCode::ServFail, Reply::Failed(Failure::ServerFailed)),
            (ResponseCode::Refused, Reply::Failed(Failure::Refused)),
            (ResponseCode::FormErr, Reply::Failed(Failure::ServerError)),
            (ResponseCode::NXDomain, Reply::Nothing(Denial::NoName, Some(Duration::from_secs(5)))),
            (ResponseCode::NoError, Reply::Nothing(Denial::NoRecord, Some(Duration::from_secs(5)))),
        ] {
            let mut message = answer(&asked, vec![]);
            message.metadata.response_code = code;
            let soa = SOA::new(name("ns"), name("who"), 1, 60, 60, 60, 5);
            message.add_authority(Record::from_rdata(name("internal"), 30, RData::SOA(soa)));
            assert_eq!(read_back(&message, &asked), Some(reply));
        }
    }

    #[test]
    fn what_was_not_asked_is_no_answer() {
        let asked = question("a", Kind::A);
        let message = answer(&asked, vec![a("a", 1, 9)]);
        let bytes = message.to_vec().unwrap();
        assert!(read(&bytes, ID, &asked).is_some());
        assert_eq!(read(&bytes, ID ^ 1, &asked), None);
        assert_eq!(read(&bytes, ID, &question("b", Kind::A)), None);
        assert_eq!(read(&bytes, ID, &question("a", Kind::Aaaa)), None);
        assert_eq!(read(&ask(ID, &asked).unwrap(), ID, &asked), None, "a question");
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len], ID, &asked), None, "{len} bytes");
        }
        let mut cut = bytes;
        cut[2] |= 2;
        assert_eq!(read(&cut[..20], ID, &asked), Some(Reply::Truncated));
    }

    /// A name that points at itself: RFC 1035, 4.1.4, has prior occurrences only.
    #[test]
    fn pointers_in_a_circle_end() {
        let asked = question("a", Kind::A);
        let mut bytes = answer(&asked, vec![]).to_vec().unwrap();
        bytes[7] = 1;
        let at = bytes.len() as u16;
        bytes.extend_from_slice(&(0xc000 | at).to_be_bytes());
        bytes.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1]);
        assert_eq!(read(&bytes, ID, &asked), None);
    }

    #[test]
    fn of_thousands_of_records_some_are_taken() {
        let asked = question("a", Kind::A);
        let mut bytes = answer(&asked, vec![]).to_vec().unwrap();
        bytes[6..8].copy_from_slice(&4000_u16.to_be_bytes());
        for at in 0..4000 {
            bytes.extend_from_slice(&[
                0xc0,
                12,
                0,
                1,
                0,
                1,
                0,
                0,
                0,
                9,
                0,
                4,
                10,
                0,
                (at >> 8) as u8,
                at as u8,
            ]);
        }
        let Some(Reply::Addresses(taken, _)) = read(&bytes, ID, &asked) else { panic!("no addresses") };
        assert_eq!(taken.len(), RECORDS_MAX);
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_survived(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 3..300)) {
            bytes[..2].copy_from_slice(&ID.to_be_bytes());
            for kind in [Kind::A, Kind::Aaaa, Kind::Srv] {
                _ = read(&bytes, ID, &question("a", kind));
            }
        }
    }
}
