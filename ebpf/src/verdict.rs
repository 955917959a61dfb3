//! What becomes of a packet.

use lb_abi::reason::{Fate, Reason};

use crate::env::Env;

/// What the entry point tells the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// To the local stack.
    #[default]
    Pass,
    /// To the local stack, on the core that [`crate::env::Env::move_to`] was told.
    Moved,
    /// On to `lb_nat`, which decides and counts.
    Translate,
    /// On to `lb_cookie`, the same.
    Cookie,
    /// Gone.
    Drop,
    /// Out by the interface it came in by.
    Transmit,
    /// Out by another interface.
    Redirect {
        /// Its index.
        interface: u32,
    },
}

/// A verdict and the reason it is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Counted in `REASONS`.
    pub reason: Reason,
    /// Told to the kernel.
    pub verdict: Verdict,
}

impl Outcome {
    /// Counts it, unless another program decides and counts what it decides.
    #[inline(always)]
    pub fn count<E: Env>(&self, env: &E) {
        if !matches!(self.verdict, Verdict::Translate | Verdict::Cookie) {
            env.count(self.reason);
        }
    }

    /// A packet that goes no further: dropped or passed as the reason's fate says.
    #[inline(always)]
    pub const fn stopped(reason: Reason) -> Self {
        let verdict = match reason.fate() {
            Fate::Pass => Verdict::Pass,
            Fate::Drop | Fate::Answer | Fate::Forward => Verdict::Drop,
        };
        Self { reason, verdict }
    }
}
