//! Single-threaded tasks: a queue of those that can go on, filled by the ring's completions.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use async_task::Runnable;

thread_local! {
    static READY: RefCell<VecDeque<Runnable>> = const { RefCell::new(VecDeque::new()) };
}

/// Starts a task on this thread. It ends by itself; nobody waits for it.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    let (runnable, task) = async_task::spawn_local(future, |runnable: Runnable| {
        let mut runnable = Some(runnable);
        let queued = READY.try_with(|ready| ready.borrow_mut().extend(runnable.take()));
        if queued.is_err() {
            // The thread is ending. Dropping the step would drop the task from within whoever woke it.
            std::mem::forget(runnable);
        }
    });
    runnable.schedule();
    task.detach();
}

/// Runs at most `budget` steps of tasks that can go on. True: some are left.
pub fn run(budget: usize) -> bool {
    for _ in 0..budget {
        let Some(runnable) = READY.with(|ready| ready.borrow_mut().pop_front()) else { return false };
        runnable.run();
    }
    READY.with(|ready| !ready.borrow().is_empty())
}

/// Drops every queued step; the tasks end unfinished.
pub(super) fn clear() {
    while let Some(runnable) = READY.with(|ready| ready.borrow_mut().pop_front()) {
        drop(runnable);
    }
}

/// Lets the others go first, once.
pub fn yield_now() -> impl Future<Output = ()> {
    struct Yield(bool);

    impl Future for Yield {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }

    Yield(false)
}
