//! What a misspelt word probably meant.

/// Longest word that is compared, in bytes.
const WORD_LEN_MAX: usize = 64;
/// Most candidates that are compared.
const CANDIDATES_MAX: usize = 1000;

/// The candidate nearest to `word`, if it is near: one slip in short words, one in three letters at most.
///
/// Case does not count; of equally near ones the first wins.
pub(super) fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    if word.len() > WORD_LEN_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let slips_max = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= WORD_LEN_MAX)
        .take(CANDIDATES_MAX)
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        // Every letter wrong is no slip.
        .filter(|(slips, candidate)| *slips <= slips_max && *slips < candidate.chars().count())
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let keys = ["address", "ports", "forward", "pool"];
        assert_eq!(closest("forwrd", keys).as_deref(), Some("forward"));
        assert_eq!(closest("adress", keys).as_deref(), Some("address"));
        assert_eq!(closest("PORTS", keys).as_deref(), Some("ports"));
        assert_eq!(closest("opol", keys).as_deref(), Some("pool"));
        assert_eq!(closest("backends", keys), None);
        assert_eq!(closest("x", ["y"]), None);
        assert_eq!(closest("", keys), None);
        assert_eq!(closest(&"p".repeat(1 << 20), keys), None);
    }
}
