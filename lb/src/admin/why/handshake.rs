//! Which certificate a client of `https://` would be shown, on what terms, and whether its request may come so. Asked of
//! what workers have.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::step;
use crate::{
    admin::{certificates::now_seconds, view::View},
    config::{ListenerSnapshot, Tls, TlsProfile},
    model::{RequestQuestion, reason::CloseReason},
    tls::{CertificateName, Entry},
};

/// # Errors
/// The handshake fails, or the request is not for this connection; in words.
pub(super) fn tell(
    view: &View,
    listener: &ListenerSnapshot,
    question: &RequestQuestion,
    steps: &mut Vec<Value>,
) -> Result<(), (CloseReason, String)> {
    let Some(server) = view.certificates.servers.get(&listener.name) else {
        return Err((
            CloseReason::TlsNoCertificate,
            format!("listener {} has no certificate", listener.name),
        ));
    };
    let name = question.sni.clone().or_else(|| asked_name(&question.authority));
    let said = name.as_deref().map_or_else(|| "no name".to_owned(), |name| format!("the name {name}"));
    let Some(entry) = server.entry(name.as_deref()) else {
        let text = format!("no certificate is for {said}, and none is the default: alert unrecognized_name");
        return Err((CloseReason::TlsNoCertificate, text));
    };
    let by = rule(entry, name.as_deref());
    let files = files(view, entry.name());
    let text = format!("tls.{}, for {said} by {by}: {}", entry.name(), files.join(", else "));
    steps.push(step(
        "certificate",
        text,
        json!({ "tls": entry.name(), "sni": name, "by": by, "files": files }),
    ));
    let protocols: Vec<_> =
        server.protocols().iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    if let Some(config) = view.config.tls.get(entry.name()) {
        let text = format!(
            "{}; ALPN {}{}{}",
            versions(config.profile),
            protocols.join(", "),
            clients(config),
            early_data(config)
        );
        let facts =
            json!({ "profile": config.profile, "alpn": protocols, "early_data_bytes": config.early_data });
        steps.push(step("terms", text, facts));
    }
    match server.covers(name.as_deref(), question.authority.as_bytes()) {
        true => Ok(()),
        false => {
            let host = &question.authority;
            let text = format!("{host} is not for a connection that asked for {said}: answered with 421");
            Err((CloseReason::Misdirected, text))
        }
    }
}

/// What a client asks for that goes to this host: of an address no name is sent (RFC 6066, 3).
fn asked_name(authority: &str) -> Option<String> {
    if authority.starts_with('[') {
        return None;
    }
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.parse::<IpAddr>().is_err().then(|| host.to_ascii_lowercase())
}

/// By what an entry is for a name.
fn rule(entry: &Entry, name: Option<&str>) -> String {
    let Some(name) = name.map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()) else {
        return "default".to_owned();
    };
    let parent = name.split_once('.').map(|(_, parent)| parent);
    let is_for = |of: &&CertificateName| match of {
        CertificateName::Exact(own) => **own == *name,
        CertificateName::Wildcard(own) => Some(&**own) == parent,
    };
    // At most one of each, and the whole name goes first.
    let fitting = entry.names().iter().filter(is_for).min();
    fitting.map_or_else(|| "default".to_owned(), |of| format!("name {of}"))
}

/// Its certificates, in the order in which a client is offered them: the first of a type that it knows is shown.
fn files(view: &View, name: &str) -> Vec<String> {
    let own = |one: &&crate::admin::CertificateView| one.table == "tls" && *one.name == *name;
    let mut all: Vec<_> = view.certificates.certificates.iter().filter(own).collect();
    all.sort_by_key(|one| Entry::rank(one.key_type));
    let now = now_seconds();
    let staple = |one: &crate::admin::CertificateView| {
        one.staple.as_ref().map(|staple| format!(", OCSP {}", staple.state(now))).unwrap_or_default()
    };
    let text = |one: &crate::admin::CertificateView| {
        format!("{} {} ({}{})", one.key_type, one.file, one.left(now), staple(one))
    };
    all.into_iter().map(text).collect()
}

const fn versions(profile: TlsProfile) -> &'static str {
    match profile {
        TlsProfile::Default => "TLS 1.3 or 1.2, profile default",
        TlsProfile::Modern => "TLS 1.3, profile modern",
        TlsProfile::Compatible => "TLS 1.3 or 1.2, profile compatible",
    }
}

const fn clients(config: &Tls) -> &'static str {
    match &config.client_auth {
        None => "",
        Some(clients) if clients.is_required => "; who shows no certificate is turned away",
        Some(_) => "; a certificate is asked for",
    }
}

/// What becomes of a request that comes before hands are shaken.
fn early_data(config: &Tls) -> String {
    config.early_data.map_or_else(String::new, |bytes| {
        format!(
            "; of up to {bytes} bytes that come early, GET, HEAD, OPTIONS and TRACE without a body go on at once, with Early-Data: 1"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        admin::{CertificateView, certificates::CertificateViews, fixture, packets::Refusal, why::route},
        config::{BackendIds, Snapshot, parse},
        model::Generation,
        tls::{Server, fixture::Authority},
    };

    fn view() -> View {
        let text = r#"
            version = 1
            [listener.plain]
            bind = ["[::1]:80"]
            protocol = "http"
            pool = "p"
            [listener.shop]
            bind = ["[::1]:443"]
            protocol = "http"
            pool = "p"
            tls = ["one", "rest"]
            [tls.one]
            certificate = ["rsa.pem", "ec.pem"]
            key = ["rsa.key", "ec.key"]
            profile = "modern"
            client_auth = { ca = "file:ca.pem", mode = "required" }
            [tls.rest]
            certificate = "rest.pem"
            key = "rest.key"
            default = true
            early_data = true
            [pool.p]
            backends = ["10.0.0.1:80"]
        "#;
        let config = parse("f", text).unwrap_or_else(|problems| panic!("{problems}")).config;
        let snapshot = Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap();
        let authority = Authority::new();
        let one = authority.entry("one", &["a.example", "*.a.example"], false);
        let rest = authority.entry("rest", &["b.example"], true);
        let server = Server::new(&[one, rest], &[b"h2", b"http/1.1"]).unwrap();
        let certificate = |name: &str, file: &str, key_type| CertificateView {
            table: "tls",
            name: name.into(),
            file: file.to_owned(),
            names: Vec::new(),
            key_type,
            validity: (0, now_seconds() + 100 * 24 * 3600 + 60),
            staple: None,
        };
        let certificates = CertificateViews {
            certificates: vec![
                certificate("one", "rsa.pem", "rsa"),
                certificate("one", "ec.pem", "ecdsa"),
                certificate("rest", "rest.pem", "ecdsa"),
            ],
            servers: [("shop".into(), Arc::new(server))].into(),
            ..CertificateViews::default()
        };
        View {
            config: Arc::new(config),
            snapshot: Arc::new(snapshot),
            certificates: Arc::new(certificates),
            ..fixture::view()
        }
    }

    /// Outcome with its reason, the line, and the steps.
    fn said(question: &str) -> (String, String, Vec<String>) {
        let answer = route(&view(), &question.parse().unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let steps = answer["steps"].as_array().unwrap().iter();
        let steps = steps.map(|step| format!("{}: {}", text(&step["step"]), text(&step["text"]))).collect();
        (text(&answer["outcome"]) + &text(&answer["reason"]), text(&answer["text"]), steps)
    }

    #[test]
    fn the_certificate_is_named_before_the_route() {
        let (outcome, text, steps) = said("https://X.a.example/v1");
        assert_eq!((&*outcome, &*text), ("forwarded", "no route takes it: pool p of the listener"));
        assert_eq!(
            steps,
            [
                "listener: listener shop",
                "certificate: tls.one, for the name x.a.example by name *.a.example: ecdsa ec.pem (100 days left), else rsa \
                 rsa.pem (100 days left)",
                "terms: TLS 1.3, profile modern; ALPN h2, http/1.1; who shows no certificate is turned away",
                "pool: pool p, 1 of 1 backends up",
            ]
        );
        let (_, _, steps) = said("https://other.example/");
        assert!(
            steps[1].starts_with("certificate: tls.rest, for the name other.example by default: "),
            "{steps:?}"
        );
        assert_eq!(
            steps[2],
            "terms: TLS 1.3 or 1.2, profile default; ALPN h2, http/1.1; of up to 16384 bytes that come early, GET, HEAD, OPTIONS and \
             TRACE without a body go on at once, with Early-Data: 1"
        );
        let (_, _, steps) = said("https://192.0.2.1/ listener=shop");
        assert!(steps[1].starts_with("certificate: tls.rest, for no name by default: "), "{steps:?}");
    }

    #[test]
    fn a_request_for_another_entry_is_refused() {
        let (outcome, text, _) = said("https://b.example/ sni=a.example");
        assert_eq!(outcome, "refusedmisdirected");
        assert_eq!(
            text,
            "b.example is not for a connection that asked for the name a.example: answered with 421"
        );
        let (outcome, _, _) = said("https://x.a.example/ sni=a.example");
        assert_eq!(outcome, "forwarded");
    }

    #[test]
    fn what_is_in_the_clear_and_what_is_not_have_listeners_of_their_own() {
        let refused = |question: &str| match route(&view(), &question.parse().unwrap()) {
            Err(Refusal::Question(message)) => message,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused("http://a/ listener=shop"), "there is no http listener \"shop\"; there are plain");
        assert_eq!(
            refused("https://a/ listener=plain"),
            "there is no https listener \"plain\"; there are shop"
        );
    }
}
