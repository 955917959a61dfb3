//! Answers of DNS servers: whatever comes is an answer to what was asked or none, within bounds.
//!
//! ```text
//! input = kind (1 byte) message; the question is for the SRV, A or AAAA records of `a.b`, its id is 0x0102
//! ```

use lb::{
    model::DomainName,
    names::wire::{Kind, Question, RECORDS_MAX, Reply, ask, read},
};

use super::Target;
use crate::bytes::show;

/// See the module.
pub const TARGET: Target = Target { name: "dns", run, seeds, words };

const ID: u16 = 0x0102;

fn question(kind: u8) -> Question {
    let name = DomainName::new("a.b").expect("a name");
    Question { name, kind: [Kind::A, Kind::Aaaa, Kind::Srv][usize::from(kind) % 3] }
}

fn run(input: &[u8]) {
    let Some((&kind, message)) = input.split_first() else { return };
    let question = question(kind);
    let reply = read(message, ID, &question);
    if reply.is_some() {
        assert!(message.starts_with(&ID.to_be_bytes()) && message[2] & 0x80 != 0, "{}", show(message));
    }
    match &reply {
        Some(Reply::Addresses(ips, _)) => {
            assert!((1..=RECORDS_MAX).contains(&ips.len()));
            assert!(ips.iter().all(|ip| ip.is_ipv4() == (question.kind == Kind::A) && !ip.is_unspecified()));
        }
        Some(Reply::Services(services, _)) => {
            assert!((1..=RECORDS_MAX).contains(&services.len()) && question.kind == Kind::Srv);
            assert!(services.iter().all(|service| service.port != 0));
        }
        _ => {}
    }
    // Nobody else's answer is taken for it.
    assert_eq!(read(message, ID ^ 1, &question), None);
}

fn seeds() -> Vec<Vec<u8>> {
    let answer = |kind: u8, rcode: u8, count: u8, records: &[u8]| {
        let asked = ask(ID, &question(kind)).expect("a message");
        // Header and question, without EDNS.
        let mut message = asked[..12 + 5 + 4].to_vec();
        (message[2], message[3], message[7], message[11]) = (0x81, 0x80 | rcode, count, 0);
        [&[kind][..], &message, records].concat()
    };
    let a = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1];
    let alias = [0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 14];
    let aaaa = [&[0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 9, 0, 16][..], &[0xfd; 16]].concat();
    let srv = [0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 9, 0, 9, 0, 1, 0, 2, 0, 80, 1, b'c', 0];
    vec![
        answer(0, 0, 1, &a),
        answer(0, 0, 2, &[&alias[..], &[0xc0, 14], &a[2..]].concat()),
        answer(1, 0, 1, &aaaa),
        answer(2, 0, 1, &srv),
        answer(0, 3, 0, &[]),
        answer(0, 2, 0, &[]),
        answer(0, 0, 1, &[&[0xc0, 21][..], &a[2..]].concat()),
    ]
}

fn words() -> Vec<Vec<u8>> {
    [
        &[0xc0, 12][..],
        &[0, 1, 0, 1],
        &[0, 28, 0, 1],
        &[0, 33, 0, 1],
        &[0, 5, 0, 1],
        &[0, 6, 0, 1],
        &[0, 41],
        &[1, b'a', 0],
    ]
    .map(<[u8]>::to_vec)
    .into()
}
