//! Real frames over veth in native mode: in by `lb0`, out by `lb0` (XDP_TX) or `lb1` (redirect), and through
//! `lb_decap` at the other end of the wire.
#![expect(clippy::unwrap_used, reason = "a test target: helpers fail the test they help")]

use std::time::{Duration, Instant};

use aya::{
    Ebpf, EbpfLoader,
    programs::{Xdp, XdpMode},
};
use lb_abi::names;
use lb_tests::xdp::{
    kernel, namespace, rows,
    tap::Tap,
    world::{LB0, LB1},
};

/// `lb_decap` with maps that nobody writes, at both far ends.
fn decap() -> Ebpf {
    let mut ebpf = EbpfLoader::new()
        .map_max_entries(names::MAP_SLOTS, 1)
        .map_max_entries(names::MAP_FLOWS, 1)
        .load_file(kernel::object())
        .unwrap();
    let program: &mut Xdp = ebpf.program_mut(names::PROGRAM_DECAP).unwrap().try_into().unwrap();
    program.load().unwrap();
    for peer in ["peer0", "peer1"] {
        program.attach(peer, XdpMode::Driver).unwrap();
    }
    ebpf
}

fn arrives(taps: &[&Tap], frame: &[u8]) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        // The kernel's own frames (router solicitations) come by, too.
        while let Some(got) = taps.iter().find_map(|tap| tap.receive()) {
            if got == frame {
                return true;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

#[test]
fn native_both_ways() {
    if let Some(why) = kernel::unavailable() {
        eprintln!("skipped: {why}");
        return;
    }
    let mut bench = kernel::Bench::new().unwrap();
    // The peers have the next index.
    let (near, far) = (Tap::new(LB0 + 1).unwrap(), Tap::new(LB1 + 1).unwrap());
    let _program = decap();
    for (world, packet, back) in rows::round_trips(namespace::now_ticks()) {
        bench.write(&world).unwrap();
        near.send(&packet).unwrap();
        assert!(arrives(&[&near, &far], &back), "{back:02x?}");
        bench.clear().unwrap();
    }
}
