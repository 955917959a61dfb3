//! A submission as the kernel reads it.

use io_uring::squeue;

/// `struct io_uring_sqe`, include/uapi/linux/io_uring.h; unions by the member that our operations use.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Sqe {
    pub(super) opcode: u8,
    pub(super) flags: u8,
    pub(super) priority: u16,
    pub(super) fd: i32,
    /// Connect: bytes of the address.
    pub(super) off: u64,
    /// Cancel: user_data of whom.
    pub(super) addr: u64,
    pub(super) len: u32,
    /// Of the operation: MSG_ flags, poll events.
    pub(super) op_flags: u32,
    pub(super) user_data: u64,
    pub(super) group: u16,
    personality: u16,
    file_index: i32,
    rest: [u64; 2],
}

const _: () = assert!(size_of::<Sqe>() == 64 && size_of::<squeue::Entry>() == 64);

impl Sqe {
    /// The same, into other memory.
    pub(super) fn with_memory(mut self, memory: *mut u8) -> Self {
        self.addr = memory as u64;
        self
    }

    pub(super) fn read(entry: &squeue::Entry) -> Self {
        // SAFETY: an entry is that structure and nothing else (repr(C), 64 bytes); any bits are a valid Sqe.
        unsafe { std::ptr::from_ref(entry).cast::<Self>().read() }
    }
}
