//! PROXY headers on their way through two listeners, to a real nginx that reads them.

use anyhow::{Result, ensure};
use lb_tests::{
    curl::{Curl, url},
    daemon::Daemon,
    nginx::Nginx,
    peer, scene,
};

/// The client's connection comes in at `front`, is relayed to `web`, which is this box again, and its requests go on
/// from there.
const CONFIG: &str = r#"
[listener.front]
bind = ["10.77.0.2:9001", "[fd77::2]:9001"]
protocol = "tcp"
pool = "hop"

[listener.web]
bind = ["10.77.0.2:8081"]
protocol = "http"
proxy_protocol = "require"
trusted_proxies = ["10.77.0.2"]
pool = "nginx"

[listener.curls]
bind = ["10.77.0.2:8082"]
protocol = "http"
proxy_protocol = "accept"
trusted_proxies = ["10.77.0.0/24"]
pool = "nginx"

[pool.hop]
backends = ["10.77.0.2:8081"]
proxy_protocol = "v2"

[pool.nginx]
backends = ["10.77.0.11:81"]
proxy_protocol = "v1"

[log]
access = "json"
file = "stdout"
"#;

#[test]
fn the_client_is_known_behind_two_hops() {
    scene::run(|scene| {
        let topology = scene.topology();
        let _nginx = Nginx::start(scene, &topology.b1)?;
        let daemon = Daemon::start(scene, CONFIG)?;
        let (client, lb) = (&topology.client, &topology.lb);
        for (address, own) in [(lb.v4.into(), client.v4.to_string()), (lb.v6.into(), client.v6.to_string())] {
            let reply = Curl::within(&client.netns).get(&url(address, 9001, "/echo"))?;
            ensure!(reply.status == 200, "{reply:?}");
            for (key, expected) in [
                ("x-forwarded-for", &*own),
                ("x-forwarded-port", "9001"),
                ("introduced", &format!("{own} 9001")),
                ("remote", "10.77.0.2"),
            ] {
                ensure!(reply.field(key) == Some(expected), "{key} is not {expected}: {reply:?}");
            }
        }
        // Straight to the second: the client is no trusted proxy there.
        let refused = peer::raw_exchange(
            &client.netns,
            lb.v4.into(),
            8081,
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        );
        ensure!(refused.is_err() || refused.is_ok_and(|bytes| bytes.is_empty()));
        let count = |reason: &str| -> Result<f64> {
            let metrics = daemon.metrics()?;
            Ok(metrics.sum("lb_worker_closes_total", &[&format!("reason=\"{reason}\"")]).unwrap_or(0.0))
        };
        ensure!(count("proxy-untrusted")? == 1.0, "{}", count("proxy-untrusted")?);
        Ok(())
    });
}

/// curl writes a header of its own (version 1).
#[test]
fn curl_introduces_itself() {
    scene::run(|scene| {
        let topology = scene.topology();
        let _nginx = Nginx::start(scene, &topology.b1)?;
        let _daemon = Daemon::start(scene, CONFIG)?;
        let client = &topology.client;
        let target = url(topology.lb.v4.into(), 8082, "/echo");
        for options in [&["--haproxy-protocol"][..], &[]] {
            let reply = Curl::within(&client.netns).with(options).get(&target)?;
            let own = client.v4.to_string();
            ensure!(reply.status == 200 && reply.field("x-forwarded-for") == Some(&own), "{reply:?}");
        }
        Ok(())
    });
}
