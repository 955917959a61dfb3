//! What this worker leaves on the shelf that all of them share, and takes from there.
//!
//! ```text
//!  idle here --not needed for a sweep--> receive called off --ended as asked--> on the shelf --taken, quiet--> an exchange
//!                                             |                                    `- too old, or told of news --> closed
//!                                             `- something came, or nothing is kept any more --------------------> closed
//! ```
//!
//! What is on the shelf is a descriptor and an age: no operation of a ring names it, no buffer belongs to it. All else is made
//! anew by who takes it.

use std::{os::fd::OwnedFd, rc::Rc, time::Duration};

use super::{
    choice::kept_max,
    local::Local,
    mutant::{Mutant, is_planted},
    stream::Stream,
    upstream::Upstream,
};
use crate::{
    config::BackendSnapshot,
    keepalive::{Kept, Shelf, Surplus},
    ring::{Socket, executor},
    sys::news,
};

/// Most connections that a worker leaves on the shelf at once.
const PUT_MAX: usize = 128;
/// Connections that turn out to be of no use, until who looked for one dials.
const TRIES: usize = 4;

impl Local {
    fn shelf(&self) -> Option<&Shelf<OwnedFd>> {
        // Nobody is there to share with.
        (self.siblings.has_had_many()).then_some(&**self.siblings.shelf())
    }

    /// Leaves what was not needed since the last call on the shelf, and throws out what is of no use there, if nobody
    /// has done so since `every`.
    pub(super) fn shelve(self: &Rc<Self>, every: Duration) {
        let Some(shelf) = self.shelf() else { return };
        let now = self.now();
        self.close(
            shelf.sweep(now, every, |stack| news::are_there(stack.iter().map(|kept| &kept.connection))),
        );
        if !self.keeps_idle() {
            return;
        }
        // Keys stay where they are.
        let plan = self.plan();
        let room = |backend, most: usize| match plan.sealed.contains(backend) {
            true => 0,
            false => most.saturating_sub(shelf.count(backend)),
        };
        let surplus = self.keepalive.borrow_mut().take_surplus(PUT_MAX, room);
        if surplus.is_empty() {
            return;
        }
        for Surplus { backend, kept, .. } in &surplus {
            self.metrics.backend(*backend).idle.sub(1);
            kept.connection.stream.call_off();
        }
        executor::spawn(put(self.clone(), self.changes(), surplus));
    }

    /// A connection that some worker has to spare, and that has been quiet since.
    pub(super) fn take_shelved(&self, backend: &BackendSnapshot) -> Option<Upstream> {
        let shelf = self.shelf()?;
        for _ in 0..TRIES {
            let Kept { connection, until } = shelf.take(backend.id)?;
            let is_quiet = !news::is_there(&connection) || is_planted(Mutant::TakesStale);
            let socket = Socket::new(&self.ring, connection);
            if is_quiet && until > self.now() {
                let metrics = self.metrics.backend(backend.id);
                metrics.reuses.add(1);
                metrics.shelf_reuses.add(1);
                let (backend, name) = (backend.id, backend.name.clone());
                return Some(Upstream { backend, name, stream: Stream::new(socket), reused: true });
            }
        }
        None
    }

    /// Closes them as a ring does.
    pub(super) fn close(&self, connections: Vec<OwnedFd>) {
        for connection in connections {
            drop(Socket::new(&self.ring, connection));
        }
    }
}

/// Once their receives have ended. `changes`: as there were of the config, when that was asked for.
async fn put(local: Rc<Local>, changes: u64, surplus: Vec<Surplus<Upstream>>) {
    let shelf = local.siblings.shelf();
    for Surplus { backend, kept: Kept { connection, until }, most } in surplus {
        let Some(connection) = connection.stream.into_descriptor().await else { continue };
        // Of a backend that has left meanwhile nothing is kept.
        let is_wanted = local.keeps_idle() && local.changes() == changes;
        let most = if is_wanted { most } else { 0 };
        let most_in_all = kept_max(local.plan().snapshot.limits.connections, local.siblings.len());
        local.close(shelf.put(backend, Kept { connection, until }, most, most_in_all).into_iter().collect());
    }
}
