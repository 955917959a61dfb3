//! A udp listener's socket: datagrams to backends, a flow per client, each on a connected socket of its own.
//!
//! ```text
//!  listening socket --batch--> flow of (client, asked address) --> its socket --> backend
//!         ^                                                            |
//!         +---------- from the address that was asked <----batch-------+   a task per flow
//! ```
//! Flows stay on this worker, as the kernel gives a client's datagrams to the same socket of the group while the group
//! stays the same; they move with that socket to another worker or process. Nothing is ever queued: what a socket has no room for is dropped and counted.

use std::{
    cell::RefCell,
    os::fd::AsFd as _,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use super::{
    api::{BoundListener, LentFlow},
    choice::Choice,
    datagram_flow::Flow,
    doors::Door as Place,
    lender::Lender,
    local::Local,
    timer::Idle,
};
use crate::{
    config::Udp,
    limits::Pressure,
    metrics::ListenerMetrics,
    model::{BackendId, GroupId, reason::CloseReason},
    relay::flows::{FlowId, FlowKey, Flows, Patience, TICK},
    ring::{
        Socket, executor,
        op::{Op, Readiness},
    },
    sys::datagrams::{self, Batch, Course, Datagrams},
};

/// Batches of one socket before the others get their turn.
const BATCHES_PER_STEP: usize = 4;
/// How long a flow may stay that no backend has answered yet: whoever forges senders must not hold much for long.
const UNANSWERED: Duration = Duration::from_secs(10);
/// Silence that ends a flow while the worker drains.
const DRAINING: Duration = Duration::from_secs(2);
/// How long a backend that said that nobody listens is passed over by new flows, where there is another.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// Pause after the listening socket failed.
const FAILED_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the worker drains and no flow is left; goes on with `flows` of another process.
pub(super) async fn drive(local: Rc<Local>, bound: BoundListener, flows: Vec<LentFlow>) {
    let _task = local.task();
    let own = socket2::SockRef::from(&bound.socket).local_addr().ok().and_then(|address| address.as_socket());
    let Some(own) = own.map(|address| address.ip()) else { return };
    let tells_address = own.is_unspecified();
    if datagrams::prepare(&bound.socket, own, tells_address).is_err() {
        local.count(CloseReason::Resources);
    }
    let socket = Socket::new(&local.ring, bound.socket);
    let place = local.doors.open((bound.group, bound.place), bound.listener, &socket);
    let door = Rc::new(Door {
        place,
        tells_address,
        flows: RefCell::new(Flows::new(local.now())),
        refused: RefCell::default(),
        batch: RefCell::new(Batch::new()),
        socket,
        at: (bound.group, bound.place),
        local,
    });
    {
        let mut doors = door.local.datagram_doors.borrow_mut();
        doors.retain(|door| door.strong_count() > 0);
        doors.push(Rc::downgrade(&(door.clone() as Rc<dyn Lender>)));
    }
    flows.into_iter().for_each(|flow| door.adopt(flow));
    door.serve().await;
    let left: Vec<_> = door.flows.borrow_mut().drain().collect();
    left.iter().for_each(|flow| flow.end(Some(CloseReason::Draining)));
}

/// Every flow of a worker, which go on elsewhere: nothing of them is taken or answered here any more.
pub(super) fn hand_over(local: &Local) -> Vec<LentFlow> {
    hand_over_of(local, |_| true)
}

/// The same of sockets that were given away.
pub(super) fn hand_over_given(local: &Local) -> Vec<LentFlow> {
    hand_over_of(local, |door| door.is_given_away())
}

fn hand_over_of(local: &Local, is_it: impl Fn(&dyn Lender) -> bool) -> Vec<LentFlow> {
    let doors: Vec<_> = local.datagram_doors.borrow().iter().filter_map(Weak::upgrade).collect();
    doors.iter().filter(|door| is_it(&***door)).flat_map(|door| door.hand_over()).collect()
}

/// One listening socket with its flows.
pub(super) struct Door {
    /// Which of whose sockets.
    at: (GroupId, usize),
    local: Rc<Local>,
    place: Rc<Place>,
    socket: Socket,
    /// It has more than one address.
    tells_address: bool,
    flows: RefCell<Flows<Rc<Flow>>>,
    /// Backends where nobody listened, and until when that is remembered.
    refused: RefCell<Vec<(BackendId, Instant)>>,
    /// Room that the socket and its flows take turns with: nothing waits while it is in use.
    batch: RefCell<Batch>,
}

impl Lender for Door {
    fn is_given_away(&self) -> bool {
        self.place.is_given_away()
    }

    fn hand_over(&self) -> Vec<LentFlow> {
        let gone: Vec<_> = self.flows.borrow_mut().drain().collect();
        let lend = |flow: &Rc<Flow>| {
            flow.leave();
            let socket = flow.socket.as_fd().try_clone_to_owned().ok()?;
            let FlowKey { client, asked } = flow.key;
            let (group, place) = self.at;
            Some(LentFlow { group, place, client, asked, backend: flow.backend, socket })
        };
        gone.iter().filter_map(lend).collect()
    }
}

impl Door {
    fn metrics(&self) -> &ListenerMetrics {
        self.local.metrics.listener(self.place.listener())
    }

    fn udp(&self) -> Udp {
        self.local.plan().listener(self.place.listener()).map(|listener| listener.udp).unwrap_or_default()
    }

    /// Whether another worker or process takes what comes.
    fn is_others(&self) -> bool {
        self.local.is_handed_over() || self.place.is_given_away()
    }

    fn is_ending(&self) -> bool {
        self.local.is_draining() || self.place.is_closed()
    }

    async fn serve(self: &Rc<Self>) {
        let local = &self.local;
        let deadline = local.timers.deadline();
        // A drain must not wait for the next datagram.
        deadline.set_idle(Idle::UntilDrain);
        let mut was_draining = false;
        loop {
            deadline.set(local.after(TICK));
            if self.is_others() {
                // What comes is theirs; answers go on.
                let _ = deadline.guard(std::future::pending::<()>()).await;
                self.end_as_drained(&mut was_draining);
                if local.is_overdue() || self.flows.borrow().is_empty() {
                    return;
                }
                continue;
            }
            let ready = Op::ready(&local.ring, &self.socket, Readiness::Readable);
            match deadline.guard(ready).await {
                // In the same turn it may have become another one's to take.
                Ok(Ok(())) if !self.is_others() && self.receive() => executor::yield_now().await,
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => {
                    local.count(CloseReason::Resources);
                    deadline.set(local.after(FAILED_PAUSE));
                    let _ = deadline.guard(std::future::pending::<()>()).await;
                }
            }
            self.end_as_drained(&mut was_draining);
            if self.is_ending() && (local.is_overdue() || self.flows.borrow().is_empty()) {
                return;
            }
        }
    }

    /// Ends flows that have been silent for too long; while it drains, that is soon.
    fn end_as_drained(&self, was_draining: &mut bool) {
        if self.is_ending() && !std::mem::replace(was_draining, self.is_ending()) {
            self.flows.borrow_mut().hasten();
        }
        self.expire();
    }

    fn expire(&self) {
        let idle = self.udp().idle;
        let idle = if self.is_ending() { idle.min(DRAINING) } else { idle };
        let patience = Patience { idle, unanswered: UNANSWERED };
        loop {
            let gone = self.flows.borrow_mut().expire(self.local.now(), &patience);
            let Some(flow) = gone else { return };
            flow.end(None);
        }
    }

    /// Takes what clients have sent; whether there may be more.
    fn receive(self: &Rc<Self>) -> bool {
        let mut batch = self.batch.borrow_mut();
        for _ in 0..BATCHES_PER_STEP {
            if batch.receive(&self.socket).is_err() {
                return false;
            }
            for datagrams in batch.datagrams() {
                self.metrics().received_datagrams.add(datagrams.count() as u64);
                self.metrics().received_bytes.add(datagrams.bytes.len() as u64);
                if let Err(reason) = self.forward(&datagrams) {
                    self.drop_datagrams(reason, datagrams.count());
                }
            }
        }
        true
    }

    fn drop_datagrams(&self, reason: CloseReason, count: usize) {
        self.local.metrics.datagrams_dropped.of(reason).add(count as u64);
    }

    /// To the backend of their flow, which begins where there is none.
    fn forward(self: &Rc<Self>, datagrams: &Datagrams<'_>) -> Result<(), CloseReason> {
        let key = FlowKey { client: datagrams.from, asked: datagrams.to.filter(|_| self.tells_address) };
        let known = self.flows.borrow().find(&key).map(|(id, flow)| (id, flow.clone()));
        let (id, flow) = match known {
            Some((id, flow)) if self.local.health.is_up(flow.backend) => (id, flow),
            Some((id, _)) => {
                self.end(id, Some(CloseReason::BackendDown));
                self.begin(key)?
            }
            None => self.begin(key)?,
        };
        let count = datagrams.count();
        let awaited = u64::from(self.udp().replies) * count as u64;
        self.flows.borrow_mut().asked(id, awaited, self.local.now());
        flow.entry.received(datagrams.bytes.len() as u64);
        let sent = datagrams::send(&flow.socket, Course::default(), datagrams);
        match sent.error {
            None => Ok(()),
            Some(error) => {
                let reason = self.failed(id, &flow, &error);
                self.drop_datagrams(reason, count.saturating_sub(sent.count));
                Ok(())
            }
        }
    }

    /// Names an error of a flow's socket, and ends the flow where it cannot go on.
    fn failed(&self, id: FlowId, flow: &Flow, error: &std::io::Error) -> CloseReason {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::OutOfMemory => CloseReason::NoRoom,
            ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                self.local.metrics.backend(flow.backend).connect_failures.add(1);
                let until = self.local.after(REFUSED_FOR);
                let mut refused = self.refused.borrow_mut();
                refused.retain(|(backend, _)| *backend != flow.backend);
                refused.push((flow.backend, until));
                self.end(id, Some(CloseReason::ConnectFailed));
                CloseReason::ConnectFailed
            }
            _ if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
                CloseReason::DatagramTooLong
            }
            _ if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                CloseReason::NoRoom
            }
            _ => CloseReason::Resources,
        }
    }

    fn end(&self, id: FlowId, reason: Option<CloseReason>) {
        let gone = self.flows.borrow_mut().remove(id);
        gone.iter().for_each(|flow| flow.end(reason));
    }

    fn begin(self: &Rc<Self>, key: FlowKey) -> Result<(FlowId, Rc<Flow>), CloseReason> {
        let local = &self.local;
        if local.is_draining() {
            return Err(CloseReason::Draining);
        }
        if self.place.is_closed() {
            return Err(CloseReason::ListenerRemoved);
        }
        let listener = self.place.listener();
        let plan = local.plan();
        let pool = plan.listener(listener).and_then(|listener| listener.pool);
        let pool = pool.ok_or(CloseReason::NoBackend)?;
        let most = plan.listener(listener).and_then(|listener| listener.connections);
        let permit = match local.pressure.now() {
            Pressure::Connections => return Err(CloseReason::Memory),
            _ => local.admission.admit(key.client.ip(), listener, most, &plan.snapshot.limits)?,
        };
        self.refused.borrow_mut().retain(|(_, until)| *until > local.now());
        let mut choice = Choice::of_datagrams(&plan, pool, key.client.ip());
        let is_refused = |id| self.refused.borrow().iter().any(|(refused, _)| *refused == id);
        let place = choice.pick(local, is_refused)?;
        let name = place.backend().name.clone();
        // A valid config has none without an address here.
        let dialled = place.backend().address.socket();
        let dialled = dialled.and_then(|address| Some((address, Socket::udp(&local.ring, address).ok()?)));
        let Some((address, socket)) = dialled else {
            place.give_back(local);
            return Err(CloseReason::Resources);
        };
        // Only a gain where it works.
        let _ = datagrams::prepare(&socket, address.ip(), false);
        let flow = Flow::new(local, listener, key, place, socket, permit);
        flow.entry.begin(local.access_log(), &plan.snapshot, listener, key.client);
        flow.entry.way(None, Some(&plan.pool(pool).name));
        flow.entry.attempt(&name);
        flow.entry.connected(false);
        Ok(self.insert(key, flow))
    }

    fn insert(self: &Rc<Self>, key: FlowKey, flow: Flow) -> (FlowId, Rc<Flow>) {
        let flow = Rc::new(flow);
        let id = self.flows.borrow_mut().insert(key, flow.clone(), self.local.now());
        executor::spawn(answer(self.clone(), id, flow.clone()));
        (id, flow)
    }

    /// Goes on with a flow of another process or worker; where its backend takes nothing here it ends, and the next word begins
    /// another one.
    fn adopt(self: &Rc<Self>, lent: LentFlow) {
        let LentFlow { client, asked, backend, socket, .. } = lent;
        let (local, listener, plan) = (&self.local, self.place.listener(), self.local.plan());
        let config = plan.listener(listener);
        let Some(pool) = config.and_then(|listener| listener.pool) else { return };
        let most = config.and_then(|listener| listener.connections);
        let permit = local.admission.admit(client.ip(), listener, most, &plan.snapshot.limits);
        let place = Choice::of_datagrams(&plan, pool, client.ip()).pick(local, |id| id != backend);
        let (Ok(permit), Ok(place)) = (permit, place) else { return };
        if place.backend().id != backend {
            return place.give_back(local);
        }
        let name = place.backend().name.clone();
        let key = FlowKey { client, asked };
        let flow = Flow::new(local, listener, key, place, Socket::new(&local.ring, socket), permit);
        flow.entry.begin(local.access_log(), &plan.snapshot, listener, client);
        flow.entry.way(None, Some(&plan.pool(pool).name));
        flow.entry.attempt(&name);
        flow.entry.connected(true);
        let (id, _) = self.insert(key, flow);
        // It was, before, or may have been: it lives as long as others.
        self.flows.borrow_mut().answered(id, 0, local.now());
    }

    /// Takes what the backend of a flow has sent, and whether there may be more.
    fn pass_back(&self, id: FlowId, flow: &Flow) -> bool {
        let mut batch = self.batch.borrow_mut();
        for _ in 0..BATCHES_PER_STEP {
            match batch.receive(&flow.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    self.failed(id, flow, &error);
                    return false;
                }
            }
            let mut count = 0;
            for datagrams in batch.datagrams() {
                count += datagrams.count() as u64;
                self.send_back(flow, &datagrams);
            }
            if self.flows.borrow_mut().answered(id, count, self.local.now()) {
                self.end(id, None);
                return false;
            }
        }
        true
    }

    fn send_back(&self, flow: &Flow, datagrams: &Datagrams<'_>) {
        let course = Course { to: Some(flow.key.client), from: flow.key.asked };
        let sent = datagrams::send(&self.socket, course, datagrams);
        let bytes = match sent.error {
            None => datagrams.bytes.len(),
            Some(error) => {
                let is_full = matches!(error.kind(), std::io::ErrorKind::WouldBlock);
                let reason = if is_full { CloseReason::NoRoom } else { CloseReason::ClientGone };
                self.drop_datagrams(reason, datagrams.count().saturating_sub(sent.count));
                (sent.count * datagrams.segment).min(datagrams.bytes.len())
            }
        };
        self.metrics().sent_datagrams.add(sent.count as u64);
        self.metrics().sent_bytes.add(bytes as u64);
        flow.entry.answered();
        flow.entry.sent(bytes as u64);
    }
}

/// Passes answers of one flow back until it ends.
async fn answer(door: Rc<Door>, id: FlowId, flow: Rc<Flow>) {
    while !flow.has_ended() {
        if Op::ready(&door.local.ring, &flow.socket, Readiness::Readable).await.is_err() {
            return door.end(id, Some(CloseReason::Resources));
        }
        while !flow.has_ended() && door.pass_back(id, &flow) {
            executor::yield_now().await;
        }
    }
}
