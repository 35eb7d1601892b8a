//! Up to where the log would survive the loss of the leader with its disk. Pure.

use std::collections::BTreeMap;

use crate::model::{NimbusId, Position};

/// What other nimbuses said that they have.
#[derive(Debug, Default)]
pub(super) struct Acks(BTreeMap<NimbusId, Position>);

/// Those who may have followed: many more than any cluster has nimbuses. Beyond that the one
/// that has the least is forgotten.
const FOLLOWERS_MAX: usize = 64;

impl Acks {
    /// A follower has the leader's log up to here. The latest word counts: one that lost its
    /// disk has less than before.
    pub(super) fn has(&mut self, follower: NimbusId, position: Position) {
        self.0.insert(follower, position);
        if self.0.len() > FOLLOWERS_MAX
            && let Some(least) = self.0.iter().min_by_key(|(_, position)| **position)
        {
            let least = least.0.clone();
            self.0.remove(&least);
        }
    }

    /// What it said is not in the leader's log.
    pub(super) fn diverged(&mut self, follower: &NimbusId) {
        self.0.remove(follower);
    }

    /// Nobody has said anything in this term.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What each one has that has said so in this term.
    pub(super) fn heard(&self) -> impl Iterator<Item = (&NimbusId, Position)> {
        self.0.iter().map(|(id, position)| (id, *position))
    }

    /// What each of `live` has.
    pub(super) fn of<'a>(&self, live: impl Iterator<Item = &'a NimbusId>) -> BTreeMap<NimbusId, Position> {
        live.map(|id| (id.clone(), self.0.get(id).copied().unwrap_or_default())).collect()
    }
}

/// The highest position that one of `followers` has; `own` when there is none of them.
pub(super) fn safe(followers: &BTreeMap<NimbusId, Position>, own: Position) -> Position {
    // One that has more than we have did not get it from us.
    followers.values().copied().max().map_or(own, |most| most.min(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> NimbusId {
        format!("n{n}").parse().expect("valid")
    }

    fn at(seq: u64) -> Position {
        Position { term: 1, seq }
    }

    #[test]
    fn safe_is_what_another_live_one_has() {
        let mut acks = Acks::default();
        let check = |acks: &Acks, live: &[usize], expected| {
            let live: Vec<NimbusId> = live.iter().map(|n| id(*n)).collect();
            assert_eq!(safe(&acks.of(live.iter()), at(10)), expected);
        };
        check(&acks, &[], at(10));
        check(&acks, &[1, 2], Position::default());
        acks.has(id(1), at(4));
        acks.has(id(2), at(7));
        check(&acks, &[1, 2], at(7));
        check(&acks, &[1], at(4));
        check(&acks, &[], at(10));
        acks.has(id(2), at(3));
        check(&acks, &[1, 2], at(4));
        acks.diverged(&id(1));
        check(&acks, &[1, 2], at(3));
        acks.has(id(1), at(11));
        check(&acks, &[1, 2], at(10));
        acks.clear();
        check(&acks, &[1, 2], Position::default());
    }

    #[test]
    fn strangers_are_bounded() {
        let mut acks = Acks::default();
        for n in 0..200 {
            acks.has(id(n), at(200 - n as u64));
        }
        assert_eq!(acks.0.len(), FOLLOWERS_MAX);
    }
}
