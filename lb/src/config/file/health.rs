//! `pool.health`.

use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    ops::RangeInclusive,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    field, pattern,
    process::TIMEOUTS,
    reader::{At, Fault, Table, Value},
    schema, tls,
    units::show_duration,
};
use crate::config::{
    BodyTest, CheckKind, CheckTrust, GrpcCheck, Health, HttpCheck, Pattern, Payload, Statuses, TlsCheck,
    UdpCheck,
};

/// Defaults: every 2 s, 1 s to answer, down after 3 failures, up after 2 successes.
const EVERY: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);
const FALL: u32 = 3;
const RISE: u32 = 2;

/// Longest path and query.
const PATH_BYTES_MAX: usize = 2048;
/// Longest text that a body or a datagram must hold, and longest datagram: what passes every link unfragmented.
const PAYLOAD_BYTES_MAX: usize = 1200;
/// Longest name of a service.
const SERVICE_BYTES_MAX: usize = 255;
/// Most statuses and ranges of them.
const STATUSES_MAX: usize = 16;

/// Rule for kinds whose value is a port.
const PORT: &str = "must be \"auto\" or a port, such as \"8080\"";
/// Rule for programs.
const PROGRAM: &str =
    "must be a program beneath [health] programs_dir: a relative path without \".\" and \"..\"";
/// Rule for payloads.
const PAYLOAD: &str = "must be text, \"hex:...\" or \"base64:...\"";

/// What was read of it.
pub(super) struct HealthDraft {
    /// `None` where a problem was reported.
    kind: Option<At<CheckKind>>,
    port: Option<u16>,
    every: Duration,
    recheck: Option<Duration>,
    jitter: Duration,
    timeout: Duration,
    fall: u32,
    rise: u32,
}

/// A check that goes by the backends' own ports.
pub(super) struct WithoutPort<'d> {
    /// Its key.
    pub(super) at: &'d At<CheckKind>,
    /// Whether the value of its key is a port.
    pub(super) is_port: bool,
}

impl HealthDraft {
    pub(super) fn read(table: &Table<'_>) -> Self {
        let (kind, port) = kind(table).map_or((None, None), |(kind, port)| (Some(kind), port));
        let every = table.value("every").and_then(|value| value.duration(&TIMEOUTS));
        let every = every.map_or(EVERY, |at| at.value);
        let within_every = |key| within_every(table, key, every);
        let times = |key, default| {
            table.value(key).and_then(|value| value.integer(1..101)).map_or(default, |at| at.value as u32)
        };
        Self {
            kind,
            port,
            every,
            recheck: within_every("recheck"),
            jitter: within_every("jitter").unwrap_or_default(),
            // A default that is longer than a short interval gives way to it.
            timeout: within_every("timeout").unwrap_or(TIMEOUT.min(every)),
            fall: times("fall", FALL),
            rise: times("rise", RISE),
        }
    }

    /// `None` only where a problem was reported.
    pub(super) fn build(self) -> Option<Health> {
        let Self { kind, port, every, recheck, jitter, timeout, fall, rise } = self;
        Some(Health { kind: kind?.value, port, every, recheck, jitter, timeout, fall, rise })
    }

    /// Where a program is run.
    pub(super) fn program(&self) -> Option<&At<CheckKind>> {
        self.kind.as_ref().filter(|at| matches!(at.value, CheckKind::Exec(_)))
    }

    /// Its key, where it is not `tcp = "auto"`.
    pub(super) fn more_than_connects(&self) -> Option<&At<CheckKind>> {
        self.kind.as_ref().filter(|at| self.port.is_some() || at.value != CheckKind::Tcp)
    }

    pub(super) fn without_port(&self) -> Option<WithoutPort<'_>> {
        let at = self.kind.as_ref().filter(|_| self.port.is_none())?;
        Some(WithoutPort { at, is_port: !has_own_port(at.value.name()) })
    }
}

fn within_every(table: &Table<'_>, key: &str, every: Duration) -> Option<Duration> {
    let value = table.value(key)?;
    let duration = value.duration(&TIMEOUTS)?.value;
    if duration > every {
        value.fault(Fault::new(format!("must be at most `every`, which is {}", show_duration(every))));
    }
    Some(duration)
}

/// The one kind, with the port that it says.
fn kind(table: &Table<'_>) -> Option<(At<CheckKind>, Option<u16>)> {
    let named: Vec<&str> =
        schema::CHECK_KINDS.into_iter().filter(|kind| table.value(kind).is_some()).collect();
    let [name] = named[..] else {
        let names = schema::CHECK_KINDS.map(|kind| format!("`{kind}`")).join(", ");
        let rule = format!("a check has exactly one of {names}");
        match named.get(1).and_then(|second| table.value(second)) {
            Some(second) => second.fault(Fault::new(format!("{rule}; `{}` stands there already", named[0]))),
            None => _ = table.required("tcp", &rule),
        }
        return None;
    };
    let value = table.value(name)?;
    misplaced(table, name);
    if has_own_port(name) {
        let port = table.value("port").and_then(|value| value.integer(1..65_536));
        let kind = match name {
            "http" => CheckKind::Http(http(table, &value, None)?),
            "https" => CheckKind::Http(http(table, &value, Some(tls_check(table)))?),
            "grpc" => CheckKind::Grpc(grpc(table, &value, None)?),
            "grpcs" => CheckKind::Grpc(grpc(table, &value, Some(tls_check(table)))?),
            _ => CheckKind::Exec(value.parsed(PROGRAM, program)?.value),
        };
        return Some((value.at(kind), port.map(|at| at.value as u16)));
    }
    let port = value.parsed(PORT, port)?.value;
    let kind = match name {
        "tls" => CheckKind::Tls(tls_check(table)),
        "udp" => CheckKind::Udp(udp(table)),
        "redis" => CheckKind::Redis,
        "postgres" => CheckKind::Postgres,
        "mysql" => CheckKind::Mysql,
        _ => CheckKind::Tcp,
    };
    Some((value.at(kind), port))
}

/// Whether the value of its key is something else than a port.
fn has_own_port(kind: &str) -> bool {
    matches!(kind, "http" | "https" | "grpc" | "grpcs" | "exec")
}

/// Keys that go with some kinds only.
const OWN_KEYS: &[(&[&str], &[&str])] = &[
    (&["method", "status", "body", "headers"], &["http", "https"]),
    (&["host"], &["http", "https", "grpc", "grpcs"]),
    (&["sni", "verify", "ca"], &["tls", "https", "grpcs"]),
    (&["send", "expect"], &["udp"]),
];

/// Keys that go with another kind.
fn misplaced(table: &Table<'_>, kind: &str) {
    if let Some(value) = table.value("port").filter(|_| !has_own_port(kind)) {
        value.fault(Fault::new(format!("the port stands in `{kind}` itself")));
    }
    for (keys, kinds) in OWN_KEYS.iter().filter(|(_, kinds)| !kinds.contains(&kind)) {
        for value in keys.iter().filter_map(|key| table.value(key)) {
            let names: Vec<_> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            let fault = format!("goes with {}, and this check is `{kind}`", names.join(", "));
            value.fault(Fault::new(fault));
        }
    }
}

fn port(text: &str) -> Result<Option<u16>, Fault> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        _ if text == "auto" => Ok(None),
        Ok(port @ 1..) if is_decimal => Ok(Some(port)),
        _ => Err(Fault::new("must be \"auto\" or a port from 1 to 65535, such as \"8080\"")),
    }
}

fn http(table: &Table<'_>, path: &Value<'_>, tls: Option<TlsCheck>) -> Option<HttpCheck> {
    let is_head = table.value("method").and_then(|value| value.choice(&schema::CHECK_METHODS));
    let is_head = is_head.is_some_and(|at| at.value);
    let body = table.value("body");
    if let (true, Some(body)) = (is_head, &body) {
        body.fault(Fault::new("an answer to HEAD has no body"));
    }
    let status = table.value("status");
    let status = status.and_then(|value| value.parsed("must be a string, such as \"200-299\"", statuses));
    Some(HttpCheck {
        path: path.parsed("must be a path, such as \"/healthz\"", target)?.value,
        is_head,
        status: status.map_or_else(Statuses::default, |at| at.value),
        body: body.and_then(|value| body_test(&value)),
        host: host(table),
        headers: table.value("headers").map(|value| field::lines(&value)).unwrap_or_default(),
        tls,
    })
}

fn host(table: &Table<'_>) -> Option<Arc<str>> {
    let value = table.value("host")?;
    Some(value.parsed("must be a host, such as \"a.example\"", pattern::authority)?.value)
}

fn grpc(table: &Table<'_>, service: &Value<'_>, tls: Option<TlsCheck>) -> Option<GrpcCheck> {
    let rule = "must be the name of a service, such as \"shop.Orders\", or \"\" for the whole server";
    let named =
        |text: &str| match text.len() <= SERVICE_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(text.into()),
            false => Err(Fault::new(rule)),
        };
    Some(GrpcCheck { service: service.parsed(rule, named)?.value, host: host(table), tls })
}

fn tls_check(table: &Table<'_>) -> TlsCheck {
    let sni = table.value("sni").and_then(|value| tls::sni(&value));
    TlsCheck { sni: sni.map(|at| at.value), trust: tls::trust(table, CheckTrust::Anyone) }
}

fn program(text: &str) -> Result<PathBuf, Fault> {
    let path = Path::new(text);
    let is_beneath = path.components().all(|part| matches!(part, Component::Normal(_)));
    match text.is_empty() || text.contains('\0') || !is_beneath {
        true => Err(Fault::new(PROGRAM)),
        false => Ok(path.to_owned()),
    }
}

/// Path and query, as they go out.
fn target(text: &str) -> Result<Arc<str>, Fault> {
    let is_plain = text.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#');
    if !text.starts_with('/') || !is_plain {
        return Err(Fault::new(
            "must be a path that begins with / and is written as it goes out, such as \"/healthz\"",
        ));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(Fault::new(format!("must have at most {PATH_BYTES_MAX} bytes")));
    }
    Ok(text.into())
}

fn statuses(text: &str) -> Result<Statuses, Fault> {
    let rule = "must be statuses or ranges of them, such as \"200\", \"200-299\" or \"200,301-302\"";
    let range = |text: &str| -> Option<RangeInclusive<u16>> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| match text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u16>().ok().filter(|status| (200..=599).contains(status)),
            false => None,
        };
        let range = status(first)?..=status(last)?;
        (!range.is_empty()).then_some(range)
    };
    let ranges: Option<Vec<_>> = text.split(',').map(|part| range(part.trim())).collect();
    match ranges {
        Some(ranges) if ranges.len() <= STATUSES_MAX => Ok(Statuses(ranges)),
        _ => Err(Fault::new(rule)),
    }
}

fn body_test(value: &Value<'_>) -> Option<BodyTest> {
    if value.is_table() {
        let rule = "must be text, or a pattern as in { regex = \"ok|fine\" }";
        let compiled = |text: &str| Pattern::within(text).map(BodyTest::Pattern).map_err(Fault::new);
        let table = value.table(&schema::BODY_TEST)?;
        return Some(table.required("regex", rule)?.parsed(rule, compiled)?.value);
    }
    let text = |text: &str| match text.len() {
        1..=PAYLOAD_BYTES_MAX => Ok(BodyTest::Text(text.into())),
        _ => Err(Fault::new(format!("must have 1 to {PAYLOAD_BYTES_MAX} bytes"))),
    };
    Some(value.parsed("must be a string, or a table with `regex`", text)?.value)
}

fn udp(table: &Table<'_>) -> UdpCheck {
    let read = |key| table.value(key).and_then(|value| value.parsed(PAYLOAD, payload)).map(|at| at.value);
    let check = UdpCheck { send: read("send"), expect: read("expect") };
    if let (None, Some(expect)) = (table.value("send"), table.value("expect")) {
        expect.fault(Fault::new("an answer needs a question: give `send`, too"));
    }
    check
}

fn payload(text: &str) -> Result<Payload, Fault> {
    let bytes = if let Some(digits) = text.strip_prefix("hex:") {
        hex(digits).ok_or_else(|| Fault::new("must be pairs of hexadecimal digits behind \"hex:\""))?
    } else if let Some(letters) = text.strip_prefix("base64:") {
        STANDARD
            .decode(letters)
            .map_err(|_| Fault::new("must be base64 with its padding (RFC 4648, 4) behind \"base64:\""))?
    } else {
        text.as_bytes().to_vec()
    };
    match bytes.len() {
        1..=PAYLOAD_BYTES_MAX => Ok(Payload { text: text.into(), bytes: bytes.into() }),
        _ => Err(Fault::new(format!("must have 1 to {PAYLOAD_BYTES_MAX} bytes"))),
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    let digits: Vec<u32> = digits.bytes().filter(|byte| *byte != b' ').map(value).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_text_hex_or_base64() {
        let bytes = |text: &str| payload(text).map(|payload| payload.bytes.to_vec()).ok();
        assert_eq!(bytes("ping\n").as_deref(), Some(&b"ping\n"[..]));
        assert_eq!(bytes("hex:00 fF10").as_deref(), Some(&[0, 255, 16][..]));
        for (text, meant) in [("TQ==", "M"), ("TWE=", "Ma"), ("TWFu", "Man"), ("TWFuTQ==", "ManM")] {
            assert_eq!(bytes(&format!("base64:{text}")).as_deref(), Some(meant.as_bytes()), "{text}");
        }
        for bad in [
            "",
            "hex:",
            "hex:0",
            "hex:0g",
            "base64:",
            "base64:TQ",
            "base64:TQ=",
            "base64:TR==",
            "base64:TQ==TWFu",
            "base64:T===",
            "base64:====",
        ] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
        assert_eq!(bytes(&"a".repeat(1201)), None);
    }

    #[test]
    fn statuses_are_read_as_shown() {
        let read = statuses("200, 301-302,404").unwrap();
        assert_eq!(read.to_string(), "200,301-302,404");
        assert!(read.contains(302) && read.contains(404) && !read.contains(201));
        for bad in ["", "20", "2xx", "200-", "299-200", "100", "600", "200,,300", "+200", "200-204-206"] {
            assert!(statuses(bad).is_err(), "{bad}");
        }
    }
}
