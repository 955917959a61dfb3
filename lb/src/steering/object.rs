//! The object of the packet programs, as it was embedded, and the version it carries.

use lb_abi::ABI_VERSION;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::error::{Error, Result};

/// Global of the object, a `u32`: [`ABI_VERSION`] of the tree it was built from.
pub(super) const ABI_SYMBOL: &str = "LB_ABI_VERSION";

#[cfg(lb_object)]
static EMBEDDED: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("LB_EBPF_OBJECT_COPY")));
#[cfg(not(lb_object))]
static EMBEDDED: Option<&[u8]> = None;

/// The embedded object.
///
/// # Errors
/// [`Error::NoObject`] in a daemon built without it.
pub fn embedded() -> Result<&'static [u8]> {
    EMBEDDED.ok_or(Error::NoObject)
}

/// Refuses an object of another contract, before anything of it is loaded.
///
/// # Errors
/// Names both versions; or says why the object cannot be read.
pub(super) fn check_abi(bytes: &[u8]) -> Result<()> {
    let object = abi_version(bytes)?;
    if object == ABI_VERSION { Ok(()) } else { Err(Error::ObjectAbi { object, ours: ABI_VERSION }) }
}

/// The version that an object carries.
fn abi_version(bytes: &[u8]) -> Result<u32> {
    let unreadable = |error: object::Error| Error::Object(error.to_string());
    let file = object::File::parse(bytes).map_err(unreadable)?;
    let missing = || Error::Object(format!("it has no global {ABI_SYMBOL}"));
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(ABI_SYMBOL)).ok_or_else(missing)?;
    let section = file.section_by_index(symbol.section_index().ok_or_else(missing)?).map_err(unreadable)?;
    let data = section.data().map_err(unreadable)?;
    let at = usize::try_from(symbol.address().saturating_sub(section.address())).unwrap_or(usize::MAX);
    let word = data.get(at..).and_then(|data| data.first_chunk::<4>()).ok_or_else(missing)?;
    Ok(if file.is_little_endian() { u32::from_le_bytes(*word) } else { u32::from_be_bytes(*word) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_refused() {
        assert!(matches!(check_abi(b"not an object"), Err(Error::Object(_))));
    }

    /// Needs the object; the loader's tests say so when it is not there.
    #[test]
    fn the_embedded_object_is_ours_and_a_stranger_is_refused() {
        let Ok(bytes) = embedded() else { return };
        check_abi(bytes).unwrap();
        let file = object::File::parse(bytes).unwrap();
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(ABI_SYMBOL)).unwrap();
        let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
        let at = section.file_range().unwrap().0 + symbol.address() - section.address();
        let mut stranger = bytes.to_vec();
        stranger[at as usize] ^= 0x40;
        let error = check_abi(&stranger).unwrap_err();
        assert!(
            matches!(error, Error::ObjectAbi { object, ours: ABI_VERSION } if object == ABI_VERSION ^ 0x40)
        );
    }
}
