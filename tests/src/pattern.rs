//! Bytes that are a function of their place, so that a stream can be checked without keeping it.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::Path,
};

/// What large transfers in tests carry: 64 MiB.
pub const LARGE: u64 = 64 << 20;

const CHUNK: usize = 64 << 10;

/// Writes `length` bytes of the pattern, from its start.
///
/// # Errors
/// The writer's.
pub fn write(out: &mut impl Write, length: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    while offset < length {
        let size = (length - offset).min(CHUNK as u64) as usize;
        fill(offset, &mut chunk[..size]);
        out.write_all(&chunk[..size])?;
        offset += size as u64;
    }
    Ok(())
}

/// Reads to the end and compares with the pattern; gives the length.
///
/// # Errors
/// The reader's; or `InvalidData`, naming the place of the first chunk that differs.
pub fn check(input: &mut impl Read) -> io::Result<u64> {
    let (mut chunk, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut offset = 0;
    loop {
        let size = match input.read(&mut chunk) {
            Ok(0) => return Ok(offset),
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        fill(offset, &mut expected[..size]);
        if chunk[..size] != expected[..size] {
            let place = chunk.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(0) as u64 + offset;
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("byte {place} differs")));
        }
        offset += size as u64;
    }
}

/// Makes a file of the pattern.
///
/// # Errors
/// The file system's.
pub fn write_file(path: &Path, length: u64) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    write(&mut file, length)?;
    file.flush()
}

/// Compares a file with the pattern; gives its length.
///
/// # Errors
/// As [`check`].
pub fn check_file(path: &Path) -> io::Result<u64> {
    check(&mut File::open(path)?)
}

fn fill(offset: u64, bytes: &mut [u8]) {
    let mut position = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = word(position / 8).to_le_bytes();
        let from = (position % 8) as usize;
        let size = rest.len().min(8 - from);
        let (head, tail) = rest.split_at_mut(size);
        head.copy_from_slice(&word[from..from + size]);
        position += size as u64;
        rest = tail;
    }
}

/// SplitMix64's output function: neighbouring words share nothing, so that a shift or swap is seen.
fn word(index: u64) -> u64 {
    let mut z = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in pieces of odd sizes.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = (self.1 % 13 + 1).min(buffer.len()).min(self.0.len());
            self.1 += 5;
            buffer[..size].copy_from_slice(&self.0[..size]);
            self.0 = &self.0[size..];
            Ok(size)
        }
    }

    #[test]
    fn is_the_same_however_it_is_cut() {
        let mut bytes = Vec::new();
        write(&mut bytes, 100_003).unwrap();
        assert_eq!(check(&mut Pieces(&bytes, 0)).unwrap(), 100_003);
    }

    #[test]
    fn a_changed_lost_or_doubled_byte_is_seen() {
        let mut bytes = Vec::new();
        write(&mut bytes, 70_000).unwrap();
        let mut changed = bytes.clone();
        changed[66_001] ^= 1;
        assert!(check(&mut changed.as_slice()).unwrap_err().to_string().contains("66001"));
        let mut lost = bytes.clone();
        lost.remove(40_000);
        assert!(check(&mut lost.as_slice()).is_err());
        let mut doubled = bytes;
        doubled.insert(8, doubled[8]);
        assert!(check(&mut doubled.as_slice()).is_err());
    }
}
