//! Targets without a fuzzer.

use std::{fs, path::PathBuf, thread};

use crate::{
    bytes::{Random, show},
    target::Target,
};

/// Runs the seeds of a target, what is kept for it, and `crossings` of these; says how many inputs that were.
///
/// # Panics
/// A property does not hold, or a kept input cannot be read.
pub fn replay(target: &Target, crossings: usize) -> usize {
    let mut inputs = (target.seeds)();
    inputs.extend(kept(target));
    inputs.push(Vec::new());
    inputs.iter().for_each(|input| run(target, input));
    let words = (target.words)();
    let mut random = Random(1);
    for _ in 0..crossings {
        run(target, &crossing(&inputs, &words, &mut random));
    }
    inputs.len() + crossings
}

/// Says which input it was where a property does not hold.
fn run(target: &Target, input: &[u8]) {
    struct Shown<'i>(&'i [u8]);
    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            if thread::panicking() {
                eprintln!("by b\"{}\"", show(self.0));
            }
        }
    }
    let _shown = Shown(input);
    (target.run)(input);
}

/// Inputs kept for a target.
fn kept(target: &Target) -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry of the corpus").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a kept input can be read")).collect()
}

/// An input with some of its bytes changed, cut out or taken from elsewhere.
fn crossing(inputs: &[Vec<u8>], words: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = inputs[random.below(inputs.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let len = random.below(9).min(input.len() - at);
        match random.below(6) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..at + len)),
            2 if !words.is_empty() => {
                let word = words[random.below(words.len())].iter().copied();
                drop(input.splice(at..at, word));
            }
            3 => {
                let other = &inputs[random.below(inputs.len())];
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input[at..at + len].iter_mut().for_each(|byte| *byte = random.below(256) as u8),
        }
    }
    input
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::target;

    fn check(name: &str, crossings: usize) {
        let target = target::ALL.iter().find(|target| target.name == name).expect("a target");
        assert!(replay(target, crossings) > crossings + 1, "{name} has no seeds");
    }

    macro_rules! replays {
        ($($name:ident: $crossings:literal,)+) => {
            $(#[test] fn $name() { check(stringify!($name), $crossings); })+

            /// Each target is replayed, and lies in a file of its name, which is what `cargo xtask fuzz list` lists.
            #[test]
            fn every_target_is_replayed() {
                let known: BTreeSet<String> =
                    target::ALL.iter().map(|target| target.name.to_owned()).collect();
                let replayed = BTreeSet::from([$(stringify!($name).to_owned()),+]);
                assert_eq!(known, replayed);
                let sources = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/target");
                let files = fs::read_dir(sources).unwrap().map(|entry| {
                    entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()
                });
                assert_eq!(known, files.filter(|name| name != "mod").collect());
            }
        };
    }

    replays! {
        admin: 3000,
        body: 10_000,
        client_hello: 10_000,
        config: 1000,
        dns: 5000,
        http2_backend: 3000,
        http2_client: 3000,
        packet: 3000,
        probe: 2000,
        proxy: 10_000,
        request: 5000,
        response: 5000,
        stream: 5000,
        tls: 600,
        why: 10_000,
    }
}
