//! `lb_steer` on real sockets.

use std::{io::Read as _, net::TcpStream, os::fd::AsFd as _};

use super::*;

/// Listening sockets of one group.
fn group(count: usize) -> (SocketAddr, Vec<socket2::Socket>) {
    use socket2::{Domain, Socket, Type};
    let mut address: SocketAddr = ([127, 0, 0, 1], 0).into();
    let sockets = (0..count)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(128).unwrap();
            socket.set_nonblocking(true).unwrap();
            address = socket.local_addr().unwrap().as_socket().unwrap();
            socket
        })
        .collect();
    (address, sockets)
}

fn accepted(socket: &socket2::Socket) -> usize {
    std::iter::from_fn(|| socket.accept().ok()).count()
}

fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

#[test]
fn the_core_that_takes_the_packet_chooses_the_worker() {
    in_namespace(|bench| steers(bench.open()));
}

/// A quickstart locks no memory for VIPs that it cannot have.
#[test]
fn steering_alone_does_without_tables() {
    in_namespace(|_| {
        let plane = Plane::open_for_steering().unwrap();
        assert_eq!(plane.maps.slots.array().len(), 1);
        steers(plane);
    });
}

fn steers(mut plane: Plane) {
    let (address, sockets) = group(2);
    let with_ids: Vec<_> =
        (0..).zip(&sockets).map(|(worker, socket)| (WorkerId(worker), socket.as_fd())).collect();
    let group = Group {
        address,
        protocol: 6,
        sockets: &with_ids,
        mode: SteerMode::Core,
        relieves: false,
        is_looked_up: false,
        takes_cookies: false,
    };
    // Over loopback the packet is taken on the sender's core: this one belongs to worker 1.
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(0);
    rustix::thread::sched_setaffinity(None, &cores).unwrap();
    plane.steer_cores(&[(0, WorkerId(1)), (1, WorkerId(0))]).unwrap();
    plane.steer(&group).unwrap();
    let streams = connect(address, 20);
    assert_eq!((accepted(&sockets[0]), accepted(&sockets[1])), (0, 20));
    let counters = plane.steer_counters().unwrap();
    assert_eq!((counters[0].0, counters[0].2.by_core), (address, 20));

    plane.steer(&Group { mode: SteerMode::Hash, ..group }).unwrap();
    let more = connect(address, 64);
    let taken = (accepted(&sockets[0]), accepted(&sockets[1]));
    assert!(taken.0 > 0 && taken.1 > 0 && taken.0 + taken.1 == 64, "{taken:?}");
    assert_eq!(plane.steer_counters().unwrap()[0].2.by_hash, 64);

    plane.unsteer(address, 6).unwrap();
    plane.unsteer(address, 6).unwrap();
    assert!(plane.steer_counters().unwrap().is_empty());
    let last = connect(address, 4);
    assert_eq!(accepted(&sockets[0]) + accepted(&sockets[1]), 4, "the kernel chooses");
    // Accepted and dropped above: every stream has ended.
    for mut stream in streams.into_iter().chain(more).chain(last) {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}
