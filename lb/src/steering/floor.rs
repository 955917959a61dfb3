//! The oldest kernel that the packet path is tested on, and what is said where it runs on an older one.

/// Major and minor version. `cargo xtask vmtest` boots it.
pub(super) const FLOOR: (u32, u32) = (6, 1);

/// For the end of an error: that the kernel is too old, or nothing.
pub(super) fn hint() -> String {
    hint_of(&rustix::system::uname().release().to_string_lossy())
}

fn hint_of(release: &str) -> String {
    match version(release) {
        Some(version) if version < FLOOR => {
            let (major, minor) = FLOOR;
            format!(" (this is Linux {release}; {major}.{minor} is the oldest that lb runs on)")
        }
        _ => String::new(),
    }
}

/// `6.12` of `6.12.117+deb12-cloud-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_older_kernel_is_hinted_at() {
        for release in ["6.1.0-56-cloud-amd64", "6.12.117+deb12-cloud-amd64", "6.18.5", "7.0", "x", ""] {
            assert_eq!(hint_of(release), "", "{release}");
        }
        for release in ["5.15.0-1-generic", "6.0.19", "4.19"] {
            let hint = hint_of(release);
            assert!(hint.contains(release) && hint.contains("6.1 is the oldest"), "{hint}");
        }
        assert_eq!(hint(), "", "the tests run on the floor or above");
    }
}
