//! The fields that a connection remembers. Source: RFC 7541, 2.3.2 and 4.

use std::collections::VecDeque;

use crate::field::{Flaw, Known};

/// What each field costs beside its bytes (RFC 7541, 4.1).
pub(super) const OVERHEAD: usize = 32;

/// A table: bytes of all fields behind one another, the oldest first. Nothing is allocated for an empty one.
#[derive(Debug, Default)]
pub(super) struct Table {
    bytes: Vec<u8>,
    /// The newest first.
    entries: VecDeque<Entry>,
    /// As RFC 7541, 4.1 counts.
    size: usize,
    size_max: usize,
}

/// A field, and what was found out about it when it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    start: u32,
    name_len: u32,
    value_len: u32,
    /// Whatever finds it again.
    pub(super) hash: u32,
    pub(super) known: Known,
    pub(super) flaw: Option<Flaw>,
}

impl Entry {
    pub(super) const fn name_len(&self) -> usize {
        self.name_len as usize
    }

    /// As RFC 7541, 4.1 counts.
    pub(super) const fn size(&self) -> usize {
        self.name_len as usize + self.value_len as usize + OVERHEAD
    }
}

/// A field to remember.
#[derive(Clone, Copy, Debug)]
pub(super) struct New<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) hash: u32,
    pub(super) known: Known,
    pub(super) flaw: Option<Flaw>,
}

impl Table {
    pub(super) fn new(size_max: usize) -> Self {
        Self { size_max, ..Self::default() }
    }

    pub(super) const fn size_max(&self) -> usize {
        self.size_max
    }

    /// Forgets what does not fit any more.
    pub(super) fn resize(&mut self, size_max: usize) {
        self.size_max = size_max;
        self.evict(size_max);
    }

    fn evict(&mut self, size_max: usize) {
        while self.size > size_max {
            let Some(oldest) = self.entries.pop_back() else { break };
            self.size -= oldest.size();
        }
        if self.entries.is_empty() {
            self.bytes.clear();
        }
    }

    /// Remembers a field; one that is larger than the table empties it (RFC 7541, 4.4).
    pub(super) fn insert(&mut self, new: &New<'_>) {
        let size = new.name.len() + new.value.len() + OVERHEAD;
        let Some(room) = self.size_max.checked_sub(size) else { return self.evict(0) };
        self.evict(room);
        let len = new.name.len() + new.value.len();
        if self.bytes.capacity() - self.bytes.len() < len {
            self.close_up();
        }
        self.entries.push_front(Entry {
            start: self.bytes.len() as u32,
            name_len: new.name.len() as u32,
            value_len: new.value.len() as u32,
            hash: new.hash,
            known: new.known,
            flaw: new.flaw,
        });
        self.bytes.extend_from_slice(new.name);
        self.bytes.extend_from_slice(new.value);
        self.size += size;
    }

    /// Throws away the bytes of what is forgotten, where they are half of all: so each byte is moved once at most on the
    /// average.
    fn close_up(&mut self) {
        let start = self.entries.back().map_or(self.bytes.len(), |oldest| oldest.start as usize);
        if start * 2 < self.bytes.len() {
            return;
        }
        self.bytes.drain(..start);
        self.entries.iter_mut().for_each(|entry| entry.start -= start as u32);
    }

    /// The field with an index from 0, which is the newest's.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<(&Entry, &[u8], &[u8])> {
        let entry = self.entries.get(index)?;
        let start = entry.start as usize;
        let name_end = start + entry.name_len as usize;
        let name = self.bytes.get(start..name_end)?;
        let value = self.bytes.get(name_end..name_end + entry.value_len as usize)?;
        Some((entry, name, value))
    }

    /// The same, with the value behind the name.
    #[inline]
    pub(super) fn get_joined(&self, index: usize) -> Option<(&Entry, &[u8])> {
        let entry = self.entries.get(index)?;
        let start = entry.start as usize;
        let end = start + entry.name_len as usize + entry.value_len as usize;
        Some((entry, self.bytes.get(start..end)?))
    }

    /// The index of a field.
    #[inline]
    pub(super) fn find(&self, hash: u32, name: &[u8], value: &[u8]) -> Option<usize> {
        self.entries.iter().enumerate().filter(|(_, entry)| entry.hash == hash).map(|(at, _)| at).find(|&at| {
            matches!(self.get(at), Some((_, its_name, its_value)) if its_name == name && its_value == value)
        })
    }

    /// Gives back the memory that it has no use for.
    pub(super) fn trim(&mut self) {
        let start = self.entries.back().map_or(self.bytes.len(), |oldest| oldest.start as usize);
        self.bytes.drain(..start);
        self.entries.iter_mut().for_each(|entry| entry.start -= start as u32);
        self.bytes.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(table: &mut Table, name: &str, value: &str) {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        table.insert(&New { name, value, hash: 0, known: Known::Other, flaw: None });
    }

    fn text(table: &Table) -> String {
        let fields =
            (0..).map_while(|at| table.get(at)).map(|(_, name, value)| [name, b"=", value, b" "].concat());
        String::from_utf8(fields.collect::<Vec<_>>().concat()).unwrap()
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut table = Table::new(3 * 34);
        assert_eq!(table.heap_bytes(), 0);
        for at in 0..100 {
            insert(&mut table, "n", &(at % 10).to_string());
        }
        assert_eq!(text(&table), "n=9 n=8 n=7 ");
        assert!(table.bytes.capacity() <= 16, "{}", table.bytes.capacity());
        table.resize(70);
        assert_eq!(text(&table), "n=9 n=8 ");
        assert_eq!(table.find(0, b"n", b"8"), Some(1));
        assert_eq!(table.find(0, b"n", b"7"), None);
        table.trim();
        assert_eq!(table.bytes.capacity(), 4);
        insert(&mut table, "n", &"x".repeat(70 - 33));
        assert!(text(&table).starts_with("n=xxx") && table.entries.len() == 1);
        insert(&mut table, "n", &"x".repeat(70 - 32));
        assert_eq!((text(&table).as_str(), table.size), ("", 0));
    }
}
