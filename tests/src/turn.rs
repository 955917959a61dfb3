//! Whose turn it is: scenes that bear company stand two at a time, the others alone.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// As many as the smallest machine of ours has cores. A scene waits for most of its time, but what it waits for is
/// often the verifier, or a daemon that starts.
const SCENES: usize = 2;

static STANDING: Mutex<Standing> = Mutex::new(Standing { scenes: 0, waiting: 0 });
static CHANGED: Condvar = Condvar::new();

#[derive(Debug)]
struct Standing {
    /// Turns taken, of [`SCENES`].
    scenes: usize,
    /// Who wants to be alone: until they were, nobody else begins.
    waiting: usize,
}

/// Leave to stand, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    taken: usize,
}

impl Turn {
    /// Beside one other.
    pub(crate) fn beside() -> Self {
        let mut standing = lock();
        while standing.scenes == SCENES || standing.waiting > 0 {
            standing = CHANGED.wait(standing).unwrap_or_else(PoisonError::into_inner);
        }
        standing.scenes += 1;
        Self { taken: 1 }
    }

    /// With nobody else.
    pub(crate) fn alone() -> Self {
        let mut standing = lock();
        standing.waiting += 1;
        while standing.scenes > 0 {
            standing = CHANGED.wait(standing).unwrap_or_else(PoisonError::into_inner);
        }
        standing.waiting -= 1;
        standing.scenes = SCENES;
        Self { taken: SCENES }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock().scenes -= self.taken;
        CHANGED.notify_all();
    }
}

/// A test that panicked in its turn has cleaned up like any other.
fn lock() -> MutexGuard<'static, Standing> {
    STANDING.lock().unwrap_or_else(PoisonError::into_inner)
}
