//! `LENGTHS`: which prefix lengths the lists have (see [`lb_abi::lengths`]).

use aya::maps::{Array, MapData};
use lb_abi::{
    lengths::{Lengths, index},
    names::MAP_LENGTHS,
};

use super::{
    super::error::{Error, Result},
    grace,
};

/// The map. Every list has two copies in it, of which packets read the one that `META` names.
pub struct PrefixLengths(pub(super) Array<MapData, Lengths>);

impl PrefixLengths {
    /// Writes the lengths of a list, where they are not those that packets read, into the copy that none reads. Gives
    /// back the copy that holds them.
    pub(in super::super) fn put(&mut self, list: usize, copy: u8, wanted: &Lengths) -> Result<u8> {
        let failed = Error::map(MAP_LENGTHS);
        match self.0.get(&index(list, copy), 0) {
            Ok(held) if held == *wanted => return Ok(copy),
            Ok(_) => {}
            Err(error) => return Err(failed(error)),
        }
        // A program may have begun before the last change and still read it.
        grace::wait();
        let other = copy ^ 1;
        self.0.set(index(list, other), wanted, 0).map_err(failed)?;
        Ok(other)
    }
}
