//! Memory for futures that live for a while each and come again and again: given back, it is kept for the next one of
//! its size, so that who waits holds none and who comes allocates none.
#![expect(unsafe_code, reason = "an allocator")]

use std::{alloc::Layout, cell::RefCell, pin::Pin, ptr::NonNull};

use allocator_api2::{
    alloc::{AllocError, Allocator, Global},
    boxed::Box,
};

/// Rooms of one size that are kept while nobody uses them; what is beyond goes back to the heap.
const KEPT_MAX: usize = 1024;

/// Rooms of one size.
struct Kept {
    layout: Layout,
    free: Vec<NonNull<u8>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        for room in self.free.drain(..) {
            // SAFETY: `Global` gave it for this layout, and nobody else has it.
            unsafe { Global.deallocate(room, self.layout) };
        }
    }
}

thread_local! {
    /// A handful of sizes: one for each future that has rooms.
    static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

/// The rooms of this thread.
#[derive(Clone, Copy, Debug)]
pub struct Rooms;

/// Puts a future into a room.
pub fn pinned<F: Future>(future: F) -> Pin<Box<F, Rooms>> {
    Box::into_pin(Box::new_in(future, Rooms))
}

fn take(layout: Layout) -> Option<NonNull<u8>> {
    KEPT.with_borrow_mut(|kept| kept.iter_mut().find(|kept| kept.layout == layout)?.free.pop())
}

/// Whether it is kept.
fn keep(room: NonNull<u8>, layout: Layout) -> bool {
    // While the thread ends there may be none to keep it.
    KEPT.try_with(|all| {
        let mut all = all.borrow_mut();
        let at = all.iter().position(|kept| kept.layout == layout).unwrap_or_else(|| {
            all.push(Kept { layout, free: Vec::new() });
            all.len() - 1
        });
        let free = &mut all[at].free;
        let has_place = free.len() < KEPT_MAX;
        if has_place {
            free.push(room);
        }
        has_place
    })
    .unwrap_or(false)
}

// SAFETY: a block is of `Global` and of exactly the layout it is asked for by; it is in one hand, or in `KEPT`, never in
// both. Copies of `Rooms` are one allocator on a thread; a box that went to another thread would be kept there, which is
// as good, as blocks are of the heap.
unsafe impl Allocator for Rooms {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        match take(layout) {
            Some(room) => Ok(NonNull::slice_from_raw_parts(room, layout.size())),
            None => Global.allocate(layout),
        }
    }

    unsafe fn deallocate(&self, room: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 || !keep(room, layout) {
            // SAFETY: the caller's promise: it came from `allocate`, for this layout, and so from `Global`.
            unsafe { Global.deallocate(room, layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_used_again() {
        let address =
            |room: &Pin<Box<std::future::Ready<[u8; 333]>, Rooms>>| std::ptr::from_ref(&**room).addr();
        let first = pinned(std::future::ready([1; 333]));
        let second = pinned(std::future::ready([2; 333]));
        let (one, two) = (address(&first), address(&second));
        assert_ne!(one, two);
        drop(first);
        let third = pinned(std::future::ready([3; 333]));
        assert_eq!(address(&third), one);
        drop((second, third));
    }
}
