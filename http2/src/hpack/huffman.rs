//! Huffman's code of RFC 7541, appendix B.
//!
//! The code is canonical: codes are given out by length, and by symbol where lengths are the same. So the lengths say all.

use super::Error;

/// Bits of each symbol's code; the last of them is the end of a text (EOS).
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const SYMBOLS: usize = 257;
const EOS: usize = 256;
const BITS_MAX: usize = 30;
/// Bits that are looked up at once: all codes of what is common.
const QUICK_BITS: u32 = 10;
const QUICK: usize = 1 << QUICK_BITS;

/// All that is made of the lengths.
struct Code {
    /// Each symbol's code, at the lower end.
    codes: [u32; SYMBOLS],
    /// By length: the code behind the last of it, at the upper end of 32 bits.
    behind: [u64; BITS_MAX + 1],
    /// By length: its first code less the place of its first symbol in `symbols`.
    offsets: [u32; BITS_MAX + 1],
    /// By code.
    symbols: [u16; SYMBOLS],
    /// By the first bits: symbol and length; length 0: the code is longer.
    quick: [(u8, u8); QUICK],
}

static CODE: Code = Code::new();

impl Code {
    const fn new() -> Self {
        let mut made = Self {
            codes: [0; SYMBOLS],
            behind: [0; BITS_MAX + 1],
            offsets: [0; BITS_MAX + 1],
            symbols: [0; SYMBOLS],
            quick: [(0, 0); QUICK],
        };
        let (mut code, mut place, mut bits) = (0_u32, 0_u32, 1);
        while bits <= BITS_MAX {
            code <<= 1;
            made.offsets[bits] = code.wrapping_sub(place);
            let mut symbol = 0;
            while symbol < SYMBOLS {
                if LENGTHS[symbol] as usize == bits {
                    made.codes[symbol] = code;
                    made.symbols[place as usize] = symbol as u16;
                    made.fill_quick(symbol, code, bits as u32);
                    code += 1;
                    place += 1;
                }
                symbol += 1;
            }
            made.behind[bits] = (code as u64) << (32 - bits);
            bits += 1;
        }
        made
    }

    const fn fill_quick(&mut self, symbol: usize, code: u32, bits: u32) {
        if bits > QUICK_BITS {
            return;
        }
        let spare = QUICK_BITS - bits;
        let mut at = (code << spare) as usize;
        let end = ((code + 1) << spare) as usize;
        while at < end {
            self.quick[at] = (symbol as u8, bits as u8);
            at += 1;
        }
    }
}

/// Appends what `coded` says.
///
/// # Errors
/// [`Error::Huffman`]. What was appended until then stays.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    // No code is shorter than five bits.
    out.reserve(coded.len() * 8 / 5);
    let mut rest = coded;
    // Bits that are not looked at yet, at the upper end.
    let (mut window, mut have) = (0_u64, 0_u32);
    loop {
        if let (true, Some((eight, _))) = (have <= 32, rest.split_first_chunk::<4>()) {
            window |= u64::from(u32::from_be_bytes(*eight)) << (32 - have);
            have += 32;
            rest = &rest[4..];
        } else {
            while let (true, Some((&byte, more))) = (have <= 56, rest.split_first()) {
                window |= u64::from(byte) << (56 - have);
                have += 8;
                rest = more;
            }
        }
        let is_last = rest.is_empty();
        while have >= BITS_MAX as u32 || is_last {
            let (symbol, bits) = CODE.quick[(window >> (64 - QUICK_BITS)) as usize];
            let (symbol, bits) = if bits == 0 { slow(window) } else { (symbol.into(), u32::from(bits)) };
            if bits > have {
                return end(window, have);
            }
            if symbol == EOS {
                return Err(Error::Huffman);
            }
            out.push(symbol as u8);
            window <<= bits;
            have -= bits;
        }
    }
}

/// The symbol at the upper end, and its bits, where it has more than are looked up at once.
#[cold]
fn slow(window: u64) -> (usize, u32) {
    let upper = window >> 32;
    let bits = (QUICK_BITS as usize..BITS_MAX).find(|&bits| upper < CODE.behind[bits]).unwrap_or(BITS_MAX);
    let place = ((upper >> (32 - bits)) as u32).wrapping_sub(CODE.offsets[bits]) as usize;
    (CODE.symbols.get(place).map_or(EOS, |&symbol| symbol.into()), bits as u32)
}

/// What is left is padding: less than a byte, of the first bits of the end's sign.
fn end(window: u64, have: u32) -> Result<(), Error> {
    let is_padding = have < 8 && window >> 56 == u64::from(!(0xff_u8.checked_shr(have).unwrap_or(0)));
    if is_padding { Ok(()) } else { Err(Error::Huffman) }
}

/// Bytes that a text has in the code.
pub(super) fn coded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&byte| usize::from(LENGTHS[usize::from(byte)])).sum();
    bits.div_ceil(8)
}

/// Appends a text in the code.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut window, mut have) = (0_u64, 0_u32);
    for &byte in text {
        let bits = u32::from(LENGTHS[usize::from(byte)]);
        window = window << bits | u64::from(CODE.codes[usize::from(byte)]);
        have += bits;
        if have >= 32 {
            have -= 32;
            out.extend_from_slice(&((window >> have) as u32).to_be_bytes());
        }
    }
    let spare = have.wrapping_neg() % 8;
    let last = (window << spare | ((1 << spare) - 1)) << (32 - have - spare);
    let bytes = (last as u32).to_be_bytes();
    out.extend_from_slice(bytes.get(..have.div_ceil(8) as usize).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    /// Source: RFC 7541, appendix B.
    #[test]
    fn codes_of_the_appendix() {
        for (symbol, code) in
            [(0, 0x1ff8), (10, 0x3fff_fffc), (48, 0), (88, 0xfc), (97, 3), (122, 0x7b), (255, 0x3ff_ffee)]
        {
            assert_eq!(CODE.codes[symbol], code, "{symbol}");
        }
        assert_eq!(CODE.codes[EOS], 0x3fff_ffff);
    }

    #[test]
    fn padding() {
        assert_eq!(decoded(&[]), Ok(vec![]));
        assert_eq!(decoded(&[0b0001_1111]), Ok(b"a".to_vec()));
        assert_eq!(decoded(&[0b0001_1110]), Err(Error::Huffman), "not of ones");
        assert_eq!(decoded(&[0b0001_1111, 0xff]), Err(Error::Huffman), "a whole byte");
        assert_eq!(decoded(&[0xff]), Err(Error::Huffman));
        assert_eq!(decoded(&[0xff; 4]), Err(Error::Huffman), "the end's own sign");
        assert_eq!(decoded(&[0x1f, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(Error::Huffman));
    }

    proptest! {
        #[test]
        fn what_is_coded_is_decoded(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut coded = Vec::new();
            encode(&text, &mut coded);
            prop_assert_eq!(coded.len(), coded_len(&text));
            prop_assert_eq!(decoded(&coded), Ok(text));
        }

        #[test]
        fn of_any_bytes_one_text_at_most(coded in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(text) = decoded(&coded) {
                let mut again = Vec::new();
                encode(&text, &mut again);
                prop_assert_eq!(again, coded);
            }
        }
    }
}
