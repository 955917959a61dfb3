//! `GET /v1/show/certificates`: what is shown to clients and backends, where it comes from, and until when it is good.

use serde_json::{Value, json};

use super::{
    certificates::{CertificateView, DAY, now_seconds, shown},
    view::View,
};
use crate::config::{CertificateFiles, Ocsp};

/// A row for each certificate.
pub(super) fn rows(view: &View) -> Vec<Value> {
    let now = now_seconds();
    view.certificates.certificates.iter().map(|one| row(view, one, now)).collect()
}

fn row(view: &View, one: &CertificateView, now: i64) -> Value {
    let CertificateView { table, name, file, names, key_type, validity: (begin, end), staple } = one;
    let is_entry = *table == "tls";
    let config = if is_entry {
        view.config.tls.get(name).map(|tls| &tls.certificates[..])
    } else {
        let tls = view.config.pools.get(name).and_then(|pool| pool.tls.as_ref());
        tls.map(|tls| tls.certificate.as_slice())
    };
    let own = |files: &&CertificateFiles| files.certificate.display().to_string() == *file;
    let files = config.and_then(|all| all.iter().find(own));
    let ocsp = files.and_then(|files| files.ocsp.as_ref()).map(|ocsp| match ocsp {
        Ocsp::File(path) => path.display().to_string(),
        Ocsp::Fetch => "fetch".to_owned(),
    });
    let listeners = view.config.listeners.iter().filter(|(_, of)| is_entry && of.tls.contains(name));
    let lists = view.certificates.revocations.iter().filter(|list| is_entry && list.name == *name);
    json!({
        "certificate": format!("{table}.{name}"),
        "names": names,
        "key_type": key_type,
        "left_days": (end - now).div_euclid(DAY),
        "not_before": shown(*begin),
        "not_after": shown(*end),
        "file": file,
        "key_file": files.map(|files| files.key.display().to_string()),
        "ocsp": ocsp,
        "staple": staple.as_ref().map(|staple| staple.state(now)),
        "staple_until": staple.as_ref().and_then(|staple| staple.next_update).map(shown),
        "staple_reason": staple.as_ref().and_then(|staple| staple.failure.as_ref()),
        "crl_until": lists.filter_map(|list| list.next_update).min().map(shown),
        "listeners": listeners.map(|(name, _)| name).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        admin::{
            certificates::{CertificateViews, RevocationView, StapleView, tests::certificate},
            fixture,
            show::{Readings, What, render},
        },
        config::parse,
    };

    #[test]
    fn a_row_says_what_goes_with_a_certificate() {
        let text = r#"
            version = 1
            [listener.web]
            bind = ["[::1]:443"]
            protocol = "http"
            pool = "p"
            tls = ["shop"]
            [listener.other]
            bind = ["[::1]:80"]
            protocol = "http"
            pool = "p"
            [tls.shop]
            certificate = "certs/shop.pem"
            key = "certs/shop.key"
            ocsp = "fetch"
            [pool.p]
            backends = ["10.0.0.1:80"]
            tls = { certificate = "us.pem", key = "us.key" }
        "#;
        let config = parse("f", text).unwrap_or_else(|problems| panic!("{problems}")).config;
        let now = now_seconds();
        let staple = StapleView {
            is_fetched: true,
            next_update: Some(now + 3600),
            failure: Some("why".to_owned()),
            fetches: BTreeMap::new(),
        };
        let shop = CertificateView { staple: Some(staple), ..certificate() };
        let us = CertificateView {
            table: "pool",
            name: "p".into(),
            file: "us.pem".to_owned(),
            validity: (0, now + DAY + 60),
            ..certificate()
        };
        let list = |next_update| RevocationView { name: "shop".into(), file: "x".to_owned(), next_update };
        let certificates = CertificateViews {
            certificates: vec![shop, us],
            revocations: vec![list(Some(2 * DAY)), list(Some(DAY)), list(None)],
            ..CertificateViews::default()
        };
        let view = View { config: Arc::new(config), certificates: Arc::new(certificates), ..fixture::view() };
        let document = render(What::Certificates, &view, Readings::default());
        let (shop, us) = (&document["certificates"][0], &document["certificates"][1]);
        assert!(What::Certificates.columns().iter().all(|column| shop.get(column).is_some()));
        for (key, of_shop, of_us) in [
            ("certificate", json!("tls.shop"), json!("pool.p")),
            ("names", json!(["shop.example"]), json!(["shop.example"])),
            ("key_type", json!("ecdsa"), json!("ecdsa")),
            ("left_days", json!(1090 - now.div_euclid(DAY) - 1), json!(1)),
            ("not_after", json!("1972-12-26T00:00:00Z"), json!(shown(now + DAY + 60))),
            ("file", json!("certs/shop.pem"), json!("us.pem")),
            ("key_file", json!("certs/shop.key"), json!("us.key")),
            ("ocsp", json!("fetch"), Value::Null),
            ("staple", json!("failing"), Value::Null),
            ("staple_until", json!(shown(now + 3600)), Value::Null),
            ("staple_reason", json!("why"), Value::Null),
            ("crl_until", json!("1970-01-02T00:00:00Z"), Value::Null),
            ("listeners", json!(["web"]), json!([])),
        ] {
            assert_eq!((&shop[key], &us[key]), (&of_shop, &of_us), "{key}");
        }
    }
}
