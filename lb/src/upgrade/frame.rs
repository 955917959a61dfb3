//! Messages over a unix stream socket, each with descriptors beside it. How they are framed never changes, whatever is
//! said in them: an old and a new process must always be able to tell each other why not.
//!
//! ```text
//!  "LBUP" | kind u32 | length of the body u64 | descriptors u32 | body | a byte with up to 128 of them, and so on
//! ```
//! Numbers are little-endian.

use std::{
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

const MAGIC: [u8; 4] = *b"LBUP";
/// Magic, kind, length, descriptors.
const HEAD_BYTES: usize = 20;
/// Longest body: expositions of metrics are the long ones.
const BODY_BYTES_MAX: u64 = 256 << 20;
/// Descriptors of one message of the kernel's; it takes up to 253 (SCM_MAX_FD).
const BATCH: usize = 128;
/// Most descriptors of one of our messages: as many as a process has of listening sockets, and some.
const DESCRIPTORS_MAX: u32 = 1 << 20;

/// One message.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u32,
    pub(super) body: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Sends one.
///
/// # Errors
/// Those of sendmsg(2); `WouldBlock`: the time-out of the stream.
pub(super) fn send(
    mut stream: &UnixStream,
    kind: u32,
    body: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend(MAGIC);
    head.extend(kind.to_le_bytes());
    head.extend((body.len() as u64).to_le_bytes());
    head.extend((descriptors.len() as u32).to_le_bytes());
    stream.write_all(&head)?;
    stream.write_all(body)?;
    for batch in descriptors.chunks(BATCH) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(batch)) {
            return Err(io::Error::other("no room for descriptors"));
        }
        sendmsg(stream, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives one; `None`: the other end is gone.
///
/// # Errors
/// Those of recvmsg(2); `WouldBlock`: the time-out of the stream; `InvalidData`: it is no message of ours.
pub(super) fn receive(mut stream: &UnixStream) -> io::Result<Option<Frame>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = [0; HEAD_BYTES];
    match stream.read(&mut head[..1])? {
        0 => return Ok(None),
        _ => stream.read_exact(&mut head[1..])?,
    }
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let length = u64::from(number(8)) | u64::from(number(12)) << 32;
    let count = number(16);
    if head[..4] != MAGIC || length > BODY_BYTES_MAX || count > DESCRIPTORS_MAX {
        return Err(invalid("this is no message of a hand-over"));
    }
    let mut body = Vec::new();
    if stream.take(length).read_to_end(&mut body)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = Vec::new();
    while descriptors.len() < count as usize {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        let before = descriptors.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(batch) = message {
                descriptors.extend(batch);
            }
        }
        if received.bytes == 0 || descriptors.len() == before {
            return Err(invalid("descriptors are missing: is the limit of open files too low?"));
        }
    }
    Ok(Some(Frame { kind: number(4), body, descriptors }))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Seek as _, os::fd::AsFd as _};

    use super::*;

    #[test]
    fn what_is_sent_arrives_with_its_descriptors() {
        let (left, right) = UnixStream::pair().unwrap();
        let file = File::open("/proc/self/status").unwrap();
        let many: Vec<_> = (0..300).map(|_| file.as_fd()).collect();
        send(&left, 7, b"words", &many).unwrap();
        send(&left, 8, b"", &[]).unwrap();
        let frame = receive(&right).unwrap().unwrap();
        assert_eq!((frame.kind, &*frame.body, frame.descriptors.len()), (7, &b"words"[..], 300));
        let mut theirs = File::from(frame.descriptors.into_iter().last().unwrap());
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("Name:"), "{text}");
        assert!((&file).stream_position().unwrap() > 0, "one file with two descriptors");
        assert_eq!(receive(&right).unwrap().unwrap().kind, 8);
        drop(left);
        assert!(receive(&right).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n    "[..], &[b'L', b'B', b'U', b'P', 1, 0, 0, 0][..]] {
            let (mut left, right) = UnixStream::pair().unwrap();
            left.write_all(bytes).unwrap();
            drop(left);
            assert!(receive(&right).is_err(), "{bytes:?}");
        }
    }
}
