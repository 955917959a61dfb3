//! Making a ring, and saying clearly why one cannot be had.

use std::io;

use io_uring::{IoUring, Probe, opcode};

/// Submission queue entries; a full queue is submitted early, so this bounds a batch, not the load.
const SUBMISSIONS: u32 = 1024;
/// Completion queue entries. More completions than this wait in the kernel (IORING_FEAT_NODROP).
const COMPLETIONS: u32 = 8192;

/// A ring with the flags that io-paths measured as needed: without DEFER_TASKRUN or COOP_TASKRUN a request
/// costs 1.37 times as much.
pub(super) fn uring() -> io::Result<IoUring> {
    let uring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS)
        .map_err(explain)?;
    // Anything that is punted to a kernel worker thread shall be seen, not spread.
    uring.submitter().register_iowq_max_workers(&mut [1, 1])?;
    probe(&uring)?;
    Ok(uring)
}

fn explain(error: io::Error) -> io::Error {
    let why = match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel has no io_uring, or a seccomp filter hides it",
        Some(libc::EPERM) => {
            "io_uring is forbidden here (sysctl kernel.io_uring_disabled or a seccomp filter)"
        }
        Some(libc::EINVAL) => "the kernel is older than 6.1, which DEFER_TASKRUN needs",
        Some(libc::ENOMEM) => "no memory for the ring (RLIMIT_MEMLOCK)",
        _ => "io_uring_setup failed",
    };
    io::Error::new(error.kind(), format!("{why}: {error}"))
}

fn probe(uring: &IoUring) -> io::Result<()> {
    let mut probe = Probe::new();
    uring.submitter().register_probe(&mut probe)?;
    let needed: [(u8, &str); 7] = [
        (opcode::AcceptMulti::CODE, "ACCEPT"),
        (opcode::Connect::CODE, "CONNECT"),
        (opcode::Recv::CODE, "RECV"),
        (opcode::Send::CODE, "SEND"),
        (opcode::PollAdd::CODE, "POLL_ADD"),
        (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
        (opcode::Close::CODE, "CLOSE"),
    ];
    match needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        None => Ok(()),
        Some((_, name)) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("io_uring here lacks operation {name}")))
        }
    }
}
