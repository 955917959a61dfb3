//! How a listener's pool chooses, and what its backends may have at once.

use std::{ops::Range, time::Duration};

use super::{
    field, outlier,
    process::{TIMEOUTS, file_reference},
    reader::{At, Fault, Findings, Table},
    schema,
};
use crate::config::{Backend, Balance, Choosing, Key, NamedBackends, Outlier, Queue, Sticky};

/// What was read of it.
#[derive(Default)]
pub(super) struct ChoosingDraft {
    pub(super) key: Option<At<Key>>,
    pub(super) slow_start: Option<At<Duration>>,
    max_connections: Option<At<u32>>,
    queue: Option<At<Queue>>,
    breaker: Option<At<Option<u32>>>,
    sticky: Option<At<Option<Sticky>>>,
    pub(super) outlier: Option<At<Outlier>>,
    pub(super) panic: Option<At<u32>>,
}

/// Values of `max_connections`.
pub(super) const CONNECTIONS: Range<u64> = 1..1_000_001;

impl ChoosingDraft {
    pub(super) fn read(table: &Table<'_>) -> Self {
        Self {
            key: table.value("key").and_then(|value| value.parsed(KEY, key)),
            slow_start: table.value("slow_start").and_then(|value| value.duration(&TIMEOUTS)),
            max_connections: table.value("max_connections").and_then(|value| {
                let limit = value.integer(CONNECTIONS)?;
                Some(value.at(limit.value as u32))
            }),
            queue: table
                .value("queue")
                .and_then(|value| Some(value.at(queue(&value.table(&schema::QUEUE)?)))),
            breaker: table
                .value("breaker")
                .and_then(|value| Some(value.at(retries(&value.table(&schema::BREAKER)?)))),
            sticky: table
                .value("sticky")
                .and_then(|value| Some(value.at(sticky(&value.table(&schema::STICKY)?)))),
            outlier: table
                .value("outlier")
                .and_then(|value| Some(value.at(outlier::read(&value.table(&schema::OUTLIER)?)))),
            panic: table.value("panic").and_then(|value| value.parsed(outlier::PERCENT, outlier::percent)),
        }
    }

    pub(super) fn build(self) -> Choosing {
        Choosing {
            key: self.key.map_or_else(Key::default, |at| at.value),
            slow_start: self.slow_start.map(|at| at.value),
            max_connections: self.max_connections.map(|at| at.value),
            queue: self.queue.map_or_else(Queue::default, |at| at.value),
            retries_max: self.breaker.and_then(|at| at.value),
            sticky: self.sticky.and_then(|at| at.value),
            outlier: self.outlier.map(|at| at.value),
            panic_percent: self.panic.map(|at| at.value),
        }
    }
}

fn queue(table: &Table<'_>) -> Queue {
    let default = Queue::default();
    let length = table.value("length").and_then(|value| value.integer(0..1_000_001));
    let timeout = table.value("timeout").and_then(|value| value.duration(&TIMEOUTS));
    Queue {
        length: length.map_or(default.length, |at| at.value as u32),
        timeout: timeout.map_or(default.timeout, |at| at.value),
    }
}

/// `breaker.retries`; `None` where it is not there, which was reported.
fn retries(table: &Table<'_>) -> Option<u32> {
    let value = table.required("retries", "must be a number of requests at once, such as 3")?;
    Some(value.integer(0..1_000_001)?.value as u32)
}

/// `None` where it has no cookie, which was reported.
fn sticky(table: &Table<'_>) -> Option<Sticky> {
    let rule = "must be the name of a cookie, such as \"lb\"";
    let cookie = table.required("cookie", rule).and_then(|value| value.parsed(rule, field::cookie));
    let secret = table.value("secret").and_then(|value| value.parsed_secret(SECRET, file_reference));
    Some(Sticky { cookie: cookie?.value, secret })
}

/// Rule for secrets.
const SECRET: &str = "a secret is given by reference, as in \"file:secret\"";

/// Rule for keys.
const KEY: &str = "must be \"address\", \"path\", \"header:NAME\" or \"cookie:NAME\"";

fn key(text: &str) -> Result<Key, Fault> {
    match text.split_once(':') {
        None if text == "address" => Ok(Key::Address),
        None if text == "path" => Ok(Key::Path),
        Some(("header", name)) => Ok(Key::Header(field::looked_up(name)?)),
        Some(("cookie", name)) => Ok(Key::Cookie(field::cookie(name)?)),
        _ => Err(Fault::new(KEY)),
    }
}

/// What else counts of a pool.
pub(super) struct Uses<'a> {
    pub(super) balance: Option<Balance>,
    pub(super) backends: &'a [At<Backend>],
    pub(super) names: &'a [At<NamedBackends>],
    /// A VIP that uses it, by the name of its table.
    pub(super) vip: Option<&'a str>,
    /// A tcp listener that uses it.
    pub(super) tcp: Option<&'a str>,
}

/// Reports what does not go together in one pool, or with who uses it.
pub(super) fn check(draft: &ChoosingDraft, uses: &Uses<'_>, findings: &Findings<'_>) {
    let ChoosingDraft { key, slow_start, max_connections, queue, breaker, sticky, outlier, panic: _ } = draft;
    if let Some(vip) = uses.vip {
        let fault = || Fault::new(format!("{vip} uses this pool; only pools of listeners have that"));
        key.iter().for_each(|key| findings.error(key, fault()));
        slow_start.iter().for_each(|slow_start| findings.error(slow_start, fault()));
        max_connections.iter().for_each(|limit| findings.error(limit, fault()));
        queue.iter().for_each(|queue| findings.error(queue, fault()));
        breaker.iter().for_each(|breaker| findings.error(breaker, fault()));
        sticky.iter().for_each(|sticky| findings.error(sticky, fault()));
        outlier.iter().for_each(|outlier| findings.error(outlier, fault()));
        if let Some(limited) = uses.backends.iter().find(|backend| backend.value.max_connections.is_some()) {
            let fault = format!("{vip} uses this pool; only backends of listeners have max_connections");
            findings.error(limited, Fault::new(fault));
        }
        if let Some(backup) = uses.backends.iter().find(|backend| backend.value.backup) {
            let fault = format!("{vip} uses this pool; only pools of listeners have backups");
            findings.error(backup, Fault::new(fault));
        }
        return;
    }
    match (key, uses.tcp) {
        (Some(key), _) if uses.balance != Some(Balance::Maglev) => {
            findings.error(key, Fault::new("only balance = \"maglev\" goes by a key"));
        }
        (Some(key), Some(tcp)) if key.value != Key::Address => {
            findings.error(key, Fault::new(format!("{tcp} uses this pool, and knows of addresses only")));
        }
        _ => {}
    }
    if let (Some(sticky), Some(tcp)) = (sticky, uses.tcp) {
        findings.error(sticky, Fault::new(format!("{tcp} uses this pool, and knows of no cookies")));
    }
    if let (Some(breaker), Some(tcp)) = (breaker, uses.tcp) {
        findings.error(breaker, Fault::new(format!("{tcp} uses this pool, and sends nothing again")));
    }
    if let (Some(queue), None) = (queue, max_connections)
        && uses.backends.iter().all(|backend| backend.value.max_connections.is_none())
        && uses.names.iter().all(|name| name.value.max_connections.is_none())
    {
        let fault =
            Fault::new("nobody ever waits: neither this pool nor a backend of it has max_connections");
        findings.error(queue, fault);
    }
    if uses.backends.iter().all(|backend| backend.value.backup)
        && uses.names.iter().all(|name| name.value.backup)
    {
        let fault = || Fault::new("every backend of this pool is a backup; one must not be");
        match (uses.backends.first(), uses.names.first()) {
            (Some(first), _) => findings.error(first, fault()),
            (None, Some(first)) => findings.error(first, fault()),
            (None, None) => {}
        }
    }
}
