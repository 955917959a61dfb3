//! `lb capture`: the daemon's stream into a file, whole blocks only.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use lb_abi::capture::CaptureCounters;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use super::{args::Capture, socket_of};
use crate::admin;

/// Captures until it is over, one way or another.
pub(super) fn run(wanted: &Capture) -> Result<(), String> {
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, is_over.clone()).map_err(|error| format!("signal handler: {error}"))?;
    }
    let mut stream = admin::begin_capture(&socket_of(wanted.admin.as_deref()), &wishes(wanted))?;
    // Not before the daemon has agreed: a refusal leaves an old file alone.
    let mut output = open(&wanted.write)?;
    let (mut packets, mut tally) = (0u64, CaptureCounters::default());
    while let Some(block) = stream.next_block(|| is_over.load(Ordering::Relaxed))? {
        match output.write_all(&block.bytes).and_then(|()| output.flush()) {
            Ok(()) => {}
            // Whoever reads us has enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(format!("write {}: {error}", wanted.write.display())),
        }
        packets += u64::from(block.is_packet);
        tally = block.tally.unwrap_or(tally);
    }
    eprintln!("{}", summary(packets, &tally));
    Ok(())
}

/// As the API takes them.
fn wishes(wanted: &Capture) -> Vec<(&'static str, String)> {
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let wishes = [
        ("vip", wanted.vip.clone()),
        ("backend", wanted.backend.clone()),
        ("reason", wanted.reason.clone()),
        ("outcome", wanted.outcome.clone()),
        ("source", wanted.source.clone()),
        ("destination", wanted.destination.clone()),
        ("protocol", wanted.protocol.clone()),
        ("interface", wanted.interface.clone()),
        ("sample", number(wanted.sample)),
        ("snap", number(wanted.snap)),
        ("payload", wanted.payload.then(|| "yes".to_owned())),
        ("count", wanted.count.map(|count| count.to_string())),
        ("duration", number(wanted.duration)),
        ("rate", number(wanted.rate)),
    ];
    wishes.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn open(path: &Path) -> Result<Box<dyn Write>, String> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout().lock()));
    }
    // Who spoke with whom is for nobody else to read.
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    Ok(Box::new(file.map_err(|error| format!("open {}: {error}", path.display()))?))
}

fn summary(packets: u64, tally: &CaptureCounters) -> String {
    let CaptureCounters { looked_at, wanted, ring_full, over_rate, .. } = tally;
    let mut text = format!("{packets} packets captured; {looked_at} looked at, {wanted} wanted");
    if *over_rate > 0 {
        text += &format!(", {over_rate} of them over the rate (--rate)");
    }
    if *ring_full > 0 {
        text += &format!(", {ring_full} of them lost, as nobody took them in time");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_said() {
        let mut tally = CaptureCounters { looked_at: 9, wanted: 5, written: 3, ..CaptureCounters::default() };
        assert_eq!(summary(3, &tally), "3 packets captured; 9 looked at, 5 wanted");
        (tally.ring_full, tally.over_rate) = (1, 2);
        let said = summary(3, &tally);
        assert!(said.contains("2 of them over the rate") && said.contains("1 of them lost"), "{said}");
    }
}
