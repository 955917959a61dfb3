//! Whether anything has happened on connections that nobody waits for.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Whether a peer has said something, ended or reset; in doubt, yes. Never blocks.
pub fn is_there(fd: impl AsFd) -> bool {
    !matches!(poll(&mut [watched(&fd)], Some(&AT_ONCE)), Ok(0))
}

/// The same of each of several, for the price of one call; in doubt, no.
pub fn are_there<Fd: AsFd>(fds: impl IntoIterator<Item = Fd>) -> Vec<bool> {
    let fds: Vec<_> = fds.into_iter().collect();
    let mut watched: Vec<_> = fds.iter().map(watched).collect();
    match poll(&mut watched, Some(&AT_ONCE)) {
        Ok(1..) => watched.iter().map(|one| !one.revents().is_empty()).collect(),
        Ok(0) | Err(_) => vec![false; fds.len()],
    }
}

fn watched<Fd: AsFd>(fd: &Fd) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::IN | PollFlags::RDHUP)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn whoever_speaks_or_leaves_is_news() {
        let (quiet, _peer) = UnixStream::pair().unwrap();
        let (told, mut talker) = UnixStream::pair().unwrap();
        let (left, leaver) = UnixStream::pair().unwrap();
        assert_eq!(are_there([&quiet, &told, &left]), [false; 3]);
        talker.write_all(b"x").unwrap();
        drop(leaver);
        assert_eq!(are_there([&quiet, &told, &left]), [false, true, true]);
        assert_eq!([&quiet, &told, &left].map(is_there), [false, true, true]);
        assert!(are_there([] as [&UnixStream; 0]).is_empty());
    }
}
