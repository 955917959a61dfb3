//! Names and values of header fields.

use std::sync::Arc;

use super::reader::{Fault, Table, Value};

/// Longest value that a config may write.
const VALUE_BYTES_MAX: usize = 4096;
/// Most fields that one table may name.
const FIELDS_MAX: usize = 64;

/// Fields that a route cannot change: they frame the message, are for one hop only, or are written by us.
/// What a worker makes of field names (`l7::headers`) knows them too; a test in control holds both together.
const NOT_EDITABLE: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

/// A field name by RFC 9110, 5.1, as it is written.
fn name(text: &str) -> Result<(), Fault> {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !(1..=128).contains(&text.len()) || !text.bytes().all(is_tchar) {
        return Err(Fault::new("the name of a field has 1 to 128 letters, digits and hyphens"));
    }
    Ok(())
}

/// A name to look for, lower-cased.
pub(super) fn matched(text: &str) -> Result<Arc<str>, Fault> {
    name(text)?;
    let lower = text.to_ascii_lowercase();
    if lower == "host" {
        return Err(Fault::new("the host is matched by `host`"));
    }
    let dashed = lower.replace('_', "-");
    if dashed != lower && NOT_EDITABLE.contains(&&*dashed) {
        return Err(Fault::new("such a field is never looked at").suggest(Some(dashed)));
    }
    Ok(lower.into())
}

/// A name to take a key from, lower-cased.
pub(super) fn looked_up(text: &str) -> Result<Arc<str>, Fault> {
    name(text)?;
    Ok(text.to_ascii_lowercase().into())
}

/// A cookie's name, which is a token (RFC 6265, 4.1.1).
pub(super) fn cookie(text: &str) -> Result<Arc<str>, Fault> {
    name(text).map_err(|_| Fault::new("the name of a cookie has 1 to 128 letters, digits and hyphens"))?;
    Ok(text.into())
}

/// A name to write or to leave out.
pub(super) fn edited(text: &str) -> Result<Arc<str>, Fault> {
    name(text)?;
    let dashed = text.to_ascii_lowercase().replace('_', "-");
    match &*dashed {
        "host" => Err(Fault::new("cannot be changed here; `rewrite` has `host` for requests")),
        dashed if NOT_EDITABLE.contains(&dashed) => Err(Fault::new(
            "cannot be changed: it frames the message, is for one hop only, or is lb's own to write",
        )),
        _ => Ok(text.into()),
    }
}

/// A field value by RFC 9110, 5.5.
pub(super) fn value(text: &str) -> Result<Arc<str>, Fault> {
    if text.bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
        return Err(Fault::new("must have no control characters: a line break would begin another field"));
    }
    if text.trim_matches([' ', '\t']) != text {
        return Err(
            Fault::new("must not begin or end with white space").suggest(Some(text.trim().to_owned()))
        );
    }
    if text.len() > VALUE_BYTES_MAX {
        return Err(Fault::new(format!("must have at most {VALUE_BYTES_MAX} bytes")));
    }
    Ok(text.into())
}

/// A table of fields to write, in the order of their names.
pub(super) fn lines(table: &Value<'_>) -> Vec<(Arc<str>, Arc<str>)> {
    let Some(table) = table.any_table() else { return Vec::new() };
    let mut lines = Vec::new();
    for (key, item) in named(&table, edited) {
        if let Some(at) = item.parsed("the value of a field is a string", value) {
            lines.push((key, at.value));
        }
    }
    lines
}

/// The entries of a table whose keys are field names, none of them twice.
pub(super) fn named<'t>(
    table: &Table<'t>,
    parse: impl Fn(&str) -> Result<Arc<str>, Fault>,
) -> Vec<(Arc<str>, Value<'t>)> {
    let mut entries: Vec<(Arc<str>, Value<'t>)> = Vec::new();
    for (key, value) in table.entries() {
        let parsed = parse(key.get_ref()).and_then(|name| {
            let is_new = !entries.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name));
            is_new.then_some(name).ok_or_else(|| Fault::new("the name stands there already in another case"))
        });
        match parsed {
            Ok(_) if entries.len() == FIELDS_MAX => {
                value.fault(Fault::new(format!("there may be at most {FIELDS_MAX} of them")));
                break;
            }
            Ok(name) => entries.push((name, value)),
            Err(fault) => value.fault(fault),
        }
    }
    entries
}
