//! The one thread that owns the packet path: health verdicts and readings come to it by mail.

use std::{
    collections::BTreeSet,
    io,
    mem::ManuallyDrop,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    addresses::Held,
    forwarding::{Material, Through},
    listeners::Group,
};
use crate::{
    admin::{
        Ask, FlowList, Packets, PacketsSource,
        capture::{Feed, Wish},
        packets::{Refusal, WhyAnswer},
    },
    config::{Config, Snapshot},
    health::Verdict,
    model::{BackendId, Question},
};

/// Between two ticks.
const TICK: Duration = Duration::from_secs(1);
/// From the first verdict to the change it makes: others that come meanwhile are of the same change.
const GATHERING: Duration = Duration::from_millis(20);

/// What this thread needs of the packet path.
pub(super) trait PacketPath: Send {
    /// Lays health over the tables; `down` is the whole set.
    fn set_down(&mut self, down: &BTreeSet<BackendId>) -> Result<(), String>;
    /// Closes and settles slots whose time has come.
    fn tick(&mut self) -> Result<(), String>;
    /// Reads every counter.
    fn read(&mut self) -> Result<Packets, String>;
    /// Reads the flow records.
    fn flows(&mut self) -> Result<FlowList, String>;
    /// Says what would become of a packet.
    fn why(&mut self, question: &Question) -> WhyAnswer;
    /// Begins a capture.
    fn capture(&mut self, wish: &Wish) -> Result<Feed, Refusal>;
    /// Brings maps and interfaces to another config; after an error they are as they were.
    fn change(&mut self, change: &PathChange) -> Result<Brought, String>;
    /// Sees to other listener groups. What is lost, one sentence each.
    fn listen(&mut self, doors: &Doors<'_>) -> Vec<String>;
    /// Nothing is written from now on: another process is to take over.
    fn freeze(&mut self) -> Result<(), String>;
    /// It did not, whatever it came to.
    fn thaw(&mut self) -> Result<(), String>;
    /// The change holds everywhere: takes away what it took out, keeps what a restart needs. What is lost, as above.
    fn settle(&mut self, config: &Config) -> Vec<String>;
}

/// The addresses of a config.
#[derive(Clone, Copy)]
pub(super) struct Doors<'a> {
    pub(super) config: &'a Config,
    /// Of the workers.
    pub(super) cores: &'a [usize],
    /// All of them.
    pub(super) held: &'a [Held],
    /// Those that are new; none for datagrams.
    pub(super) opened: &'a [Group],
}

/// What the packet path is to be brought to.
pub(super) struct PathChange {
    pub(super) config: Arc<Config>,
    pub(super) snapshot: Arc<Snapshot>,
    /// With `[xdp]`.
    pub(super) material: Option<Material>,
}

/// What came of that.
#[derive(Default)]
pub(super) struct Brought {
    /// One sentence each.
    pub(super) warnings: Vec<String>,
    pub(super) through: Through,
}

/// Other listener groups, with copies of the sockets of those that are new.
pub(super) struct NewDoors {
    pub(super) config: Arc<Config>,
    pub(super) cores: Vec<usize>,
    pub(super) held: Vec<Held>,
    pub(super) opened: Vec<Group>,
}

enum Mail {
    Health(BackendId, Verdict),
    Read(Ask),
    Change(Box<PathChange>, flume::Sender<Result<Brought, String>>),
    Listen(NewDoors, flume::Sender<Vec<String>>),
    Settle(Arc<Config>),
    Freeze(flume::Sender<Result<(), String>>),
    Thaw(flume::Sender<Result<(), String>>),
}

/// Sends to the packet path's thread, which ends when the last of these is gone.
#[derive(Clone)]
pub(super) struct PlaneMail(flume::Sender<Mail>);

impl PlaneMail {
    /// Starts the thread; `down` is what the packet path holds already.
    pub(super) fn start(path: impl PacketPath + 'static, down: BTreeSet<BackendId>) -> io::Result<Self> {
        let (sender, mail) = flume::unbounded();
        thread::Builder::new().name("lb-plane".into()).spawn(move || drive(path, down, &mail))?;
        Ok(Self(sender))
    }

    /// A verdict changed. Never blocks; there are at most as many in the mail as probes can end.
    pub(super) fn tell(&self, id: BackendId, verdict: Verdict) {
        // The thread ends only by a panic, which ends the process.
        _ = self.0.send(Mail::Health(id, verdict));
    }

    /// Brings the packet path to another config, and waits for it.
    ///
    /// # Errors
    /// Why it is as it was.
    pub(super) fn change(&self, change: PathChange) -> Result<Brought, String> {
        self.ask(|answer| Mail::Change(Box::new(change), answer)).unwrap_or_else(|| Err(GONE.to_owned()))
    }

    /// Hands it other listener groups, and waits for it. What is lost, one sentence each.
    pub(super) fn listen(&self, doors: NewDoors) -> Vec<String> {
        self.ask(|answer| Mail::Listen(doors, answer)).unwrap_or_else(|| vec![GONE.to_owned()])
    }

    /// Tells it that the last change holds everywhere.
    pub(super) fn settle(&self, config: Arc<Config>) {
        _ = self.0.send(Mail::Settle(config));
    }

    /// Has it write nothing more, and waits for that. What it is told meanwhile waits, too. For ever, unless it is
    /// [thawed](Self::thaw).
    ///
    /// # Errors
    /// The kernel refuses; then it goes on.
    pub(super) fn freeze(&self) -> Result<(), String> {
        self.ask(Mail::Freeze).unwrap_or_else(|| Err(GONE.to_owned()))
    }

    /// Has it go on where another process may have written. A change is to follow, as after a restart.
    ///
    /// # Errors
    /// The kernel refuses; it goes on with what it can.
    pub(super) fn thaw(&self) -> Result<(), String> {
        self.ask(Mail::Thaw).unwrap_or_else(|| Err(GONE.to_owned()))
    }

    fn ask<T>(&self, mail: impl FnOnce(flume::Sender<T>) -> Mail) -> Option<T> {
        let (sender, answer) = flume::bounded(1);
        self.0.send(mail(sender)).ok()?;
        answer.recv().ok()
    }

    /// For the admin API.
    pub(super) fn source(&self) -> PacketsSource {
        let sender = self.0.clone();
        PacketsSource::new(move |ask| _ = sender.send(Mail::Read(ask)))
    }
}

const GONE: &str = "the packet path's thread has ended";

fn ids(snapshot: &Snapshot) -> impl Iterator<Item = BackendId> + '_ {
    snapshot.pools.iter().flat_map(|pool| &pool.backends).map(|backend| backend.id)
}

/// Verdicts that come within a moment become one change of the tables: deaths rarely come alone.
fn drive(path: impl PacketPath, mut down: BTreeSet<BackendId>, mail: &flume::Receiver<Mail>) {
    // Dropped, it would take links and filters away, which are another process's once that has taken over.
    let mut path = ManuallyDrop::new(path);
    let (mut is_behind, mut tick_at) = (false, Instant::now() + TICK);
    let mut is_frozen = false;
    loop {
        let first = match mail.recv_deadline(tick_at) {
            Ok(first) => Some(first),
            Err(flume::RecvTimeoutError::Timeout) => None,
            Err(flume::RecvTimeoutError::Disconnected) if is_frozen => return,
            Err(flume::RecvTimeoutError::Disconnected) => return drop(ManuallyDrop::into_inner(path)),
        };
        if matches!(first, Some(Mail::Health(..))) {
            thread::sleep(GATHERING);
        }
        let (mut readers, mut flow_readers, mut questions) = (Vec::new(), Vec::new(), Vec::new());
        for mail in first.into_iter().chain(mail.drain()) {
            match mail {
                Mail::Health(id, Verdict::Down) => is_behind |= down.insert(id),
                Mail::Health(id, Verdict::Up) => is_behind |= down.remove(&id),
                Mail::Read(Ask::Packets(reader)) => readers.push(reader),
                Mail::Read(Ask::Flows(reader)) => flow_readers.push(reader),
                Mail::Read(Ask::Why(question, asker)) => questions.push((question, asker)),
                // One that left meanwhile drops the feed, and so ends the capture.
                Mail::Read(Ask::Capture(wish, asker)) => _ = asker.send(path.capture(&wish)),
                Mail::Change(change, asker) => {
                    let brought = path.change(&change);
                    if brought.is_ok() {
                        // Who left takes nothing, and is not missed.
                        let stays: BTreeSet<_> = ids(&change.snapshot).collect();
                        down.retain(|id| stays.contains(id));
                    }
                    _ = asker.send(brought);
                }
                Mail::Listen(NewDoors { config, cores, held, opened }, asker) => {
                    let doors = Doors { config: &config, cores: &cores, held: &held, opened: &opened };
                    let lost = path.listen(&doors);
                    // Before anybody hears of it: a worker closes an address only if nobody else holds it.
                    drop(opened);
                    _ = asker.send(lost);
                }
                Mail::Freeze(asker) => {
                    let frozen = path.freeze();
                    is_frozen = frozen.is_ok();
                    _ = asker.send(frozen);
                }
                Mail::Thaw(asker) => {
                    // What it holds may be another process's.
                    (is_frozen, is_behind) = (false, true);
                    _ = asker.send(path.thaw());
                }
                Mail::Settle(config) => {
                    path.settle(&config).iter().for_each(|lost| tracing::warn!("{lost}"));
                }
            }
        }
        if is_behind && !is_frozen {
            match path.set_down(&down) {
                Ok(()) => is_behind = false,
                // It stays behind, and is tried again at the next tick or letter.
                Err(error) => tracing::error!(%error, "health did not reach the packet path"),
            }
        }
        if !readers.is_empty() {
            match path.read() {
                Ok(packets) => readers.iter().for_each(|reader| _ = reader.send(packets.clone())),
                Err(error) => tracing::warn!(%error, "the packet path's counters cannot be read"),
            }
        }
        if !flow_readers.is_empty() {
            match path.flows() {
                Ok(flows) => flow_readers.iter().for_each(|reader| _ = reader.send(flows.clone())),
                Err(error) => tracing::warn!(%error, "the flow records cannot be read"),
            }
        }
        questions.iter().for_each(|(question, asker)| _ = asker.send(path.why(question)));
        if Instant::now() >= tick_at {
            if let Err(error) = if is_frozen { Ok(()) } else { path.tick() } {
                tracing::error!(%error, "moving slots cannot be settled");
            }
            tick_at = Instant::now() + TICK;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    /// Writes down what it is told; refuses the first `refusals` changes.
    struct Scribe {
        told: flume::Sender<Option<BTreeSet<BackendId>>>,
        refusals: u32,
    }

    impl PacketPath for Scribe {
        fn set_down(&mut self, down: &BTreeSet<BackendId>) -> Result<(), String> {
            if self.refusals > 0 {
                self.refusals -= 1;
                return Err("refused".to_owned());
            }
            self.told.send(Some(down.clone())).map_err(|error| error.to_string())
        }

        fn tick(&mut self) -> Result<(), String> {
            self.told.send(None).map_err(|error| error.to_string())
        }

        fn read(&mut self) -> Result<Packets, String> {
            Ok(Packets { slots_open: 7, ..Packets::default() })
        }

        fn flows(&mut self) -> Result<FlowList, String> {
            Ok(FlowList { flows: Vec::new(), omitted: 8 })
        }

        fn why(&mut self, question: &Question) -> WhyAnswer {
            Err(Refusal::Question(question.to_string()))
        }

        fn capture(&mut self, _: &Wish) -> Result<Feed, Refusal> {
            Err(Refusal::Busy("another one runs".to_owned()))
        }

        fn change(&mut self, _: &PathChange) -> Result<Brought, String> {
            Err("full".to_owned())
        }

        fn listen(&mut self, _: &Doors<'_>) -> Vec<String> {
            Vec::new()
        }

        fn settle(&mut self, _: &Config) -> Vec<String> {
            Vec::new()
        }

        fn freeze(&mut self) -> Result<(), String> {
            Ok(())
        }

        fn thaw(&mut self) -> Result<(), String> {
            Ok(())
        }
    }

    fn run(refusals: u32, mails: Vec<Mail>) -> flume::Receiver<Option<BTreeSet<BackendId>>> {
        let (sender, mail) = flume::unbounded();
        let (told, heard) = flume::unbounded();
        mails.into_iter().for_each(|mail| sender.send(mail).unwrap());
        thread::spawn(move || drive(Scribe { told, refusals }, BTreeSet::new(), &mail));
        // Kept open for the length of a test.
        std::mem::forget(sender);
        heard
    }

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn verdicts_of_one_moment_are_one_change() {
        let health = |id, verdict| Mail::Health(BackendId(id), verdict);
        let heard = run(
            0,
            vec![
                health(1, Verdict::Down),
                health(2, Verdict::Down),
                health(1, Verdict::Up),
                health(3, Verdict::Down),
            ],
        );
        assert_eq!(heard.recv_timeout(SOON), Ok(Some([2, 3].map(BackendId).into())));
        assert_eq!(heard.recv_timeout(SOON), Ok(None), "then it ticks");
    }

    #[test]
    fn a_refused_change_is_tried_again() {
        let heard = run(1, vec![Mail::Health(BackendId(4), Verdict::Down)]);
        let told: Vec<_> = (0..2).map(|_| heard.recv_timeout(SOON).unwrap()).collect();
        assert!(told.contains(&Some([BackendId(4)].into())), "{told:?}");
    }

    #[test]
    fn what_is_frozen_writes_nothing_until_it_is_thawed() {
        let (reply, answer) = flume::bounded(2);
        let down = || Mail::Health(BackendId(4), Verdict::Down);
        let (frozen, thawed) = (Mail::Freeze(reply.clone()), Mail::Thaw(reply));
        let (sender, mail) = flume::unbounded();
        let (told, heard) = flume::unbounded();
        [frozen, down()].into_iter().for_each(|mail| sender.send(mail).unwrap());
        thread::spawn(move || drive(Scribe { told, refusals: 0 }, BTreeSet::new(), &mail));
        assert_eq!(answer.recv_timeout(SOON), Ok(Ok(())));
        assert!(heard.recv_timeout(TICK + GATHERING * 5).is_err(), "it neither ticks nor tells");
        sender.send(thawed).unwrap();
        let told: Vec<_> = (0..2).map(|_| heard.recv_timeout(SOON).unwrap()).collect();
        assert!(told.contains(&Some([BackendId(4)].into())), "{told:?}");
    }

    #[test]
    fn a_reading_is_answered() {
        let (reply, answer) = flume::bounded(1);
        let (flows, listed) = flume::bounded(1);
        let _heard = run(0, vec![Mail::Read(Ask::Packets(reply)), Mail::Read(Ask::Flows(flows))]);
        assert_eq!(answer.recv_timeout(SOON).unwrap().slots_open, 7);
        assert_eq!(listed.recv_timeout(SOON).unwrap().omitted, 8);
    }

    #[test]
    fn a_question_is_answered() {
        let (asker, answer) = flume::bounded(1);
        let question: Question = "icmp 10.0.0.1 -> 10.0.0.2".parse().unwrap();
        let _heard = run(0, vec![Mail::Read(Ask::Why(Box::new(question.clone()), asker))]);
        let told = answer.recv_timeout(SOON).unwrap();
        assert_eq!(told.unwrap_err(), Refusal::Question(question.to_string()));
    }
}
