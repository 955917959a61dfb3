//! `[route.NAME]`: what a request must be like, and what becomes of it.

use std::{sync::Arc, time::Duration};

use super::{Pattern, RoutePolicy};

/// `[route.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Name of a listener that exists: an http one, or with [`HostKind::Sni`] a tcp one.
    pub listener: Arc<str>,
    /// Hosts, lower case; empty: any.
    pub hosts: Vec<HostPattern>,
    /// Whose word for the host counts.
    pub host_kind: HostKind,
    /// Path; `None`: any.
    pub path: Option<PathPattern>,
    /// What else must hold.
    pub conditions: Arc<Conditions>,
    /// Of routes that are equally specific the greater one wins.
    pub priority: u16,
    /// What becomes of a request; pools by name, each of them exists.
    pub action: RouteAction<Arc<str>>,
    /// Fields of the request, on its way to a backend.
    pub request_headers: Arc<HeaderEdits>,
    /// Fields of the response, on its way to the client.
    pub response_headers: Arc<HeaderEdits>,
    /// From the end of the request to the response head; `None`: `limits.idle_timeout`.
    pub timeout: Option<Duration>,
    /// From the end of the request head to the end of the response; `None`: as long as it moves.
    pub deadline: Option<Duration>,
    /// What else is done for a request on its way.
    pub policy: Arc<RoutePolicy>,
}

/// Where the host of a route comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostKind {
    /// `route.host`: the authority of a request.
    #[default]
    Authority,
    /// `route.sni`: the server name in a TLS ClientHello; there is one, and nothing else is known.
    Sni,
}

/// One of `route.host` or `route.sni`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `api.example.com`.
    Exact(Arc<str>),
    /// `*.example.com`, kept as `.example.com`: any number of labels in front.
    Wildcard(Arc<str>),
}

/// As it is written.
impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// `route.path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// `/v1/status`.
    Exact(Arc<str>),
    /// `/v1/*`, kept as `/v1/`: also matches `/v1` itself. `/*` is kept as `/`.
    Prefix(Arc<str>),
    /// `/users/{id}/*`.
    Segments(Arc<Segments>),
}

/// As it is written.
impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Segments(segments) => f.write_str(&segments.text),
        }
    }
}

/// A path with captures: segment by segment, and with `/*` at its end whatever follows, nothing included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Segments {
    /// As it is written.
    pub text: Arc<str>,
    /// What stands between the slashes; at most [`CAPTURES_MAX`] of them are captures.
    pub segments: Vec<Segment>,
    /// Whether it ends in `/*`.
    pub has_rest: bool,
}

/// Most captures of one path.
pub const CAPTURES_MAX: usize = 8;

/// One segment of a [`Segments`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Just this.
    Literal(Arc<str>),
    /// `{name}`: any segment that is not empty, or `{name:REGEX}`: one that matches as a whole.
    Capture {
        /// Unlike that of every other capture of the path.
        name: Arc<str>,
        /// What it must match.
        rule: Option<Pattern>,
    },
}

impl Segments {
    /// Names of the captures, in order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Capture { name, .. } => Some(name),
        })
    }

    /// Whether every path that `other` matches is matched by this one too. No for some that are; never yes for one that
    /// is not.
    pub fn covers(&self, other: &Self) -> bool {
        let (own, others) = (self.segments.len(), other.segments.len());
        let fits = if self.has_rest { own <= others } else { own == others && !other.has_rest };
        fits && self.segments.iter().zip(&other.segments).all(|pair| match pair {
            (Segment::Literal(own), Segment::Literal(other)) => own == other,
            (Segment::Capture { rule: None, .. }, Segment::Literal(other)) => !other.is_empty(),
            (Segment::Capture { rule: Some(rule), .. }, Segment::Literal(other)) => {
                rule.matches(other.as_bytes())
            }
            (Segment::Capture { rule: None, .. }, Segment::Capture { .. }) => true,
            (Segment::Capture { rule: own, .. }, Segment::Capture { rule: other, .. }) => own == other,
            (Segment::Literal(_), Segment::Capture { .. }) => false,
        })
    }
}

/// What must hold besides host and path; all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conditions {
    /// The method is one of these; none: any.
    pub methods: Vec<Arc<str>>,
    /// Fields, by name.
    pub headers: Vec<Condition>,
    /// Parameters of the query, by name.
    pub query: Vec<Condition>,
}

impl Conditions {
    /// How many there are: of two routes with the same host and path the one with more goes first.
    pub fn count(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.headers.len() + self.query.len()
    }

    /// Whether this holds wherever `other` does. No for some where it does; never yes where it does not.
    pub fn covers(&self, other: &Self) -> bool {
        let methods = self.methods.is_empty()
            || (!other.methods.is_empty()
                && other.methods.iter().all(|method| self.methods.contains(method)));
        let fields =
            |own: &[Condition], others: &[Condition]| own.iter().all(|condition| others.contains(condition));
        methods && fields(&self.headers, &other.headers) && fields(&self.query, &other.query)
    }
}

/// One of `route.headers` or `route.query`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// Of the field, lower case, or of the parameter.
    pub name: Arc<str>,
    /// What one of its values must be.
    pub test: Test,
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Test {
    /// Just this.
    Exact(Arc<str>),
    /// Begins with this.
    Prefix(Arc<str>),
    /// Matches as a whole. Not of parameters.
    Pattern(Pattern),
    /// There is one.
    Present,
    /// There is none.
    Absent,
}

/// What becomes of a request. `P` stands for a pool.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteAction<P> {
    /// A backend of the pool gets it.
    Forward {
        /// The pool.
        pool: P,
        /// What is changed of the target.
        rewrite: Rewrite,
    },
    /// The client is sent elsewhere.
    Redirect(Arc<Redirect>),
    /// The client gets this.
    Respond(Arc<Respond>),
}

impl<P> RouteAction<P> {
    /// The pool, where it goes to one.
    pub const fn pool(&self) -> Option<&P> {
        match self {
            Self::Forward { pool, .. } => Some(pool),
            Self::Redirect(_) | Self::Respond(_) => None,
        }
    }
}

/// `route.rewrite`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// `Host` for the backend: `host[:port]`.
    pub host: Option<Arc<str>>,
    /// Path for the backend; the query stays.
    pub path: Option<Arc<NewPath>>,
}

/// A path made of parts of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPath {
    /// As it is written.
    pub text: Arc<str>,
    /// In order.
    pub parts: Vec<NewPart>,
}

/// A part of a [`NewPath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewPart {
    /// Text; a slash before each of its segments.
    Literal(Arc<str>),
    /// What the capture with this place among the path's captures took.
    Capture(usize),
    /// What the `*` of the path took, with its slash. Only the last part.
    Rest,
}

/// `route.redirect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `None`: that of the request.
    pub scheme: Option<Scheme>,
    /// `None`: that of the request.
    pub host: Option<Arc<str>>,
    /// `None`: none with a new scheme or host, else that of the request.
    pub port: Option<u16>,
    /// `None`: that of the request.
    pub path: Option<Arc<NewPath>>,
    /// Whether the query goes along.
    pub keep_query: bool,
}

/// `redirect.scheme`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

/// `route.respond`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 ..= 599.
    pub status: u16,
    /// Empty for 204, 205 and 304.
    pub body: Arc<str>,
    /// `Content-Type`, where there is a body.
    pub content_type: Arc<str>,
    /// Further fields.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
}

/// What is changed of the fields of a message. Never a field that frames it, is hop by hop or is ours to set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replaced, or added where there is none.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Added to what is there.
    pub add: Vec<(Arc<str>, Arc<str>)>,
    /// Left out.
    pub remove: Vec<Arc<str>>,
}

impl HeaderEdits {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}
