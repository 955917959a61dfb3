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
pub(super) struct Doors(RefCell<HashMap<GroupId, Weak<Door>>>);

/// One of them, held by the task that listens there.
pub(super) struct Door {
    listener: Cell<ListenerId>,
    is_closed: Cell<bool>,
    socket: Socket,
}

impl Doors {
    /// Somebody listens there from now on.
    pub(super) fn open(&self, group: GroupId, listener: ListenerId, socket: &Socket) -> Rc<Door> {
        let (listener, is_closed) = (Cell::new(listener), Cell::new(false));
        let door = Rc::new(Door { listener, is_closed, socket: socket.clone() });
        let mut doors = self.0.borrow_mut();
        doors.retain(|_, door| door.strong_count() > 0);
        doors.insert(group, Rc::downgrade(&door));
        door
    }

    /// Nothing new is taken there any more.
    pub(super) fn close(&self, group: GroupId) {
        self.with(group, |door| door.is_closed.set(true));
    }

    /// It is another listener's from now on.
    pub(super) fn give(&self, group: GroupId, listener: ListenerId) {
        self.with(group, |door| door.listener.set(listener));
    }

    /// The sockets of all that are open, under further descriptors; one that cannot have one is left out.
    pub(super) fn lend(&self) -> Vec<LentSocket> {
        let doors = self.0.borrow();
        let open = doors.iter().filter_map(|(group, door)| Some((*group, door.upgrade()?)));
        let lent = open.filter(|(_, door)| !door.is_closed()).filter_map(|(group, door)| {
            let socket = door.socket.as_fd().try_clone_to_owned().ok()?;
            Some(LentSocket { group, socket })
        });
        lent.collect()
    }

    fn with(&self, group: GroupId, then: impl FnOnce(&Door)) {
        let door = self.0.borrow().get(&group).and_then(Weak::upgrade);
        if let Some(door) = door {
            then(&door);
        }
    }
}

impl Door {
    /// Whose it is.
    pub(super) fn listener(&self) -> ListenerId {
        self.listener.get()
    }

    /// Whether nothing new is taken.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }
}
