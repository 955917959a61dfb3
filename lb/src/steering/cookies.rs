//! `lb_cookie`, which answers SYN floods for listeners: what it stands on, and where `lb_ingress` calls it.

use std::{fs, io};

use lb_abi::{
    meta::{FLAG_COOKIES, Meta},
    names,
};

use super::{Plane, error::Result, loader};

/// Whether this network namespace's kernel sends SYN cookies; only then XDP may.
const SWITCH: &str = "/proc/sys/net/ipv4/tcp_syncookies";

/// Why the kernel would refuse `lb_cookie` every cookie; `None`: it would not.
pub fn cookies_missing() -> Option<&'static str> {
    missing(fs::read_to_string(SWITCH))
}

fn missing(switch: io::Result<String>) -> Option<&'static str> {
    match switch {
        Ok(value) if value.trim() == "0" => {
            Some("net.ipv4.tcp_syncookies is 0 (sysctl -w net.ipv4.tcp_syncookies=1)")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some("this kernel has none (CONFIG_SYN_COOKIES)")
        }
        // The kernel is asked for each cookie anyway.
        Ok(_) | Err(_) => None,
    }
}

impl Plane {
    /// Lets XDP answer the SYN floods of groups that [take cookies](super::Group::takes_cookies).
    ///
    /// # Errors
    /// The verifier's log, or the map that refused.
    pub fn arm_cookies(&mut self) -> Result<()> {
        loader::place(&mut self.object, &mut self.maps.programs, names::PROGRAM_COOKIE, names::CALL_COOKIE)?;
        let flags = self.sync.meta.flags | FLAG_COOKIES;
        self.sync.put_meta(&mut self.maps, Meta { flags, ..self.sync.meta })
    }

    /// Leaves all SYNs to the kernel, whatever an earlier process did.
    ///
    /// # Errors
    /// The map that refused.
    pub fn disarm_cookies(&mut self) -> Result<()> {
        let flags = self.sync.meta.flags & !FLAG_COOKIES;
        self.sync.put_meta(&mut self.maps, Meta { flags, ..self.sync.meta })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_without_cookies_is_complained_of() {
        let of = |value: &str| missing(Ok(value.to_owned()));
        assert_eq!((of("1\n"), of("2\n")), (None, None));
        assert!(of("0\n").unwrap().contains("sysctl"));
        assert!(missing(Err(io::ErrorKind::NotFound.into())).unwrap().contains("CONFIG_SYN_COOKIES"));
        assert_eq!(missing(Err(io::ErrorKind::PermissionDenied.into())), None);
    }
}
