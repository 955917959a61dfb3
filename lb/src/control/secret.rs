//! The secret that keys the hashes: whoever knows it can aim flows at one backend.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use anyhow::Context as _;
use lb_abi::hash::sip13;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, open, openat2},
    rand::{GetRandomFlags, getrandom},
};

use super::plan::Plan;
use crate::{
    config::{Balance, PoolSecret, PoolSnapshot, Snapshot},
    steering::derive_key,
};

/// Bytes of a secret.
const LEN: usize = 32;
/// Name of the generated one in the state directory.
const FILE: &str = "secret";

/// Prints redacted, and is wiped when dropped.
pub(super) struct Secret([u8; LEN]);

impl Secret {
    /// The one in the state directory, made on the first start.
    ///
    /// # Errors
    /// The directory or file cannot be made or read, or does not hold a secret. Errors never quote the content.
    pub(super) fn load_or_make(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        if !path.try_exists()? {
            make(state_dir, &path)?;
        }
        Self::read(fs::File::open(path)?)
    }

    /// The one that `xdp.secret` names, else that in the state directory.
    ///
    /// # Errors
    /// As of [`Self::load`] and [`Self::load_or_make`].
    pub(super) fn of(plan: &Plan) -> anyhow::Result<Self> {
        let (config, state_dir) = (&plan.config, &plan.config.state.dir);
        match config.xdp.as_ref().and_then(|xdp| xdp.secret.as_deref()) {
            Some(path) => {
                Self::load(&plan.directory, path).with_context(|| format!("xdp.secret {}", path.display()))
            }
            None => {
                Self::load_or_make(state_dir).with_context(|| format!("secret in {}", state_dir.display()))
            }
        }
    }

    /// The one in a file beneath the config's directory: 32 bytes as they are, or 64 hexadecimal digits and at
    /// most one line end. No link leads out of the directory.
    ///
    /// # Errors
    /// The file cannot be opened or read, or holds something else. Errors never quote the content.
    pub(super) fn load(directory: &Path, path: &Path) -> io::Result<Self> {
        Self::read(open_beneath(directory, path)?)
    }

    fn read(file: fs::File) -> io::Result<Self> {
        let secret = read_bytes(file)?.map(Secret);
        secret.ok_or_else(|| io::Error::other("a secret is 32 bytes, or 64 hexadecimal digits"))
    }

    /// The key that all others are derived from.
    pub(super) fn key(&self) -> [u64; 2] {
        let mut words = [0; LEN / 8];
        for (word, bytes) in words.iter_mut().zip(self.0.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        let [a, b, c, d] = words;
        [sip13([a, b], [c, d, 0]), sip13([a, b], [c, d, 1])]
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Gives pools of listeners the keys of what they hash. Without such a pool nothing is read or made.
///
/// # Errors
/// As of [`Secret::of`].
pub(super) fn give_keys(snapshot: &mut Snapshot, plan: &Plan) -> anyhow::Result<()> {
    let wants = |pool: &PoolSnapshot| pool.balance == Balance::Maglev || pool.choosing.sticky.is_some();
    if plan.config.listeners.is_empty() || !snapshot.pools.iter().any(wants) {
        return Ok(());
    }
    let secret = Secret::of(plan)?;
    for pool in &mut snapshot.pools {
        pool.secret = PoolSecret(derive_key(secret.key(), "pool", &pool.name));
        let own = pool.choosing.sticky.as_ref().and_then(|sticky| sticky.secret.as_deref());
        let own = own.map(|path| {
            Secret::load(&plan.directory, path)
                .with_context(|| format!("pool.{}.sticky.secret {}", pool.name, path.display()))
        });
        let signs = own.transpose()?.map_or(secret.key(), |own| own.key());
        pool.sticky_secret = PoolSecret(derive_key(signs, "sticky", &pool.name));
    }
    Ok(())
}

fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // Keeps the stores from being dropped as dead.
    std::hint::black_box(bytes);
}

/// Written aside, synced and linked into place: a crash leaves no half secret, and of two that start at once one wins
/// and both read it.
fn make(state_dir: &Path, path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
    let mut bytes = [0; LEN];
    let mut filled = 0;
    while filled < LEN {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    let temporary = state_dir.join(format!(".{FILE}-{}", std::process::id()));
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(
        |mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        },
    );
    wipe(&mut bytes);
    let linked = written.and_then(|()| match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::File::open(state_dir)?.sync_all(),
    });
    fs::remove_file(&temporary)?;
    linked
}

/// Opens a file that no link leads out of the config's directory for. Whoever has no more than the way through that
/// directory may.
pub(super) fn open_beneath(directory: &Path, path: &Path) -> io::Result<fs::File> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let beneath = open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat2(&beneath, path, flags, Mode::empty(), ResolveFlags::BENEATH)?.into())
}

/// The `N` bytes that a file holds, as they are or as hexadecimal digits with at most one line end; `None` where it
/// holds something else.
pub(super) fn read_bytes<const N: usize>(file: fs::File) -> io::Result<Option<[u8; N]>> {
    let mut content = Vec::with_capacity(128);
    file.take(128).read_to_end(&mut content)?;
    let bytes = parse(&content);
    wipe(&mut content);
    Ok(bytes)
}

fn parse<const N: usize>(content: &[u8]) -> Option<[u8; N]> {
    if let Ok(bytes) = content.try_into() {
        return Some(bytes);
    }
    let digits = content.strip_suffix(b"\n").unwrap_or(content);
    let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::admin::fixture::TemporaryDirectory;

    fn directory(name: &str) -> TemporaryDirectory {
        TemporaryDirectory::new(&format!("secret-{name}"))
    }

    #[test]
    fn is_made_once_and_kept_to_ourselves() {
        let state = directory("made");
        let first = Secret::load_or_make(&state).unwrap();
        let again = Secret::load_or_make(&state).unwrap();
        assert_eq!(first.key(), again.key());
        assert_ne!(first.0, [0; LEN]);
        let mode = fs::metadata(state.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&*state).unwrap().count(), 1, "nothing is left beside it");
        let other = Secret::load_or_make(&directory("other")).unwrap();
        assert_ne!(first.key(), other.key());
        assert_eq!(format!("{first:?}"), "Secret(redacted)");
    }

    #[test]
    fn hexadecimal_and_raw_are_the_same_secret() {
        let raw: Vec<u8> = (0..32).collect();
        let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
        let parse = |content: &[u8]| parse(content).map(Secret);
        let key = parse(&raw).unwrap().key();
        for text in [hex.clone(), format!("{hex}\n"), format!("{}\r\n", hex.to_uppercase())] {
            assert_eq!(parse(text.as_bytes()).unwrap().key(), key);
        }
        for bad in [&hex[..63], &format!("{hex}0"), &format!("{hex}\n\n"), &hex.replace('0', "g"), ""] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_given_file_lies_beneath_the_config() {
        let directory = directory("given");
        fs::create_dir_all(directory.join("inside")).unwrap();
        fs::write(directory.join("inside/secret"), [3; LEN]).unwrap();
        std::os::unix::fs::symlink(directory.join("inside/secret"), directory.join("link")).unwrap();
        assert_eq!(Secret::load(&directory, Path::new("inside/secret")).unwrap().0, [3; LEN]);
        for out in ["link", "../given", "/etc/hostname", "nothing"] {
            assert!(Secret::load(&directory, Path::new(out)).is_err(), "{out}");
        }
    }

    #[test]
    fn every_byte_counts() {
        let base = Secret([7; LEN]).key();
        for at in 0..LEN {
            let mut bytes = [7; LEN];
            bytes[at] ^= 1;
            assert_ne!(Secret(bytes).key(), base, "byte {at}");
        }
    }
}
