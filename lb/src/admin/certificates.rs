//! Certificates that are in use: until when, and what is to be said of that.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    metrics::encode::{Encoder, Kind},
    tls::{Certificate, Server},
};

pub(super) const DAY: i64 = 24 * 3600;
/// From so many days before its end on a certificate is warned of.
const WARNED_DAYS: i64 = 14;

/// Everything of TLS that is in use.
#[derive(Clone, Debug, Default)]
pub struct CertificateViews {
    /// What is shown to clients and to backends.
    pub certificates: Vec<CertificateView>,
    /// Lists of what is not good any more.
    pub revocations: Vec<RevocationView>,
    /// How connections are made, by listeners.
    pub servers: BTreeMap<Arc<str>, Arc<Server>>,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateView {
    /// `tls` or `pool`.
    pub table: &'static str,
    /// Of `[tls.NAME]` or `[pool.NAME]`.
    pub name: Arc<str>,
    /// Its file, as in the config.
    pub file: String,
    /// What it is for.
    pub names: Vec<String>,
    /// Type of its key.
    pub key_type: &'static str,
    /// Its first and last second, since 1970.
    pub validity: (i64, i64),
    /// What goes with it of OCSP; `None`: nothing is to.
    pub staple: Option<StapleView>,
}

/// What an authority says of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StapleView {
    /// It is asked for; else it comes from a file.
    pub is_fetched: bool,
    /// When it should be followed by another, in seconds since 1970; `None`: there is none, or it does not say so.
    pub next_update: Option<i64>,
    /// Why the last question brought nothing.
    pub failure: Option<String>,
    /// How questions have ended, and how many.
    pub fetches: BTreeMap<&'static str, u64>,
}

impl StapleView {
    /// Of a file.
    pub const fn of_file(next_update: Option<i64>) -> Self {
        Self { is_fetched: false, next_update, failure: None, fetches: BTreeMap::new() }
    }

    /// How it stands at a time.
    pub fn state(&self, now: i64) -> &'static str {
        match (self.is_fetched, self.next_update) {
            (_, Some(next)) if next <= now => "late",
            (true, None) => "missing",
            (true, Some(_)) if self.failure.is_some() => "failing",
            _ => "good",
        }
    }

    fn warning(&self, now: i64) -> Option<String> {
        let failure = self.failure.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        match (self.state(now), self.next_update) {
            ("late", Some(next)) => {
                Some(format!("its OCSP answer is out of date since {}{failure}", shown(next)))
            }
            // Before the first question has ended nothing is wrong.
            ("missing", _) if self.failure.is_some() => Some(format!("has no OCSP answer{failure}")),
            ("failing", Some(next)) => Some(format!(
                "its OCSP answer was not fetched anew, and is good until {}{failure}",
                shown(next)
            )),
            _ => None,
        }
    }
}

/// A file of lists of what is not good any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationView {
    /// Of `[tls.NAME]`.
    pub name: Arc<str>,
    /// As in the config.
    pub file: String,
    /// When the first of its lists should be followed by another, in seconds since 1970; `None`: not said.
    pub next_update: Option<i64>,
}

impl CertificateViews {
    /// What is to be said at a time, in seconds since 1970.
    pub fn warnings(&self, now: i64) -> Vec<String> {
        let certificates = self.certificates.iter().flat_map(|one| one.warnings(now));
        let late = self.revocations.iter().filter_map(|list| {
            let RevocationView { name, file, next_update } = list;
            let next = next_update.filter(|next| *next <= now)?;
            Some(format!(
                "tls.{name}: {file} is out of date since {}: it should have been followed by another",
                shown(next)
            ))
        });
        certificates.chain(late).collect()
    }
}

impl CertificateView {
    /// `table`: which of `tls` and `pool` has it.
    pub fn new(table: &'static str, name: &Arc<str>, file: &Path, certificate: &Certificate) -> Self {
        Self {
            table,
            name: name.clone(),
            file: file.display().to_string(),
            names: certificate.names().iter().map(ToString::to_string).collect(),
            key_type: certificate.key_type(),
            validity: (*certificate.validity().start(), *certificate.validity().end()),
            staple: None,
        }
    }

    /// How long it is still good at a time, in words.
    pub fn left(&self, now: i64) -> String {
        match (self.validity.1 - now).div_euclid(DAY) {
            i64::MIN..=-1 => "expired".to_owned(),
            1 => "1 day left".to_owned(),
            days => format!("{days} days left"),
        }
    }

    /// What is to be said of it at a time, in seconds since 1970.
    pub fn warnings(&self, now: i64) -> Vec<String> {
        let Self { table, name, file, validity: (begin, end), staple, .. } = self;
        let what = if now > *end {
            Some(format!("has expired at {}", shown(*end)))
        } else if now < *begin {
            Some(format!("is not valid before {}", shown(*begin)))
        } else if end - now < WARNED_DAYS * DAY {
            Some(match (end - now) / DAY {
                0 => format!("expires within a day, at {}", shown(*end)),
                1 => format!("expires in 1 day, at {}", shown(*end)),
                days => format!("expires in {days} days, at {}", shown(*end)),
            })
        } else {
            None
        };
        let staple = staple.as_ref().and_then(|staple| staple.warning(now));
        what.into_iter().chain(staple).map(|what| format!("{table}.{name}: {file} {what}")).collect()
    }
}

/// Seconds since 1970.
pub fn now_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// What is to be said of certificates now.
pub fn warnings(views: &CertificateViews) -> Vec<String> {
    views.warnings(now_seconds())
}

pub(super) fn shown(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

/// Until when they are good, and how questions of OCSP have ended.
pub(super) fn metrics(encoder: &mut Encoder, views: &CertificateViews) {
    let of = |one: &CertificateView, at| End {
        table: one.table,
        name: one.name.clone(),
        file: one.file.clone(),
        at,
    };
    let certificates: Vec<_> = views.certificates.iter().map(|one| of(one, one.validity.1)).collect();
    let names = ["lb_tls_certificate_expiry_timestamp_seconds", "lb_tls_certificate_left_days"];
    ends(encoder, names, "a certificate expires", &certificates);
    let staple = |one: &CertificateView| Some(of(one, one.staple.as_ref()?.next_update?));
    let staples: Vec<_> = views.certificates.iter().filter_map(staple).collect();
    let names = ["lb_tls_ocsp_expiry_timestamp_seconds", "lb_tls_ocsp_left_days"];
    ends(encoder, names, "the OCSP answer that goes with a certificate is out of date", &staples);
    let list = |one: &RevocationView| {
        Some(End { table: "tls", name: one.name.clone(), file: one.file.clone(), at: one.next_update? })
    };
    let lists: Vec<_> = views.revocations.iter().filter_map(list).collect();
    let names = ["lb_tls_crl_expiry_timestamp_seconds", "lb_tls_crl_left_days"];
    ends(encoder, names, "a list of revoked certificates is out of date", &lists);
    let mut family = encoder.family(
        "lb_tls_ocsp_fetches_total",
        Kind::Counter,
        "Questions about a certificate that were asked of its authority, by how they ended.",
    );
    for one in &views.certificates {
        for (result, count) in one.staple.iter().flat_map(|staple| &staple.fetches) {
            family.sample(&[(one.table, &one.name), ("file", &one.file), ("result", result)], count);
        }
    }
}

/// When something of a file ends.
struct End {
    table: &'static str,
    name: Arc<str>,
    file: String,
    at: i64,
}

/// When each ends, and how many days are left.
fn ends(encoder: &mut Encoder, [timestamp, left]: [&'static str; 2], what: &str, all: &[End]) {
    let mut family = encoder.family(timestamp, Kind::Gauge, &format!("When {what}, in seconds since 1970."));
    for End { table, name, file, at } in all {
        family.sample(&[(table, name), ("file", file)], at);
    }
    let now = now_seconds();
    let mut family = encoder.family(left, Kind::Gauge, &format!("Days until {what}; below 0 from then on."));
    for End { table, name, file, at } in all {
        let days = (at - now) as f64 / DAY as f64;
        family.sample(&[(table, name), ("file", file)], format_args!("{days:.3}"));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One that is good from 1000 days after 1970 on for 90 days.
    pub(in crate::admin) fn certificate() -> CertificateView {
        CertificateView {
            table: "tls",
            name: "shop".into(),
            file: "certs/shop.pem".to_owned(),
            names: vec!["shop.example".to_owned()],
            key_type: "ecdsa",
            validity: (1000 * DAY, 1090 * DAY),
            staple: None,
        }
    }

    #[test]
    fn what_is_about_to_end_is_warned_of() {
        let said = |days: i64| certificate().warnings(days * DAY).pop();
        let end = "1972-12-26T00:00:00Z";
        assert_eq!(said(1000), None);
        assert_eq!(said(1076), None);
        for (days, expected) in [
            (999, "is not valid before 1972-09-27T00:00:00Z".to_owned()),
            (1077, format!("expires in 13 days, at {end}")),
            (1089, format!("expires in 1 day, at {end}")),
            (1090, format!("expires within a day, at {end}")),
            (1091, format!("has expired at {end}")),
        ] {
            assert_eq!(said(days), Some(format!("tls.shop: certs/shop.pem {expected}")), "{days}");
        }
    }

    #[test]
    fn answers_of_authorities_are_warned_of_while_something_is_wrong() {
        let until = Some(1050 * DAY);
        let why = || Some("http://a/: status 503".to_owned());
        let staple = |is_fetched, next_update, failure| StapleView {
            is_fetched,
            next_update,
            failure,
            fetches: BTreeMap::new(),
        };
        for (of, state, expected) in [
            (staple(false, until, None), "good", None),
            (staple(false, None, None), "good", None),
            (
                staple(false, Some(1010 * DAY), None),
                "late",
                Some("its OCSP answer is out of date since 1972-10-07T00:00:00Z"),
            ),
            (staple(true, None, None), "missing", None),
            (staple(true, None, why()), "missing", Some("has no OCSP answer: http://a/: status 503")),
            (staple(true, until, None), "good", None),
            (
                staple(true, until, why()),
                "failing",
                Some(
                    "its OCSP answer was not fetched anew, and is good until 1972-11-16T00:00:00Z: http://a/: status 503",
                ),
            ),
        ] {
            let now = 1040 * DAY;
            assert_eq!(of.state(now), state, "{of:?}");
            let said = CertificateView { staple: Some(of), ..certificate() }.warnings(now);
            let expected = expected.map(|what| format!("tls.shop: certs/shop.pem {what}"));
            assert_eq!(said, Vec::from_iter(expected));
        }
    }

    #[test]
    fn lists_that_are_out_of_date_are_warned_of() {
        let list =
            |next_update| RevocationView { name: "shop".into(), file: "gone.pem".to_owned(), next_update };
        let revocations = vec![list(None), list(Some(2 * DAY)), list(Some(3 * DAY))];
        let views = CertificateViews { revocations, ..CertificateViews::default() };
        let expected = "tls.shop: gone.pem is out of date since 1970-01-03T00:00:00Z: it should have been followed by another";
        assert_eq!(views.warnings(2 * DAY), [expected]);
    }
}
