//! A kernel for tests: it takes submissions as io_uring does, and a seed decides when each completes and how.
//!
//! Operations are done as non-blocking syscalls on real sockets of this process (see [`net`]), but only some of the bytes, or
//! later, in another order, after they were cancelled, or not at all: whatever io_uring may do under some load, on some
//! network. Time is virtual: it moves when nothing can be done, to when something can. So a second of waiting costs nothing,
//! and one seed is one history: nothing depends on threads, on the clock or on numbers of descriptors.
//!
//! Chosen over a model of the worker, which would be another program than the one that runs; over loopback TCP, whose buffers
//! and timers depend on real time; and over sockets that are memory alone, which splice(2), shutdown(2) and socket options
//! would not know. What it does not show is what the kernel does with TCP itself: the tests over real sockets do.

mod groups;
mod net;
mod rng;
mod sqe;

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::RawFd,
    time::{Duration, Instant},
};

use io_uring::{opcode, squeue};

pub(crate) use net::{Conn, Got, Net, Put, listening};
pub(crate) use rng::Rng;

use self::{groups::Groups, net::ready, sqe::Sqe};
use super::{
    IGNORED,
    driver::{Completion, SharedRing},
};

const BUFFER: u32 = 1;
const BUFFER_SHIFT: u32 = 16;
const MORE: u32 = 2;
/// How a dial goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dial {
    Accepted(Duration),
    Refused(i32, Duration),
    /// Nobody ever says anything.
    Lost,
}

/// Everything that is not the worker.
pub(crate) trait World {
    /// The worker dials.
    fn dial(&mut self, net: &mut Net, to: SocketAddr) -> Dial;
    /// It has got through, unless it has given up before.
    fn connected(&mut self, net: &mut Net, to: SocketAddr, conn: Conn);
    /// Whoever can do something does it. When somebody wants to do something next if nothing happens.
    fn act(&mut self, net: &mut Net) -> Option<Duration>;
    /// Everything is as it should be.
    fn check(&mut self, net: &mut Net);
}

/// How unkind the kernel is, in thousandths of operations.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moods {
    /// Completions that come late.
    pub(crate) late: usize,
    /// Receives and sends that are short.
    pub(crate) short: usize,
    /// Receives that find no buffer.
    pub(crate) no_buffer: usize,
    /// Accepts that fail or end their shot.
    pub(crate) accept: usize,
    /// Cancels that come too late, or much later.
    pub(crate) cancel: usize,
    /// Connections that the network breaks.
    pub(crate) breaks: usize,
}

/// A planted bug of the kernel's: what must not go unnoticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A received byte is another one.
    Flips,
    /// A send says all and has sent less.
    Loses,
    /// A completion comes twice.
    Repeats,
}

struct Pending {
    sqe: Sqe,
    /// When it may complete; not drawn before it could.
    at: Option<Duration>,
    /// Bytes sent so far.
    done: usize,
    dial: Option<(SocketAddr, Dial)>,
    /// It was cancelled, to no effect until then.
    cancelled: Option<Duration>,
}

enum Outcome {
    /// Completed and gone.
    Done(i32, u32),
    /// One result of a many-shot.
    More(i32),
    /// Something was done, more is to do.
    Moved,
    Nothing,
}

/// See the module.
pub(crate) struct Simulated {
    world: Box<dyn World>,
    net: Net,
    moods: Moods,
    flaw: Option<Flaw>,
    begin: Instant,
    submitted: VecDeque<Sqe>,
    pending: Vec<Pending>,
    completions: VecDeque<Completion>,
    groups: Groups,
    turns: Turns,
}

/// Turns in which nothing came, to see a loop that is busy with nothing.
#[derive(Default)]
struct Turns {
    idle: u32,
    since: Duration,
    still: u32,
}

/// Most turns in a virtual second to which nothing came: the timers' ticks are 62, and some more.
const IDLE_TURNS_MAX: u32 = 400;
/// Most turns without a wait while time stands still.
const STILL_TURNS_MAX: u32 = 20_000;

impl Simulated {
    pub(crate) fn new(
        seed: u64,
        begin: Instant,
        moods: Moods,
        flaw: Option<Flaw>,
        world: Box<dyn World>,
        is_traced: bool,
    ) -> Self {
        let mut net = Net::new(seed, is_traced);
        net.breaks = moods.breaks;
        Self {
            world,
            net,
            moods,
            flaw,
            begin,
            submitted: VecDeque::new(),
            pending: Vec::new(),
            completions: VecDeque::new(),
            groups: Groups::default(),
            turns: Turns::default(),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.begin + self.net.now
    }

    pub(super) fn register(&mut self, ring: SharedRing) {
        self.groups.add(ring);
    }

    pub(super) fn push(&mut self, entry: &squeue::Entry) {
        self.submitted.push_back(Sqe::read(entry));
    }

    pub(super) fn reap(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    /// The client of an accepted connection.
    pub(super) fn client(&self, near: RawFd) -> Option<SocketAddr> {
        self.net.client(near)
    }

    /// One `io_uring_enter`: what was submitted begins, whoever can act does, and time passes where nobody can.
    pub(super) fn enter(&mut self, wait: Option<Duration>) -> usize {
        let submitted = self.submitted.len();
        let began = self.net.now;
        self.groups.take_back();
        while let Some(sqe) = self.submitted.pop_front() {
            self.begin(sqe);
        }
        // Work takes time.
        self.net.now += Duration::from_micros(self.net.rng.below(300) as u64);
        let until = wait.map(|wait| began.saturating_add(wait).max(self.net.now));
        loop {
            let of =
                |code: u8| self.pending.iter().filter(move |op| op.sqe.opcode == code).map(|op| op.sqe.fd);
            self.net.receiving = of(opcode::Recv::CODE).collect();
            self.net.sending = of(opcode::Send::CODE).collect();
            let closes = self.net.settle();
            let acts = self.world.act(&mut self.net);
            let moved = self.progress();
            if !self.completions.is_empty() {
                break;
            }
            let Some(until) = until else { break };
            if moved {
                continue;
            }
            let due = self.pending.iter().flat_map(|op| [op.at, op.cancelled]).flatten();
            let due = due.filter(|due| *due > self.net.now).chain(closes).chain(acts).min();
            if self.net.now >= until {
                break;
            }
            let step = self.net.now + Duration::from_micros(1);
            self.net.now = due.map_or(until, |due| due.min(until)).max(step);
        }
        self.world.check(&mut self.net);
        self.count(wait.is_some());
        submitted
    }

    fn count(&mut self, waits: bool) {
        let Self { turns, net, .. } = self;
        if net.now.saturating_sub(turns.since) >= Duration::from_secs(1) {
            *turns = Turns { since: net.now, ..Turns::default() };
        }
        if self.completions.is_empty() {
            turns.idle += u32::from(waits);
            turns.still += u32::from(!waits);
        }
        let (idle, still) = (turns.idle, turns.still);
        assert!(idle <= IDLE_TURNS_MAX, "a busy loop: {idle} turns in vain within a second");
        assert!(still <= STILL_TURNS_MAX, "a busy loop: {still} turns without a wait");
    }

    fn begin(&mut self, sqe: Sqe) {
        match sqe.opcode {
            opcode::AsyncCancel::CODE => self.cancel(&sqe),
            opcode::Close::CODE => {
                self.net.closed(sqe.fd);
                self.complete(IGNORED, 0, 0);
            }
            opcode::Connect::CODE => {
                let to = address(&sqe);
                let dial = self.world.dial(&mut self.net, to);
                let at = match dial {
                    Dial::Accepted(after) | Dial::Refused(_, after) => Some(self.net.now + after),
                    Dial::Lost => None,
                };
                self.net.note(|| format!("dials {to}: {dial:?}"));
                self.pending.push(Pending { at, dial: Some((to, dial)), ..Pending::new(sqe) });
            }
            _ => self.pending.push(Pending::new(sqe)),
        }
    }

    fn complete(&mut self, user_data: u64, result: i32, flags: u32) {
        self.completions.push_back(Completion { user_data, result, flags });
        if self.flaw == Some(Flaw::Repeats) && user_data != IGNORED && self.net.rng.one_in(300) {
            self.completions.push_back(Completion { user_data, result: -libc::ECANCELED, flags: 0 });
        }
    }

    /// A cancel takes effect at once, or finds that it is too late, or takes its time.
    fn cancel(&mut self, sqe: &Sqe) {
        self.complete(sqe.user_data, 0, 0);
        let Some(at) = self.pending.iter().position(|op| op.sqe.user_data == sqe.addr) else { return };
        if self.net.rng.per_mille(self.moods.cancel) {
            if self.net.rng.one_in(2) {
                self.pending[at].at = Some(self.net.now);
                if self.attempt(at) {
                    return;
                }
            } else {
                let late = Duration::from_millis(self.net.rng.below(400) as u64);
                self.pending[at].cancelled = Some(self.net.now + late);
                return;
            }
        }
        self.finish_cancelled(at);
    }

    fn finish_cancelled(&mut self, at: usize) {
        let op = self.pending.remove(at);
        self.net.note(|| format!("cancelled {}", op.name()));
        // What has been sent has been sent.
        let result = if op.done > 0 { op.done as i32 } else { -libc::ECANCELED };
        let mut flags = 0;
        if op.is_picking() && self.net.rng.one_in(8) {
            // A receive that was about to take place has picked its buffer.
            flags = self.groups.pick(op.sqe.group).map_or(0, |(id, ..)| flag(id));
        }
        self.complete(op.sqe.user_data, result, flags);
    }

    /// Operations that can go on, do, in an order that the seed decides. Whether anything moved.
    fn progress(&mut self) -> bool {
        let mut order: Vec<_> = self.pending.iter().map(|op| op.sqe.user_data).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.net.rng.below(at + 1));
        }
        let mut moved = false;
        for user_data in order {
            let Some(at) = self.pending.iter().position(|op| op.sqe.user_data == user_data) else { continue };
            if self.pending[at].cancelled.is_some_and(|due| due <= self.net.now) {
                self.finish_cancelled(at);
                moved = true;
                continue;
            }
            moved |= self.attempt(at);
        }
        moved
    }

    /// Whether it could do anything now.
    fn is_ready(&self, op: &Pending) -> bool {
        let fd = op.sqe.fd;
        let events = match op.sqe.opcode {
            opcode::Connect::CODE => return true,
            opcode::AcceptMulti::CODE => return !self.net.arrivals.is_empty(),
            opcode::Send::CODE => libc::POLLOUT,
            opcode::PollAdd::CODE => op.sqe.op_flags as i16,
            _ => libc::POLLIN | libc::POLLRDHUP,
        };
        ready(fd, events) != 0
    }

    /// Tries the operation at `at`; whether anything moved.
    fn attempt(&mut self, at: usize) -> bool {
        if !self.is_ready(&self.pending[at]) {
            return false;
        }
        let sqe = self.pending[at].sqe;
        let due = match self.pending[at].at {
            Some(due) => due,
            None if self.pending[at].dial.is_some() => return false,
            None => {
                let due = self.net.now + self.delay(sqe.fd);
                self.pending[at].at = Some(due);
                due
            }
        };
        if due > self.net.now {
            return false;
        }
        if self.net.breaks_now(sqe.fd) && self.net.rng.one_in(2) {
            let errno =
                self.net.rng.pick(&[libc::ECONNRESET, libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::EINTR]);
            return self.settle(at, Outcome::Done(-errno, 0));
        }
        let outcome = match sqe.opcode {
            opcode::Recv::CODE => self.receive(&sqe),
            opcode::Send::CODE => self.send(at),
            opcode::Connect::CODE => self.connect(at),
            opcode::AcceptMulti::CODE => self.accept(),
            opcode::PollAdd::CODE => Outcome::Done(i32::from(ready(sqe.fd, sqe.op_flags as i16)), 0),
            opcode::Read::CODE => done(read(&sqe, sqe.len as usize)),
            _ => Outcome::Done(-libc::EINVAL, 0),
        };
        self.settle(at, outcome)
    }

    fn settle(&mut self, at: usize, outcome: Outcome) -> bool {
        let op = &mut self.pending[at];
        match outcome {
            Outcome::Nothing => {
                op.at = None;
                return false;
            }
            Outcome::Moved => op.at = None,
            Outcome::More(result) => {
                op.at = None;
                let user_data = op.sqe.user_data;
                self.complete(user_data, result, MORE);
            }
            Outcome::Done(result, flags) => {
                let op = self.pending.remove(at);
                let conn = self.net.conn(op.sqe.fd);
                self.net.note(|| format!("{} on {conn:?}: {result}", op.name()));
                self.complete(op.sqe.user_data, result, flags);
            }
        }
        true
    }

    fn delay(&mut self, fd: RawFd) -> Duration {
        if self.net.is_prompt(fd) || !self.net.rng.per_mille(self.moods.late) {
            return Duration::ZERO;
        }
        let most = self.net.rng.pick(&[1, 5, 20, 300]);
        Duration::from_micros(self.net.rng.below(most * 1000) as u64)
    }

    /// So many of `len`, for an operation on `fd`.
    fn share(&mut self, fd: RawFd, len: usize) -> usize {
        if self.net.is_prompt(fd) || !self.net.rng.per_mille(self.moods.short) {
            return len;
        }
        let most = self.net.rng.pick(&[1, 10, 1000, len]).min(len);
        1 + self.net.rng.below(most)
    }

    fn receive(&mut self, sqe: &Sqe) -> Outcome {
        if sqe.flags & (1 << 5) == 0 {
            let len = self.share(sqe.fd, sqe.len as usize);
            return done(read(sqe, len));
        }
        let starved = self.net.rng.per_mille(self.moods.no_buffer) && !self.net.is_prompt(sqe.fd);
        let picked = if starved { None } else { self.groups.pick(sqe.group) };
        let Some((id, memory, size)) = picked else { return Outcome::Done(-libc::ENOBUFS, 0) };
        let len = self.share(sqe.fd, size);
        let result = read(&(*sqe).with_memory(memory), len);
        if self.flaw == Some(Flaw::Flips) && result > 0 && self.net.rng.one_in(200) {
            // SAFETY: the buffer is the kernel's until it completes, and has at least one byte.
            unsafe { *memory.add(self.net.rng.below(result as usize)) ^= 1 };
        }
        if result == -libc::EAGAIN {
            self.groups.unpick(sqe.group, id);
            return Outcome::Nothing;
        }
        // The end of a stream takes a buffer or none; which one depends on the kernel.
        if result <= 0 && self.net.rng.one_in(2) {
            self.groups.unpick(sqe.group, id);
            return Outcome::Done(result, 0);
        }
        Outcome::Done(result, flag(id))
    }

    fn send(&mut self, at: usize) -> Outcome {
        let sqe = self.pending[at].sqe;
        let (done, len) = (self.pending[at].done, sqe.len as usize);
        let some = self.share(sqe.fd, len - done);
        // SAFETY: what is sent stays until its completion (`slab::Held`), and `done + some <= len`.
        let sent = unsafe {
            let from = (sqe.addr as *const libc::c_void).byte_add(done);
            libc::send(sqe.fd, from, some, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        match errno(sent) {
            Ok(sent) => {
                self.pending[at].done += sent;
                let lost = self.flaw == Some(Flaw::Loses) && done > 0 && self.net.rng.one_in(20);
                if self.pending[at].done == len || lost {
                    Outcome::Done(len as i32, 0)
                } else {
                    Outcome::Moved
                }
            }
            Err(libc::EAGAIN) => Outcome::Nothing,
            Err(_) if done > 0 => Outcome::Done(done as i32, 0),
            Err(errno) => Outcome::Done(-errno, 0),
        }
    }

    fn connect(&mut self, at: usize) -> Outcome {
        let fd = self.pending[at].sqe.fd;
        match self.pending[at].dial {
            Some((to, Dial::Accepted(_))) => {
                let conn = self.net.connected(fd);
                self.net.note(|| format!("{conn} is connected to {to}"));
                self.world.connected(&mut self.net, to, conn);
                Outcome::Done(0, 0)
            }
            Some((_, Dial::Refused(errno, _))) => Outcome::Done(-errno, 0),
            Some((_, Dial::Lost)) | None => Outcome::Nothing,
        }
    }

    fn accept(&mut self) -> Outcome {
        if self.net.rng.per_mille(self.moods.accept) {
            let errno = self.net.rng.pick(&[0, libc::ECONNABORTED, libc::EMFILE, libc::ENOBUFS]);
            if errno != 0 {
                return Outcome::Done(-errno, 0);
            }
            // The shot ends with a connection.
            return self.net.accept().map_or(Outcome::Nothing, |fd| Outcome::Done(fd, 0));
        }
        self.net.accept().map_or(Outcome::Nothing, Outcome::More)
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.net.clear();
    }
}

impl Pending {
    fn new(sqe: Sqe) -> Self {
        Self { sqe, at: None, done: 0, dial: None, cancelled: None }
    }

    fn is_picking(&self) -> bool {
        self.sqe.opcode == opcode::Recv::CODE && self.sqe.flags & (1 << 5) != 0
    }

    fn name(&self) -> &'static str {
        match self.sqe.opcode {
            opcode::Recv::CODE => "recv",
            opcode::Send::CODE => "send",
            opcode::Connect::CODE => "connect",
            opcode::AcceptMulti::CODE => "accept",
            opcode::PollAdd::CODE => "poll",
            opcode::Read::CODE => "read",
            _ => "unknown operation",
        }
    }
}

fn flag(id: u16) -> u32 {
    BUFFER | u32::from(id) << BUFFER_SHIFT
}

fn errno(result: isize) -> Result<usize, i32> {
    usize::try_from(result).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Reads at most `len` bytes into where a submission wants them.
fn read(sqe: &Sqe, len: usize) -> i32 {
    let into = sqe.addr as *mut libc::c_void;
    // SAFETY: the memory is as long as its submission says, or is a buffer of the ring, and `len` is no more.
    let result = unsafe {
        if sqe.opcode == opcode::Read::CODE {
            libc::read(sqe.fd, into, len)
        } else {
            libc::recv(sqe.fd, into, len, libc::MSG_DONTWAIT)
        }
    };
    errno(result).map_or_else(|errno| -errno, |len| len as i32)
}

fn done(result: i32) -> Outcome {
    if result == -libc::EAGAIN { Outcome::Nothing } else { Outcome::Done(result, 0) }
}

/// Where a submission dials to.
fn address(sqe: &Sqe) -> SocketAddr {
    // SAFETY: the submission's address stays until its completion, and is one of IPv4 in these tests.
    let address = unsafe { (sqe.addr as *const libc::sockaddr_in).read_unaligned() };
    let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
    SocketAddr::new(IpAddr::V4(ip), u16::from_be(address.sin_port))
}
