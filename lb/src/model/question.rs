//! A packet as a person describes it: `tcp 198.51.100.7:1234 -> 192.0.2.53:53 flags=syn interface=eth0`.
//!
//! ```text
//! question = protocol source "->" destination *option
//! protocol = "tcp" | "udp" | "icmp"                icmp is an echo request, of either family
//! source   = 198.51.100.7:1234 | [2001:db8::7]:1234 | for icmp without a port
//! option   = flags=syn,ack (tcp; "ack" unless said) | interface=eth0 | ttl=64 | length=1500 (IP packet)
//! ```

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// A packet that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Transport.
    pub protocol: QuestionProtocol,
    /// From; port 0 for ICMP.
    pub source: SocketAddr,
    /// To, of the same family; port 0 for ICMP.
    pub destination: SocketAddr,
    /// Way in; none: the first that carries our program.
    pub interface: Option<String>,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Bytes from the IP header on; at least the headers, at most [`LENGTH_MAX`].
    pub length: u16,
}

/// What the packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuestionProtocol {
    /// TCP, with these flags as in the header's octet.
    Tcp(u8),
    /// UDP.
    Udp,
    /// An ICMP or ICMPv6 echo request.
    Echo,
}

/// Longest packet that can be asked about: what the kernel takes in one page (net/bpf/test_run.c, Linux 6.12).
pub const LENGTH_MAX: u16 = 3400;
const TTL: u8 = 64;
/// ACK: a packet of a connection that runs.
const FLAGS: u8 = 0x10;

/// TCP flags by name, lowest bit first.
const FLAG_NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

/// What is wrong with a question, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionError {
    /// First character it is about, from 1; one past the end where something is missing.
    pub column: usize,
    /// Characters it is about; at least 1.
    pub width: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for QuestionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.message)
    }
}

impl std::error::Error for QuestionError {}

impl QuestionProtocol {
    /// IP protocol number, for a packet of this family.
    pub const fn number(self, is_v4: bool) -> u8 {
        match self {
            Self::Tcp(_) => 6,
            Self::Udp => 17,
            Self::Echo if is_v4 => 1,
            Self::Echo => 58,
        }
    }

    const fn header_len(self) -> u16 {
        match self {
            Self::Tcp(_) => 20,
            Self::Udp | Self::Echo => 8,
        }
    }
}

impl fmt::Display for Question {
    /// As it can be asked again, the defaults spelled out but for the interface.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, source, destination, interface, ttl, length } = self;
        match protocol {
            QuestionProtocol::Tcp(flags) => {
                let names = FLAG_NAMES.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 != 0);
                let names: Vec<&str> = names.map(|(_, name)| *name).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(",") };
                write!(f, "tcp {source} -> {destination} flags={names}")
            }
            QuestionProtocol::Udp => write!(f, "udp {source} -> {destination}"),
            QuestionProtocol::Echo => write!(f, "icmp {} -> {}", source.ip(), destination.ip()),
        }?;
        if let Some(interface) = interface {
            write!(f, " interface={interface}")?;
        }
        write!(f, " ttl={ttl} length={length}")
    }
}

/// A piece of the question and the column it begins in.
#[derive(Clone, Copy)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) column: usize,
}

impl<'a> Word<'a> {
    pub(super) fn wrong(self, message: impl Into<String>) -> QuestionError {
        QuestionError {
            column: self.column,
            width: self.text.chars().count().max(1),
            message: message.into(),
        }
    }

    /// The rest behind the first `bytes`.
    pub(super) fn after(self, bytes: usize) -> Self {
        let (before, text) = self.text.split_at(bytes);
        Self { text, column: self.column + before.chars().count() }
    }
}

/// Words between white space; an arrow is one wherever it stands.
fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut column = 1;
    for piece in text.split_inclusive(char::is_whitespace) {
        let mut word = Word { text: piece.trim_end(), column };
        column += piece.chars().count();
        while let Some(at) = word.text.find("->") {
            let arrow = word.after(at);
            words.push(Word { text: &word.text[..at], ..word });
            words.push(Word { text: "->", ..arrow });
            word = arrow.after(2);
        }
        words.push(word);
    }
    words.retain(|word| !word.text.is_empty());
    words
}

impl FromStr for Question {
    type Err = QuestionError;

    fn from_str(text: &str) -> Result<Self, QuestionError> {
        let end = Word { text: "", column: text.trim_end().chars().count() + 1 };
        let words = words(text);
        let mut words = words.into_iter();
        let mut next = |what: &str| words.next().ok_or_else(|| end.wrong(format!("{what} is missing")));
        let word = next("the protocol (tcp, udp or icmp)")?;
        let protocol = match word.text {
            "tcp" => QuestionProtocol::Tcp(FLAGS),
            "udp" => QuestionProtocol::Udp,
            "icmp" => QuestionProtocol::Echo,
            other => return Err(word.wrong(format!("{other:?} is no protocol: tcp, udp or icmp"))),
        };
        let source = endpoint(next("the source address")?, protocol)?;
        let arrow = next("-> and the destination address")?;
        if arrow.text != "->" {
            return Err(arrow.wrong("-> belongs here, between source and destination"));
        }
        let word = next("the destination address")?;
        let destination = endpoint(word, protocol)?;
        if source.is_ipv4() != destination.is_ipv4() {
            let (one, two) = if source.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
            return Err(word.wrong(format!("the destination is {two}, the source {one}")));
        }
        let header_len = if source.is_ipv4() { 20 } else { 40 } + protocol.header_len();
        let mut question =
            Self { protocol, source, destination, interface: None, ttl: TTL, length: header_len };
        let mut said: Vec<&str> = Vec::new();
        for word in words {
            let key = question.option(word, header_len)?;
            if said.contains(&key) {
                return Err(word.wrong(format!("{key} is said twice")));
            }
            said.push(key);
        }
        Ok(question)
    }
}

impl Question {
    /// Takes one option; gives its name.
    fn option<'a>(&mut self, word: Word<'a>, header_len: u16) -> Result<&'a str, QuestionError> {
        let Some((key, text)) = word.text.split_once('=') else {
            return Err(word.wrong(format!("{:?} is no option: options are key=value", word.text)));
        };
        let value = word.after(key.len() + 1);
        match (key, self.protocol) {
            ("flags", QuestionProtocol::Tcp(_)) => self.protocol = QuestionProtocol::Tcp(flags(value)?),
            ("flags", _) => return Err(word.wrong("only tcp has flags")),
            // As the kernel has it: 1 to 15 bytes, no slash.
            ("interface", _) if (1..16).contains(&text.len()) && !text.contains('/') => {
                self.interface = Some(text.to_owned());
            }
            ("interface", _) => return Err(value.wrong(format!("{text:?} is no name of an interface"))),
            ("ttl", _) => {
                self.ttl =
                    text.parse().map_err(|_| value.wrong(format!("{text:?} is not within 0 to 255")))?;
            }
            ("length", _) => {
                let is_fit = |length: &u16| (header_len..=LENGTH_MAX).contains(length);
                self.length = text.parse().ok().filter(is_fit).ok_or_else(|| {
                    value.wrong(format!(
                        "{text:?} is not within {header_len} (the headers) to {LENGTH_MAX} bytes"
                    ))
                })?;
            }
            _ => {
                return Err(word.wrong(format!("{key:?} is no option: flags, interface, ttl or length")));
            }
        }
        Ok(key)
    }
}

/// `syn,ack`, or `none`.
fn flags(word: Word<'_>) -> Result<u8, QuestionError> {
    if word.text == "none" {
        return Ok(0);
    }
    let (mut flags, mut at) = (0, 0);
    for name in word.text.split([',', '+', '|']) {
        let Some(bit) = FLAG_NAMES.iter().position(|known| *known == name) else {
            let place = Word { text: name, ..word.after(at) };
            let known = FLAG_NAMES.join(", ");
            return Err(place.wrong(format!("{name:?} is no TCP flag: {known}, or none")));
        };
        flags |= 1 << bit;
        at += name.len() + 1;
    }
    Ok(flags)
}

/// An address with a port, or without one for ICMP.
fn endpoint(word: Word<'_>, protocol: QuestionProtocol) -> Result<SocketAddr, QuestionError> {
    let text = word.text;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let is_echo = protocol == QuestionProtocol::Echo;
    if let Ok(address) = bare.parse::<IpAddr>() {
        return match (is_echo, address) {
            (true, _) => allowed(word, SocketAddr::new(address, 0)),
            (false, IpAddr::V4(_)) => Err(word.wrong(format!("a port is missing: {address}:PORT"))),
            (false, IpAddr::V6(_)) => Err(word.wrong(format!("a port is missing: [{address}]:PORT"))),
        };
    }
    let Some(colon) = text.rfind(':') else {
        return Err(word.wrong(format!("{text:?} is no IP address")));
    };
    let (host, port) = (&text[..colon], word.after(colon + 1));
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = match bare {
        Some(inner) => inner.parse().map(IpAddr::V6).ok(),
        None => host.parse().map(IpAddr::V4).ok(),
    };
    let Some(address) = address else {
        let host = Word { text: host, ..word };
        let hint = if host.text.contains(':') && bare.is_none() { "; IPv6 stands in brackets" } else { "" };
        return Err(host.wrong(format!("{:?} is no IP address{hint}", host.text)));
    };
    if is_echo {
        return Err(port.wrong("icmp has no ports"));
    }
    let number =
        port.text.parse().map_err(|_| port.wrong(format!("{:?} is no port: 0 to 65535", port.text)))?;
    allowed(word, SocketAddr::new(address, number))
}

/// Mapped addresses are never on the wire.
fn allowed(word: Word<'_>, address: SocketAddr) -> Result<SocketAddr, QuestionError> {
    match address.ip() {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(word.wrong("an IPv4 address in IPv6 form: write it as IPv4"))
        }
        _ => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Question {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_is_asked_is_said_back_and_means_the_same() {
        for (text, back) in [
            (
                "tcp 198.51.100.7:1234 -> 192.0.2.53:53",
                "tcp 198.51.100.7:1234 -> 192.0.2.53:53 flags=ack ttl=64 length=40",
            ),
            (
                " tcp  [2001:db8::7]:1->[2001:db8::1]:443\tflags=syn interface=eth0.7",
                "tcp [2001:db8::7]:1 -> [2001:db8::1]:443 flags=syn interface=eth0.7 ttl=64 length=60",
            ),
            (
                "udp 10.0.0.1:0 -> 10.0.0.2:65535 ttl=1 length=1500",
                "udp 10.0.0.1:0 -> 10.0.0.2:65535 ttl=1 length=1500",
            ),
            ("icmp 10.0.0.1 -> 10.0.0.2", "icmp 10.0.0.1 -> 10.0.0.2 ttl=64 length=28"),
            ("icmp [::1] -> 2001:db8::1", "icmp ::1 -> 2001:db8::1 ttl=64 length=48"),
            (
                "tcp 1.1.1.1:1 -> 2.2.2.2:2 flags=none",
                "tcp 1.1.1.1:1 -> 2.2.2.2:2 flags=none ttl=64 length=40",
            ),
            (
                "tcp 1.1.1.1:1 -> 2.2.2.2:2 flags=ack+syn|fin",
                "tcp 1.1.1.1:1 -> 2.2.2.2:2 flags=fin,syn,ack ttl=64 length=40",
            ),
        ] {
            let question = ask(text);
            assert_eq!(question.to_string(), back, "{text}");
            assert_eq!(ask(back), question, "{back}");
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        for (text, place, message) in [
            ("", (1, 1), "protocol"),
            ("sctp 1.1.1.1:1 -> 2.2.2.2:2", (1, 4), "no protocol"),
            ("tcp", (4, 1), "source address is missing"),
            ("tcp 1.1.1.1:1", (14, 1), "-> and the destination"),
            ("tcp 1.1.1.1:1 2.2.2.2:2", (15, 9), "-> belongs here"),
            ("tcp 1.1.1.1:1 ->", (17, 1), "destination address is missing"),
            ("tcp 1.1.1:1 -> 2.2.2.2:2", (5, 5), "no IP address"),
            ("tcp 1.1.1.1 -> 2.2.2.2:2", (5, 7), "1.1.1.1:PORT"),
            ("tcp 2001:db8::1 -> [::1]:2", (5, 11), "[2001:db8::1]:PORT"),
            ("tcp 2001:db8::g:1 -> [::1]:2", (5, 11), "brackets"),
            ("tcp 1.1.1.1:65536 -> 2.2.2.2:2", (13, 5), "no port"),
            ("tcp [::1]:1 -> 2.2.2.2:2", (16, 9), "destination is IPv4, the source IPv6"),
            ("tcp [::ffff:1.1.1.1]:1 -> [::1]:2", (5, 18), "write it as IPv4"),
            ("icmp 1.1.1.1:1 -> 2.2.2.2", (14, 1), "no ports"),
            ("udp 1.1.1.1:1 -> 2.2.2.2:2 flags=syn", (28, 9), "only tcp"),
            ("tcp 1.1.1.1:1 -> 2.2.2.2:2 flags=syn,ak", (38, 2), "no TCP flag"),
            ("tcp 1.1.1.1:1 -> 2.2.2.2:2 flags=", (34, 1), "no TCP flag"),
            ("tcp 1.1.1.1:1 -> 2.2.2.2:2 syn", (28, 3), "key=value"),
            ("tcp 1.1.1.1:1 -> 2.2.2.2:2 color=red", (28, 9), "no option"),
            ("tcp 1.1.1.1:1 -> 2.2.2.2:2 ttl=256", (32, 3), "0 to 255"),
            ("tcp 1.1.1.1:1 -> 2.2.2.2:2 ttl=1 ttl=2", (34, 5), "twice"),
            ("tcp 1.1.1.1:1 -> 2.2.2.2:2 length=39", (35, 2), "40 (the headers)"),
            ("tcp 1.1.1.1:1 -> 2.2.2.2:2 length=3401", (35, 4), "3400"),
            ("tcp 1.1.1.1:1 -> 2.2.2.2:2 interface=a/b", (38, 3), "no name"),
            ("tcp 1.1.1.1:1 -> 2.2.2.2:2 interface=", (38, 1), "no name"),
            ("tcp ä:1 -> 2.2.2.2:2", (5, 1), "no IP address"),
        ] {
            let error = text.parse::<Question>().unwrap_err();
            assert_eq!((error.column, error.width), place, "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_said_makes_us_panic(text in "(tcp|udp|icmp)?[ -~ä]{0,40}(->)?[ -~]{0,20}") {
            if let Err(error) = text.parse::<Question>() {
                assert!(error.column >= 1 && error.column <= text.chars().count() + 1, "{text:?}: {error:?}");
            }
        }
    }
}
