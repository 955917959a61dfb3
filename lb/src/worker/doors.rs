//! Addresses at which a worker takes something, as long as the config has them: whose they are may change while somebody
//! listens there.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
};

use crate::model::{GroupId, ListenerId};

/// All of one worker.
#[derive(Default)]
pub(super) struct Doors(RefCell<HashMap<GroupId, Weak<Door>>>);

/// One of them, held by the task that listens there.
pub(super) struct Door {
    listener: Cell<ListenerId>,
    is_closed: Cell<bool>,
}

impl Doors {
    /// Somebody listens there from now on.
    pub(super) fn open(&self, group: GroupId, listener: ListenerId) -> Rc<Door> {
        let door = Rc::new(Door { listener: Cell::new(listener), is_closed: Cell::new(false) });
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
