//! `[log]`: the access log.

use std::{
    iter,
    net::SocketAddr,
    path::{Component, Path},
};

use super::{
    process,
    reader::{Fault, Table, Value},
    schema::{self, Access, Extra},
    suggest,
};
use crate::config::{
    AccessLog, LogField, LogFormat, LogInclude, LogPiece, LogStyle, LogTarget, Quoted, SAMPLE_ALL,
};

/// Default of `log.format`: what HAProxy's log has, in its order.
pub(super) const FORMAT: &str = "$time $client:$client_port $listener $route $pool/$backend \
    $head_us/$queue_us/$connect_us/$first_byte_us/$total_us $status $received_bytes $sent_bytes $reason \
    $attempts $reused $worker $authority \"$request\"";

/// `format = "combined"`: nginx's and Apache's.
const COMBINED: &str = "$remote_addr - - [$time_local] \"$request\" $status $body_bytes_sent \
    \"$http_referer\" \"$http_user_agent\"";

/// Longest format string, in bytes.
const FORMAT_BYTES_MAX: usize = 4096;

/// `state_dir`: who may change the log is not to write among generations.
pub(super) fn access_log(top: &Table<'_>, state_dir: &Path) -> Option<AccessLog> {
    let table = top.table("log", &schema::LOG)?;
    let access = table.value("access").and_then(|value| value.choice(&schema::ACCESSES));
    let access = access.map_or(Access::Off, |at| at.value);
    let format = table.value("format").and_then(|value| {
        let parsed = value.parsed("a format is a string with variables, such as \"$client $status\"", format);
        if access == Access::Json {
            value.fault(Fault::new("a format is for access = \"text\"; with \"json\" use include"));
        }
        parsed.map(|at| at.value)
    });
    let extras = table.value("include").map(|value| {
        if access == Access::Text {
            value.fault(Fault::new("is for access = \"json\"; with \"text\" name it in the format"));
        }
        include(&value)
    });
    let target = table.value("file").and_then(|value| {
        let rule = "must be \"stdout\", \"syslog\", \"syslog:ADDRESS:PORT\" or the path of a file";
        value.parsed(rule, |text| match target(text)? {
            LogTarget::File(path)
                if path.starts_with(state_dir)
                    || path.components().any(|part| part == Component::ParentDir) =>
            {
                Err(Fault::new(
                    "must lie outside the state directory, where all is lb's own, and say so without \"..\"",
                ))
            }
            target => Ok(target),
        })
    });
    let sample =
        table.value("sample").and_then(|value| value.parsed("must be a share, as in \"1%\"", sample));
    let style = match access {
        Access::Off => return None,
        Access::Json => LogStyle::Json(extras.unwrap_or_default()),
        Access::Text => LogStyle::Text(format.or_else(|| self::format(FORMAT).ok())?),
    };
    Some(AccessLog {
        style,
        target: target.map_or(LogTarget::Stdout, |at| at.value),
        sample_ppm: sample.map_or(SAMPLE_ALL, |at| at.value),
    })
}

fn include(value: &Value<'_>) -> LogInclude {
    let mut include = LogInclude::default();
    let rule = "must be an array of words, such as [\"user_agent\"]";
    for item in value.items_or_none(rule).unwrap_or_default() {
        match item.choice(&schema::LOG_EXTRAS).map(|at| at.value) {
            Some(Extra::Query) => include.query = true,
            Some(Extra::UserAgent) => include.user_agent = true,
            Some(Extra::Referer) => include.referer = true,
            None => {}
        }
    }
    include
}

fn target(text: &str) -> Result<LogTarget, Fault> {
    match (text, text.strip_prefix("syslog:")) {
        ("stdout", _) => Ok(LogTarget::Stdout),
        ("syslog", _) => Ok(LogTarget::SyslogLocal),
        (_, Some(address)) => match address.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Ok(LogTarget::SyslogUdp(address)),
            _ => Err(Fault::new("syslog is sent to an address with a port, as in \"syslog:192.0.2.1:514\"")),
        },
        _ if text.starts_with('/') => process::absolute(text).map(LogTarget::File),
        _ => {
            let near = suggest::closest(text, ["stdout", "syslog"]);
            Err(Fault::new("must be \"stdout\", \"syslog\", \"syslog:ADDRESS:PORT\" or an absolute path")
                .suggest(near))
        }
    }
}

/// `1%`, `0.5%`; at least a millionth.
pub(super) fn sample(text: &str) -> Result<u32, Fault> {
    let rule = "must be a share from \"0.0001%\" to \"100%\", such as \"1%\"";
    let fault = || Fault::new(rule);
    let number = text.strip_suffix('%').ok_or_else(fault)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || whole.len() > 3 || part.len() > 4 {
        return Err(fault());
    }
    // Ten thousand millionths are a percent.
    let part: String = part.chars().chain(iter::repeat('0')).take(4).collect();
    let ppm = format!("{whole}{part}").parse().map_err(|_| fault())?;
    if (1..=SAMPLE_ALL).contains(&ppm) { Ok(ppm) } else { Err(fault()) }
}

/// As it is written in a config.
pub(in crate::config) fn show_sample(ppm: u32) -> String {
    let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `$name` and `${name}` are variables, `$$` is a dollar sign; `combined` is nginx's format of that name.
fn format(text: &str) -> Result<LogFormat, Fault> {
    if text.len() > FORMAT_BYTES_MAX {
        return Err(Fault::new(format!("must have at most {FORMAT_BYTES_MAX} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Fault::new("must have no control characters: an entry is a line"));
    }
    let mut rest = if text == "combined" { COMBINED } else { text };
    let (mut pieces, mut literal, mut quoted) = (Vec::new(), String::new(), Quoted::No);
    while let Some(at) = rest.find('$') {
        let (before, behind) = rest.split_at(at);
        quoted = after(quoted, before);
        literal.push_str(before);
        let behind = &behind[1..];
        if let Some(behind) = behind.strip_prefix('$') {
            literal.push('$');
            rest = behind;
            continue;
        }
        let (name, behind) = variable(behind)?;
        if !literal.is_empty() {
            pieces.push(LogPiece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(LogPiece::Field(field(name)?, quoted));
        rest = behind;
    }
    literal.push_str(rest);
    if pieces.is_empty() {
        return Err(Fault::new("has no variable, such as $client or $status"));
    }
    if !literal.is_empty() {
        pieces.push(LogPiece::Literal(literal));
    }
    Ok(LogFormat { text: text.to_owned(), pieces })
}

/// Whether one stands between quotation marks behind `literal`.
fn after(quoted: Quoted, literal: &str) -> Quoted {
    match (quoted, literal.matches('"').count() % 2) {
        (quoted, 0) => quoted,
        (Quoted::Yes, _) => Quoted::No,
        (Quoted::No, _) => Quoted::Yes,
    }
}

/// The name that stands behind a `$`, and what follows it.
fn variable(text: &str) -> Result<(&str, &str), Fault> {
    if let Some(braced) = text.strip_prefix('{') {
        return braced.split_once('}').ok_or_else(|| Fault::new("has a ${ without its }"));
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let len = text.find(|c| !is_name(c)).unwrap_or(text.len());
    match len {
        0 => Err(Fault::new("has a $ without a name; $$ is a dollar sign")),
        _ => Ok(text.split_at(len)),
    }
}

fn field(name: &str) -> Result<LogField, Fault> {
    if let Some((_, field)) = LogField::NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*field);
    }
    if ["http_cookie", "http_authorization", "remote_user"].contains(&name) || name.starts_with("cookie_") {
        return Err(Fault::new(format!("cookies and authorisation are never logged: ${name}")));
    }
    let shown: String = name.chars().take(64).collect();
    let near = suggest::closest(name, LogField::NAMES.iter().map(|(name, _)| *name));
    Err(Fault::new(format!("has no variable ${shown}")).suggest(near.map(|near| format!("${near}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_cut_at_their_variables() {
        let literal = |text: &str| LogPiece::Literal(text.to_owned());
        let bare = |field| LogPiece::Field(field, Quoted::No);
        assert_eq!(
            format("$client:${client_port} \"$request $$\"$status").unwrap().pieces,
            [
                bare(LogField::Client),
                literal(":"),
                bare(LogField::ClientPort),
                literal(" \""),
                LogPiece::Field(LogField::Request, Quoted::Yes),
                literal(" $\""),
                bare(LogField::Status),
            ]
        );
        for good in [FORMAT, COMBINED, "combined"] {
            format(good).unwrap();
        }
        for (bad, why) in [
            ("", "has no variable, such as"),
            ("plain", "has no variable, such as"),
            ("$", "has a $ without a name"),
            ("${client", "has a ${ without its }"),
            ("$client\n", "no control characters"),
            ("$nothing_like_it", "has no variable $nothing_like_it"),
            ("$http_cookie", "never logged"),
            ("$cookie_session", "never logged"),
            ("$http_authorization", "never logged"),
        ] {
            let fault = format(bad).unwrap_err();
            assert!(fault.message.contains(why), "{bad:?}: {}", fault.message);
        }
        assert_eq!(format("$clent").unwrap_err().suggestion.as_deref(), Some("$client"));
    }

    #[test]
    fn a_name_means_one_thing() {
        let mut names: Vec<_> = LogField::NAMES.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), LogField::NAMES.len());
    }

    #[test]
    fn shares_are_read_as_they_are_shown() {
        for (text, ppm) in [("1%", 10_000), ("100%", SAMPLE_ALL), ("0.0001%", 1), ("12.5%", 125_000)] {
            assert_eq!(sample(text).unwrap(), ppm);
            assert_eq!(show_sample(ppm), text);
        }
        for bad in ["1", "", "%", "0%", "101%", "-1%", "0.00001%", "1.%", ".5%", "1e2%"] {
            assert!(sample(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn targets_are_read_as_they_are_shown() {
        for text in
            ["stdout", "syslog", "syslog:192.0.2.1:514", "syslog:[2001:db8::1]:514", "/var/log/lb/a.log"]
        {
            assert_eq!(target(text).unwrap().to_string(), text);
        }
        for bad in ["", "access.log", "syslog:", "syslog:192.0.2.1", "syslog:192.0.2.1:0", "Stdout", "/a\0"] {
            assert!(target(bad).is_err(), "{bad:?}");
        }
    }
}
