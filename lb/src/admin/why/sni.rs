//! `GET /v1/why?request=tls://NAME`: where a TLS client is passed on to, by what rule, and which other routes would have
//! had it. Asked of the same table that workers ask.

use serde_json::{Value, json};

use super::{
    request::{answer, find_listener, ups},
    step,
};
use crate::{
    admin::{packets::Refusal, routes::action, view::View},
    config::{HostMatch, ListenerSnapshot, RouteSnapshot},
    model::RequestQuestion,
    relay::Names,
};

/// As for a packet: `outcome` is forwarded or refused.
///
/// # Errors
/// No listener is meant, or more than one can be.
pub(super) fn render(view: &View, question: &RequestQuestion) -> Result<Value, Refusal> {
    let listener = find_listener(view, question)?;
    let mut steps =
        vec![step("listener", format!("listener {}", listener.name), json!({ "listener": listener.name }))];
    let outcome = tell(view, listener, question, &mut steps);
    Ok(answer(question, outcome, steps))
}

fn tell(
    view: &View,
    listener: &ListenerSnapshot,
    question: &RequestQuestion,
    steps: &mut Vec<Value>,
) -> (&'static str, Option<&'static str>, String) {
    let name = question.authority.rsplit_once(':').map_or(&*question.authority, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let routes = || listener.routes.iter().filter_map(|id| view.snapshot.routes.get(id.index()));
    let names = Names::new(routes().map(|route| (&route.host, route.id)));
    let taker = names.find(name.as_bytes()).and_then(|id| view.snapshot.routes.get(id.index()));
    let Some(taker) = taker else {
        let Some(pool) = listener.pool.and_then(|id| view.snapshot.pool(id)) else {
            return ("refused", Some("no-route"), format!("no route takes {name}: reset"));
        };
        steps.push(step("pool", ups(view, pool), json!({ "pool": pool.name })));
        return ("forwarded", None, format!("no route takes {name}: pool {} of the listener", pool.name));
    };
    let why = rule(taker);
    steps.push(step("route", format!("route {}: {why}", taker.name), json!({ "route": taker.name })));
    let has_name = |route: &&RouteSnapshot| route.id != taker.id && matches(&route.host, &name);
    for beaten in routes().filter(has_name) {
        let text = format!("route {} would take it too, but is less specific: {}", beaten.name, rule(beaten));
        steps.push(step("beaten", text, json!({ "route": beaten.name })));
    }
    let pool = taker.action.pool().and_then(|id| view.snapshot.pool(*id));
    if let Some(pool) = pool {
        steps.push(step("pool", ups(view, pool), json!({ "pool": pool.name })));
    }
    ("forwarded", None, format!("route {} takes it: {}", taker.name, action(view, taker)))
}

fn matches(host: &HostMatch, name: &str) -> bool {
    match host {
        HostMatch::Exact(host) => **host == *name,
        HostMatch::Suffix(suffix) => name.len() > suffix.len() && name.ends_with(&**suffix),
        HostMatch::Any => true,
    }
}

fn rule(route: &RouteSnapshot) -> String {
    match (&route.host, route.host.spelled()) {
        (HostMatch::Exact(_), Some(host)) => format!("name {host}"),
        (_, Some(host)) => format!("wildcard name {host}"),
        (_, None) => "any name".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        admin::fixture,
        config::{BackendIds, Snapshot, parse},
        model::Generation,
    };

    fn ask(question: &str) -> Result<Value, Refusal> {
        let text = r#"
            version = 1
            [listener.plain]
            bind = ["[::1]:443"]
            protocol = "tcp"
            pool = "p"
            [listener.strict]
            bind = ["[::1]:5433"]
            protocol = "tcp"
            [listener.open]
            bind = ["[::1]:5434"]
            protocol = "tcp"
            pool = "p"
            [route.db]
            listener = "strict"
            sni = ["db.test", "*.db.test"]
            pool = "p"
            [route.rest]
            listener = "strict"
            sni = ["*.test"]
            pool = "p"
            [route.open]
            listener = "open"
            sni = ["a.test"]
            pool = "p"
            [pool.p]
            backends = ["10.0.0.1:1"]
        "#;
        let config = parse("f", text).unwrap().config;
        let mut view = fixture::view();
        view.snapshot = Arc::new(Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap());
        view.config = Arc::new(config);
        render(&view, &question.parse().unwrap())
    }

    #[test]
    fn the_route_of_a_name_is_told_with_those_it_beats() {
        for (question, outcome, text, steps) in [
            (
                "tls://DB.test:5433",
                "forwarded",
                "route db takes it: pool p",
                &["listener", "route", "beaten", "pool"][..],
            ),
            (
                "tls://x.db.test:5433",
                "forwarded",
                "route db takes it: pool p",
                &["listener", "route", "beaten", "pool"],
            ),
            ("tls://x.test:5433", "forwarded", "route rest takes it: pool p", &["listener", "route", "pool"]),
            ("tls://x.example:5433", "refused", "no route takes x.example: reset", &["listener"]),
            (
                "tls://b.test listener=open",
                "forwarded",
                "no route takes b.test: pool p of the listener",
                &["listener", "pool"],
            ),
        ] {
            let answer = ask(question).unwrap();
            assert_eq!((&answer["outcome"], &answer["text"]), (&json!(outcome), &json!(text)), "{question}");
            let told: Vec<_> =
                answer["steps"].as_array().unwrap().iter().map(|step| step["step"].clone()).collect();
            assert_eq!(told, steps, "{question}");
        }
        // Without a port 443 is meant, where no listener has routes.
        assert!(matches!(ask("tls://db.test"), Err(Refusal::Question(text)) if text.contains("strict")));
    }
}
