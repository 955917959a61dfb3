//! Keeps what authorities say of our certificates: asks again in good time, and as often as it takes.
//!
//! Nothing here waits: each question blocks a short-lived thread of its own, of which there are at most [`FETCHES_MAX`] at a
//! time.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    names::look_up,
    post::{self, Post},
};
use crate::{
    admin::certificates::now_seconds,
    config::Dns,
    model::{BackendName, DomainName},
    names::Outcome,
    tls::ocsp::{Question, Responder, Staple, Unusable},
};

/// Questions at a time.
const FETCHES_MAX: usize = 4;
/// How long one may take, but for looking the name up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds until a question that failed is asked again: at first, and at most.
const RETRY: (i64, i64) = (2, 3600);
/// Least seconds until a good answer is asked for again.
const PAUSE: i64 = 60;
/// Until it is looked again whether something is due.
const LOOK: Duration = Duration::from_secs(1);

/// Of a file with a certificate: an answer is about what was in it then.
pub(super) type FileDigest = [u8; 32];

/// What is asked of an authority.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The table, such as `tls.a`.
    pub(super) at: String,
    /// Of the certificate.
    pub(super) file: PathBuf,
    pub(super) question: Arc<Question>,
}

/// What came of a question.
pub(super) type Ended = (FileDigest, Result<Staple, Failure>);

/// Why there is no answer that may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// In metrics.
    name: &'static str,
    /// For people.
    text: String,
}

/// How it stands with the answer about one certificate.
#[derive(Debug)]
struct Standing {
    asked: Asked,
    due: i64,
    is_running: bool,
    failures: u32,
    failure: Option<Failure>,
    fetches: BTreeMap<&'static str, u64>,
}

/// Of every certificate that is asked about.
pub(super) struct Staples {
    standings: BTreeMap<FileDigest, Standing>,
    ended: (flume::Sender<Ended>, flume::Receiver<Ended>),
}

impl Default for Staples {
    fn default() -> Self {
        Self { standings: BTreeMap::new(), ended: flume::unbounded() }
    }
}

impl Staples {
    /// These are asked about from now on. Those that were go on as they are.
    pub(super) fn ask_about(&mut self, asked: impl Iterator<Item = (FileDigest, Asked)>, now: i64) {
        let mut before = std::mem::take(&mut self.standings);
        for (key, asked) in asked {
            let standing = match before.remove(&key) {
                Some(standing) => Standing { asked, ..standing },
                None => Standing {
                    asked,
                    due: now,
                    is_running: false,
                    failures: 0,
                    failure: None,
                    fetches: [("good", 0)].into(),
                },
            };
            self.standings.insert(key, standing);
        }
    }

    /// Questions that have ended.
    pub(super) fn ended(&self) -> flume::Receiver<Ended> {
        self.ended.1.clone()
    }

    /// Until [`Self::begin`] should be called again.
    pub(super) fn wait(&self, now: i64) -> Duration {
        let due = self
            .standings
            .values()
            .filter(|standing| !standing.is_running)
            .map(|standing| standing.due)
            .min();
        due.map_or(Duration::MAX, |due| Duration::from_secs(due.saturating_sub(now).max(0) as u64).max(LOOK))
    }

    /// Begins what is due.
    pub(super) fn begin(&mut self, dns: &Dns, now: i64) {
        let mut running = self.standings.values().filter(|standing| standing.is_running).count();
        for (key, standing) in &mut self.standings {
            if standing.is_running || standing.due > now || running >= FETCHES_MAX {
                continue;
            }
            let (key, question, dns) = (*key, standing.asked.question.clone(), dns.clone());
            let ended = self.ended.0.clone();
            // The receiver lives as long as the process.
            let fetch = move || _ = ended.send((key, fetch(&question, &dns)));
            match thread::Builder::new().name("lb-ocsp".into()).spawn(fetch) {
                Ok(_) => {
                    standing.is_running = true;
                    running += 1;
                }
                // It stays due.
                Err(error) => tracing::warn!(%error, "no thread for a question of OCSP"),
            }
        }
    }

    /// Takes in what came of a question; the answer, if it is good. Says what an operator would act on, once.
    pub(super) fn end(&mut self, (key, outcome): Ended, now: i64) -> Option<(FileDigest, Staple)> {
        let standing = self.standings.get_mut(&key)?;
        standing.is_running = false;
        let (at, file) = (&*standing.asked.at, standing.asked.file.display());
        let responder = standing.asked.question.responder();
        match outcome {
            Ok(staple) => {
                *standing.fetches.entry("good").or_default() += 1;
                let end = staple.next_update.unwrap_or(now);
                standing.due = due(staple.this_update, end, now);
                (standing.failures, standing.failure) = (0, None);
                let (good_for, again_in) = (end - now, standing.due - now);
                tracing::info!(at, %file, %responder, good_for, again_in, "an OCSP answer was fetched, in seconds");
                Some((key, staple))
            }
            Err(failure) => {
                *standing.fetches.entry(failure.name).or_default() += 1;
                let (first, most) = RETRY;
                standing.due = now + (first << standing.failures.min(16)).min(most);
                standing.failures += 1;
                let (why, text) = (failure.name, &failure.text);
                if standing.failure.as_ref().is_none_or(|known| known != &failure) {
                    tracing::warn!(at, %file, %responder, why, text, "no OCSP answer was fetched: the one from before goes on");
                }
                standing.failure = Some(failure);
                None
            }
        }
    }

    /// Why the last question brought nothing, if it did not, and how they ended, by number.
    pub(super) fn told(&self, key: &FileDigest) -> (Option<String>, BTreeMap<&'static str, u64>) {
        self.standings.get(key).map_or_else(Default::default, |standing| {
            (standing.failure.as_ref().map(|failure| failure.text.clone()), standing.fetches.clone())
        })
    }
}

/// When an answer is asked for again: in the middle of its time, or of what is left.
fn due(this_update: i64, next_update: i64, now: i64) -> i64 {
    let middle = |begin: i64| begin + (next_update - begin) / 2;
    let due = if middle(this_update) > now { middle(this_update) } else { middle(now) };
    due.max(now + PAUSE)
}

fn fetch(question: &Question, dns: &Dns) -> Result<Staple, Failure> {
    let responder = question.responder();
    let addresses = addresses(responder, dns)?;
    let request = question.request();
    let post = Post {
        authority: &responder.authority,
        path: &responder.path,
        content_type: "application/ocsp-request",
        body: &request,
    };
    let mut last = Failure { name: "unresolved", text: format!("{} has no address", responder.host) };
    for address in addresses {
        match post.send(address, Instant::now() + PATIENCE) {
            Ok(answer) => {
                return question.judge(&answer, now_seconds()).map_err(|why| unusable(responder, why));
            }
            Err(post::Failure::Io(error)) => {
                last = Failure { name: "unreachable", text: format!("{responder} ({address}): {error}") };
            }
            Err(post::Failure::Http(why)) => {
                last = Failure { name: "http", text: format!("{responder} ({address}): {why}") };
            }
        }
    }
    Err(last)
}

fn unusable(responder: &Responder, why: Unusable) -> Failure {
    Failure { name: why.name(), text: format!("the answer of {responder} {why}") }
}

/// Where a responder is.
fn addresses(responder: &Responder, dns: &Dns) -> Result<Vec<SocketAddr>, Failure> {
    if let Some(address) = responder.address() {
        return Ok(vec![SocketAddr::new(address, responder.port)]);
    }
    let unresolved = |why: &dyn std::fmt::Display| Failure {
        name: "unresolved",
        text: format!("{}: {why}", responder.host),
    };
    let name = DomainName::new(&responder.host).ok_or_else(|| unresolved(&"is no name"))?;
    match look_up(&BackendName::Host(name, responder.port), dns) {
        Outcome::Found { backends, .. } => Ok(backends.into_iter().map(|found| found.address).collect()),
        Outcome::Denied(denial, _) => Err(unresolved(&denial.name())),
        Outcome::Failed(failure) => Err(unresolved(&failure.name())),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;
    use crate::tls::ocsp::tests::asked_at;

    #[test]
    fn an_answer_is_asked_for_again_in_the_middle_of_its_time() {
        assert_eq!(due(0, 7200, 100), 3600);
        // A responder that gives what it has had for long: of what is left.
        assert_eq!(due(0, 7200, 5200), 6200);
        assert_eq!(due(0, 7200, 7190), 7250, "and not all the time");
    }

    #[test]
    fn what_failed_is_asked_again_soon_and_then_less_often() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (question, answer) = asked_at(&format!("http://{}/ask", listener.local_addr().unwrap()));
        let answered = answer.clone();
        thread::spawn(move || {
            let good = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answered.len());
            let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
            for said in [busy.as_bytes(), busy.as_bytes(), &[good.as_bytes(), &answered].concat()] {
                let (mut stream, _) = listener.accept().unwrap();
                let len = stream.read(&mut [0; 4096]).unwrap();
                assert!(len > 0);
                stream.write_all(said).unwrap();
            }
        });
        let dns = Dns::default();
        let (mut staples, now) = (Staples::default(), now_seconds());
        let asked = Asked { at: "tls.a".to_owned(), file: "a.pem".into(), question: Arc::new(question) };
        let mut step = |at: i64| {
            staples.ask_about([([7; 32], asked.clone())].into_iter(), at);
            staples.begin(&dns, at);
            let ended = staples.ended().recv_timeout(PATIENCE).ok()?;
            Some((staples.end(ended, at), staples.told(&[7; 32]), staples.wait(at)))
        };
        let busy = |told: &Option<String>| told.as_ref().is_some_and(|why| why.ends_with(": status 503"));
        let (staple, (failure, fetches), wait) = step(now).unwrap();
        assert!(staple.is_none() && busy(&failure), "{failure:?}");
        assert_eq!((fetches, wait), ([("good", 0), ("http", 1)].into(), Duration::from_secs(2)));
        let (staple, (failure, _), wait) = step(now + 2).unwrap();
        assert!(staple.is_none() && busy(&failure), "{failure:?}");
        assert_eq!(wait, Duration::from_secs(4));
        let (staple, (failure, fetches), wait) = step(now + 6).unwrap();
        assert_eq!(staple.unwrap().1.der, answer);
        assert_eq!((failure, fetches), (None, [("good", 1), ("http", 2)].into()));
        assert!(wait > Duration::from_secs(365 * 24 * 3600));
        // What is asked about no more is forgotten.
        staples.ask_about(std::iter::empty(), now);
        assert_eq!((staples.told(&[7; 32]), staples.wait(now)), ((None, BTreeMap::new()), Duration::MAX));
    }
}
