//! The access log on a worker: notes what becomes of each request and relay, and puts it into the writer's queue.
//!
//! ```text
//!  begin --> head | refused_head --> way --> attempt, connected --> answered --> end
//!      `-------------- or none of them: whatever happens, or is dropped, ends in exactly one record
//! ```
//! Where nothing is logged every call here is a test for null. Times are those of the turns.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use crate::{
    config::{LogInclude, Protocol, SAMPLE_ALL, Snapshot},
    l7::{
        headers::is_token,
        http1::{Field, RequestHead, Version},
    },
    log::{self, Facts, HttpVersion, Sender, Text},
    metrics::WorkerMetrics,
    model::{ListenerId, WorkerId, reason::CloseReason},
    sys::event,
    tls::Terms,
};

/// Drafts kept for reuse.
const SPARE_DRAFTS: usize = 1024;
/// How much of a request line that was refused is looked at.
const REFUSED_LINE_MAX: usize = 512;

/// What a worker is given where an access log is written.
#[derive(Debug)]
pub struct AccessLogSetup {
    /// Its own queue to the writer.
    pub sender: Sender,
    /// The writer's eventfd.
    pub bell: OwnedFd,
    /// The instant that the writer counts from.
    pub epoch: Instant,
}

/// One worker's part of the access log.
pub(super) struct AccessLog {
    setup: RefCell<AccessLogSetup>,
    worker: WorkerId,
    metrics: Arc<WorkerMetrics>,
    /// The time of this turn.
    now: Cell<Instant>,
    /// Room for a text that is put together.
    text: RefCell<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "they come from entries and go to entries as boxes")]
    spare: RefCell<Vec<Box<Draft>>>,
    /// Records were put in since the writer was last thought of.
    has_news: Cell<bool>,
    /// State of the generator that samples.
    seed: Cell<u64>,
}

impl AccessLog {
    pub(super) fn new(
        setup: AccessLogSetup,
        worker: WorkerId,
        metrics: Arc<WorkerMetrics>,
        now: Instant,
    ) -> Self {
        Self {
            setup: RefCell::new(setup),
            worker,
            metrics,
            now: Cell::new(now),
            text: RefCell::default(),
            spare: RefCell::default(),
            has_news: Cell::new(false),
            seed: Cell::new(u64::from(worker.0)),
        }
    }

    pub(super) fn set_now(&self, now: Instant) {
        self.now.set(now);
    }

    /// Wakes the writer where it sleeps and this turn had records: one system call for a batch, at most.
    pub(super) fn flush(&self) {
        if self.has_news.take() {
            let setup = self.setup.borrow();
            if setup.sender.must_wake() {
                event::ring(&setup.bell);
            }
        }
    }

    /// Whether this one is of the share that is written. A generator of Knuth's (MMIX): its upper bits do.
    fn is_sampled(&self, ppm: u32) -> bool {
        let next =
            self.seed.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed.set(next);
        ppm == SAMPLE_ALL || ((next >> 32) * u64::from(SAMPLE_ALL)) >> 32 < u64::from(ppm)
    }
}

/// A record in the making.
struct Draft {
    /// None while it waits for reuse.
    log: Option<Rc<AccessLog>>,
    texts: log::Draft,
    notes: Notes,
}

/// What is known so far.
#[derive(Clone, Copy)]
struct Notes {
    include: LogInclude,
    sample_ppm: u32,
    protocol: Protocol,
    client: SocketAddr,
    begun: Instant,
    head: Option<Instant>,
    attempt: Option<Instant>,
    connected: Option<Instant>,
    answered: Option<Instant>,
    version: Option<HttpVersion>,
    status: u16,
    attempts: u32,
    reused: bool,
    reason: Option<CloseReason>,
    received: u64,
    sent: u64,
    sent_head: u64,
}

/// The record of the request that runs on a connection, or of the connection itself where it is a relay. Idle
/// connections have one, too, so it is a pointer.
#[derive(Default)]
pub(super) struct Entry(Cell<Option<Box<Draft>>>);

impl Entry {
    /// The first byte of a request has come, or a relay begins.
    pub(super) fn begin(
        &self,
        log: Option<&Rc<AccessLog>>,
        snapshot: &Snapshot,
        listener: ListenerId,
        client: SocketAddr,
    ) {
        self.end();
        let (Some(log), Some(wanted)) = (log, snapshot.access_log) else { return };
        let Some(listener) = snapshot.listener(listener) else { return };
        let notes = Notes {
            include: wanted.include,
            sample_ppm: wanted.sample_ppm,
            protocol: listener.protocol,
            client,
            begun: log.now.get(),
            head: None,
            attempt: None,
            connected: None,
            answered: None,
            version: None,
            status: 0,
            attempts: 0,
            reused: false,
            reason: None,
            received: 0,
            sent: 0,
            sent_head: 0,
        };
        let mut draft = match log.spare.borrow_mut().pop() {
            Some(spare) => spare,
            None => Box::new(Draft { log: None, texts: log::Draft::default(), notes }),
        };
        draft.log = Some(log.clone());
        draft.notes = notes;
        draft.texts.clear();
        draft.texts.note(Text::Listener, listener.name.as_bytes());
        self.0.set(Some(draft));
    }

    /// Notes something, with the time of the turn.
    fn with(&self, note: impl FnOnce(&mut Draft, Instant)) {
        if let Some(mut draft) = self.0.take() {
            if let Some(now) = draft.log.as_ref().map(|log| log.now.get()) {
                note(&mut draft, now);
            }
            self.0.set(Some(draft));
        }
    }

    /// A sound head is complete; `buf` is what it was parsed from.
    pub(super) fn head(&self, request: &RequestHead, buf: &[u8]) {
        self.with(|Draft { texts, notes, .. }, now| {
            notes.head = Some(now);
            notes.version = Some(match request.version() {
                Version::Http10 => HttpVersion::Http10,
                Version::Http11 => HttpVersion::Http11,
            });
            texts.note(Text::Method, request.method(buf));
            texts.note(Text::Authority, request.authority(buf));
            texts.note(Text::Path, request.path(buf));
            if notes.include.query
                && let Some(query) = request.query(buf).strip_prefix(b"?")
            {
                texts.note(Text::Query, query);
            }
            request.fields().iter().for_each(|field| note_field(texts, notes.include, field, buf));
        });
    }

    /// The head that stands at the front of `buf` was refused, or is not complete: what can be told of its first line.
    pub(super) fn refused_head(&self, buf: &[u8]) {
        self.with(|Draft { texts, .. }, _| {
            let line = buf.get(..REFUSED_LINE_MAX).unwrap_or(buf);
            let line = line.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
            let mut words = line.split(|byte| *byte == b' ');
            let Some(method) = words.next().filter(|method| is_token(method)) else { return };
            texts.note(Text::Method, method);
            // Only of this form is it known where the query begins, and that there is no password before it.
            if let Some(target) = words.next().filter(|target| target.starts_with(b"/")) {
                texts.note(Text::Path, without_query(target));
            }
        });
    }

    /// It is known where it goes.
    pub(super) fn way(&self, route: Option<&str>, pool: Option<&str>) {
        self.with(|Draft { texts, .. }, _| {
            if let Some(route) = route {
                texts.note(Text::Route, route.as_bytes());
            }
            if let Some(pool) = pool {
                texts.note(Text::Pool, pool.as_bytes());
            }
        });
    }

    /// It is one of several on its connection.
    pub(super) fn shares_connection(&self) {
        self.with(|Draft { notes, .. }, _| notes.version = Some(HttpVersion::Http2));
    }

    /// Its client speaks TLS on these terms.
    pub(super) fn secured(&self, terms: &Terms) {
        self.with(|Draft { texts, .. }, _| {
            if let Some(name) = &terms.name {
                texts.note(Text::Sni, name.as_bytes());
            }
            texts.note(Text::Tls, terms.spelled.as_bytes());
        });
    }

    /// It came before hands were shaken, and was let pass or had to wait.
    pub(super) fn early(&self, outcome: &'static str) {
        self.with(|Draft { texts, .. }, _| texts.note(Text::EarlyData, outcome.as_bytes()));
    }

    /// The name that a TLS client asks for.
    pub(super) fn server_name(&self, name: &[u8]) {
        self.with(|Draft { texts, .. }, _| texts.note(Text::Sni, name));
    }

    /// What `write` writes is its id.
    pub(super) fn request_id(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.with(|Draft { texts, log, .. }, _| {
            let Some(log) = log else { return };
            let mut id = log.text.borrow_mut();
            id.clear();
            write(&mut id);
            texts.note(Text::RequestId, &id);
        });
    }

    /// A backend is tried.
    pub(super) fn attempt(&self, backend: &str) {
        self.with(|Draft { texts, notes, .. }, now| {
            notes.attempts += 1;
            notes.attempt = Some(now);
            (notes.connected, notes.answered, notes.reused) = (None, None, false);
            texts.note(Text::Backend, backend.as_bytes());
        });
    }

    /// There is a connection to it.
    pub(super) fn connected(&self, reused: bool) {
        self.with(|Draft { notes, .. }, now| (notes.connected, notes.reused) = (Some(now), reused));
    }

    /// The backend has answered: a response head is complete, or a first byte was relayed.
    pub(super) fn answered(&self) {
        self.with(|Draft { notes, .. }, now| notes.answered = notes.answered.or(Some(now)));
    }

    /// A response of this status goes to the client, with a head of so many bytes.
    pub(super) fn responds(&self, status: u16, head_bytes: usize) {
        self.with(|Draft { notes, .. }, _| (notes.status, notes.sent_head) = (status, head_bytes as u64));
    }

    /// It does not end well.
    pub(super) fn fail(&self, reason: CloseReason) {
        self.with(|Draft { notes, .. }, _| notes.reason = Some(reason));
    }

    /// The connection changes to another protocol.
    pub(super) fn upgraded(&self, protocol: &[u8]) {
        self.with(|Draft { texts, .. }, _| texts.note(Text::Upgrade, protocol));
    }

    /// Bytes came from the client.
    pub(super) fn received(&self, bytes: u64) {
        self.with(|Draft { notes, .. }, _| notes.received += bytes);
    }

    /// Bytes were given to the socket for the client.
    pub(super) fn sent(&self, bytes: u64) {
        self.with(|Draft { notes, .. }, _| notes.sent += bytes);
    }

    /// It has ended: the one record of it goes its way.
    pub(super) fn end(&self) {
        let Some(mut draft) = self.0.take() else { return };
        let Some(log) = draft.log.take() else { return };
        let metrics = &log.metrics;
        let mut setup = log.setup.borrow_mut();
        let notes = draft.notes;
        let facts = facts(&notes, &log, setup.epoch);
        let is_error = notes.reason.is_some() || notes.status >= 500;
        if !is_error && !log.is_sampled(notes.sample_ppm) {
            metrics.log_skipped.add(1);
        } else if setup.sender.push(draft.texts.encode(&facts)) {
            log.has_news.set(true);
        } else {
            metrics.log_dropped.add(1);
        }
        let mut spare = log.spare.borrow_mut();
        if spare.len() < SPARE_DRAFTS && draft.texts.is_small() {
            spare.push(draft);
        }
    }
}

/// What was dropped before its end was cut off by the worker's.
impl Drop for Entry {
    fn drop(&mut self) {
        self.with(|Draft { notes, .. }, _| notes.reason = notes.reason.or(Some(CloseReason::Draining)));
        self.end();
    }
}

fn facts(notes: &Notes, log: &AccessLog, epoch: Instant) -> Facts {
    let since = |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as u64;
    let between = |from: Option<Instant>, to: Option<Instant>| Some(since(from?, to?));
    Facts {
        begun_us: since(epoch, notes.begun),
        client: notes.client,
        protocol: notes.protocol,
        worker: log.worker.0,
        version: notes.version,
        status: notes.status,
        attempts: notes.attempts,
        reused: notes.reused,
        reason: notes.reason,
        received: notes.received,
        sent: notes.sent,
        sent_head: notes.sent_head,
        head_us: between(Some(notes.begun), notes.head),
        queue_us: between(notes.head.or(Some(notes.begun)), notes.attempt),
        connect_us: between(notes.attempt, notes.connected),
        first_byte_us: between(notes.connected, notes.answered),
        total_us: since(notes.begun, log.now.get()),
    }
}

fn note_field(texts: &mut log::Draft, include: LogInclude, field: &Field, buf: &[u8]) {
    let name = field.name.of(buf);
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    if include.user_agent && is(b"user-agent") {
        texts.note(Text::UserAgent, field.value.of(buf));
    } else if include.referer && is(b"referer") {
        let value = field.value.of(buf);
        texts.note(Text::Referer, if include.query { value } else { without_query(value) });
    }
}

fn without_query(target: &[u8]) -> &[u8] {
    target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default()
}
