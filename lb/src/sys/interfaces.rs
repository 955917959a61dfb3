//! Addresses of network interfaces.
#![expect(unsafe_code, reason = "getifaddrs hands out a linked list of raw pointers")]

use std::{
    ffi::CStr,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
};

/// Addresses of the interface `name`, primary ones first, in the kernel's order.
///
/// # Errors
/// Those of getifaddrs(3). An interface that is not there has no addresses.
pub fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    of(|interface| interface == name.as_bytes())
}

/// Addresses of all interfaces.
///
/// # Errors
/// Those of getifaddrs(3).
pub fn all_addresses() -> io::Result<Vec<IpAddr>> {
    of(|_| true)
}

/// Addresses of the interfaces with these names.
fn of(is_wanted: impl Fn(&[u8]) -> bool) -> io::Result<Vec<IpAddr>> {
    let mut head = ptr::null_mut();
    // SAFETY: getifaddrs writes one pointer to `head`; on success it is a list that is ours to free.
    if unsafe { libc::getifaddrs(&mut head) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut at = head;
    // SAFETY: every node is valid until freeifaddrs below; the list ends with null.
    while let Some(node) = unsafe { at.as_ref() } {
        // SAFETY: ifa_name is a terminated string that lives as long as its node.
        if is_wanted(unsafe { CStr::from_ptr(node.ifa_name) }.to_bytes()) {
            // SAFETY: ifa_addr is null or a sockaddr as long as its family says, alive as long as its node.
            found.extend(unsafe { address(node.ifa_addr) });
        }
        at = node.ifa_next;
    }
    // SAFETY: `head` came from getifaddrs and nothing borrowed from the list is left.
    unsafe { libc::freeifaddrs(head) };
    Ok(found)
}

/// # Safety
/// `address` is null or points to a sockaddr as long as its family says.
unsafe fn address(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller promises a whole sockaddr of its family. Alignment is not relied upon.
    unsafe {
        match i32::from((&raw const (*address).sa_family).read_unaligned()) {
            libc::AF_INET => {
                let v4 = address.cast::<libc::sockaddr_in>().read_unaligned();
                Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                let v6 = address.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_address() {
        assert!(addresses("lo").unwrap().contains(&Ipv4Addr::LOCALHOST.into()));
        assert!(addresses("no-such-if").unwrap().is_empty());
        assert!(all_addresses().unwrap().contains(&Ipv4Addr::LOCALHOST.into()));
    }
}
