//! What a running daemon cannot change, and why.

use crate::{admin::changes::Refusal, config::Config};

/// What helps.
const WAY_OUT: &str = "write it into the config file; `lb upgrade` or a restart takes that over";

/// Refuses a change of what was settled when the daemon began.
///
/// # Errors
/// [`Refusal::Unappliable`] with the first key that would have to change.
pub(super) fn check(now: &Config, next: &Config) -> Result<(), Refusal> {
    let has_xdp = |config: &Config| config.xdp.is_some();
    let secret = |config: &Config| config.xdp.as_ref().and_then(|xdp| xdp.secret.clone());
    let fixed = [
        (now.runtime != next.runtime, "runtime.workers", "workers hold the sockets of their cores"),
        (now.admin.socket != next.admin.socket, "admin.socket", "it is open"),
        (now.admin.http != next.admin.http, "admin.http", "it is open"),
        (now.state != next.state, "state.dir", "it is locked, and generations are kept there"),
        (has_xdp(now) != has_xdp(next), "xdp", "programs and maps are loaded when the daemon begins"),
        (secret(now) != secret(next), "xdp.secret", "every flow would be found by another key"),
    ];
    let refused = |at: String, why: &str| {
        Err(Refusal::Unappliable {
            at,
            message: format!("cannot change while the daemon runs ({why}): {WAY_OUT}"),
        })
    };
    if let Some((_, at, why)) = fixed.iter().find(|(differs, ..)| *differs) {
        return refused((*at).to_owned(), why);
    }
    for (name, listener) in &now.listeners {
        let Some(next) = next.listeners.get(name) else { continue };
        let fixed = [
            (listener.steer != next.steer, "steer"),
            (listener.syn_cookies != next.syn_cookies, "syn_cookies"),
        ];
        if let Some((_, key)) = fixed.iter().find(|(differs, _)| *differs) {
            return refused(format!("listener.{name}.{key}"), "its sockets were given to lb_steer with it");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fixture;

    #[test]
    fn what_cannot_change_is_named() {
        let now = (*fixture::view().config).clone();
        check(&now, &now).unwrap();
        let mut next = now.clone();
        next.state.dir.push("elsewhere");
        let refused = |next: &Config| match check(&now, next) {
            Err(Refusal::Unappliable { at, message }) => (at, message),
            other => panic!("{other:?}"),
        };
        let (at, message) = refused(&next);
        assert_eq!(at, "state.dir");
        assert!(message.contains("restart"), "{message}");
        let mut next = now.clone();
        let Some(web) = next.listeners.get_mut("web") else { panic!("no listener") };
        web.steer = crate::config::Steer::Hash;
        assert_eq!(refused(&next).0, "listener.web.steer");
        next.listeners.remove("web");
        check(&now, &next).unwrap();
    }
}
