//! Bytes that nobody is to find later.

/// Prints redacted, and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Wiped(Vec<u8>);

impl Wiped {
    /// What they are.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl From<Vec<u8>> for Wiped {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for Wiped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wiped(redacted)")
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the stores from being dropped as dead.
        std::hint::black_box(&mut self.0);
    }
}
