//! Answers that a route gives itself: redirects and fixed ones, compiled but for what depends on the request.

use std::sync::Arc;

use super::{
    http1::{Forwarding, RequestHead, Version, scheme},
    rewrite::PathRewrite,
};
use crate::{
    config::{HeaderEdits, PathMatch, Redirect, Respond, RouteAction, RouteSnapshot, Scheme},
    model::reason::CloseReason,
};

/// One route's own answer.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    /// Status line and the fields that are always the same.
    head: Box<[u8]>,
    /// `None`: none is described either.
    body: Option<Box<[u8]>>,
    location: Option<Location>,
}

/// Where a redirect leads.
#[derive(Clone, Debug)]
struct Location {
    to: Arc<Redirect>,
    path: Option<PathRewrite>,
}

impl Answer {
    /// Whether it says that what was asked for was done.
    pub const fn is_success(&self) -> bool {
        self.status / 100 == 2
    }

    /// That of a route; `None` for one that asks a backend.
    pub fn new(route: &RouteSnapshot) -> Option<Self> {
        match &route.action {
            RouteAction::Forward { .. } => None,
            RouteAction::Redirect(to) => Some(Self::redirect(to, &route.path, &route.response_headers)),
            RouteAction::Respond(respond) => Some(Self::respond(respond, &route.response_headers)),
        }
    }

    fn redirect(to: &Arc<Redirect>, from: &PathMatch, edits: &HeaderEdits) -> Self {
        let path = to.path.as_ref().map(|path| PathRewrite::new(path.clone(), from));
        Self {
            status: to.status,
            head: head(to.status, &[], edits),
            body: Some(Box::default()),
            location: Some(Location { to: to.clone(), path }),
        }
    }

    fn respond(respond: &Respond, edits: &HeaderEdits) -> Self {
        let mut fields = respond.headers.clone();
        let body = (!matches!(respond.status, 204 | 304)).then(|| respond.body.as_bytes().into());
        if !respond.body.is_empty() {
            fields.insert(0, ("Content-Type".into(), respond.content_type.clone()));
        }
        Self { status: respond.status, head: head(respond.status, &fields, edits), body, location: None }
    }

    /// Status code.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Appends the whole answer to `request`, which was parsed from `buf`.
    ///
    /// # Errors
    /// [`CloseReason::Host`]: a redirect needs to know the host, and an HTTP/1.0 request named none.
    pub fn encode(
        &self,
        out: &mut Vec<u8>,
        buf: &[u8],
        request: &RequestHead,
        forwarding: &Forwarding<'_>,
        close: bool,
    ) -> Result<(), CloseReason> {
        out.extend_from_slice(&self.head);
        if let Some(location) = &self.location {
            location.push(out, buf, request, scheme(buf, request, forwarding))?;
        }
        if let Some(body) = &self.body {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if close {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if request.version() == Version::Http10 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if let Some(body) = self.body.as_ref().filter(|_| !request.is_head()) {
            out.extend_from_slice(body);
        }
        Ok(())
    }
}

/// Status line and fields. Edits apply to the given fields as to a backend's.
fn head(status: u16, fields: &[(Arc<str>, Arc<str>)], edits: &HeaderEdits) -> Box<[u8]> {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or_default());
    let is_dropped = |name: &str| {
        edits
            .set
            .iter()
            .map(|(name, _)| name)
            .chain(&edits.remove)
            .any(|drop| drop.eq_ignore_ascii_case(name))
    };
    let kept = fields.iter().filter(|(name, _)| !is_dropped(name));
    for (name, value) in kept.chain(&edits.set).chain(&edits.add) {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.into_bytes().into()
}

impl Location {
    /// Always absolute, so that no path can be read as a host.
    fn push(
        &self,
        out: &mut Vec<u8>,
        buf: &[u8],
        request: &RequestHead,
        own_scheme: &[u8],
    ) -> Result<(), CloseReason> {
        let Redirect { scheme, host, port, keep_query, .. } = &*self.to;
        out.extend_from_slice(b"Location: ");
        out.extend_from_slice(match scheme {
            Some(Scheme::Http) => b"http",
            Some(Scheme::Https) => b"https",
            None => own_scheme,
        });
        out.extend_from_slice(b"://");
        // The port of the request was that of its scheme and host.
        let own = if scheme.is_none() && port.is_none() { request.authority(buf) } else { request.host(buf) };
        let host = host.as_ref().map_or(own, |host| host.as_bytes());
        if host.is_empty() {
            return Err(CloseReason::Host);
        }
        out.extend_from_slice(host);
        if let Some(port) = port {
            out.push(b':');
            out.extend_from_slice(itoa::Buffer::new().format(*port).as_bytes());
        }
        let (routed, forwarded) = (request.path(buf), request.forwarded_path(buf));
        match &self.path {
            // `OPTIONS *` is about the server itself.
            _ if routed == b"*" => {}
            Some(path) => path.push(out, routed, forwarded),
            None => out.extend_from_slice(forwarded),
        }
        if *keep_query {
            out.extend_from_slice(request.query(buf));
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{BackendIds, Snapshot, parse},
        l7::http1::{HeadLimits, Parsed},
        model::Generation,
    };

    fn answer(route: &str) -> Answer {
        let text = format!(
            "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"http\"\n[route.r]\nlistener = \"l\"\n{route}\n"
        );
        let config = parse("f", &text).unwrap_or_else(|wrong| panic!("{wrong}")).config;
        let snapshot = Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap();
        Answer::new(&snapshot.routes[0]).unwrap()
    }

    fn encoded(answer: &Answer, request: &str, close: bool) -> Result<String, CloseReason> {
        let mut head = RequestHead::default();
        assert_eq!(
            head.parse(request.as_bytes(), &HeadLimits::default()),
            Ok(Parsed::Complete),
            "{request:?}"
        );
        let mut out = Vec::new();
        let forwarding = Forwarding {
            client: [192, 0, 2, 7].into(),
            scheme: "http",
            authority: b"",
            port: 80,
            is_trusted: request.contains("trusted"),
            says_forwarded: false,
            request_id: [0; 2],
        };
        answer.encode(&mut out, request.as_bytes(), &head, &forwarding, close)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn location(redirect: &str, target: &str, host: &str) -> String {
        let answer = answer(redirect);
        let got = encoded(&answer, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"), false).unwrap();
        let line = got.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap();
        line.to_owned()
    }

    #[test]
    fn redirects() {
        let https = "redirect = { scheme = \"https\" }";
        for (redirect, target, host, expected) in [
            (https, "/a//b?c=d", "a.example:8080", "https://a.example/a//b?c=d"),
            (https, "//evil.example", "a.example", "https://a.example//evil.example"),
            (https, "http://b.example/x", "a.example", "https://b.example/x"),
            (https, "/x", "[::1]:80", "https://[::1]/x"),
            ("redirect = { scheme = \"https\", port = 8443 }", "/", "a:80", "https://a:8443/"),
            ("redirect = { host = \"www.a\" }", "/x?y", "a:8080", "http://www.a/x?y"),
            ("redirect = { path = \"/y\" }", "/x?y", "a:8080", "http://a:8080/y?y"),
            ("redirect = { path = \"/y\", keep_query = false }", "/x?y", "a", "http://a/y"),
            ("path = \"/old/*\"\nredirect = { path = \"/new/*\" }", "/old/a%2fb", "a", "http://a/new/a%2Fb"),
            ("path = \"/{a}/{b}\"\nredirect = { path = \"/{b}/{a}\" }", "/1/2?3", "a", "http://a/2/1?3"),
        ] {
            assert_eq!(location(redirect, target, host), expected, "{redirect} {target}");
        }
    }

    #[test]
    fn a_redirect_is_whole() {
        let moved = answer(
            "redirect = { status = 308, scheme = \"https\" }\nset_headers.response.add = { X-A = \"1\" }",
        );
        assert_eq!(moved.status(), 308);
        assert_eq!(
            encoded(&moved, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false).unwrap(),
            "HTTP/1.1 308 Permanent Redirect\r\nX-A: 1\r\nLocation: https://a/\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(encoded(&moved, "GET / HTTP/1.0\r\n\r\n", true), Err(CloseReason::Host));
        let here = answer("redirect = { path = \"/x\" }");
        let got =
            encoded(&here, "GET /trusted HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n", false);
        assert!(
            got.unwrap().contains("Location: https://a/x\r\n"),
            "a trusted proxy says what the client spoke"
        );
        let got = encoded(&here, "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n", false);
        assert!(got.unwrap().contains("Location: http://a/x\r\n"));
    }

    #[test]
    fn fixed_answers() {
        let gone = answer(
            "respond = { status = 410, body = \"gone\\n\", headers = { X-Why = \"age\", X-B = \"b\" } }\n\
             set_headers.response = { set = { X-Why = \"rot\" }, remove = [\"x-b\"] }",
        );
        let head = "HTTP/1.1 410 Gone\r\nContent-Type: text/plain; charset=utf-8\r\nX-Why: rot\r\nContent-Length: 5\r\n";
        let got = |request: &str, close| encoded(&gone, request, close).unwrap();
        assert_eq!(got("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false), format!("{head}\r\ngone\n"));
        assert_eq!(got("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", false), format!("{head}\r\n"));
        assert_eq!(got("GET / HTTP/1.0\r\n\r\n", true), format!("{head}Connection: close\r\n\r\ngone\n"));
        let kept = got("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false);
        assert_eq!(kept, format!("{head}Connection: keep-alive\r\n\r\ngone\n"));
        let none = answer("respond = { status = 204 }");
        assert_eq!(
            encoded(&none, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false).unwrap(),
            "HTTP/1.1 204 No Content\r\n\r\n"
        );
        let empty = answer("respond = { status = 299 }");
        assert_eq!(
            encoded(&empty, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false).unwrap(),
            "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"
        );
    }
}
