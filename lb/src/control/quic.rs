//! QUIC connection ids, from the config and its key files.

use std::{collections::BTreeMap, fs::File, io, path::Path, sync::Arc};

use anyhow::Context as _;

use super::secret;
use crate::{
    config::{Config, Quic, Snapshot, Vip},
    steering::{DesiredQuic, DesiredQuicVip, DesiredServer},
};

/// What the maps should say of connection ids.
///
/// # Errors
/// A key file cannot be opened or read, or does not hold a key.
pub(super) fn desired(config: &Config, snapshot: &Snapshot, directory: &Path) -> anyhow::Result<DesiredQuic> {
    let mut desired = DesiredQuic { servers: servers(config, snapshot), ..DesiredQuic::default() };
    for (name, vip) in &config.vips {
        let Some(quic) = &vip.quic else { continue };
        desired.vips.insert(name.clone(), of_vip(name, vip, quic, directory)?);
    }
    Ok(desired)
}

fn of_vip(name: &str, vip: &Vip, quic: &Quic, directory: &Path) -> anyhow::Result<DesiredQuicVip> {
    let mut keys = BTreeMap::new();
    for (config, path) in &quic.keys {
        let key = load_key(directory, path);
        let key = key.with_context(|| format!("vip.{name}.quic.keys.{config} {}", path.display()))?;
        keys.insert(*config, key);
    }
    Ok(DesiredQuicVip { keys, pools: vip.pools().cloned().collect() })
}

/// Server ids of every pool behind a VIP that reads them.
fn servers(config: &Config, snapshot: &Snapshot) -> BTreeMap<u16, DesiredServer> {
    let is_named = |pool: &Arc<str>| {
        config.vips.values().any(|vip| vip.quic.is_some() && vip.pools().any(|name| name == pool))
    };
    let mut servers = BTreeMap::new();
    for pool in snapshot.pools.iter().filter(|pool| is_named(&pool.name)) {
        let Some(configured) = config.pools.get(&pool.name) else { continue };
        for backend in &configured.backends {
            let name = backend.to_string();
            let id = pool.backends.iter().find(|known| *known.name == *name).map(|known| known.id);
            if let (Some(server), Some(backend)) = (backend.server_id, id) {
                servers.insert(server, DesiredServer { backend, pool: pool.name.clone() });
            }
        }
    }
    servers
}

fn load_key(directory: &Path, path: &Path) -> io::Result<[u64; 2]> {
    read_key(secret::open_beneath(directory, path)?)
}

/// A key of check bits: 16 bytes as they are, or 32 hexadecimal digits and at most one line end.
///
/// # Errors
/// It cannot be read, or holds something else, such as 16 digits, which would be half a key.
pub(super) fn read_key(file: File) -> io::Result<[u64; 2]> {
    let bytes: Option<[u8; 16]> = secret::read_bytes(file)?;
    let key = bytes.filter(|bytes| !bytes.iter().all(u8::is_ascii_hexdigit));
    let key = key.ok_or_else(|| io::Error::other("a key is 16 bytes, or 32 hexadecimal digits"))?;
    let (words, _) = key.as_chunks();
    Ok(std::array::from_fn(|at| words.get(at).map_or(0, |word| u64::from_le_bytes(*word))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::fixture::TemporaryDirectory,
        config::{BackendIds, parse},
        model::Generation,
    };

    const FILE: &str = r#"
        version = 1
        xdp.interfaces = ["lo"]
        [vip.web]
        address = ["192.0.2.1"]
        ports = ["443/udp", "443/tcp"]
        forward = "ipip"
        pool = "web"
        quic = { keys = { 0 = "file:old", 5 = "file:new" } }
        [vip.dns]
        address = ["192.0.2.2"]
        ports = ["53/udp"]
        forward = "ipip"
        pool = "dns"
        [pool.web]
        backends = [{ address = "10.0.0.1", server_id = 7 }, { address = "10.0.0.2", server_id = 4095 }]
        [pool.dns]
        backends = [{ address = "10.0.0.1", server_id = 8 }]
    "#;

    fn read(directory: &Path) -> anyhow::Result<DesiredQuic> {
        let config = parse("f", FILE).unwrap().config;
        let snapshot = Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap();
        desired(&config, &snapshot, directory)
    }

    #[test]
    fn names_servers_and_reads_keys() {
        let directory = TemporaryDirectory::new("quic-keys");
        std::fs::create_dir_all(&*directory).unwrap();
        std::fs::write(directory.join("old"), "000102030405060708090a0b0c0d0e0f\n").unwrap();
        std::fs::write(directory.join("new"), [0xff; 16]).unwrap();
        let desired = read(&directory).unwrap();
        let vip = &desired.vips["web"];
        assert_eq!(vip.keys[&0], [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        assert_eq!(vip.keys[&5], [u64::MAX; 2]);
        assert_eq!(vip.pools, [Arc::from("web")].into());
        assert_eq!(desired.vips.len(), 1);
        assert_eq!(desired.servers.keys().copied().collect::<Vec<_>>(), [7, 4095], "no ids lead to dns");
        assert_ne!(desired.servers[&7].backend, desired.servers[&4095].backend);
    }

    #[test]
    fn a_bad_key_is_named_and_not_quoted() {
        let directory = TemporaryDirectory::new("quic-bad-key");
        std::fs::create_dir_all(&*directory).unwrap();
        std::fs::write(directory.join("old"), [1; 16]).unwrap();
        for bad in ["not a key", "0001020304050607", ""] {
            std::fs::write(directory.join("new"), bad).unwrap();
            let error = format!("{:#}", read(&directory).unwrap_err());
            assert_eq!(error, "vip.web.quic.keys.5 new: a key is 16 bytes, or 32 hexadecimal digits");
        }
    }
}
