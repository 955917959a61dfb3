//! Files that a config refers to, by digest: a generation keeps that and never the content, which may be a secret.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    path::Path,
};

use aws_lc_rs::digest::{Context, SHA256};

use super::{plan::Plan, secret::open_beneath};
use crate::{
    config::{Config, Digest, Pool, PoolTls, Tls},
    generations::About,
};

/// Digests of the files that a config refers to, by their paths, as far as they can be read: what cannot is for whoever
/// needs its content to say.
pub(super) fn digests(plan: &Plan) -> BTreeMap<String, Digest> {
    let digest = |path: &Path| Some((path.display().to_string(), of_file(&plan.directory, path).ok()?));
    paths(&plan.config).filter_map(digest).collect()
}

/// What is to be said where a kept config runs again: its files are used as they are, and not as they were.
pub(super) fn changed(about: &About, plan: &Plan) -> Vec<String> {
    let now = digests(plan);
    let number = about.number;
    let differs = about.references.iter().filter(|(path, digest)| now.get(*path) != Some(digest));
    let say = |(path, before): (&String, &Digest)| match now.get(path) {
        Some(digest) => format!(
            "{path} is used as it is now (digest {digest}), which is not as it was in generation {number} ({before})"
        ),
        None => format!("{path} cannot be read, which generation {number} refers to"),
    };
    differs.map(say).collect()
}

fn paths(config: &Config) -> impl Iterator<Item = &Path> {
    let xdp =
        config.xdp.iter().flat_map(|xdp| xdp.secret.iter().chain(&xdp.deny.files).chain(&xdp.allow.files));
    let pools = config.pools.values().filter_map(|pool| pool.choosing.sticky.as_ref()?.secret.as_ref());
    let vips = config.vips.values().filter_map(|vip| vip.quic.as_ref()).flat_map(|quic| quic.keys.values());
    let trusted = config.pools.values().filter_map(Pool::check_ca);
    let certificates = config.tls.values().flat_map(Tls::files);
    let upstreams = config.pools.values().filter_map(|pool| pool.tls.as_ref()).flat_map(PoolTls::files);
    let of_tls = certificates.chain(upstreams).map(|(_, path)| path);
    xdp.chain(pools).chain(vips).map(|path| &**path).chain(trusted).chain(of_tls)
}

/// The first half of SHA-256: of a secret nobody finds the content by it.
fn of_file(directory: &Path, path: &Path) -> io::Result<Digest> {
    let (mut file, mut hash, mut piece) =
        (open_beneath(directory, path)?, Context::new(&SHA256), [0; 8 << 10]);
    loop {
        match file.read(&mut piece)? {
            0 => break,
            len => hash.update(&piece[..len]),
        }
    }
    let hash = hash.finish();
    Ok(Digest(hash.as_ref().iter().take(16).fold(0, |digest, byte| digest << 8 | u128::from(*byte))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        admin::fixture::TemporaryDirectory,
        generations::{self, Origin},
        model::Generation,
    };

    const CONFIG: &str = r#"
version = 1
[xdp]
interfaces = ["eth0"]
secret = "file:hash.key"
deny = ["file:denied"]
[tls.a]
certificate = "a.pem"
key = "a.key"
client_auth = { ca = "file:ca.pem", mode = "optional", crl = ["file:crl.pem"] }
tickets = "file:tickets"
[pool.p]
backends = ["10.0.0.1:443"]
tls = { ca = "file:inner.pem" }
"#;

    #[test]
    fn what_has_changed_since_is_said() {
        let directory = TemporaryDirectory::new("references");
        fs::create_dir_all(&*directory).unwrap();
        fs::write(directory.join("lb.toml"), CONFIG).unwrap();
        fs::write(directory.join("hash.key"), "abc").unwrap();
        fs::write(directory.join("denied"), "192.0.2.0/24\n").unwrap();
        let of_tls = ["a.key", "a.pem", "ca.pem", "crl.pem", "inner.pem", "tickets"];
        of_tls.iter().for_each(|file| fs::write(directory.join(file), file).unwrap());
        let plan = Plan::of_file(&directory.join("lb.toml")).unwrap();
        let references = digests(&plan);
        // FIPS 180-4, its example of "abc".
        assert_eq!(references["hash.key"].to_string(), "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(references.len(), 8);
        assert!(of_tls.iter().all(|file| references.contains_key(*file)), "{references:?}");
        let about = About {
            number: Generation(3),
            when_ns: 0,
            author: generations::Author { by: "api".to_owned(), uid: None, pid: None },
            origin: Origin::Api,
            file: None,
            directory: plan.directory.clone(),
            etag: String::new(),
            changed: Vec::new(),
            references,
        };
        assert!(changed(&about, &plan).is_empty());
        fs::write(directory.join("hash.key"), "abd").unwrap();
        fs::remove_file(directory.join("denied")).unwrap();
        let said = changed(&about, &plan);
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!(said[0], "denied cannot be read, which generation 3 refers to");
        assert!(said[1].starts_with("hash.key is used as it is now (digest "), "{said:?}");
    }
}
