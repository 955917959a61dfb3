//! The new process's side of a hand-over: standard input is the other end.

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    frame::{self, Frame},
    inheritance::{Inheritance, InheritedGroup},
    message::{FORMAT, FlowOffer, Go, GroupOffer, Offer, Ready, Totals, kind},
};
use crate::{sys::lock, tls::TicketKeys};

/// How long the old process may take to begin.
const OFFER_TIMEOUT: Duration = Duration::from_secs(10);

/// The process that is to be taken over from.
#[derive(Clone, Debug)]
pub struct Predecessor {
    stream: Arc<UnixStream>,
    /// Which.
    pub pid: u32,
}

/// The last that it leaves.
#[derive(Debug, Default)]
pub struct Gone {
    /// What it has counted.
    pub totals: Totals,
    /// Flows of datagrams, each with its socket.
    pub flows: Vec<(FlowOffer, OwnedFd)>,
}

impl Predecessor {
    /// Reads what is handed over from standard input, which is nothing from then on.
    ///
    /// # Errors
    /// Nobody hands over anything there, or in a way that this program does not know: then the old process was told.
    pub fn receive() -> io::Result<(Self, Inheritance)> {
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Self::of(stream)
    }

    fn of(stream: UnixStream) -> io::Result<(Self, Inheritance)> {
        stream.set_read_timeout(Some(OFFER_TIMEOUT))?;
        let frame = frame::receive(&stream)?.ok_or_else(|| io::Error::other("nobody hands over anything"))?;
        let this = |pid| Self { stream: Arc::new(stream), pid };
        match read(frame) {
            Ok((offer, inheritance)) => {
                let this = this(offer.pid);
                this.stream.set_read_timeout(None)?;
                Ok((this, inheritance))
            }
            Err(why) => {
                this(0).refuse(&why);
                Err(io::Error::other(why))
            }
        }
    }

    /// Says why nothing is taken over; the old process goes on.
    pub fn refuse(&self, why: &str) {
        // It may be gone itself.
        _ = frame::send(&self.stream, kind::REFUSED, why.as_bytes(), &[]);
    }

    /// Says that everything is armed, and waits for the old process to leave the rest to this one. `None`: it died, so
    /// that this is the one all the same.
    pub fn ready(&self) -> Option<Gone> {
        let ready = Ready { version: env!("CARGO_PKG_VERSION").to_owned() };
        let body = serde_json::to_vec(&ready).unwrap_or_default();
        if frame::send(&self.stream, kind::READY, &body, &[]).is_err() {
            return None;
        }
        let frame = frame::receive(&self.stream).ok()?.filter(|frame| frame.kind == kind::GO)?;
        let Go { totals, flows } = serde_json::from_slice(&frame.body).unwrap_or_default();
        Some(Gone { totals, flows: flows.into_iter().zip(frame.descriptors).collect() })
    }

    /// What it has counted by now, once it says so again; `None`: it has ended.
    pub fn totals(&self) -> Option<Totals> {
        let frame = frame::receive(&self.stream).ok()??;
        (frame.kind == kind::TOTALS).then_some(())?;
        Some(serde_json::from_slice(&frame.body).unwrap_or_default())
    }
}

/// What goes over, with every descriptor in its place; locks are held from then on.
fn read(frame: Frame) -> Result<(Offer, Inheritance), String> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let unknown = || "this program does not know what the old process hands over".to_owned();
    if frame.kind != kind::OFFER {
        return Err(unknown());
    }
    let said: Format = serde_json::from_slice(&frame.body).map_err(|_| unknown())?;
    if said.format != FORMAT {
        let version = env!("CARGO_PKG_VERSION");
        return Err(format!(
            "the hand-over is of format {}, and this program ({version}) knows format {FORMAT} only",
            said.format
        ));
    }
    let mut offer: Offer =
        serde_json::from_slice(&frame.body).map_err(|error| format!("{}: {error}", unknown()))?;
    let mut descriptors = frame.descriptors.into_iter();
    let mut next = || descriptors.next().ok_or_else(|| "fewer descriptors came than were said".to_owned());
    let locks = (0..offer.locks).map(|_| next()).collect::<Result<Vec<OwnedFd>, _>>()?;
    let admin = offer.admin.clone().map(|path| Ok::<_, String>((path, next()?))).transpose()?;
    let http = offer.http.map(|address| Ok::<_, String>((address, next()?))).transpose()?;
    let mut groups = Vec::new();
    for group in &offer.groups {
        groups.push(InheritedGroup {
            address: group.address,
            bound: group.bound,
            is_udp: group.is_udp,
            ranges: group.ranges.clone(),
            sockets: (0..group.sockets).map(|_| next()).collect::<Result<_, _>>()?,
        });
    }
    lock::inherit(locks);
    let (down, ejections, leaving) = (offer.down.clone(), offer.ejections.clone(), offer.leaving.clone());
    let ticket_keys = TicketKeys::of_material(std::mem::take(&mut offer.ticket_keys).0);
    let told = |group: &GroupOffer| (group.address, group.is_udp, group.ranges.clone());
    let order = offer.groups.iter().map(told).collect();
    let inheritance = Inheritance {
        is_handed_over: true,
        told: Some(Instant::now()),
        order,
        groups,
        admin,
        http,
        down,
        ejections,
        leaving,
        ticket_keys,
    };
    Ok((offer, inheritance))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::{super::message::Ejections, *};

    fn offered(body: &str, files: usize) -> (UnixStream, io::Result<(Predecessor, Inheritance)>) {
        let (old, new) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let files: Vec<_> = (0..files).map(|_| file.as_fd()).collect();
        frame::send(&old, kind::OFFER, body.as_bytes(), &files).unwrap();
        (old, Predecessor::of(new))
    }

    fn offer() -> Offer {
        let address = "127.0.0.1:80".parse().unwrap();
        Offer {
            format: FORMAT,
            pid: 7,
            http: Some(address),
            groups: vec![
                GroupOffer { address, bound: address, is_udp: false, ranges: Vec::new(), sockets: 2 };
                2
            ],
            ..Offer::default()
        }
    }

    #[test]
    fn descriptors_come_to_their_places() {
        let (old, received) = offered(&serde_json::to_string(&offer()).unwrap(), 5);
        let (predecessor, inheritance) = received.unwrap();
        assert_eq!((predecessor.pid, inheritance.groups.len()), (7, 2));
        assert!(inheritance.admin.is_none() && inheritance.http.is_some());
        let mut fds: Vec<_> = inheritance.groups.iter().flat_map(|group| &group.sockets).collect();
        fds.sort_by_key(|fd| fd.as_raw_fd());
        assert_eq!(fds.len(), 4);
        let client = "127.0.0.1:9".parse().unwrap();
        let flow = FlowOffer { group: 1, worker: 0, client, asked: None, backend: "b".to_owned() };
        let totals = Totals { connections: 3, ..Totals::default() };
        let go = serde_json::to_vec(&Go { totals: totals.clone(), flows: vec![flow.clone()] }).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        frame::send(&old, kind::GO, &go, &[socket.as_fd()]).unwrap();
        let gone = predecessor.ready().unwrap();
        assert_eq!((gone.totals, &gone.flows[0].0), (totals, &flow));
        assert_eq!(frame::receive(&old).unwrap().unwrap().kind, kind::READY);
        drop(old);
        assert!(predecessor.totals().is_none());
    }

    #[test]
    fn an_offer_of_a_program_that_says_nothing_of_ejections_is_taken() {
        let mut said = serde_json::to_value(offer()).unwrap();
        assert!(said.as_object_mut().unwrap().remove("ejections").is_some());
        let (_old, received) = offered(&said.to_string(), 5);
        assert!(received.unwrap().1.ejections.is_empty());
        let ejections = Ejections {
            pool: "a".to_owned(),
            backend: "b".to_owned(),
            count: 2,
            since_ms: 1,
            left_ms: Some(3),
            reason: None,
        };
        let more = Offer { ejections: vec![ejections.clone()], ..offer() };
        let (_old, received) = offered(&serde_json::to_string(&more).unwrap(), 5);
        assert_eq!(received.unwrap().1.ejections, [ejections]);
    }

    #[test]
    fn another_format_is_refused_by_name() {
        let few = (serde_json::to_string(&offer()).unwrap(), 4);
        for ((body, files), part) in [
            (("{\"format\": 99}".to_owned(), 0), "format 99"),
            (("words".to_owned(), 0), "does not know"),
            (few, "fewer descriptors"),
        ] {
            let (old, received) = offered(&body, files);
            let error = received.unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            let told = frame::receive(&old).unwrap().unwrap();
            assert_eq!((told.kind, String::from_utf8(told.body).unwrap()), (kind::REFUSED, error));
        }
    }
}
