//! Enough of ELF to tell a BPF object with type information from anything else.
//!
//! Source: System V ABI, ELF-64; machine number 247 (EM_BPF) from the kernel's `include/uapi/linux/elf-em.h`, v6.1.

use anyhow::{Context, Result, bail};

const EM_BPF: u16 = 247;
const SHT_NOBITS: u32 = 8;

/// Checks that `object` is a little-endian BPF object whose `.BTF` section is not empty.
///
/// # Errors
/// It is not; the error says what it is instead.
pub(crate) fn check_bpf_object(object: &[u8]) -> Result<()> {
    if object.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a little-endian 64-bit ELF file");
    }
    let machine = u16_at(object, 18)?;
    if machine != EM_BPF {
        bail!("built for ELF machine {machine}, not BPF ({EM_BPF})");
    }
    let sections = sections(object)?;
    if !sections.iter().any(|section| section.name == b".BTF" && section.size > 0) {
        bail!("no type information: section .BTF is missing (bpf-linker wants --btf and debuginfo)");
    }
    Ok(())
}

struct Section<'a> {
    name: &'a [u8],
    size: u64,
}

fn sections(object: &[u8]) -> Result<Vec<Section<'_>>> {
    let table = usize::try_from(u64_at(object, 40)?)?;
    let entry_len = usize::from(u16_at(object, 58)?);
    let count = usize::from(u16_at(object, 60)?);
    let names = usize::from(u16_at(object, 62)?);
    let header =
        |index: usize| index.checked_mul(entry_len).and_then(|at| at.checked_add(table)).context(CUT);
    let names_at = usize::try_from(u64_at(object, header(names)? + 24)?)?;
    (0..count)
        .map(|index| {
            let at = header(index)?;
            let name_at = names_at.checked_add(u32_at(object, at)? as usize).context(CUT)?;
            let rest = object.get(name_at..).context(CUT)?;
            let name = rest.split(|&byte| byte == 0).next().unwrap_or_default();
            let has_bytes = u32_at(object, at + 4)? != SHT_NOBITS;
            Ok(Section { name, size: if has_bytes { u64_at(object, at + 32)? } else { 0 } })
        })
        .collect()
}

const CUT: &str = "the file ends inside its section table";

fn bytes_at<const N: usize>(object: &[u8], at: usize) -> Result<[u8; N]> {
    let end = at.checked_add(N).context(CUT)?;
    Ok(object.get(at..end).context(CUT)?.try_into()?)
}

fn u16_at(object: &[u8], at: usize) -> Result<u16> {
    bytes_at(object, at).map(u16::from_le_bytes)
}

fn u32_at(object: &[u8], at: usize) -> Result<u32> {
    bytes_at(object, at).map(u32::from_le_bytes)
}

fn u64_at(object: &[u8], at: usize) -> Result<u64> {
    bytes_at(object, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header, name table, then two section headers: the names and `.BTF`.
    fn object(machine: u16, btf_len: u64) -> Vec<u8> {
        let names = b"\0.shstrtab\0.BTF\0";
        let table = 64 + names.len();
        let mut elf = vec![0u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18..20].copy_from_slice(&machine.to_le_bytes());
        elf[40..48].copy_from_slice(&(table as u64).to_le_bytes());
        elf[58..60].copy_from_slice(&64u16.to_le_bytes());
        elf[60..62].copy_from_slice(&2u16.to_le_bytes());
        elf.extend_from_slice(names);
        for (name, at, size) in [(1u32, 64u64, names.len() as u64), (11, 0, btf_len)] {
            let mut header = [0u8; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[4..8].copy_from_slice(&1u32.to_le_bytes());
            header[24..32].copy_from_slice(&at.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            elf.extend_from_slice(&header);
        }
        elf
    }

    #[test]
    fn a_bpf_object_with_types_passes() {
        check_bpf_object(&object(EM_BPF, 8)).unwrap();
    }

    #[test]
    fn other_machines_missing_types_and_other_files_do_not() {
        let error = |object: &[u8]| check_bpf_object(object).unwrap_err().to_string();
        assert!(error(&object(62, 8)).contains("machine 62"));
        assert!(error(&object(EM_BPF, 0)).contains(".BTF"));
        assert!(error(b"").contains("not a little-endian"));
        assert!(error(b"#!/bin/sh\n").contains("not a little-endian"));
    }

    #[test]
    fn a_cut_file_is_an_error_wherever_it_is_cut() {
        let whole = object(EM_BPF, 8);
        for len in 0..whole.len() - 24 {
            assert!(check_bpf_object(&whole[..len]).is_err(), "cut at {len}");
        }
    }
}
