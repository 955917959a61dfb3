//! Every path of the API and what may be done there: requests are matched against this table, and
//! `lb/docs/openapi.json` is made of it.

use hyper::Method;

use super::{
    answer::{Answer, TEXT, error},
    query::decode_segment,
};

/// One path.
#[derive(Debug)]
pub(super) struct Resource {
    /// Segments in braces stand for any.
    pub(super) path: &'static str,
    /// What may be done there.
    pub(super) operations: &'static [Operation],
}

/// One thing that may be done.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) verb: Verb,
    pub(super) act: Act,
    /// One line of documentation.
    pub(super) summary: &'static str,
    /// Parameters of the query, with one line each.
    pub(super) query: &'static [(&'static str, &'static str)],
    /// Content types that its body may have; none: it has no body.
    pub(super) takes: &'static [&'static str],
    /// What it gives with 200.
    pub(super) gives: Gives,
    /// Statuses of refusals of its own; what every path may answer is not among them.
    pub(super) refusals: &'static [u16],
}

/// How it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Put,
    Patch,
    Post,
    Delete,
}

impl Verb {
    /// As in a request.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Metrics,
    Healthz,
    Readyz,
    Status,
    Show,
    Why,
    Capture,
    Config,
    Entry,
    Generations,
    Generation,
    Openapi,
    PutConfig,
    PatchConfig,
    Apply,
    PutEntry,
    PatchEntry,
    DeleteEntry,
    Rollback,
    Drain,
    Undrain,
    Weight,
    Upgrade,
}

/// The kind of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    /// Plain text, of Prometheus where it is metrics.
    Text(&'static str),
    /// pcapng, as long as it goes on.
    Stream,
    /// JSON of this schema, by its name in the OpenAPI file.
    Json(&'static str),
    /// The same, with the config's ETag.
    Tagged(&'static str),
}

/// Parts of the config that consist of named entries.
pub(super) const TABLES: [&str; 5] = ["vip", "listener", "route", "tls", "pool"];

pub(super) const JSON: &str = "application/json";
pub(super) const TOML: &str = "application/toml";
/// Source: RFC 7396, section 4.
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";

/// Of every change.
pub(super) const DRY_RUN: (&str, &str) = ("dry_run", "1: everything but the commit");
pub(super) const CHANGE_QUERY: &[(&str, &str)] = &[DRY_RUN];
const FILE_QUERY: &[(&str, &str)] = &[
    DRY_RUN,
    ("path", "Absolute path of the file; what it refers to lies beneath the directory of the daemon's own"),
];
const UPGRADE_QUERY: &[(&str, &str)] = &[
    DRY_RUN,
    ("binary", "Absolute path of the program; the one that runs unless said"),
    ("if_changed", "1: only where that is another program than runs; else the config's file is applied anew"),
];
const WHY_QUERY: &[(&str, &str)] = &[
    ("flow", "A packet, such as `tcp 198.51.100.7:1234 -> 192.0.2.53:53`"),
    ("request", "A request, such as `GET https://api.example.com/v1`"),
];
const CAPTURE_QUERY: &[(&str, &str)] = &[
    ("vip", "Only packets of this vip"),
    ("backend", "Only packets that this backend was chosen for, as pool/backend"),
    ("reason", "Only packets counted under these reasons"),
    ("outcome", "Only packets that were forwarded, answered, dropped or passed"),
    ("source", "Only packets from this address or prefix"),
    ("destination", "Only packets to this address or prefix"),
    ("protocol", "Only packets of this protocol"),
    ("interface", "Only packets that came in by this interface"),
    ("sample", "Look at 1 packet in so many"),
    ("snap", "Bytes of each frame, at most"),
    ("payload", "yes: not only headers"),
    ("count", "End after so many packets"),
    ("duration", "End after so many seconds"),
    ("rate", "Bytes per second, at most"),
];

const fn read(act: Act, gives: Gives, summary: &'static str) -> Operation {
    Operation { verb: Verb::Get, act, summary, query: &[], takes: &[], gives, refusals: &[] }
}

const fn change(verb: Verb, act: Act, takes: &'static [&'static str], summary: &'static str) -> Operation {
    let gives = Gives::Tagged("Applied");
    Operation { verb, act, summary, query: CHANGE_QUERY, takes, gives, refusals: &[400, 409, 422, 503] }
}

/// All paths.
pub(super) const RESOURCES: &[Resource] = &[
    Resource {
        path: "/metrics",
        operations: &[read(
            Act::Metrics,
            Gives::Text(crate::metrics::encode::CONTENT_TYPE),
            "Counters, for Prometheus",
        )],
    },
    Resource {
        path: "/healthz",
        operations: &[read(Act::Healthz, Gives::Text(TEXT), "Whether the daemon lives")],
    },
    Resource {
        path: "/readyz",
        operations: &[Operation {
            refusals: &[503],
            ..read(Act::Readyz, Gives::Text(TEXT), "Whether it takes what comes")
        }],
    },
    Resource {
        path: "/v1/openapi.json",
        operations: &[read(
            Act::Openapi,
            Gives::Json("OpenApi"),
            "This description of the API (OpenAPI 3.1)",
        )],
    },
    Resource {
        path: "/v1/status",
        operations: &[read(Act::Status, Gives::Json("Status"), "The daemon on one page")],
    },
    Resource {
        path: "/v1/show/{what}",
        operations: &[read(Act::Show, Gives::Json("List"), "One list, under its own name")],
    },
    Resource {
        path: "/v1/why",
        operations: &[Operation {
            query: WHY_QUERY,
            refusals: &[400, 503],
            ..read(Act::Why, Gives::Json("Why"), "What would become of a packet or a request, step by step")
        }],
    },
    Resource {
        path: "/v1/capture",
        operations: &[Operation {
            query: CAPTURE_QUERY,
            refusals: &[400, 409, 422, 503],
            ..read(Act::Capture, Gives::Stream, "Packets as they come in, each with what became of it")
        }],
    },
    Resource {
        path: "/v1/config",
        operations: &[
            read(Act::Config, Gives::Tagged("Config"), "The config that runs, every default said"),
            change(Verb::Put, Act::PutConfig, &[JSON], "Makes this the config"),
            change(Verb::Patch, Act::PatchConfig, &[MERGE_PATCH, JSON], "Merges into the config (RFC 7396)"),
        ],
    },
    Resource {
        path: "/v1/config/{table}/{name}",
        operations: &[
            read(Act::Entry, Gives::Tagged("Entry"), "One entry; the ETag is the whole config's"),
            change(Verb::Put, Act::PutEntry, &[JSON], "Makes this the entry, or a new one"),
            change(Verb::Patch, Act::PatchEntry, &[MERGE_PATCH, JSON], "Merges into the entry (RFC 7396)"),
            change(Verb::Delete, Act::DeleteEntry, &[], "Removes the entry"),
        ],
    },
    Resource {
        path: "/v1/apply",
        operations: &[Operation {
            query: FILE_QUERY,
            ..change(Verb::Post, Act::Apply, &[TOML], "Makes the text of a config file the config")
        }],
    },
    Resource {
        path: "/v1/generations",
        operations: &[read(
            Act::Generations,
            Gives::Json("Generations"),
            "Configs that ran, the newest first",
        )],
    },
    Resource {
        path: "/v1/generations/{n}",
        operations: &[Operation {
            refusals: &[503],
            ..read(Act::Generation, Gives::Json("Generation"), "One of them, with its config")
        }],
    },
    Resource {
        path: "/v1/rollback/{n}",
        operations: &[change(Verb::Post, Act::Rollback, &[], "Makes the config of generation n the config")],
    },
    Resource {
        path: "/v1/upgrade",
        operations: &[Operation {
            query: UPGRADE_QUERY,
            ..change(Verb::Post, Act::Upgrade, &[], "Has another process take over, of a new program")
        }],
    },
    Resource {
        path: "/v1/backends/{pool}/{address}/drain",
        operations: &[change(Verb::Post, Act::Drain, &[], "The backend takes nothing new")],
    },
    Resource {
        path: "/v1/backends/{pool}/{address}/undrain",
        operations: &[change(Verb::Post, Act::Undrain, &[], "The backend takes what config and health say")],
    },
    Resource {
        path: "/v1/backends/{pool}/{address}/weight",
        operations: &[change(
            Verb::Post,
            Act::Weight,
            &[JSON],
            "The backend's share of new work; null: the config's",
        )],
    },
];

impl Resource {
    /// The resource of a path, with what stands where its braces are.
    ///
    /// # Errors
    /// 404: there is none; 400: a segment is not percent-encoded UTF-8.
    pub(super) fn find(path: &str) -> Result<(&'static Self, Vec<String>), Answer> {
        let found = RESOURCES.iter().find_map(|resource| Some((resource, resource.matched(path)?)));
        let (resource, segments) = found.ok_or_else(|| unknown(path))?;
        let decoded = segments.into_iter().map(|segment| {
            let decoded = decode_segment(segment).filter(|decoded| !decoded.contains('\0'));
            decoded.ok_or_else(|| error(400, "path", "not percent-encoded UTF-8", segment))
        });
        Ok((resource, decoded.collect::<Result<_, _>>()?))
    }

    fn matched<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        let (mut own, mut given) = (self.path.split('/'), path.split('/'));
        let mut caught = Vec::new();
        loop {
            match (own.next(), given.next()) {
                (None, None) => return Some(caught),
                (Some(own), Some(given)) if own.starts_with('{') && !given.is_empty() => caught.push(given),
                (own, given) if own == given => {}
                _ => return None,
            }
        }
    }

    /// What `method` does here.
    ///
    /// # Errors
    /// 405, with what may be done.
    pub(super) fn operation(
        &'static self,
        method: &Method,
        path: &str,
    ) -> Result<&'static Operation, Answer> {
        let does = |operation: &&Operation| match *method {
            Method::HEAD => operation.has_head(),
            ref method => operation.verb.name() == method.as_str(),
        };
        self.operations.iter().find(does).ok_or_else(|| {
            let allowed = self.allowed();
            let message = match &*allowed {
                "GET, HEAD" | "GET" => "this resource can only be read: use GET".to_owned(),
                allowed => format!("this resource has only {allowed}"),
            };
            error(405, "method-not-allowed", &message, path).with("allow", allowed)
        })
    }

    fn allowed(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for operation in self.operations {
            names.push(operation.verb.name());
            names.extend(operation.has_head().then_some("HEAD"));
        }
        names.join(", ")
    }
}

impl Operation {
    /// A capture begins with GET, and HEAD would not end it.
    pub(super) fn has_head(&self) -> bool {
        self.verb == Verb::Get && self.gives != Gives::Stream
    }

    /// Whether it changes something.
    pub(super) fn is_change(&self) -> bool {
        self.verb != Verb::Get
    }
}

/// 404.
pub(super) fn unknown(path: &str) -> Answer {
    error(404, "not-found", "no such resource", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_matched_by_their_segments_and_decoded() {
        let find = |path| Resource::find(path).map(|(resource, caught)| (resource.path, caught)).ok();
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(find("/v1/config"), Some(("/v1/config", vec![])));
        assert_eq!(
            find("/v1/config/pool/a%2Fb+c"),
            Some(("/v1/config/{table}/{name}", owned(&["pool", "a/b+c"])))
        );
        for (path, address) in [
            ("/v1/backends/api/[2001:db8::1]:80/drain", "[2001:db8::1]:80"),
            ("/v1/backends/api/%5B2001:db8::1%5D:80/drain", "[2001:db8::1]:80"),
            ("/v1/backends/api/unix:%2Frun%2Fapp.sock/drain", "unix:/run/app.sock"),
        ] {
            let expected = ("/v1/backends/{pool}/{address}/drain", owned(&["api", address]));
            assert_eq!(find(path), Some(expected), "{path}");
        }
        for path in
            ["", "/", "*", "/v1", "/v1/config/", "/v1/config/pool", "/v1/config//a", "/v1/config/a/b/c"]
        {
            assert_eq!(Resource::find(path).unwrap_err().status, 404, "{path}");
        }
        for path in ["/v1/config/pool/%", "/v1/config/pool/%ff", "/v1/config/pool/a%00"] {
            assert_eq!(Resource::find(path).unwrap_err().status, 400, "{path}");
        }
    }

    #[test]
    fn a_refused_method_says_which_there_are() {
        let allowed = |method: Method, path| {
            let (resource, _) = Resource::find(path).unwrap();
            let refused = resource.operation(&method, path).unwrap_err();
            assert_eq!(refused.status, 405);
            refused.fields[0].1.clone()
        };
        assert_eq!(allowed(Method::POST, "/v1/config"), "GET, HEAD, PUT, PATCH");
        assert_eq!(allowed(Method::OPTIONS, "/v1/config/pool/a"), "GET, HEAD, PUT, PATCH, DELETE");
        assert_eq!(allowed(Method::GET, "/v1/rollback/1"), "POST");
        assert_eq!(allowed(Method::HEAD, "/v1/capture"), "GET");
        assert_eq!(allowed(Method::DELETE, "/metrics"), "GET, HEAD");
    }
}
