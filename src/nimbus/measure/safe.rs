//! Up to where the log would survive the loss of the leader with its disk. Pure.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    clock::Monotonic,
    cluster::archive::ArchiveRecord,
    model::{NimbusId, Position, Term},
};

/// What other nimbuses said that they have.
#[derive(Debug, Default)]
pub(super) struct Acks {
    said: BTreeMap<NimbusId, (Position, Monotonic)>,
    /// Since when each live one is there.
    live: BTreeMap<NimbusId, Monotonic>,
}

/// Those who may have followed: many more than any cluster has nimbuses. Beyond that the one
/// that has the least is forgotten.
const FOLLOWERS_MAX: usize = 64;

/// One that has followed nothing for so long is waited for no longer. Else a single nimbus whose
/// archive cannot be opened would keep everything from being safe, and workers from going on.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

impl Acks {
    /// A follower has the leader's log up to here. The latest word counts: one that lost its
    /// disk has less than before.
    pub(super) fn has(&mut self, follower: NimbusId, position: Position, now: Monotonic) {
        self.said.insert(follower, (position, now));
        if self.said.len() > FOLLOWERS_MAX
            && let Some(least) = self.said.iter().min_by_key(|(_, (position, _))| *position)
        {
            let least = least.0.clone();
            self.said.remove(&least);
        }
    }

    /// What it said is not in the leader's log.
    pub(super) fn diverged(&mut self, follower: &NimbusId) {
        if let Some((position, _)) = self.said.get_mut(follower) {
            *position = Position::default();
        }
    }

    /// Nobody has said anything in this term.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What each one has that has said so in this term.
    pub(super) fn heard(&self) -> impl Iterator<Item = (&NimbusId, Position)> {
        self.said.iter().map(|(id, (position, _))| (id, *position))
    }

    /// What each of `live` has.
    pub(super) fn of<'a>(&self, live: impl Iterator<Item = &'a NimbusId>) -> BTreeMap<NimbusId, Position> {
        let has = |id| self.said.get(id).map(|(position, _)| *position).unwrap_or_default();
        live.map(|id| (id.clone(), has(id))).collect()
    }

    /// What each of `live` has that may be waited for.
    pub(super) fn awaited<'a>(
        &mut self,
        live: impl Iterator<Item = &'a NimbusId>,
        now: Monotonic,
    ) -> BTreeMap<NimbusId, Position> {
        let mut all = self.of(live);
        self.live.retain(|id, _| all.contains_key(id));
        all.retain(|id, _| {
            let since = *self.live.entry(id.clone()).or_insert(now);
            let last = self.said.get(id).map_or(since, |(_, at)| since.max(*at));
            now.since(last) < PATIENCE
        });
        all
    }
}

/// The highest position that one of `followers` has; `own` when there is none of them.
pub(super) fn safe(followers: &BTreeMap<NimbusId, Position>, own: Position) -> Position {
    // One that has more than we have did not get it from us.
    followers.values().copied().max().map_or(own, |most| most.min(own))
}

/// The record with a higher mark, when the leader of `term` may raise it.
pub(super) fn raised(
    before: &ArchiveRecord,
    (me, term, own): (&NimbusId, Term, Position),
    followers: &BTreeMap<NimbusId, Position>,
) -> Option<ArchiveRecord> {
    let safe = safe(followers, own);
    // An entry of an earlier term is safe with one of this term only: until then a log without it,
    // of a leader in between, may count as the later one.
    if safe <= before.safe || safe.term != term.0 {
        return None;
    }
    let holders = followers.iter().filter(|(_, has)| **has >= safe).map(|(id, _)| id);
    Some(ArchiveRecord { safe, holders: holders.chain([me]).cloned().collect(), ..before.clone() })
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

    /// Seconds after the start.
    fn second(n: u64) -> Monotonic {
        let clock = crate::clock::Clock::manual(crate::model::Timestamp::EPOCH);
        clock.turn(Duration::from_secs(n));
        clock.monotonic()
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
        acks.has(id(1), at(4), second(0));
        acks.has(id(2), at(7), second(0));
        check(&acks, &[1, 2], at(7));
        check(&acks, &[1], at(4));
        check(&acks, &[], at(10));
        acks.has(id(2), at(3), second(0));
        check(&acks, &[1, 2], at(4));
        acks.diverged(&id(1));
        check(&acks, &[1, 2], at(3));
        acks.has(id(1), at(11), second(0));
        check(&acks, &[1, 2], at(10));
        acks.clear();
        check(&acks, &[1, 2], Position::default());
    }

    #[test]
    fn the_mark_grows_with_entries_of_the_leaders_own_term() {
        let before = ArchiveRecord { safe: at(3), ..ArchiveRecord::default() };
        let check = |term, own, followers: &[(usize, u64)], expected: Option<(u64, &str)>| {
            let followers = followers.iter().map(|(n, seq)| (id(*n), at(*seq))).collect();
            let raised = raised(&before, (&id(0), Term(term), at(own)), &followers);
            let found = raised.map(|it| {
                (it.safe, it.holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            });
            assert_eq!(found, expected.map(|(seq, holders)| (at(seq), holders.to_owned())));
        };
        check(1, 9, &[], Some((9, "n0")));
        check(1, 9, &[(1, 5), (2, 7), (3, 7)], Some((7, "n0 n2 n3")));
        check(1, 9, &[(1, 3)], None);
        check(1, 9, &[(1, 2)], None);
        check(2, 9, &[], None);
        check(2, 9, &[(1, 9)], None);
    }

    #[test]
    fn one_that_follows_nothing_is_waited_for_only_so_long() {
        let mut acks = Acks::default();
        let awaited = |acks: &mut Acks, live: &[usize], secs| {
            let live: Vec<NimbusId> = live.iter().map(|n| id(*n)).collect();
            let awaited = acks.awaited(live.iter(), second(secs));
            (safe(&awaited, at(10)), awaited.len())
        };
        let nothing = Position::default();
        assert_eq!(awaited(&mut acks, &[1, 2], 100), (nothing, 2));
        acks.has(id(2), at(7), second(200));
        assert_eq!(awaited(&mut acks, &[1, 2], 699), (at(7), 2));
        assert_eq!(awaited(&mut acks, &[1, 2], 700), (at(7), 1));
        // One that diverged is waited for since it last followed.
        acks.diverged(&id(2));
        assert_eq!(awaited(&mut acks, &[1, 2], 799), (nothing, 1));
        assert_eq!(awaited(&mut acks, &[1, 2], 800), (at(10), 0));
        // As is one that follows again, or comes back.
        acks.has(id(2), at(3), second(900));
        assert_eq!(awaited(&mut acks, &[1, 2], 900), (at(3), 1));
        assert_eq!(awaited(&mut acks, &[2], 1000), (at(3), 1));
        assert_eq!(awaited(&mut acks, &[1, 2], 1100), (at(3), 2));
    }

    #[test]
    fn strangers_are_bounded() {
        let mut acks = Acks::default();
        for n in 0..200 {
            acks.has(id(n), at(200 - n as u64), second(0));
        }
        assert_eq!(acks.said.len(), FOLLOWERS_MAX);
    }
}
