//! Addresses at which a worker takes something, as long as the config has them: whose they are may change while somebody
//! listens there.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    os::fd::AsFd as _,
    rc::{Rc, Weak},
};

use super::api::LentSocket;
use crate::{
    model::{GroupId, ListenerId},
    ring::Socket,
};

/// All of one worker.
#[derive(Default)]
pub(super) struct Doors(RefCell<HashMap<(GroupId, usize), Weak<Door>>>);

/// One of them, held by the task that listens there.
pub(super) struct Door {
    listener: Cell<ListenerId>,
    state: Cell<State>,
    socket: Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The config has it no more.
    Closed,
    /// Another worker listens there.
    GivenAway,
}

impl Doors {
    /// Somebody listens there from now on.
    pub(super) fn open(&self, at: (GroupId, usize), listener: ListenerId, socket: &Socket) -> Rc<Door> {
        let (listener, state) = (Cell::new(listener), Cell::new(State::Open));
        let door = Rc::new(Door { listener, state, socket: socket.clone() });
        let mut doors = self.0.borrow_mut();
        doors.retain(|_, door| door.strong_count() > 0);
        doors.insert(at, Rc::downgrade(&door));
        door
    }

    /// Nothing new is taken there any more.
    pub(super) fn close(&self, group: GroupId) {
        self.with(group, |door| door.state.set(State::Closed));
    }

    /// Another worker takes what is new there.
    pub(super) fn give_away(&self, at: (GroupId, usize)) {
        let door = self.0.borrow().get(&at).and_then(Weak::upgrade);
        door.into_iter().for_each(|door| door.state.set(State::GivenAway));
    }

    /// It is another listener's from now on.
    pub(super) fn give(&self, group: GroupId, listener: ListenerId) {
        self.with(group, |door| door.listener.set(listener));
    }

    /// The sockets of all that are open, under further descriptors; one that cannot have one is left out.
    pub(super) fn lend(&self) -> Vec<LentSocket> {
        let doors = self.0.borrow();
        let open = doors.iter().filter_map(|(at, door)| Some((*at, door.upgrade()?)));
        let lent = open.filter(|(_, door)| !door.is_closed()).filter_map(|((group, place), door)| {
            let socket = door.socket.as_fd().try_clone_to_owned().ok()?;
            Some(LentSocket { group, place, socket })
        });
        lent.collect()
    }

    fn with(&self, group: GroupId, then: impl Fn(&Door)) {
        let doors = self.0.borrow();
        let own = doors.iter().filter(|((of, _), _)| *of == group);
        own.filter_map(|(_, door)| door.upgrade()).for_each(|door| then(&door));
    }
}

impl Door {
    /// Whose it is.
    pub(super) fn listener(&self) -> ListenerId {
        self.listener.get()
    }

    /// Whether nothing new is taken.
    pub(super) fn is_closed(&self) -> bool {
        self.state.get() != State::Open
    }

    /// Whether another worker takes it.
    pub(super) fn is_given_away(&self) -> bool {
        self.state.get() == State::GivenAway
    }
}
