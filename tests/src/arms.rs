//! A load balancer with two arms: clients by one of its interfaces, backends by another.
//!
//! ```text
//!   client 10.77.0.1     10.77.0.2 lb 10.78.0.2      b1 10.78.0.11    b2 10.78.0.12     (fd77::, fd78:: alike)
//!      | eth0            eth0 |     | eth1               | eth0           | eth0
//!   ---+----------------------+-- --+--------------------+----------------+---
//!     br0 10.77.0.254   the switch routes between both   br1 10.78.0.254
//! ```
//! With tags each of these addresses is on a VLAN device over its interface. A backend answers through the switch, so
//! that direct server return passes no arm.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;

use crate::{
    netns::Namespace,
    passage::Passage,
    scene::Scene,
    topology::{Host, set_features},
};

/// VLANs of the clients' and of the backends' side.
pub const TAGS: [u16; 2] = [100, 200];

/// The second arm of a scene's load balancer; to be dropped before the scene.
#[derive(Debug)]
pub struct Arms {
    /// On the switch's port to the second arm.
    _passage: Passage,
}

impl Arms {
    /// Lays the scene's cables anew.
    ///
    /// # Errors
    /// A step fails, and is named.
    pub fn lay(scene: &Scene, tags: Option<[u16; 2]>) -> Result<Self> {
        let topology = scene.topology();
        let (client, lb, switch) = (&topology.client, &topology.lb, topology.switch());
        let [front, back] = tags.map_or([None; 2], |tags| tags.map(Some));
        switch.ip(&format!(
            "link add br1 type bridge forward_delay 0 mcast_snooping 0\nlink set br1 up\n\
             link add p-lb1 type veth peer name eth1 netns {}\nlink set p-lb1 master br1 up\n\
             link set p-b1 master br1\nlink set p-b2 master br1",
            lb.netns.name()
        ))?;
        lb.netns.ip("link set eth1 up")?;
        let passage = Passage::attach(switch, "p-lb1")?;
        // As for the first one: the receiver polls, and a wire carries whole checksums.
        set_features(switch, "p-lb1", &["gro", "on", "tx", "off"])?;
        set_features(&lb.netns, "eth1", &["tx", "off"])?;
        // A wire carries tags in the frame; between two ends of a veth they go beside it, where XDP does not look.
        for port in ["p-client", "p-lb", "p-lb1", "p-b1", "p-b2"] {
            set_features(switch, port, &["txvlan", "off"])?;
        }
        for host in topology.hosts() {
            set_features(&host.netns, "eth0", &["txvlan", "off"])?;
        }
        switch.settings(&[
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
        ])?;
        place(switch, "br0", front, 77, 254)?;
        place(switch, "br1", back, 78, 254)?;
        place(&client.netns, "eth0", front, 77, 1)?;
        place(&lb.netns, "eth0", front, 77, 2)?;
        place(&lb.netns, "eth1", back, 78, 2)?;
        lb.netns.settings(&[("ipv4/conf/eth1/forwarding", "1"), ("ipv6/conf/eth1/forwarding", "1")])?;
        client.route_vips(lb)?;
        for host in topology.backends() {
            place(&host.netns, "eth0", back, 78, host.v4.octets()[3])?;
            host.netns.ip("route add 10.77.0.0/24 via 10.78.0.254\nroute add fd77::/64 via fd78::254")?;
        }
        Ok(Self { _passage: passage })
    }

    /// Address of a backend, or of the load balancer towards backends, of the family that `like` has.
    pub fn address(&self, host: &Host, like: IpAddr) -> IpAddr {
        let last = host.v4.octets()[3];
        match like {
            IpAddr::V4(_) => Ipv4Addr::new(10, 78, 0, last).into(),
            IpAddr::V6(_) => {
                let mut segments = host.v6.segments();
                segments[0] = 0xfd78;
                Ipv6Addr::from(segments).into()
            }
        }
    }
}

/// Gives an interface, or a VLAN device over it, `10.NET.0.LAST` and `fdNET::LAST`, and takes its other addresses.
fn place(netns: &Namespace, interface: &str, tag: Option<u16>, net: u8, last: u8) -> Result<()> {
    netns.settings(&[("ipv4/conf/default/rp_filter", "0"), ("ipv6/conf/default/accept_dad", "0")])?;
    let mut lines = format!("addr flush dev {interface} scope global\n");
    let device = match tag {
        None => interface.to_owned(),
        Some(tag) => {
            let device = format!("{interface}.{tag}");
            writeln!(
                lines,
                "link add link {interface} name {device} type vlan id {tag}\nlink set {device} up"
            )?;
            device
        }
    };
    write!(
        lines,
        "addr add 10.{net}.0.{last}/24 dev {device}\naddr add fd{net}::{last}/64 dev {device} nodad"
    )?;
    netns.ip(&lines)
}
