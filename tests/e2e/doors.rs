//! What many clients come to at once: requests, tunnels and relays, each at a listener of its own.

/// Part of a config. Pool `web` is each test's own.
macro_rules! doors {
    () => {
        r#"
[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"
pool = "web"

[listener.tunnel]
bind = ["10.77.0.2:8081"]
protocol = "http"
pool = "tunnel"

[listener.echo]
bind = ["10.77.0.2:9003"]
protocol = "tcp"
pool = "echo"

[pool.tunnel]
backends = ["10.77.0.12:9100"]

[pool.echo]
backends = ["10.77.0.11:9003"]
"#
    };
}

pub(crate) use doors;
