//! `[tls.NAME]` and `pool.tls`.

use std::{
    ops::{Range, RangeInclusive},
    path::PathBuf,
    sync::Arc,
};

use super::{
    field, pattern,
    process::file_reference,
    reader::{At, Fault, Table, Value},
    schema, units,
};
use crate::config::{CertificateFiles, CheckTrust, ClientAuth, ClientField, HostPattern, Ocsp, PoolTls, Tls};

/// Most certificates of one entry: there are three types of keys.
const CERTIFICATES_MAX: usize = 8;
/// Longest name of a protocol (RFC 7301, 3.1).
const PROTOCOL_BYTES_MAX: usize = 255;

/// How much may come before hands are shaken: no more than servers skip that take none of it.
const EARLY_BYTES: RangeInclusive<u64> = 1 << 10..=16 << 10;
/// Where the config does not say: one record of TLS, and more than any head that is asked for early.
const EARLY_BYTES_DEFAULT: u32 = 16 << 10;

/// Rule for files of certificates and keys.
const FILE: &str = "must be a file beneath the directory of this config, such as \"certs/example.pem\"";
/// Rule for what authorities say.
const STAPLE: &str = "is given by reference, as in \"file:shop.ocsp\", or is \"fetch\"";
/// Rule for references.
const REFERENCE: &str = "is given by reference, as in \"file:ca.pem\"";

/// What was read of an entry.
pub(super) struct TlsDraft {
    pub(super) name: Arc<str>,
    /// Of its header.
    pub(super) span: Range<usize>,
    /// Whether it is a default, and where that stands.
    pub(super) default: Option<At<bool>>,
    /// `None` where a problem was reported.
    read: Option<Tls>,
}

impl TlsDraft {
    pub(super) fn read(name: Arc<str>, table: &Table<'_>) -> Self {
        let default = table.value("default").and_then(|value| Some(value.at(value.boolean()?)));
        let certificates = certificates(table);
        let client_auth = table.table("client_auth", &schema::CLIENT_AUTH).map(|table| client_auth(&table));
        let profile = table.value("profile").and_then(|value| value.choice(&schema::TLS_PROFILES));
        let tickets = table.value("tickets").and_then(|value| reference(&value));
        let early_data = early_data(table);
        let names = table.value("names").map(|value| names(&value)).unwrap_or_default();
        let build = || {
            Some(Tls {
                certificates: certificates?,
                names,
                default: default.as_ref().is_some_and(|at| at.value),
                profile: profile.map(|at| at.value).unwrap_or_default(),
                client_auth: client_auth.transpose_or_none()?,
                tickets: tickets.map(|at| at.value),
                early_data,
            })
        };
        Self { name, span: table.span.clone(), read: build(), default }
    }

    /// `None` only where a problem was reported.
    pub(super) fn build(self) -> Option<Tls> {
        self.read
    }
}

/// Of what may be missing and may be wrong.
trait Read<T> {
    /// `None` where it is wrong.
    fn transpose_or_none(self) -> Option<Option<T>>;
}

impl<T> Read<T> for Option<Option<T>> {
    fn transpose_or_none(self) -> Option<Option<T>> {
        match self {
            None => Some(None),
            Some(None) => None,
            Some(Some(value)) => Some(Some(value)),
        }
    }
}

/// `certificate`, `key` and `ocsp`: each a file, or as many of all. `None` where a problem was reported.
fn certificates(table: &Table<'_>) -> Option<Vec<CertificateFiles>> {
    let (certificate, key) = (table.required("certificate", FILE), table.required("key", FILE));
    let ocsp = table
        .value("ocsp")
        .map(|value| (listed(&value, STAPLE, staple, |ocsp| ocsp.file().is_some()), value));
    let (certificate, key) = (certificate?, key?);
    let (chains, keys) = (files(&certificate, plain_path)?, files(&key, plain_path)?);
    let staples = match ocsp {
        None => vec![None; chains.len()],
        // One word for all of them.
        Some((Some(staples), value)) if staples == [Ocsp::Fetch] && !value.is_array() => {
            vec![Some(Ocsp::Fetch); chains.len()]
        }
        Some((staples, value)) => {
            let staples = staples?;
            if staples.len() != chains.len() {
                value.fault(Fault::new(format!("must be {}, as many as `certificate`", chains.len())));
                return None;
            }
            staples.into_iter().map(Some).collect()
        }
    };
    if chains.len() != keys.len() {
        let fault = format!("must be {}, as many as `certificate`: each has its own key", chains.len());
        key.fault(Fault::new(fault));
        return None;
    }
    let files = chains.into_iter().zip(keys).zip(staples);
    Some(files.map(|((certificate, key), ocsp)| CertificateFiles { certificate, key, ocsp }).collect())
}

/// `early_data` and what goes with it.
fn early_data(table: &Table<'_>) -> Option<u32> {
    let is_on = table.value("early_data").and_then(|value| value.boolean()) == Some(true);
    let bytes = table
        .value("early_data_bytes")
        .map(|value| (value.parsed(units::SIZE, |text| units::size(text, &EARLY_BYTES)), value));
    if !is_on {
        if let Some((_, value)) = bytes {
            value.fault(Fault::new("has no meaning without `early_data = true`"));
        }
        return None;
    }
    if let Some(value) = table.value("tickets") {
        let rule =
            "has no meaning with `early_data`: its sessions are kept by one process, each good for one use";
        value.fault(Fault::new(rule));
    }
    let said = bytes.and_then(|(at, _)| at).map(|at| at.value);
    Some(said.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(EARLY_BYTES_DEFAULT))
}

fn plain_path(text: &str) -> Result<PathBuf, Fault> {
    let whole;
    let text = match text.starts_with("file:") {
        true => text,
        false => {
            whole = format!("file:{text}");
            &whole
        }
    };
    file_reference(text)
}

fn reference_path(text: &str) -> Result<PathBuf, Fault> {
    match text.starts_with("file:") {
        true => file_reference(text),
        false => Err(Fault::new(REFERENCE)),
    }
}

fn reference(value: &Value<'_>) -> Option<At<PathBuf>> {
    value.parsed(REFERENCE, reference_path)
}

/// Where a staple comes from.
fn staple(text: &str) -> Result<Ocsp, Fault> {
    match text {
        "fetch" => Ok(Ocsp::Fetch),
        text if text.starts_with("file:") => file_reference(text).map(Ocsp::File),
        _ => Err(Fault::new(STAPLE)),
    }
}

/// One or several files, none of them twice.
fn files(value: &Value<'_>, parse: fn(&str) -> Result<PathBuf, Fault>) -> Option<Vec<PathBuf>> {
    listed(value, FILE, parse, |_| true)
}

/// The same of whatever may be a file.
fn listed<T: PartialEq>(
    value: &Value<'_>,
    rule: &'static str,
    parse: fn(&str) -> Result<T, Fault>,
    is_file: fn(&T) -> bool,
) -> Option<Vec<T>> {
    if !value.is_array() {
        return Some(vec![value.parsed(rule, parse)?.value]);
    }
    let items = value.items("must be a file, or an array of files")?;
    if items.len() > CERTIFICATES_MAX {
        value.fault(Fault::new(format!("there may be at most {CERTIFICATES_MAX} of them")));
        return None;
    }
    let mut paths: Vec<T> = Vec::new();
    let mut is_good = true;
    for item in &items {
        match item.parsed(rule, parse) {
            Some(at) if is_file(&at.value) && paths.contains(&at.value) => {
                item.fault(Fault::new("stands there already"));
                is_good = false;
            }
            Some(at) => paths.push(at.value),
            None => is_good = false,
        }
    }
    is_good.then_some(paths)
}

fn names(value: &Value<'_>) -> Vec<HostPattern> {
    let rule = "must be an array of names, such as [\"example.com\", \"*.example.com\"]";
    let items = value.items(rule).unwrap_or_default();
    let mut names: Vec<HostPattern> = Vec::new();
    for item in &items {
        let Some(at) = item.parsed("must be a string", pattern::server_name) else { continue };
        match names.contains(&at.value) {
            true => item.fault(Fault::new("stands there already")),
            false => names.push(at.value),
        }
    }
    names
}

fn client_auth(table: &Table<'_>) -> Option<ClientAuth> {
    let ca = table.required("ca", REFERENCE).and_then(|value| reference(&value));
    let rule = "must be \"required\" or \"optional\"";
    let mode = table.required("mode", rule).and_then(|value| value.choice(&schema::CLIENT_MODES));
    let crl = table.value("crl").map(|value| files(&value, reference_path));
    let headers = table.value("headers").and_then(|value| value.any_table());
    let headers = headers.map(|table| client_fields(&table)).unwrap_or_default();
    Some(ClientAuth {
        ca: ca?.value,
        is_required: mode?.value,
        crl: crl.transpose_or_none()?.unwrap_or_default(),
        headers,
    })
}

/// In the order of their names.
fn client_fields(table: &Table<'_>) -> Vec<(Arc<str>, ClientField)> {
    let lower = |name: &str| Ok(Arc::from(field::edited(name)?.to_ascii_lowercase()));
    let fields = field::named(table, lower).into_iter();
    let mut fields: Vec<_> = fields
        .filter_map(|(name, value)| Some((name, value.choice(&schema::CLIENT_FIELDS)?.value)))
        .collect();
    fields.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

/// `pool.tls`; `None` where a problem was reported.
pub(super) fn pool_tls(table: &Table<'_>) -> Option<PoolTls> {
    let trust = trust(table, CheckTrust::Host);
    let sni = table.value("sni").and_then(|value| sni(&value));
    let alpn = table.value("alpn").map(|value| protocols(&value)).unwrap_or_default();
    let file = |value: &Value<'_>| Some(value.parsed(FILE, plain_path)?.value);
    let certificate = match (table.value("certificate"), table.value("key")) {
        (None, None) => None,
        (Some(value), None) => {
            value.fault(Fault::new("needs `key`, too"));
            return None;
        }
        (None, Some(value)) => {
            value.fault(Fault::new("needs `certificate`, too"));
            return None;
        }
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (file(&certificate), file(&key));
            Some(CertificateFiles { certificate: certificate?, key: key?, ocsp: None })
        }
    };
    Some(PoolTls { trust, sni: sni.map(|at| at.value), certificate, alpn })
}

fn protocols(value: &Value<'_>) -> Vec<Arc<str>> {
    let rule = "must be an array of protocols, such as [\"http/1.1\"]";
    let protocol = |text: &str| match text.len() {
        1..=PROTOCOL_BYTES_MAX if text == "h2" => Err(Fault::new("the pool's `protocol = \"h2\"` says this")),
        1..=PROTOCOL_BYTES_MAX if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Arc::from(text)),
        _ => Err(Fault::new(format!("a protocol has 1 to {PROTOCOL_BYTES_MAX} letters, digits and signs"))),
    };
    let items = value.items(rule).unwrap_or_default();
    items.iter().filter_map(|item| item.parsed("must be a string", protocol)).map(|at| at.value).collect()
}

/// `sni`: one whole name.
pub(super) fn sni(value: &Value<'_>) -> Option<At<Arc<str>>> {
    let rule = "must be one whole name, such as \"a.example\"";
    value.parsed(rule, |text| match pattern::server_name(text)? {
        HostPattern::Exact(name) => Ok(name),
        HostPattern::Wildcard(_) => Err(Fault::new(rule)),
    })
}

/// `verify` and `ca`; `unsaid`: where neither is there.
pub(super) fn trust(table: &Table<'_>, unsaid: CheckTrust) -> CheckTrust {
    let verify = table.value("verify").and_then(|value| Some((value.boolean()?, value)));
    let ca = table.value("ca").and_then(|value| reference(&value));
    match (ca, verify) {
        (Some(_), Some((false, verify))) => {
            verify.fault(Fault::new("stands beside `ca`, which says whose certificates are good"));
            CheckTrust::Anyone
        }
        (Some(path), _) => CheckTrust::File(path.value),
        (None, Some((true, _))) => CheckTrust::Host,
        (None, Some((false, _))) => CheckTrust::Anyone,
        (None, None) => unsaid,
    }
}
