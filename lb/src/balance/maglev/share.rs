//! How many slots each member gets.

use std::cmp::Reverse;

use super::Member;

/// Slots of each member: its exact share rounded down, and the rest one each to the largest remainders.
///
/// Of equal remainders those go first that hold more slots already (`held`), so that nobody gives one up for
/// another's sake; then by identity. Sums up to `len`. `members` is not empty and has no weight 0.
pub(super) fn targets(len: u32, members: &[Member], held: &[u32]) -> Vec<u32> {
    let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let product = |member: &Member| u64::from(len) * u64::from(member.weight);
    let mut targets: Vec<u32> = members.iter().map(|member| (product(member) / total) as u32).collect();
    let left = (len - targets.iter().sum::<u32>()) as usize;
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_cached_key(|&at| {
        (Reverse(product(&members[at]) % total), Reverse(held[at]), members[at].identity)
    });
    for &at in &order[..left] {
        targets[at] += 1;
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BackendId;

    fn member(id: u16, weight: u16) -> Member {
        Member { id: BackendId(id), identity: u64::from(id), weight }
    }

    #[test]
    fn remainders_go_to_the_largest() {
        let members = [member(1, 3), member(2, 2), member(3, 1)];
        assert_eq!(targets(10, &members, &[0, 0, 0]), [5, 3, 2]);
    }

    #[test]
    fn equal_remainders_go_to_those_who_hold_more() {
        let members = [member(1, 1), member(2, 1), member(3, 1)];
        assert_eq!(targets(10, &members, &[3, 3, 4]), [3, 3, 4]);
        assert_eq!(targets(10, &members, &[3, 4, 3]), [3, 4, 3]);
    }
}
