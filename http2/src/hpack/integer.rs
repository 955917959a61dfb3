//! Numbers with a prefix of some bits. Source: RFC 7541, 5.1.

use super::Error;

/// Bytes behind the prefix: numbers up to 2^28 and a little, more than any length or index that we take.
const MORE_BYTES_MAX: usize = 4;

/// Takes a number whose first byte has it in its last `bits`.
///
/// # Errors
/// [`Error::Short`], [`Error::Number`].
#[inline]
pub(super) fn take(rest: &mut &[u8], bits: u8) -> Result<usize, Error> {
    let (&first, more) = rest.split_first().ok_or(Error::Short)?;
    let most = (1_usize << bits) - 1;
    let start = usize::from(first) & most;
    *rest = more;
    if start < most { Ok(start) } else { take_more(rest, start) }
}

#[cold]
fn take_more(rest: &mut &[u8], start: usize) -> Result<usize, Error> {
    let mut number = start;
    for at in 0..MORE_BYTES_MAX {
        let (&byte, more) = rest.split_first().ok_or(Error::Short)?;
        *rest = more;
        number += usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Error::Number)
}

/// Appends a number whose first byte begins with `flags`.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, flags: u8, bits: u8, number: usize) {
    let most = (1_usize << bits) - 1;
    if number < most {
        out.push(flags | number as u8);
        return;
    }
    out.push(flags | most as u8);
    let mut left = number - most;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Source: RFC 7541, C.1.
    #[test]
    fn examples() {
        for (number, bits, expected) in
            [(10, 5, &[0b01010][..]), (1337, 5, &[0b11111, 0b1001_1010, 0b1010]), (42, 8, &[42])]
        {
            let mut out = Vec::new();
            put(&mut out, 0, bits, number);
            assert_eq!(out, expected);
            let mut rest = expected;
            assert_eq!(take(&mut rest, bits), Ok(number));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_no_number() {
        assert_eq!(take(&mut &[][..], 7), Err(Error::Short));
        assert_eq!(take(&mut &[0xff][..], 7), Err(Error::Short));
        assert_eq!(take(&mut &[0xff, 0x80][..], 7), Err(Error::Short));
        assert_eq!(take(&mut &[0xff, 0x80, 0x80, 0x80, 0x80][..], 7), Err(Error::Number));
        assert_eq!(take(&mut &[0xff, 0xff, 0xff, 0xff, 0x7f][..], 7), Ok(127 + (1 << 28) - 1));
    }

    proptest! {
        #[test]
        fn what_is_put_is_taken(number in 0..1_usize << 28, bits in 4..8_u8) {
            let mut out = Vec::new();
            put(&mut out, 0, bits, number);
            prop_assert_eq!(take(&mut &out[..], bits), Ok(number));
        }
    }
}
