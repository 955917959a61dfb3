//! SYN floods for listeners: whether XDP answers them, and what the kernel made of the cookies that came back.

use std::fs;

use crate::{
    admin::Cookies,
    config::{Config, SynCookies},
    steering::{self, Plane},
};

/// What is lost where XDP may not answer.
const LOST: &str = "every SYN of a flood takes the way through the stack";

/// Counters of this network namespace.
const COUNTERS: &str = "/proc/thread-self/net/netstat";

/// Lets XDP answer floods, where a listener and an interface of `[xdp]` are there for it. Whether it may now, and what
/// is lost if it was wanted and cannot be had.
pub(super) fn arm(plane: &mut Plane, config: &Config) -> (bool, Option<String>) {
    let is_wanted = config.xdp.is_some()
        && config.listeners.values().any(|listener| listener.syn_cookies == SynCookies::Auto);
    let why = match (is_wanted, steering::cookies_missing()) {
        (false, _) => None,
        (true, Some(missing)) => Some(missing.to_owned()),
        (true, None) => match plane.arm_cookies() {
            Ok(()) => return (true, None),
            Err(error) => Some(error.to_string()),
        },
    };
    let why = plane.disarm_cookies().err().map(|error| error.to_string()).or(why);
    (false, why.map(|why| format!("XDP sends no SYN cookies: {why}: {LOST}")))
}

/// Cookies that came back; `None` where the kernel does not say.
pub(super) fn read() -> Option<Cookies> {
    let text = fs::read_to_string(COUNTERS).ok()?;
    Some(Cookies {
        accepted: counter(&text, "SyncookiesRecv")?,
        refused: counter(&text, "SyncookiesFailed")?,
    })
}

/// One of TcpExt: a line of names, then one of values.
fn counter(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?.split_whitespace(), lines.next()?.split_whitespace());
    names.zip(values).find(|(other, _)| *other == name)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_stand_below_their_names() {
        let netstat = "TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed\nTcpExt: 7 5 2\nIpExt: InNoRoutes\nIpExt: 9\n";
        assert_eq!(counter(netstat, "SyncookiesRecv"), Some(5));
        assert_eq!(counter(netstat, "SyncookiesFailed"), Some(2));
        assert_eq!(counter(netstat, "InNoRoutes"), None);
        assert_eq!(counter("", "SyncookiesRecv"), None);
        assert!(read().is_some(), "this kernel says it");
    }
}
