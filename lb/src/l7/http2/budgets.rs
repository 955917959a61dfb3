//! What is too much, as the config has it.

use lb_http2::Budgets;

use crate::config::Limits;

/// As it is sent a block can be longer than what it says, if not by much: the rarest letters have up to four times their size in
/// Huffman's code, and nobody is made to use it.
pub fn budgets(limits: &Limits) -> Budgets {
    let said = &limits.http2;
    Budgets {
        resets: said.resets,
        resets_in_all: said.resets_in_all.into(),
        resets_emitted: said.resets_emitted,
        pings: said.pings,
        settings: said.settings,
        empty_data: said.empty_data,
        heads: said.heads,
        continuations_of_block: said.continuations.div_ceil(5),
        continuations: said.continuations,
        block_bytes: u32::try_from(limits.head_bytes.saturating_mul(2)).unwrap_or(u32::MAX),
        window_updates: said.window_updates,
        priorities: said.priorities,
        unknown: said.unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The engine's are what the config's are where nothing is said, but for what a head's size says.
    #[test]
    fn defaults() {
        let limits = Limits::default();
        let block_bytes = 2 * limits.head_bytes as u32;
        assert_eq!(budgets(&limits), Budgets { block_bytes, ..Budgets::default() });
    }
}
