//! Routes, their actions, and what `lb` says of them, between curl and two nginx.

use anyhow::{Result, ensure};
use lb_tests::{
    curl::{Curl, Reply, url},
    daemon::Daemon,
    nginx::Nginx,
    scene::{self, Scene},
};

/// `CLIENT` stands for the client's address.
const CONFIG: &str = r#"
[listener.web]
bind = ["10.77.0.2:8080"]
protocol = "http"

[listener.behind]
bind = ["10.77.0.2:8081"]
protocol = "http"
pool = "one"
trusted_proxies = ["CLIENT"]
forwarded = true

[route.canary]
listener = "web"
path = "/echo/*"
headers = { X-Canary = { regex = "yes|1" } }
pool = "two"

[route.version]
listener = "web"
path = "/echo/*"
query = { v = "2" }
pool = "two"

[route.stable]
listener = "web"
path = "/echo/*"
pool = "one"

[route.write]
listener = "web"
method = ["POST", "PUT"]
respond = { status = 405, body = "read only\n", headers = { Allow = "GET, HEAD" } }

[route.strip]
listener = "web"
path = "/v1/*"
pool = "one"
rewrite = { path = "/echo/*", host = "inner.example" }

[route.strip.set_headers]
request = { set = { X-Env = "prod" }, remove = ["Cookie"] }
response = { set = { X-Served = "edge" }, remove = ["X-Backend"] }

[route.user]
listener = "web"
path = "/users/{id}/posts/{post:[0-9]+}"
pool = "two"
rewrite = { path = "/echo/{post}/of/{id}" }

[route.secure]
listener = "web"
host = ["*.shop.example"]
redirect = { status = 308, scheme = "https", host = "shop.example" }

[pool.one]
backends = ["10.77.0.11:80"]

[pool.two]
backends = ["10.77.0.12:80"]
"#;

struct Stage<'a> {
    scene: &'a Scene,
    daemon: Daemon<'a>,
    _nginx: [Nginx; 2],
}

impl<'a> Stage<'a> {
    fn set(scene: &'a Scene) -> Result<Self> {
        let topology = scene.topology();
        let nginx = [Nginx::start(scene, &topology.b1)?, Nginx::start(scene, &topology.b2)?];
        let config = CONFIG.replace("CLIENT", &topology.client.v4.to_string());
        Ok(Self { scene, daemon: Daemon::start(scene, &config)?, _nginx: nginx })
    }

    fn get(&self, port: u16, path: &str, options: &[&str]) -> Result<Reply> {
        let topology = self.scene.topology();
        Curl::within(&topology.client.netns).with(options).get(&url(topology.lb.v4.into(), port, path))
    }
}

#[test]
fn the_most_specific_route_acts() {
    scene::run(|scene| {
        let stage = Stage::set(scene)?;
        for (path, options, backend, uri) in [
            ("/echo/x", &[][..], "b1", "/echo/x"),
            ("/echo/x", &["-H", "X-Canary: yes"], "b2", "/echo/x"),
            ("/echo/x", &["-H", "X-Canary: yesterday"], "b1", "/echo/x"),
            ("/echo/x?a=1&v=2", &[], "b2", "/echo/x?a=1&v=2"),
            ("/v1/a%2Fb?c", &[], "b1", "/echo/a%2Fb?c"),
            ("/users/ann/posts/7", &[], "b2", "/echo/7/of/ann"),
        ] {
            let reply = stage.get(8080, path, options)?;
            ensure!(reply.status == 200, "{path}: {reply:?}");
            ensure!(reply.field("name") == Some(backend), "{path} {options:?}: {reply:?}");
            ensure!(reply.field("uri") == Some(uri), "{path}: {reply:?}");
        }
        ensure!(stage.get(8080, "/users/ann/posts/new", &[])?.status == 404);

        let reply = stage.get(
            8080,
            "/v1/",
            &["-H", "Cookie: a=b", "-H", "X-Env: forged", "-H", "Host: out.example"],
        )?;
        ensure!(reply.field("host") == Some("inner.example"), "{reply:?}");
        ensure!(reply.field("x-forwarded-host") == Some("out.example"), "{reply:?}");
        ensure!(reply.field("x-env") == Some("prod") && reply.field("cookie") == Some(""), "{reply:?}");
        ensure!(reply.header("x-served") == Some("edge") && reply.header("x-backend").is_none(), "{reply:?}");
        Ok(())
    });
}

#[test]
fn a_route_answers_by_itself() {
    scene::run(|scene| {
        let stage = Stage::set(scene)?;
        let reply = stage.get(8080, "/x", &["--data", "body"])?;
        ensure!(reply.status == 405 && reply.body == "read only\n", "{reply:?}");
        ensure!(reply.header("allow") == Some("GET, HEAD"), "{reply:?}");
        let reply = stage.get(8080, "/cart?id=1", &["-H", "Host: www.shop.example:8080"])?;
        ensure!(reply.status == 308, "{reply:?}");
        ensure!(reply.header("location") == Some("https://shop.example/cart?id=1"), "{reply:?}");
        let asked: u64 = stage.daemon.show("backends")?.sum("exchanges")?;
        ensure!(asked == 0, "{asked} exchanges with backends");
        Ok(())
    });
}

#[test]
fn forwarding_fields_are_ours_or_a_trusted_proxys() {
    scene::run(|scene| {
        let stage = Stage::set(scene)?;
        let client = scene.topology().client.v4.to_string();
        let said = [
            "-H",
            "X-Forwarded-For: 203.0.113.9",
            "-H",
            "X-Forwarded-Proto: https",
            "-H",
            "X-Forwarded-Port: 443",
            "-H",
            "X-Request-Id: theirs",
            "-H",
            "Forwarded: for=203.0.113.9",
            "-H",
            "Host: a.example",
        ];
        let reply = stage.get(8080, "/echo/", &said)?;
        ensure!(reply.field("x-forwarded-for") == Some(&client), "{reply:?}");
        ensure!(reply.field("x-forwarded-proto") == Some("http"), "{reply:?}");
        ensure!(reply.field("x-forwarded-port") == Some("8080"), "{reply:?}");
        ensure!(reply.field("forwarded") == Some(""), "{reply:?}");
        ensure!(reply.field("x-request-id").is_some_and(|id| id.len() == 32), "{reply:?}");
        let reply = stage.get(8081, "/echo/", &said)?;
        ensure!(reply.field("x-forwarded-for") == Some(&format!("203.0.113.9, {client}")), "{reply:?}");
        ensure!(reply.field("x-forwarded-proto") == Some("https"), "{reply:?}");
        ensure!(reply.field("x-forwarded-port") == Some("443"), "{reply:?}");
        ensure!(reply.field("x-request-id") == Some("theirs"), "{reply:?}");
        let forwarded = format!("for=203.0.113.9, for={client};host=\"a.example\";proto=http");
        ensure!(reply.field("forwarded") == Some(&forwarded), "{reply:?}");
        Ok(())
    });
}

#[test]
fn routes_are_shown_and_explained_as_they_act() {
    scene::run(|scene| {
        let stage = Stage::set(scene)?;
        let routes = stage.daemon.show("routes")?;
        let order: Result<Vec<&str>> = routes.rows().iter().map(|row| row.text("route")).collect();
        let order = order?;
        ensure!(order == ["secure", "canary", "version", "stable", "strip", "user", "write"], "{order:?}");
        ensure!(routes.row("route", "canary")?.text("when")? == "header x-canary matches \"yes|1\"");
        ensure!(routes.row("route", "secure")?.text("action")? == "redirect 308 to https://shop.example/*");
        for (request, outcome, text) in [
            ("http://a:8080/echo/x header:X-Canary=1", "forwarded", "route canary takes it: pool two"),
            ("POST http://a:8080/", "answered", "route write takes it: respond 405"),
            (
                "http://www.shop.example:8080/x",
                "redirected",
                "route secure takes it: redirect 308 to https://shop.example/*",
            ),
            ("http://a:8081/", "forwarded", "no route takes it: pool one of the listener"),
            ("http://a:8080/", "refused", "no route takes it: answered with 404"),
        ] {
            let said = stage.daemon.why(request)?;
            ensure!(said["outcome"] == outcome && said["text"] == text, "{request}: {said}");
        }
        let said = stage.daemon.why("http://a:8080/echo/x?v=2 header:X-Canary=1")?;
        let steps = said["steps"].as_array().map_or(&[][..], Vec::as_slice);
        let beaten: Vec<&str> = steps
            .iter()
            .filter(|step| step["step"] == "beaten")
            .filter_map(|step| step["route"].as_str())
            .collect();
        ensure!(beaten == ["version", "stable"], "{said}");
        Ok(())
    });
}
