//! A record as a line: JSON, or text by a format. Whatever bytes a client sent, a line is one line, and a field ends
//! where it ends.

use std::{fmt::Write as _, io::Write as _};

use jiff::Timestamp;

use super::record::{Record, Text};
use crate::config::{LogField, LogFormat, LogPiece, LogStyle, Protocol, Quoted};

/// Writes lines of one style.
#[derive(Debug)]
pub struct Lines {
    style: LogStyle,
    stamp: Stamp,
}

impl Lines {
    /// Nothing is kept between lines but the time's text.
    pub fn new(style: LogStyle) -> Self {
        Self { style, stamp: Stamp::default() }
    }

    /// Appends the line of a record, with its line feed. `begun_us`: when it began, since 1970 in UTC.
    pub fn write(&mut self, out: &mut Vec<u8>, record: &Record<'_>, begun_us: i64) {
        self.stamp.set(begun_us);
        match &self.style {
            LogStyle::Json(_) => json(out, record, &self.stamp),
            LogStyle::Text(format) => text(out, record, &self.stamp, format),
        }
        out.push(b'\n');
    }
}

/// A time as text; written anew only when the second changes.
#[derive(Debug, Default)]
struct Stamp {
    second: Option<i64>,
    /// `2026-11-26T10:02:11`.
    rfc3339: String,
    /// `26/Nov/2026:10:02:11 +0000`.
    local: String,
    millis: i64,
}

impl Stamp {
    fn set(&mut self, begun_us: i64) {
        let second = begun_us.div_euclid(1_000_000);
        self.millis = begun_us.rem_euclid(1_000_000) / 1000;
        if self.second == Some(second) {
            return;
        }
        self.second = Some(second);
        let time = Timestamp::from_second(second).unwrap_or_default();
        self.rfc3339.clear();
        self.local.clear();
        let _ = write!(self.rfc3339, "{}", time.strftime("%Y-%m-%dT%H:%M:%S"));
        let _ = write!(self.local, "{}", time.strftime("%d/%b/%Y:%H:%M:%S +0000"));
    }
}

const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Keys in the order of what happens; one without a value is left out.
fn json(out: &mut Vec<u8>, record: &Record<'_>, stamp: &Stamp) {
    let facts = &record.facts;
    let _ = write!(
        out,
        r#"{{"time":"{}.{:03}Z","client":"{}","client_port":{}"#,
        stamp.rfc3339,
        stamp.millis,
        facts.client.ip(),
        facts.client.port()
    );
    let text = |out: &mut Vec<u8>, key: &str, value: Option<&[u8]>| {
        if let Some(value) = value {
            for part in [",\"", key, "\":"] {
                out.extend_from_slice(part.as_bytes());
            }
            string(out, value);
        }
    };
    let number = |out: &mut Vec<u8>, key: &str, value: Option<u64>| {
        if let Some(value) = value {
            let mut digits = itoa::Buffer::new();
            for part in [",\"", key, "\":", digits.format(value)] {
                out.extend_from_slice(part.as_bytes());
            }
        }
    };
    text(out, "listener", record.text(Text::Listener));
    text(out, "protocol", Some(protocol(facts.protocol).as_bytes()));
    for (key, which) in [
        ("method", Text::Method),
        ("authority", Text::Authority),
        ("path", Text::Path),
        ("query", Text::Query),
        ("sni", Text::Sni),
        ("tls", Text::Tls),
        ("early_data", Text::EarlyData),
        ("request_id", Text::RequestId),
        ("user_agent", Text::UserAgent),
        ("referer", Text::Referer),
    ] {
        text(out, key, record.text(which));
    }
    text(out, "version", facts.version.map(|version| version.name().as_bytes()));
    for (key, which) in [("route", Text::Route), ("pool", Text::Pool), ("backend", Text::Backend)] {
        text(out, key, record.text(which));
    }
    let is_http = facts.protocol == Protocol::Http;
    text(out, "upgrade", record.text(Text::Upgrade));
    number(out, "status", is_http.then_some(u64::from(facts.status)));
    number(out, "received_bytes", Some(facts.received));
    number(out, "sent_bytes", Some(facts.sent));
    number(out, "head_us", facts.head_us);
    number(out, "queue_us", facts.queue_us);
    number(out, "connect_us", facts.connect_us);
    number(out, "first_byte_us", facts.first_byte_us);
    number(out, "total_us", Some(facts.total_us));
    number(out, "attempts", Some(u64::from(facts.attempts)));
    out.extend_from_slice(if facts.reused { b",\"reused\":true" } else { b",\"reused\":false" });
    text(out, "reason", facts.reason.map(|reason| reason.name().as_bytes()));
    text(out, "fault", record.fault().map(str::as_bytes));
    number(out, "worker", Some(u64::from(facts.worker)));
    out.push(b'}');
}

/// Bytes as a JSON string; what is no UTF-8 in it becomes U+FFFD.
fn string(out: &mut Vec<u8>, value: &[u8]) {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if value.iter().all(is_plain) {
        out.push(b'"');
        out.extend_from_slice(value);
        out.push(b'"');
    } else {
        // Only writing fails, and a vector takes all.
        let _ = serde_json::to_writer(out, &*String::from_utf8_lossy(value));
    }
}

fn text(out: &mut Vec<u8>, record: &Record<'_>, stamp: &Stamp, format: &LogFormat) {
    for piece in &format.pieces {
        match piece {
            LogPiece::Literal(literal) => out.extend_from_slice(literal.as_bytes()),
            LogPiece::Field(field, quoted) => {
                let start = out.len();
                self::field(out, record, stamp, *field, *quoted);
                if out.len() == start {
                    out.push(b'-');
                }
            }
        }
    }
}

/// Appends the value of a field; nothing where it has none.
fn field(out: &mut Vec<u8>, record: &Record<'_>, stamp: &Stamp, field: LogField, quoted: Quoted) {
    let facts = &record.facts;
    let mut text = |which| escape(out, record.text(which).unwrap_or_default(), quoted);
    let response = || {
        let first = facts.head_us? + facts.queue_us?;
        Some(facts.total_us.saturating_sub(first))
    };
    match field {
        LogField::Listener => text(Text::Listener),
        LogField::Route => text(Text::Route),
        LogField::Pool => text(Text::Pool),
        LogField::Backend => text(Text::Backend),
        LogField::Upgrade => text(Text::Upgrade),
        LogField::Method => text(Text::Method),
        LogField::Authority => text(Text::Authority),
        LogField::Path => text(Text::Path),
        LogField::Query => text(Text::Query),
        LogField::RequestId => text(Text::RequestId),
        LogField::UserAgent => text(Text::UserAgent),
        LogField::Referer => text(Text::Referer),
        LogField::Sni => text(Text::Sni),
        LogField::Tls => text(Text::Tls),
        LogField::EarlyData => text(Text::EarlyData),
        LogField::Request => request(out, record, quoted),
        LogField::RequestUri => {
            text(Text::Path);
            if let Some(query) = record.text(Text::Query) {
                out.push(b'?');
                escape(out, query, quoted);
            }
        }
        LogField::Time => _ = write!(out, "{}.{:03}Z", stamp.rfc3339, stamp.millis),
        LogField::TimeLocal => out.extend_from_slice(stamp.local.as_bytes()),
        LogField::Client => _ = write!(out, "{}", facts.client.ip()),
        LogField::ClientPort => number(out, Some(u64::from(facts.client.port()))),
        LogField::Protocol => out.extend_from_slice(protocol(facts.protocol).as_bytes()),
        LogField::Version => out.extend_from_slice(facts.version.map_or("", |v| v.name()).as_bytes()),
        LogField::Status => {
            number(out, (facts.protocol == Protocol::Http).then_some(u64::from(facts.status)));
        }
        LogField::ReceivedBytes => number(out, Some(facts.received)),
        LogField::SentBytes => number(out, Some(facts.sent)),
        LogField::SentBodyBytes => number(out, Some(facts.sent.saturating_sub(facts.sent_head))),
        LogField::HeadUs => number(out, facts.head_us),
        LogField::QueueUs => number(out, facts.queue_us),
        LogField::ConnectUs => number(out, facts.connect_us),
        LogField::FirstByteUs => number(out, facts.first_byte_us),
        LogField::TotalUs => number(out, Some(facts.total_us)),
        LogField::RequestTime => seconds(out, Some(facts.total_us)),
        LogField::UpstreamConnectTime => seconds(out, facts.connect_us),
        LogField::UpstreamHeaderTime => {
            seconds(out, facts.connect_us.zip(facts.first_byte_us).map(|(connect, first)| connect + first));
        }
        LogField::UpstreamResponseTime => seconds(out, response()),
        LogField::Attempts => number(out, Some(u64::from(facts.attempts))),
        LogField::Reused => number(out, Some(u64::from(facts.reused))),
        LogField::Reason => out.extend_from_slice(facts.reason.map_or("", |r| r.name()).as_bytes()),
        LogField::Fault => out.extend_from_slice(record.fault().unwrap_or_default().as_bytes()),
        LogField::Worker => number(out, Some(u64::from(facts.worker))),
    }
}

/// `GET /path HTTP/1.1`, or what is known of it.
fn request(out: &mut Vec<u8>, record: &Record<'_>, quoted: Quoted) {
    let version = record.facts.version.map(|version| version.name().as_bytes());
    let parts = [record.text(Text::Method), record.text(Text::Path), version];
    for (at, part) in parts.into_iter().flatten().enumerate() {
        if at > 0 {
            escape(out, b" ", quoted);
        }
        // A space in a part must not look like one between two.
        escape(out, part, Quoted::No);
    }
}

fn number(out: &mut Vec<u8>, value: Option<u64>) {
    if let Some(value) = value {
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
}

fn seconds(out: &mut Vec<u8>, time_us: Option<u64>) {
    if let Some(time_us) = time_us {
        let _ = write!(out, "{}.{:03}", time_us / 1_000_000, time_us / 1000 % 1000);
    }
}

/// As nginx does: quotation marks, backslashes, controls and all beyond ASCII as `\xXX`; a bare space, too. What
/// stands there cannot be taken for anything else.
fn escape(out: &mut Vec<u8>, value: &[u8], quoted: Quoted) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in value {
        let stands = match byte {
            b'"' | b'\\' => false,
            b' ' => quoted == Quoted::Yes,
            _ => byte.is_ascii_graphic(),
        };
        if stands {
            out.push(byte);
        } else {
            let digit = |nibble: u8| DIGITS[usize::from(nibble & 15)];
            out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::{
        super::record::{Draft, tests::facts},
        *,
    };
    use crate::{
        config::{self, LogInclude},
        log::Facts,
        model::reason::CloseReason,
    };

    /// 2026-11-26T10:02:11.
    const SECOND_US: i64 = 1_795_687_331_000_000;

    fn style(log: &str) -> LogStyle {
        let text = format!("version = 1\n[log]\naccess = \"text\"\nformat = '{log}'");
        config::parse("test", &text).unwrap().config.access_log.unwrap().style
    }

    fn line(style: LogStyle, facts: &Facts, texts: &[(Text, &[u8])]) -> String {
        let mut draft = Draft::default();
        draft.clear();
        texts.iter().for_each(|(text, bytes)| draft.note(*text, bytes));
        let mut out = Vec::new();
        let record = Record::decode(draft.encode(facts)).unwrap();
        Lines::new(style).write(&mut out, &record, SECOND_US + 45_678);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn combined_is_nginx_s() {
        let texts: [(Text, &[u8]); 4] = [
            (Text::Method, b"GET"),
            (Text::Path, b"/a b\"c"),
            (Text::UserAgent, b"curl/8 (\"x\\)\n"),
            (Text::Query, b"secret"),
        ];
        assert_eq!(
            line(style("combined"), &facts(), &texts),
            "198.51.100.7 - - [26/Nov/2026:10:02:11 +0000] \"GET /a\\x20b\\x22c HTTP/1.1\" 200 4300 \"-\" \
             \"curl/8 (\\x22x\\x5C)\\x0A\"\n"
        );
    }

    #[test]
    fn times_are_told_in_each_unit() {
        let format = "$time $head_us/$queue_us/$connect_us/$first_byte_us/$total_us $request_time \
                      $upstream_connect_time $upstream_header_time $upstream_response_time";
        assert_eq!(
            line(style(format), &facts(), &[]),
            "2026-11-26T10:02:11.045Z 10/0/2345/1000/1234567 1.234 0.002 0.003 1.234\n"
        );
        let cut_off = Facts {
            connect_us: None,
            first_byte_us: None,
            status: 0,
            reason: Some(CloseReason::ClientGone),
            version: None,
            ..facts()
        };
        assert_eq!(
            line(
                style("$status $connect_us $upstream_header_time $reason/$fault \"$request\""),
                &cut_off,
                &[]
            ),
            "0 - - client-gone/downstream \"-\"\n"
        );
    }

    #[test]
    fn json_says_what_is_known() {
        let texts: [(Text, &[u8]); 3] =
            [(Text::Listener, b"web"), (Text::Path, b"/\xff\"\x00"), (Text::Backend, b"10.0.0.1:80")];
        let text = line(LogStyle::Json(LogInclude::default()), &facts(), &texts);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["time"], "2026-11-26T10:02:11.045Z");
        assert_eq!(value["path"], "/\u{fffd}\"\0");
        assert_eq!(value["client_port"], 40_000);
        assert_eq!(value["total_us"], 1_234_567);
        assert_eq!(value["reused"], true);
        assert!(value.get("reason").is_none() && value.get("method").is_none(), "{text}");
    }

    proptest! {
        #[test]
        fn no_bytes_forge_a_line_or_a_field(
            path in proptest::collection::vec(any::<u8>(), 0..40),
            agent in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let texts: [(Text, &[u8]); 2] = [(Text::Path, &path), (Text::UserAgent, &agent)];
            let json = line(LogStyle::Json(LogInclude::default()), &facts(), &texts);
            let value: Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&value["path"], &*String::from_utf8_lossy(&path));
            prop_assert_eq!(json.matches('\n').count(), 1);

            let line = line(style("$path \"$user_agent\" $status \"$request\""), &facts(), &texts);
            prop_assert!(line.trim_end_matches('\n').chars().all(|c| c.is_ascii_graphic() || c == ' '));
            prop_assert_eq!(line.matches('"').count(), 4);
            let before = line.split('"').next().unwrap();
            prop_assert_eq!(before.matches(' ').count(), 1, "{}", before);
            let unescaped = unescape(before.trim_end());
            prop_assert_eq!(unescaped, if path.is_empty() { b"-".to_vec() } else { path });
        }
    }

    fn unescape(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            if byte != b'\\' {
                bytes.push(byte);
                continue;
            }
            let (code, behind) = rest.split_at(3);
            bytes.push(u8::from_str_radix(std::str::from_utf8(&code[1..]).unwrap(), 16).unwrap());
            rest = behind;
        }
        bytes
    }
}
