//! Commands from control, and the doorbell that wakes the worker for them.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use super::Command;
use crate::sys::event;

/// One worker's mailbox: control puts in, the worker takes out between turns.
#[derive(Debug)]
pub(super) struct Mailbox {
    commands: Mutex<VecDeque<Command>>,
    doorbell: OwnedFd,
}

impl Mailbox {
    /// `doorbell` is an eventfd, which others than control may ring, too.
    pub(super) fn new(doorbell: OwnedFd) -> Self {
        Self { commands: Mutex::default(), doorbell }
    }

    /// Puts a command in and rings. Never waits for the worker.
    pub(super) fn send(&self, command: Command) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
        event::ring(&self.doorbell);
    }

    /// The oldest command.
    pub(super) fn take(&self) -> Option<Command> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// A duplicate of the doorbell for the worker's ring.
    pub(super) fn doorbell(&self) -> io::Result<OwnedFd> {
        self.doorbell.try_clone()
    }
}
