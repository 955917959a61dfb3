//! What may be asked to change, and what comes of it: the admin API carries both, control answers.

use std::{borrow::Cow, fmt, path::PathBuf, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::Value;

use crate::{
    config::{Digest, Fingerprint, Problems},
    model::Generation,
};

/// One change, to be made whole or not at all.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What is to change.
    pub edit: Edit,
    /// The config must be this one still (RFC 9110, section 13.1.1).
    pub if_match: Option<Vec<Etag>>,
    /// Everything but the commit.
    pub is_dry: bool,
    /// Who asks, for the audit log.
    pub by: Author,
}

/// What is to change.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// The config is this one from now on.
    Whole(Value),
    /// JSON merge patch of the config (RFC 7396).
    Merge(Value),
    /// The same of one entry, such as `pool.api`.
    Entry {
        /// `vip`, `listener`, `route`, `tls` or `pool`.
        table: &'static str,
        /// Name of the entry.
        name: String,
        /// What becomes of it.
        edit: EntryEdit,
    },
    /// The text of a config file, with the absolute path that it came from.
    File {
        /// Where it stands. Its references lie beneath the directory of the daemon's own file, or of this one where it has none.
        path: PathBuf,
        /// What stands in it.
        text: String,
    },
    /// The config of an earlier generation.
    Rollback(Generation),
    /// What a backend takes, whatever the config says. No generation.
    Override {
        /// Name of the pool.
        pool: String,
        /// The backend's address as in the config.
        address: String,
        /// What it takes.
        change: Override,
    },
    /// Another process takes over, of this program or of the one that runs. No generation.
    Upgrade(Option<PathBuf>, When),
}

/// When another process is to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Whatever the program is.
    Always,
    /// Where the program is another one than runs; else the daemon's own config file is applied anew.
    ProgramDiffers,
}

/// What becomes of one entry.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryEdit {
    /// It is this one; made where there is none.
    Put(Value),
    /// It is merged (RFC 7396); there must be one.
    Merge(Value),
    /// It goes; there must be one.
    Remove,
}

/// What an operator says of one backend. Kept over restarts, listed by `lb status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    /// It takes nothing new.
    Drain,
    /// It takes what the config and its health say.
    Undrain,
    /// Its share of new work; `None`: as the config says.
    Weight(Option<u16>),
}

/// Who asked for a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Author {
    /// What it came by, such as `api`, `apply`, `signal`, `start`.
    pub by: Cow<'static, str>,
    /// Peer of the unix socket (SO_PEERCRED), where there is one.
    pub uid: Option<u32>,
    /// The same.
    pub pid: Option<u32>,
}

/// Tells one config from another: strong, of the canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Etag(pub Arc<str>);

impl Etag {
    /// Of a config's canonical JSON.
    pub fn of(config: &Value) -> Self {
        Self(Digest::of(config.to_string().as_bytes()).to_string().into())
    }
}

impl From<Fingerprint> for Etag {
    fn from(fingerprint: Fingerprint) -> Self {
        Self(fingerprint.to_string().into())
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// A change that holds everywhere, or would.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// What runs now.
    pub generation: Generation,
    /// From the call to the last acknowledgement, in milliseconds.
    pub took_ms: f64,
    /// Who said so.
    pub acknowledged: Acknowledged,
    /// Paths of keys, such as `pool.api.backends`.
    pub changed: Vec<String>,
    /// What the config probably should not say, or costs.
    pub warnings: Vec<String>,
    /// Whether nothing was committed, as was asked.
    pub dry_run: bool,
    /// The process that has taken over, where one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgraded: Option<Upgraded>,
    /// Of the config that runs now.
    #[serde(skip)]
    pub etag: Etag,
}

/// The process that is the daemon now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Upgraded {
    /// Its process.
    pub pid: u32,
    /// Of its program.
    pub version: String,
}

/// How many acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Acknowledged {
    /// Workers that run the snapshot.
    pub workers: usize,
    /// Whether the packet path's maps hold it, where there is one: 0 or 1.
    pub maps: usize,
}

/// Why nothing was changed.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// 400: it is no config.
    Invalid(Problems),
    /// 404: no such entry, backend or generation.
    NotFound {
        /// Where.
        at: String,
        /// What is not there.
        message: String,
    },
    /// 409: somebody else was first.
    Lost {
        /// Of the config that runs.
        current: Etag,
    },
    /// 422: valid, but it cannot be had here, or not while running.
    Unappliable {
        /// Path of the key, or the step.
        at: String,
        /// Why, and what helps.
        message: String,
    },
    /// 503: it starts or ends, or is stuck.
    NotReady(String),
}

/// In a line or more, for a log.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(problems) => problems.fmt(f),
            Self::NotFound { at, message } | Self::Unappliable { at, message } => {
                write!(f, "{at}: {message}")
            }
            Self::Lost { current } => write!(f, "somebody else was first: the config is {current} now"),
            Self::NotReady(message) => f.write_str(message),
        }
    }
}

/// A wish, and where the answer goes.
pub type Letter = (Wish, flume::Sender<Result<Applied, Refusal>>);

/// Where wishes go.
#[derive(Clone)]
pub struct Changes(flume::Sender<Letter>);

/// How long an answer may take; names are looked up meanwhile, certificates read, workers and new processes waited for.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

impl Changes {
    /// And where they are read.
    pub fn channel() -> (Self, flume::Receiver<Letter>) {
        let (sender, letters) = flume::unbounded();
        (Self(sender), letters)
    }

    /// Has it made. One after the other, in the order of the calls.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn make(&self, wish: Wish) -> Result<Applied, Refusal> {
        let (sender, answer) = flume::bounded(1);
        let gone = || Refusal::NotReady("the daemon is ending".to_owned());
        self.0.send((wish, sender)).map_err(|_| gone())?;
        answer.recv_async().await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Changes {
    /// As [`Self::make`]; blocks the calling thread.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub fn make_now(&self, wish: Wish) -> Result<Applied, Refusal> {
        let (sender, answer) = flume::bounded(1);
        let gone = || Refusal::NotReady("the daemon is ending".to_owned());
        self.0.send((wish, sender)).map_err(|_| gone())?;
        answer.recv().unwrap_or_else(|_| Err(gone()))
    }
}

impl OverrideView {
    /// In words: `drained`, `weight 3`, or both.
    pub fn said(&self) -> String {
        let weight = self.weight.map(|weight| format!("weight {weight}"));
        let drained = self.drained.then(|| "drained".to_owned());
        drained.into_iter().chain(weight).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changes")
    }
}

/// What an operator said of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OverrideView {
    /// Pool's name.
    pub pool: Arc<str>,
    /// Backend's address, as in the config.
    pub backend: Arc<str>,
    /// It takes nothing new.
    pub drained: bool,
    /// Its weight, where it is not the config's.
    pub weight: Option<u16>,
}
