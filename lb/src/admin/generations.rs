//! Configs that ran: the list, and how one is read.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::changes::{Author, Etag};
use crate::{config::Digest, model::Generation};

/// A config that ran, or runs.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationView {
    /// Its number.
    pub generation: Generation,
    /// When it was committed.
    pub when: SystemTime,
    /// Who asked for it.
    pub author: Author,
    /// What it was made of, such as the path of a file, `api`, or `rollback to 3`.
    pub source: String,
    /// Whether it runs.
    pub is_current: bool,
    /// Of its config.
    pub etag: Etag,
    /// What it changed: paths of keys.
    pub changed: Vec<String>,
    /// Files that its config refers to, with their digests then.
    pub references: BTreeMap<String, Digest>,
}

impl GenerationView {
    /// As it is listed.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "generation": self.generation,
            "state": if self.is_current { "current" } else { "former" },
            "when": Timestamp::try_from(self.when).ok().map(|when| when.to_string()),
            "by": self.author.by,
            "uid": self.author.uid,
            "pid": self.author.pid,
            "source": self.source,
            "digest": self.etag,
            "changed": self.changed,
            "references": self.references,
        })
    }
}

/// Where the answer to a question for a generation's config goes; `None`: it is not kept.
pub type ConfigReply = flume::Sender<Result<Option<Value>, String>>;

/// Reads the config of a generation, elsewhere: it lies on a disk.
#[derive(Clone)]
pub struct GenerationSource(Arc<dyn Fn(Generation, ConfigReply) + Send + Sync>);

/// Longest wait for it.
const READING_MAX: Duration = Duration::from_secs(5);

impl GenerationSource {
    /// `ask` passes the question on and returns at once.
    pub fn new(ask: impl Fn(Generation, ConfigReply) + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Its config; `None`: it is not kept.
    ///
    /// # Errors
    /// Why it cannot be read now.
    pub async fn read(&self, generation: Generation) -> Result<Option<Value>, String> {
        let (reply, answer) = flume::bounded(1);
        (self.0)(generation, reply);
        let silent = || Err("whoever keeps generations does not answer".to_owned());
        let timeout = async {
            glommio::timer::sleep(READING_MAX).await;
            silent()
        };
        let answer = async { answer.recv_async().await.unwrap_or_else(|_| silent()) };
        futures_lite::future::or(answer, timeout).await
    }
}

impl fmt::Debug for GenerationSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GenerationSource")
    }
}
