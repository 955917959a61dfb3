//! One direction of a relay.
//!
//! ```text
//!              bytes                      moved >= SPLICE_AFTER and reads are full
//!  Copying <---------> (forward all)   ---------------------------------------------> Splicing
//!     |  end of stream                        no pipe to be had: stay                    |
//!     +--------------> Shutdown -> Done <---- end of stream, pipe empty -----------------+
//! ```
//! Back-pressure is in the order of things: nothing is read while bytes wait to be written.

/// Bytes that a direction moves by copying before it may leave user space: below this, setting up a pipe costs
/// more than the copies it saves.
const SPLICE_AFTER: u64 = 64 << 10;
/// A read of at least this many bytes says that the stream is in bulk.
const BULK_READ: usize = 8 << 10;

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Receive, then forward all of it, and report.
    Copy,
    /// Lease a pipe, then report which way it went.
    LeasePipe,
    /// Move bytes from the source into the pipe; at most this many.
    Fill(usize),
    /// Move bytes from the pipe to the sink: this many are in it.
    Drain(usize),
    /// Tell the sink that no more comes.
    Shutdown,
    /// Nothing: this direction has ended.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Copying {
        bulky: bool,
    },
    /// No pipe was to be had; never asked again.
    CopyingForGood,
    /// Bytes in the pipe, and whether the source has ended. The pipe's size is nominal: the kernel may take in
    /// more than asked for, so only the count is trusted.
    Splicing {
        in_pipe: usize,
        ended: bool,
    },
    Ending,
    Done,
}

/// One direction: counts bytes, knows its half-close, chooses between copying and splicing.
#[derive(Debug)]
pub struct Flow {
    state: State,
    moved: u64,
    fill_max: usize,
}

impl Flow {
    /// `fill_max`: bytes to ask for in one fill of the pipe.
    pub fn new(fill_max: usize) -> Self {
        Self { state: State::Copying { bulky: false }, moved: 0, fill_max }
    }

    /// Bytes that have reached the sink.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// What to do now; the same until something is reported.
    pub fn action(&self) -> Action {
        match self.state {
            State::Copying { bulky: true } if self.moved >= SPLICE_AFTER => Action::LeasePipe,
            State::Copying { .. } | State::CopyingForGood => Action::Copy,
            State::Splicing { in_pipe: 0, ended: true } | State::Ending => Action::Shutdown,
            State::Splicing { in_pipe: 0, ended: false } => Action::Fill(self.fill_max),
            State::Splicing { in_pipe, .. } => Action::Drain(in_pipe),
            State::Done => Action::Done,
        }
    }

    /// `len` bytes were received and all of them sent on.
    pub fn on_copied(&mut self, len: usize) {
        self.moved += len as u64;
        if let State::Copying { bulky } = &mut self.state {
            *bulky = len >= BULK_READ;
        }
    }

    /// The pipe that was asked for is there, or is not.
    pub fn on_lease(&mut self, granted: bool) {
        self.state =
            if granted { State::Splicing { in_pipe: 0, ended: false } } else { State::CopyingForGood };
    }

    /// `len` bytes went into the pipe.
    pub fn on_filled(&mut self, len: usize) {
        if let State::Splicing { in_pipe, .. } = &mut self.state {
            *in_pipe += len;
        }
    }

    /// `len` bytes went out of the pipe.
    pub fn on_drained(&mut self, len: usize) {
        if let State::Splicing { in_pipe, .. } = &mut self.state {
            assert!(len <= *in_pipe, "only what went into the pipe comes out of it");
            *in_pipe -= len;
            self.moved += len as u64;
        }
    }

    /// The source ended. Bytes in the pipe still go out.
    pub fn on_end(&mut self) {
        match &mut self.state {
            State::Splicing { ended, .. } => *ended = true,
            state => *state = State::Ending,
        }
    }

    /// The sink was told.
    pub fn on_shutdown(&mut self) {
        self.state = State::Done;
    }

    /// Whether a pipe could be given back now without losing a byte.
    pub fn is_pipe_empty(&self) -> bool {
        !matches!(self.state, State::Splicing { in_pipe: 1.., .. })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A source of known bytes, a pipe and a sink, driven as the worker does it.
    fn drive(source: &[u8], reads: &[usize], drains: &[usize], grant: bool) -> (Vec<u8>, Vec<Action>) {
        let (mut from, mut pipe, mut sink) = (source, Vec::new(), Vec::new());
        let (mut reads, mut drains) = (reads.iter().cycle(), drains.iter().cycle());
        let mut flow = Flow::new(1 << 16);
        let mut actions = Vec::new();
        for _ in 0..1_000_000 {
            let action = flow.action();
            actions.push(action);
            match action {
                Action::Copy | Action::Fill(_) if from.is_empty() => flow.on_end(),
                Action::Copy => {
                    let len = (*reads.next().unwrap()).min(from.len());
                    sink.extend_from_slice(&from[..len]);
                    from = &from[len..];
                    flow.on_copied(len);
                }
                Action::LeasePipe => flow.on_lease(grant),
                Action::Fill(most) => {
                    assert!(pipe.is_empty());
                    let len = (*reads.next().unwrap()).min(from.len()).min(most);
                    pipe.extend_from_slice(&from[..len]);
                    from = &from[len..];
                    flow.on_filled(len);
                }
                Action::Drain(waiting) => {
                    assert_eq!(waiting, pipe.len());
                    let len = (*drains.next().unwrap()).min(pipe.len());
                    sink.extend(pipe.drain(..len));
                    flow.on_drained(len);
                }
                Action::Shutdown => flow.on_shutdown(),
                Action::Done => {
                    assert_eq!(flow.moved(), sink.len() as u64);
                    return (sink, actions);
                }
            }
        }
        panic!("no end after a million steps: {:?}", flow);
    }

    proptest! {
        #[test]
        fn neither_loses_nor_invents_a_byte(
            len in 0usize..400_000,
            reads in prop::collection::vec(1usize..100_000, 1..8),
            drains in prop::collection::vec(1usize..100_000, 1..8),
            grant in any::<bool>(),
        ) {
            let source: Vec<u8> = (0..len).map(|at| (at * 31 % 251) as u8).collect();
            let (sink, _) = drive(&source, &reads, &drains, grant);
            prop_assert_eq!(sink, source);
        }
    }

    #[test]
    fn bulk_leaves_user_space_and_chatter_does_not() {
        let source = vec![7; 1 << 20];
        let (_, bulk) = drive(&source, &[16 << 10], &[16 << 10], true);
        assert!(bulk.contains(&Action::LeasePipe));
        assert_eq!(bulk.iter().filter(|action| **action == Action::Copy).count(), 4);
        let (_, chatter) = drive(&source, &[100], &[100], true);
        assert!(!chatter.contains(&Action::LeasePipe));
    }

    #[test]
    fn a_refused_pipe_is_asked_for_once() {
        let (_, actions) = drive(&vec![7; 1 << 20], &[16 << 10], &[1], false);
        assert_eq!(actions.iter().filter(|action| **action == Action::LeasePipe).count(), 1);
    }
}
