//! A table as bytes, for the state directory: a restart starts from the same predecessor.

use super::{Member, Table};
use crate::model::BackendId;

/// First bytes of the format, with its version.
const MAGIC: &[u8; 8] = b"lbtable1";
const MEMBER_BYTES: usize = 12;
const HEADER_BYTES: usize = 8 + 16 + 4 + 4;
const DIGEST_BYTES: usize = 8;

/// Why bytes are not a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineageError {
    /// Not written by [`Table::to_bytes`] of this version.
    #[error("not a table file of this version")]
    Magic,
    /// Cut short, or longer than it says.
    #[error("table file has {is} bytes where {expected} were expected")]
    Length {
        /// Bytes given.
        is: usize,
        /// Bytes that its own header asks for.
        expected: usize,
    },
    /// Its content does not agree with its digest.
    #[error("table file is damaged: its digest does not match")]
    Digest,
}

impl Table {
    /// Magic, key, counts, members (id, identity, weight), owners as places among the members, digest; all
    /// little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            Vec::with_capacity(HEADER_BYTES + self.members.len() * MEMBER_BYTES + self.owners.len() * 2 + 8);
        bytes.extend_from_slice(MAGIC);
        self.key.iter().for_each(|half| bytes.extend_from_slice(&half.to_le_bytes()));
        bytes.extend_from_slice(&(self.members.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.owners.len() as u32).to_le_bytes());
        for member in &self.members {
            bytes.extend_from_slice(&member.id.0.to_le_bytes());
            bytes.extend_from_slice(&member.identity.to_le_bytes());
            bytes.extend_from_slice(&member.weight.to_le_bytes());
        }
        self.owners.iter().for_each(|owner| bytes.extend_from_slice(&owner.to_le_bytes()));
        bytes.extend_from_slice(&self.digest().to_le_bytes());
        bytes
    }

    /// The inverse of [`Table::to_bytes`].
    ///
    /// # Errors
    /// When the bytes are of another format, cut, or changed since.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LineageError> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(LineageError::Magic)?;
        if &header[..8] != MAGIC {
            return Err(LineageError::Magic);
        }
        let key = [u64_at(header, 8), u64_at(header, 16)];
        let members_len = u32_at(header, 24) as usize;
        let owners_len = u32_at(header, 28) as usize;
        let expected = members_len * MEMBER_BYTES + owners_len * 2 + DIGEST_BYTES;
        if rest.len() != expected {
            return Err(LineageError::Length { is: bytes.len(), expected: expected + HEADER_BYTES });
        }
        let (members, rest) = rest.split_at(members_len * MEMBER_BYTES);
        let (owners, digest) = rest.split_at(owners_len * 2);
        let members = members
            .chunks_exact(MEMBER_BYTES)
            .map(|chunk| Member {
                id: BackendId(u16_at(chunk, 0)),
                identity: u64_at(chunk, 2),
                weight: u16_at(chunk, 10),
            })
            .collect();
        let owners = owners.chunks_exact(2).map(|chunk| u16_at(chunk, 0)).collect();
        let table = Self { key, members, owners };
        if table.digest() == u64_at(digest, 0) { Ok(table) } else { Err(LineageError::Digest) }
    }
}

/// Callers pass slices whose length they have checked.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
