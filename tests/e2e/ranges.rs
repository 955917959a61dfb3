//! A listener with prefixes and port ranges: `lb_lookup` gives them to its sockets without a bind for each.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Result, ensure};
use lb_tests::{
    daemon::Daemon,
    peer::{EchoClient, Service, TcpServer},
    scene,
};

const CONFIG: &str = r#"
[listener.many]
bind = ["10.77.0.2:9003", "198.51.100.0/24:8000-8999", "[2001:db8:99::/64]:443", "198.51.100.0/25:443"]
protocol = "tcp"
pool = "relayed"

[pool.relayed]
backends = ["10.77.0.11:9000"]
"#;

#[test]
fn a_listener_hears_every_address_and_port_of_its_ranges() {
    scene::run(|scene| {
        let topology = scene.topology();
        let (client, lb) = (&topology.client, &topology.lb);
        let _server = TcpServer::start(&topology.b1, 9000, Service::Echo)?;
        lb.netns.ip("route add local 198.51.100.0/24 dev lo\nroute add local 2001:db8:99::/64 dev lo")?;
        client.netns.ip(&format!(
            "route add 198.51.100.0/24 via {}\nroute add 2001:db8:99::/64 via {}",
            lb.v4, lb.v6
        ))?;
        let mut daemon = Daemon::start(scene, CONFIG)?;
        let dial = |address: &str, port| -> Result<EchoClient> {
            EchoClient::connect(&client.netns, address.parse::<IpAddr>()?, port)
        };
        let heard = [
            ("10.77.0.2", 9003),
            ("198.51.100.0", 8000),
            ("198.51.100.7", 8443),
            ("198.51.100.255", 8999),
            ("198.51.100.9", 443),
            // The longer prefix has the ports of the shorter one, too.
            ("198.51.100.9", 8500),
            ("2001:db8:99::1", 443),
            ("2001:db8:99::ffff:1", 443),
        ];
        for (address, port) in heard {
            dial(address, port)?.exchange("by a range")?;
        }
        for (address, port) in [
            ("198.51.100.7", 7999),
            ("198.51.100.7", 9000),
            ("198.51.100.200", 443),
            ("2001:db8:99::1", 444),
            ("10.77.0.2", 8000),
        ] {
            ensure!(dial(address, port).is_err(), "{address} port {port} was heard");
        }
        let listeners = daemon.show("listeners")?;
        let many = listeners.row("listener", "many")?;
        ensure!(many.number("accepted")? == heard.len() as u64, "{many:?}");
        // Every one of them was given to a worker by lb_steer.
        ensure!(many.number("by_core")? + many.number("by_hash")? >= heard.len() as u64, "{many:?}");
        let text = daemon.status()?.to_string();
        for spelled in ["198.51.100.0/24:8000-8999", "[2001:db8:99::/64]:443"] {
            ensure!(text.contains(spelled), "{spelled}: {text}");
        }
        // With the daemon, everything goes: the next one finds the addresses free.
        daemon.process().kill();
        ensure!(dial("198.51.100.7", 8443).is_err(), "who accepted that?");
        let _next = Daemon::start(scene, CONFIG)?;
        dial("198.51.100.7", 8443)?.exchange("the next daemon")
    });
}

/// A worker's place is found for connections of a range as for any other: both workers get their share.
#[test]
fn a_range_is_spread_over_all_workers() {
    scene::run(|scene| {
        let topology = scene.topology();
        let _server = TcpServer::start(&topology.b1, 9000, Service::Echo)?;
        topology.lb.netns.ip("route add local 198.51.100.0/24 dev lo")?;
        topology.client.netns.ip(&format!("route add 198.51.100.0/24 via {}", topology.lb.v4))?;
        let daemon = Daemon::start(scene, &format!("[runtime]\nworkers = 2\n{CONFIG}"))?;
        let address: IpAddr = "198.51.100.77".parse()?;
        let clients: Result<Vec<_>> =
            (0..64).map(|at| EchoClient::connect(&topology.client.netns, address, 8100 + at)).collect();
        let clients = clients?;
        clients.iter().try_for_each(|client| client.exchange("from each"))?;
        let workers = daemon.show("workers")?;
        let open: BTreeSet<u64> =
            workers.rows().iter().map(|row| row.number("open")).collect::<Result<_>>()?;
        ensure!(!open.contains(&0), "a worker has none: {workers:?}");
        Ok(())
    });
}
