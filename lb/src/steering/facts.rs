//! Which cores take the packets of a listener's interfaces, as rtnetlink, sysfs and /proc/interrupts tell.
//!
//! Never asks /sys/class/net: it shows the interfaces of the namespace that mounted it (`nsenter --net` keeps the
//! mount). Buses and interrupts are the same in every network namespace.

use std::{fs, net::IpAddr, path::Path};

use super::{
    error::Result,
    netlink::{self, Link},
    reuseport::{Device, Facts, InterfaceFacts},
};

/// Gathers what [`super::reuseport::choose`] needs for a listener bound to `address`.
///
/// A wildcard is carried by every interface with an address save loopback; when only loopback has one, by that.
/// What cannot be read counts as software: hash is right everywhere.
///
/// # Errors
/// When the kernel does not list its addresses.
pub fn gather(address: IpAddr, worker_cores: &[usize]) -> Result<Facts> {
    let addresses = netlink::addresses()?;
    let carries = |link: &Link| {
        let mut here = addresses.iter().filter(|(at, _)| *at == link.index).map(|(_, address)| *address);
        if address.is_unspecified() {
            return here.any(|address| !address.is_loopback());
        }
        here.any(|here| here == address) || (link.name == "lo" && address.is_loopback())
    };
    let mut links = netlink::links()?;
    match links.iter().any(carries) {
        true => links.retain(carries),
        false => links.retain(|link| address.is_unspecified() && link.name == "lo"),
    }
    links.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let interrupts = fs::read_to_string("/proc/interrupts").unwrap_or_default();
    let facts = |link: Link| InterfaceFacts { device: device(&link, &interrupts), name: link.name };
    Ok(Facts { worker_cores: worker_cores.to_vec(), interfaces: links.into_iter().map(facts).collect() })
}

/// The same of interfaces by name; those that are not there are left out.
///
/// # Errors
/// When the kernel does not list its interfaces.
pub fn gather_interfaces(names: &[&str]) -> Result<Vec<InterfaceFacts>> {
    let interrupts = fs::read_to_string("/proc/interrupts").unwrap_or_default();
    let wanted = netlink::links()?.into_iter().filter(|link| names.contains(&&*link.name));
    Ok(wanted.map(|link| InterfaceFacts { device: device(&link, &interrupts), name: link.name }).collect())
}

fn device(link: &Link, interrupts: &str) -> Device {
    let Some((bus, name)) = &link.device else { return Device::Software };
    let device = Path::new("/sys/bus").join(bus).join("devices").join(name);
    // virtio's own device has no interrupts; the PCI function above it has.
    let numbers = [device.join("msi_irqs"), device.join("../msi_irqs")].into_iter().find_map(|dir| {
        let entries = fs::read_dir(dir).ok()?;
        Some(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    });
    let Some(numbers): Option<Vec<u32>> = numbers else { return Device::Software };
    let mut cores: Vec<usize> = numbers
        .into_iter()
        .filter(|number| is_receive(label_of(*number, interrupts)))
        .flat_map(|number| affinity(number).unwrap_or_default())
        .collect();
    cores.sort_unstable();
    cores.dedup();
    if cores.is_empty() { Device::Software } else { Device::Queues(cores) }
}

/// The one core that an interrupt really goes to, where the kernel says it, else those it may go to.
fn affinity(number: u32) -> Option<Vec<usize>> {
    let read = |file: &str| fs::read_to_string(format!("/proc/irq/{number}/{file}")).ok();
    let effective =
        read("effective_affinity_list").map(|list| cores_of(&list)).filter(|list| !list.is_empty());
    effective.or_else(|| read("smp_affinity_list").map(|list| cores_of(&list)))
}

/// `0-3,8` as 0, 1, 2, 3, 8.
fn cores_of(list: &str) -> Vec<usize> {
    let mut cores = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cores.extend(first..=last);
        }
    }
    cores
}

/// Last word of an interrupt's line: what the driver calls it.
fn label_of(number: u32, interrupts: &str) -> &str {
    let line = interrupts
        .lines()
        .find(|line| line.trim_start().split_once(':').is_some_and(|(first, _)| first.parse() == Ok(number)));
    line.and_then(|line| line.split_whitespace().last()).unwrap_or_default()
}

/// Whether a driver's interrupt brings received packets: `eth0-TxRx-3`, `virtio0-input.0`, `mlx5_comp3@pci:..`.
fn is_receive(label: &str) -> bool {
    let label = label.to_ascii_lowercase();
    !label.is_empty()
        && ["config", "output", "control", "async", "fdir", "mgmnt", "-tx-"]
            .iter()
            .all(|word| !label.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists() {
        assert_eq!(cores_of("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(cores_of("5"), [5]);
        assert!(cores_of("\n").is_empty());
        assert!(cores_of("x-2,,").is_empty());
    }

    #[test]
    fn labels_of_interrupts() {
        let interrupts = "           CPU0       CPU1\n  24:  0  0  PCI-MSIX-0000:00:02.0  0-edge  virtio0-config\n \
                          25:  9  0  PCI-MSIX-0000:00:02.0  1-edge  virtio0-input.0\nNMI: 0 0 Non-maskable\n";
        assert_eq!(label_of(25, interrupts), "virtio0-input.0");
        assert_eq!(label_of(2, interrupts), "");
        assert!(is_receive(label_of(25, interrupts)) && !is_receive(label_of(24, interrupts)));
        assert!(is_receive("eth0-TxRx-3") && is_receive("mlx5_comp3@pci:0000:01:00.0"));
        assert!(!is_receive("eth0-tx-1") && !is_receive("virtio0-output.0") && !is_receive(""));
    }

    #[test]
    fn loopback_is_software() {
        let facts = gather(IpAddr::from([127, 0, 0, 1]), &[0]).unwrap();
        assert_eq!(facts.interfaces, [InterfaceFacts { name: "lo".to_owned(), device: Device::Software }]);
        let other = gather(IpAddr::from([127, 0, 0, 77]), &[0]).unwrap();
        assert_eq!(other.interfaces.len(), 1);
    }

    /// A fresh namespace has the name `eth0` free; the sysfs mounted here shows this machine's own.
    #[test]
    fn a_namesake_in_another_namespace_is_not_asked() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "not root, and this is CI");
            return eprintln!("skipped: not root");
        }
        let here = netlink::links().unwrap();
        let taken =
            here.into_iter().find(|link| link.device.is_some()).map_or("eth0".into(), |link| link.name);
        let script = format!(
            "ip link add {taken} type veth peer name lb-peer && ip addr add 192.0.2.9/24 dev {taken} && sleep 5"
        );
        let mut child =
            std::process::Command::new("unshare").args(["--net", "sh", "-c", &script]).spawn().unwrap();
        let pid = child.id();
        let facts = std::thread::spawn(move || {
            let target = fs::read_link(format!("/proc/{}/ns/net", std::process::id())).unwrap();
            let path = format!("/proc/{pid}/ns/net");
            while fs::read_link(&path).is_ok_and(|there| there == target) {
                std::thread::yield_now();
            }
            let namespace = fs::File::open(path).unwrap();
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .unwrap();
            loop {
                let facts = gather(IpAddr::from([192, 0, 2, 9]), &[0]).unwrap();
                if !facts.interfaces.is_empty() {
                    return facts;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        })
        .join();
        _ = child.kill();
        _ = child.wait();
        assert_eq!(facts.unwrap().interfaces, [InterfaceFacts { name: taken, device: Device::Software }]);
    }
}
