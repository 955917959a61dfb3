//! Certificates that are in use: until when, and what is to be said of that.

use std::{
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    metrics::encode::{Encoder, Kind},
    tls::Certificate,
};

const DAY: i64 = 24 * 3600;
/// From so many days before its end on a certificate is warned of.
const WARNED_DAYS: i64 = 14;

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
        }
    }

    /// What is to be said of it at a time, in seconds since 1970.
    pub fn warning(&self, now: i64) -> Option<String> {
        let Self { table, name, file, validity: (begin, end), .. } = self;
        let what = if now > *end {
            format!("has expired at {}", shown(*end))
        } else if now < *begin {
            format!("is not valid before {}", shown(*begin))
        } else if end - now < WARNED_DAYS * DAY {
            match (end - now) / DAY {
                0 => format!("expires within a day, at {}", shown(*end)),
                1 => format!("expires in 1 day, at {}", shown(*end)),
                days => format!("expires in {days} days, at {}", shown(*end)),
            }
        } else {
            return None;
        };
        Some(format!("{table}.{name}: {file} {what}"))
    }
}

/// Seconds since 1970.
pub fn now_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// What is to be said of certificates now.
pub fn warnings(certificates: &[CertificateView]) -> Vec<String> {
    let now = now_seconds();
    certificates.iter().filter_map(|certificate| certificate.warning(now)).collect()
}

fn shown(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

/// Until when they are good.
pub(super) fn metrics(encoder: &mut Encoder, certificates: &[CertificateView]) {
    let labels = |one: &CertificateView| (one.table, one.name.clone(), one.file.clone());
    let mut family = encoder.family(
        "lb_tls_certificate_expiry_timestamp_seconds",
        Kind::Gauge,
        "When a certificate expires, in seconds since 1970.",
    );
    for one in certificates {
        let (table, name, file) = labels(one);
        family.sample(&[(table, &name), ("file", &file)], one.validity.1);
    }
    let now = now_seconds();
    let mut family = encoder.family(
        "lb_tls_certificate_left_days",
        Kind::Gauge,
        "Days until a certificate expires; below 0 once it has.",
    );
    for one in certificates {
        let (table, name, file) = labels(one);
        let days = (one.validity.1 - now) as f64 / DAY as f64;
        family.sample(&[(table, &name), ("file", &file)], format_args!("{days:.3}"));
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
        }
    }

    #[test]
    fn what_is_about_to_end_is_warned_of() {
        let said = |days: i64| certificate().warning(days * DAY);
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
}
