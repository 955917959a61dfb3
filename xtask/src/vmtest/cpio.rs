//! An initramfs: files in memory, written as the kernel reads them.
//!
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst (format "newc"), Linux 6.12.

use std::collections::BTreeMap;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

/// Entries by absolute path, without the leading slash. Directories on the way are made along.
#[derive(Clone, Debug, Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Archive {
    /// Adds a directory.
    pub(crate) fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            self.entries.entry(path[..at].to_owned()).or_insert((DIRECTORY, Vec::new()));
        }
    }

    /// Adds a file with these permissions; the last of a name counts.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: Vec<u8>) {
        self.put(path, FILE | permissions, content);
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.put(path, LINK, target.as_bytes().to_vec());
    }

    fn put(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        let path = path.trim_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
        self.entries.insert(path.to_owned(), (mode, content));
    }

    /// The archive as bytes. A parent sorts before what lies in it, as the kernel wants it.
    pub(crate) fn finish(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, (mode, content))) in self.entries.iter().enumerate() {
            header(&mut out, number as u32 + 1, *mode, path, content);
        }
        header(&mut out, 0, 0, "TRAILER!!!", &[]);
        out
    }
}

/// One entry: inode, mode, uid, gid, links, time, size, device and special device by two numbers each, length of
/// the name with its zero, no checksum; then name and content, each filled up to four bytes.
fn header(out: &mut Vec<u8>, inode: u32, mode: u32, name: &str, content: &[u8]) {
    let fields = [inode, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    out.extend_from_slice(b"070701");
    fields.iter().for_each(|field| out.extend_from_slice(format!("{field:08x}").as_bytes()));
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    fill(out);
    out.extend_from_slice(content);
    fill(out);
}

fn fill(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_every_entry_is_aligned() {
        let mut archive = Archive::default();
        archive.file("/usr/bin/a", 0o755, b"hello".to_vec());
        archive.link("/bin", "usr/bin");
        archive.directory("/tmp/x");
        let bytes = archive.finish();
        let mut at = 0;
        let mut seen = Vec::new();
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701", "an entry at {at}");
            let field = |index: usize| {
                let digits = &bytes[at + 6 + 8 * index..at + 14 + 8 * index];
                usize::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (mode, size, name_len) = (field(1), field(6), field(11));
            let name = &bytes[at + 110..at + 110 + name_len - 1];
            let content = (at + 110 + name_len).next_multiple_of(4);
            seen.push((
                String::from_utf8(name.to_vec()).unwrap(),
                mode,
                bytes[content..content + size].to_vec(),
            ));
            at = (content + size).next_multiple_of(4);
            if seen.last().unwrap().0 == "TRAILER!!!" {
                break;
            }
        }
        assert_eq!(at, bytes.len());
        let entry = |name: &str, mode, content: &str| (name.to_owned(), mode, content.as_bytes().to_vec());
        assert_eq!(
            seen,
            [
                entry("bin", 0o120_777, "usr/bin"),
                entry("tmp", 0o40_755, ""),
                entry("tmp/x", 0o40_755, ""),
                entry("usr", 0o40_755, ""),
                entry("usr/bin", 0o40_755, ""),
                entry("usr/bin/a", 0o100_755, "hello"),
                entry("TRAILER!!!", 0, ""),
            ]
        );
    }
}
