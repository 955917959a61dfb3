//! A ring over real sockets: nothing is lost, nothing is given back twice, nothing stays open.

use std::{
    future::poll_fn,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use super::{
    executor,
    op::{Accept, Likely},
    *,
};

const MOMENT: Option<Duration> = Some(Duration::from_millis(50));

fn pair(ring: &Ring) -> (Socket, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (Socket::new(ring, ours.into()), theirs)
}

/// Runs `future` on the ring to its end.
fn block_on<T: 'static>(ring: &Ring, future: impl Future<Output = T> + 'static) -> T {
    let output = Rc::new(RefCell::new(None));
    let place = output.clone();
    executor::spawn(async move {
        let value = future.await;
        *place.borrow_mut() = Some(value);
    });
    for _ in 0..1_000 {
        let left = executor::run(64);
        if let Some(value) = output.borrow_mut().take() {
            return value;
        }
        ring.turn(if left { None } else { MOMENT }).unwrap();
    }
    panic!("no output after a thousand turns");
}

/// Turns until the kernel has let go of everything.
fn settle(ring: &Ring) {
    for _ in 0..1_000 {
        if ring.in_flight() == 0 {
            return;
        }
        ring.turn(MOMENT).unwrap();
    }
    panic!("{} operations are still in flight", ring.in_flight());
}

#[test]
fn every_buffer_comes_back_from_thousands_of_abandoned_receives() {
    let ring = Ring::new().unwrap();
    for round in 0..4_000_u32 {
        let (ours, mut theirs) = pair(&ring);
        let group = if round.is_multiple_of(3) { Group::Large } else { Group::Small };
        let likely = if round.is_multiple_of(2) { Likely::Later } else { Likely::Waiting };
        let receive = Op::recv(&ring, &ours, group, likely);
        match round % 7 {
            // Dropped before it is submitted; while it waits; with bytes under way; complete; after an error.
            0 => {}
            1 => ring.turn(None).unwrap(),
            2 => {
                ring.turn(None).unwrap();
                theirs.write_all(b"late").unwrap();
            }
            3 => {
                theirs.write_all(b"early").unwrap();
                ring.turn(MOMENT).unwrap();
            }
            4 => {
                drop(theirs);
                ring.turn(MOMENT).unwrap();
            }
            5 => {
                ours.shutdown(std::net::Shutdown::Both);
                ring.turn(MOMENT).unwrap();
            }
            _ => {
                theirs.write_all(b"taken").unwrap();
                let bytes = block_on(&ring, receive).unwrap().unwrap();
                assert_eq!((&bytes[..], ring.lent(group)), (&b"taken"[..], 1));
                continue;
            }
        }
        drop(receive);
    }
    settle(&ring);
    assert_eq!((ring.lent(Group::Small), ring.lent(Group::Large)), (0, 0));
    // The kernel has them all, each once: it can fill every one at the same time, and not one more.
    for group in [Group::Large, Group::Small] {
        let mut held = Vec::new();
        for at in 0..group.count() {
            let (ours, mut theirs) = pair(&ring);
            theirs.write_all(&at.to_ne_bytes()).unwrap();
            held.push(block_on(&ring, Op::recv(&ring, &ours, group, Likely::Waiting)).unwrap().unwrap());
        }
        assert!(held.iter().enumerate().all(|(at, buffer)| buffer[..] == at.to_ne_bytes()));
        assert!(ring.is_scarce(group));
        let (ours, mut theirs) = pair(&ring);
        theirs.write_all(b"one too many").unwrap();
        let refused = block_on(&ring, Op::recv(&ring, &ours, group, Likely::Waiting)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOBUFS));
        assert_eq!(block_on(&ring, Op::recv_heap(&ring, &ours, 64)).unwrap(), b"one too many");
    }
    assert_eq!(ring.take_counts().stray, 0);
    ring.shutdown().unwrap();
}

#[test]
fn a_shutdown_drops_the_tasks_closes_the_sockets_and_frees_the_ring() {
    let ring = Ring::new().unwrap();
    let inner = Rc::downgrade(&ring.0);
    let mut peers = Vec::new();
    for _ in 0..10 {
        let (ours, theirs) = pair(&ring);
        peers.push(theirs);
        let ring = ring.clone();
        executor::spawn(async move {
            // Others may hold its waker, and it them: as those do who share a connection.
            let _woken_by_itself = poll_fn(|task| Poll::Ready(task.waker().clone())).await;
            // Awaits one operation while another one is under way.
            let _waits = Op::recv(&ring, &ours, Group::Large, Likely::Later);
            let _ = Op::recv(&ring, &ours, Group::Small, Likely::Later).await;
            panic!("nobody wrote");
        });
    }
    executor::run(64);
    ring.turn(None).unwrap();
    ring.shutdown().unwrap();
    for mut peer in peers {
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "closed");
    }
    assert!(!executor::run(64), "no task is left");
    drop(ring);
    assert!(inner.upgrade().is_none(), "nothing keeps the ring");
}

#[test]
fn accepted_connections_that_nobody_took_are_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    let ring = Ring::new().unwrap();
    let mut accept = Accept::new(&ring, Socket::new(&ring, listener.into()));
    ring.turn(None).unwrap();
    let mut clients: Vec<_> = (0..4).map(|_| connect()).collect();
    ring.turn(MOMENT).unwrap();
    // One is taken, one comes out at the end, and the queue of the stream dropped with the ring is closed.
    let first = block_on(&ring, async move {
        let first = accept.next().await.unwrap();
        (accept, first)
    });
    let (accept, first) = first;
    drop(first);
    let rest = block_on(&ring, accept.finish());
    assert_eq!(rest.len(), 3, "what the kernel had accepted comes out");
    drop(rest);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accept = Accept::new(&ring, Socket::new(&ring, listener.into()));
    ring.turn(None).unwrap();
    for _ in 0..3 {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        clients.push(stream);
    }
    ring.turn(MOMENT).unwrap();
    ring.shutdown().unwrap();
    drop(accept);
    for mut client in clients {
        assert!(matches!(client.read(&mut [0; 1]), Ok(0)), "closed");
    }
}

#[test]
fn a_ring_dropped_in_flight_frees_nothing_that_the_kernel_sees() {
    let doorbell = Rc::new(crate::sys::event::new().unwrap());
    let ring = Ring::new().unwrap();
    let wait = Op::event(&ring, &doorbell);
    ring.turn(None).unwrap();
    drop(wait);
    drop(ring);
    assert_eq!(Rc::strong_count(&doorbell), 2, "the operation still owns it");
    crate::sys::event::ring(&*doorbell);
}
