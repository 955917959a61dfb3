//! What a running daemon cannot change, and why.

use crate::{admin::changes::Refusal, config::Config};

/// What helps.
pub(super) const WAY_OUT: &str = "write it into the config file; `lb upgrade` or a restart takes that over";

/// Refuses a change of what was settled when the daemon began.
///
/// # Errors
/// [`Refusal::Unappliable`] with the first key that would have to change.
pub(super) fn check(now: &Config, next: &Config) -> Result<(), Refusal> {
    let has_xdp = |config: &Config| config.xdp.is_some();
    let secret = |config: &Config| config.xdp.as_ref().and_then(|xdp| xdp.secret.clone());
    let fixed = [
        (now.admin.socket != next.admin.socket, "admin.socket", "it is open"),
        (now.admin.http != next.admin.http, "admin.http", "it is open"),
        (now.state != next.state, "state.dir", "it is locked, and generations are kept there"),
        (
            has_xdp(now) != has_xdp(next),
            "xdp",
            "programs and maps are loaded when the daemon begins, and stay until `lb detach`",
        ),
        (secret(now) != secret(next), "xdp.secret", "every flow would be found by another key"),
    ];
    match fixed.iter().find(|(differs, ..)| *differs) {
        Some((_, at, why)) => Err(Refusal::Unappliable {
            at: (*at).to_owned(),
            message: format!("cannot change while the daemon runs ({why}): {WAY_OUT}"),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::fixture, config};

    type Edit = fn(&mut Config);

    #[test]
    fn what_cannot_change_is_named_with_the_reason_and_the_way_out() {
        let base = (*fixture::view().config).clone();
        let xdp: Edit = |config| config.xdp = config::parse("test", XDP).unwrap().config.xdp;
        let edits: [(&str, Edit); 6] = [
            ("admin.socket", |config| config.admin.socket.push("elsewhere")),
            ("admin.http", |config| config.admin.http = Some("127.0.0.1:1".parse().unwrap())),
            ("admin.http", |config| config.admin.http = None),
            ("state.dir", |config| config.state.dir.push("elsewhere")),
            ("xdp", |config| config.xdp = None),
            ("xdp.secret", |config| {
                config.xdp.iter_mut().for_each(|xdp| xdp.secret = Some("other.key".into()));
            }),
        ];
        let mut now = base.clone();
        now.admin.http = Some("127.0.0.1:9".parse().unwrap());
        let without_xdp = now.clone();
        xdp(&mut now);
        check(&now, &now).unwrap();
        let refused = |at: &str, from: &Config, to: &Config| {
            let Err(Refusal::Unappliable { at: found, message }) = check(from, to) else {
                panic!("{at} is not refused");
            };
            assert_eq!(found, at);
            let (why, way) = message.split_once("): ").unwrap();
            assert!(why.starts_with("cannot change while the daemon runs (") && why.len() > 40, "{message}");
            assert!(way.contains("`lb upgrade`"), "{message}");
        };
        for (at, edit) in edits {
            let mut next = now.clone();
            edit(&mut next);
            refused(at, &now, &next);
        }
        refused("xdp", &without_xdp, &now);
    }

    const XDP: &str = "version = 1\n[xdp]\ninterfaces = [\"eth0\"]\n";

    #[test]
    fn all_else_may_change() {
        let now = (*fixture::view().config).clone();
        let mut next = now.clone();
        next.runtime.workers = config::Workers::Count(7);
        next.access_log =
            config::parse("test", "version = 1\n[log]\naccess = \"json\"").unwrap().config.access_log;
        let Some(web) = next.listeners.get_mut("web") else { panic!("no listener") };
        (web.steer, web.syn_cookies) = (config::Steer::Hash, config::SynCookies::Off);
        assert_ne!(now.listeners, next.listeners);
        check(&now, &next).unwrap();
    }
}
