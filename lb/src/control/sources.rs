//! The deny and allow lists whole: what stands in the config and what stands in its files.
//!
//! A file has a prefix or an address on each line; empty lines and what follows a `#` are for people.

use std::{
    fmt,
    io::{self, Read as _},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use ipnet::IpNet;

use super::secret::open_beneath;
use crate::config::Sources;

/// Largest file, in bytes: as many IPv6 prefixes as there may be, each at its longest.
const BYTES_MAX: u64 = 64 << 20;
/// Lines that a message names.
const SHOWN_MAX: usize = 5;

/// Lines of a list that are neither prefix nor address. Their text is not told.
#[derive(Debug, PartialEq, Eq)]
struct BadLines {
    /// The first ones, from 1.
    first: Vec<usize>,
    /// All of them.
    count: usize,
}

impl fmt::Display for BadLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first: Vec<String> = self.first.iter().map(usize::to_string).collect();
        write!(
            f,
            "{} lines are neither a prefix, such as 203.0.113.0/24, with nothing set behind its length, nor an \
             address: line {}",
            self.count,
            first.join(", ")
        )?;
        if self.count > self.first.len() { f.write_str(" and more") } else { Ok(()) }
    }
}

impl std::error::Error for BadLines {}

/// Everything of a list. Files are opened beneath `directory`; no link leads out of it.
///
/// # Errors
/// The first file that cannot be read or has a line that means nothing.
pub(super) fn read(directory: &Path, sources: &Sources) -> anyhow::Result<Arc<[IpNet]>> {
    let mut nets = sources.nets.clone();
    for path in &sources.files {
        let text = text(directory, path).with_context(|| path.display().to_string())?;
        nets.extend(parse(&text).with_context(|| path.display().to_string())?);
    }
    Ok(nets.into())
}

fn text(directory: &Path, path: &Path) -> io::Result<String> {
    let mut text = String::new();
    if open_beneath(directory, path)?.take(BYTES_MAX + 1).read_to_string(&mut text)? as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("is larger than {} MiB", BYTES_MAX >> 20)));
    }
    Ok(text)
}

fn parse(text: &str) -> Result<Vec<IpNet>, BadLines> {
    let (mut nets, mut bad) = (Vec::new(), BadLines { first: Vec::new(), count: 0 });
    for (line, number) in text.lines().zip(1..) {
        let word = line.split('#').next().unwrap_or_default().trim();
        if word.is_empty() {
            continue;
        }
        match prefix(word) {
            Some(net) => nets.push(net),
            None => {
                bad.count += 1;
                if bad.first.len() < SHOWN_MAX {
                    bad.first.push(number);
                }
            }
        }
    }
    if bad.count == 0 { Ok(nets) } else { Err(bad) }
}

fn prefix(word: &str) -> Option<IpNet> {
    let net = word.parse::<IpNet>().or_else(|_| word.parse::<IpAddr>().map(IpNet::from)).ok()?;
    let is_mapped = matches!(net.addr(), IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    (net == net.trunc() && !is_mapped).then_some(net)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_line_is_a_prefix_an_address_or_for_people() {
        let text = "# a list\n203.0.113.0/24\n\n 198.51.100.7 # one\n2001:db8::/32\r\n2001:db8::1";
        let nets = ["203.0.113.0/24", "198.51.100.7/32", "2001:db8::/32", "2001:db8::1/128"];
        assert_eq!(parse(text), Ok(nets.map(|net| net.parse().unwrap()).to_vec()));
    }

    #[test]
    fn bad_lines_are_named_and_not_told() {
        let bad =
            parse("203.0.113.1/24\n192.0.2.1\nsecret\n::ffff:1.2.3.4\n1.2.3.4/33\nx\ny\nz").unwrap_err();
        assert_eq!(bad, BadLines { first: vec![1, 3, 4, 5, 6], count: 7 });
        let message = bad.to_string();
        assert!(message.ends_with("line 1, 3, 4, 5, 6 and more") && !message.contains("secret"), "{message}");
    }

    #[test]
    fn files_stand_beneath_the_config() {
        let directory = std::env::temp_dir().join(format!("lb-sources-{}", std::process::id()));
        fs::create_dir_all(directory.join("lists")).unwrap();
        fs::write(directory.join("lists/denied"), "192.0.2.0/25\n").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", directory.join("out")).unwrap();
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let sources = |file: &str| Sources { nets: vec![net("10.0.0.0/8")], files: vec![file.into()] };
        let read = |file: &str| read(&directory, &sources(file));
        assert_eq!(*read("lists/denied").unwrap(), [net("10.0.0.0/8"), net("192.0.2.0/25")]);
        let message = |file: &str| format!("{:#}", read(file).unwrap_err());
        assert!(message("lists/none").starts_with("lists/none: No such file"), "{}", message("lists/none"));
        assert!(read("out").is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}
