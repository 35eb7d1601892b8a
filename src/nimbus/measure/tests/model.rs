//! The rules of what is safe, played against one another by seeds: archives are lists here,
//! and there are elections, leaders that stand still, views that are old, and disks that are
//! lost. No database, no network, no clock.
//!
//! What must hold is said in [`Game::check`] and [`Game::replace`].

use std::collections::BTreeSet;

use super::*;
use crate::{
    clock::Monotonic,
    cluster::archive::ArchiveRecord,
    nimbus::measure::{
        safe::{self, Acks},
        takeover::{self, Offer, Successor, Takeover},
    },
};

const N: usize = 4;
const STEPS: usize = 300;
const GRACE: Duration = Duration::from_secs(600);

/// What a nimbus thinks that it is.
#[derive(Debug)]
enum Plays {
    Follows,
    TakesOver { term: Term, record: ArchiveRecord },
    Leads { term: Term, record: ArchiveRecord, acks: Acks },
}

#[derive(Debug)]
struct One {
    /// Who wrote an entry, and its number, is all there is to it: no term has two leaders.
    log: Vec<Position>,
    /// What of its beginning is trimmed.
    base: usize,
    aside: Vec<Vec<Position>>,
    plays: Plays,
    /// Whether it has a session, so that others see it.
    is_seen: bool,
    /// The latest leader that it knows of is of this term.
    latest: Term,
    /// A whole archive on its way, from the leader of a term.
    coming: Option<(Term, Copied)>,
}

impl One {
    fn last(&self) -> Position {
        self.log.last().copied().unwrap_or_default()
    }
}

/// An archive for another one: its log, what of that is trimmed, and whether the other's own is to
/// be kept.
type Copied = (Vec<Position>, usize, bool);

/// Everything, and a seed.
struct Game {
    random: fastrand::Rng,
    all: Vec<One>,
    term: Term,
    leader: Option<usize>,
    record: ArchiveRecord,
    /// What was ever called safe and is on a disk.
    safe: BTreeSet<Position>,
    now: Monotonic,
    /// How often leaders went on without something.
    n_given_up: usize,
    /// Whether leaders' patience may end, and disks may be lost.
    is_harsh: bool,
}

fn id(n: usize) -> NimbusId {
    format!("n{n}").parse().expect("valid")
}

impl Game {
    fn new(seed: u64) -> Self {
        let one = |_| One {
            log: Vec::new(),
            base: 0,
            aside: Vec::new(),
            plays: Plays::Follows,
            is_seen: true,
            latest: Term(0),
            coming: None,
        };
        Self {
            random: fastrand::Rng::with_seed(seed),
            all: (0..N).map(one).collect(),
            term: Term(0),
            leader: None,
            record: ArchiveRecord::default(),
            safe: BTreeSet::new(),
            now: Clock::manual(Timestamp::EPOCH).monotonic(),
            n_given_up: 0,
            is_harsh: !seed.is_multiple_of(4),
        }
    }

    fn step(&mut self) {
        let n = self.random.usize(0..N);
        match self.random.u32(0..100) {
            0..10 => self.elect(n),
            10..14 => self.lose_session(n),
            14..26 => self.come_back(n),
            26..27 if self.is_harsh => self.lose_disk(n),
            27..42 => self.take_over(n),
            42..56 => self.append(n),
            56..78 => self.follow(n),
            78..83 => self.arrive(n),
            83..98 => self.mark(n),
            _ => {
                let one = &mut self.all[n];
                one.base = self.random.usize(one.base..=one.log.len());
            }
        }
    }

    fn elect(&mut self, n: usize) {
        if self.leader.is_some() || !self.all[n].is_seen {
            return;
        }
        // A copy that is there is taken first, as both hold the hand.
        if self.random.bool() {
            self.arrive(n);
        }
        self.term = Term(self.term.0 + 1);
        self.leader = Some(n);
        let one = &mut self.all[n];
        (one.coming, one.latest) = (None, self.term);
        one.plays = Plays::TakesOver { term: self.term, record: self.record.clone() };
    }

    /// Its session ends; it need not know.
    fn lose_session(&mut self, n: usize) {
        self.all[n].is_seen = false;
        self.leader = self.leader.filter(|leader| *leader != n);
    }

    fn come_back(&mut self, n: usize) {
        let one = &mut self.all[n];
        if !one.is_seen {
            (one.is_seen, one.plays, one.coming) = (true, Plays::Follows, None);
        }
    }

    fn lose_disk(&mut self, n: usize) {
        self.lose_session(n);
        let one = &mut self.all[n];
        (one.plays, one.coming, one.base) = (Plays::Follows, None, 0);
        (one.log, one.aside) = (Vec::new(), Vec::new());
        let kept = self.on_disks();
        self.safe.retain(|entry| kept.contains(entry));
    }

    fn on_disks(&self) -> BTreeSet<Position> {
        self.all.iter().flat_map(|one| one.log.iter().chain(one.aside.iter().flatten())).copied().collect()
    }

    /// The entries after `last` in the log of `of`; none when it does not lead on from there.
    fn after(&self, of: usize, last: Position) -> Option<Vec<Position>> {
        let (log, base) = (&self.all[of].log, self.all[of].base);
        match log.iter().position(|entry| *entry == last) {
            Some(at) if at + 1 >= base => Some(log[at + 1..].to_vec()),
            None if last == Position::default() && base == 0 => Some(log.clone()),
            Some(_) | None => None,
        }
    }

    /// `n` goes on with another archive.
    fn replace(&mut self, n: usize, (log, base, keeps): Copied) {
        let one = &mut self.all[n];
        let own = std::mem::replace(&mut one.log, log);
        one.base = base;
        if keeps {
            one.aside.push(own);
            return;
        }
        let lost: Vec<_> = own.iter().filter(|e| self.safe.contains(e) && !one.log.contains(e)).collect();
        assert!(lost.is_empty(), "{n} removes {lost:?}, which was safe");
    }

    fn take_over(&mut self, n: usize) {
        let Plays::TakesOver { term, record } = &self.all[n].plays else { return };
        let (term, record) = (*term, record.clone());
        let others = (0..N).filter(|other| *other != n && self.all[*other].is_seen);
        let mut reached: Vec<usize> = others.collect();
        reached.retain(|_| self.random.u32(0..4) > 0);
        reached.retain(|other| !matches!(self.all[*other].plays, Plays::TakesOver { .. }));
        let mut done = Vec::new();
        loop {
            let own = self.all[n].last();
            let offers = reached.iter().filter(|other| !done.contains(*other)).map(|other| {
                let said = self.all[*other].last();
                (takeover::offer(&record, term, own, said), said, *other)
            });
            let best = offers.filter(|(offer, ..)| *offer > Offer::Nothing).max();
            let Some((offer, _, other)) = best else { break };
            done.push(other);
            match self.after(other, own) {
                Some(entries) => self.all[n].log.extend(entries),
                None if offer < Offer::Archive => {}
                // It looks at the tree before it replaces anything.
                None if term != self.term => return,
                None => {
                    let copied = (self.all[other].log.clone(), self.all[other].base, record.lacks(own));
                    self.replace(n, copied);
                }
            }
        }
        let own = self.all[n].last();
        let successor = Successor {
            me: &id(n),
            term,
            own,
            heard: &reached.into_iter().map(id).collect(),
            is_in_reach: false,
            waited: if self.is_harsh && self.random.u32(0..20) == 0 { GRACE } else { Duration::ZERO },
            grace: GRACE,
        };
        let record = match successor.decide(&record) {
            Takeover::Begins => record,
            Takeover::GivesUp => {
                if term != self.term {
                    return;
                }
                assert!(self.is_harsh, "nothing was lost, and nobody out of patience");
                self.n_given_up += 1;
                self.record = record.give_up(&id(n), term, own, Timestamp::EPOCH);
                self.record.clone()
            }
            Takeover::Waits(_) => return,
            Takeover::Insists | Takeover::IsForeign => panic!("{n} leads in {term} with {own}"),
        };
        self.all[n].plays = Plays::Leads { term, record, acks: Acks::default() };
    }

    fn append(&mut self, n: usize) {
        if let Plays::Leads { term, .. } = &self.all[n].plays {
            let next = Position { term: term.0, seq: self.all[n].last().seq + 1 };
            self.all[n].log.push(next);
        }
    }

    fn follow(&mut self, n: usize) {
        let one = &self.all[n];
        if !matches!(one.plays, Plays::Follows) || one.coming.is_some() {
            return;
        }
        // Whom it takes for the leader may be so no longer; but it never goes back.
        let candidates: Vec<(usize, Term)> = (0..N)
            .filter_map(|other| match &self.all[other].plays {
                Plays::Leads { term, .. } if *term >= one.latest => Some((other, *term)),
                _ => None,
            })
            .collect();
        let Some((leader, term)) = self.random.choice(candidates) else { return };
        let last = one.last();
        self.all[n].latest = term;
        if last.term > term.0 {
            return;
        }
        let entries = self.after(leader, last);
        let (log, base) = (self.all[leader].log.clone(), self.all[leader].base);
        let Plays::Leads { record, acks, .. } = &mut self.all[leader].plays else { return };
        match entries {
            Some(mut entries) => {
                acks.has(id(n), last, self.now);
                entries.truncate(self.random.usize(0..=3));
                self.all[n].log.extend(entries);
            }
            None => {
                acks.diverged(&id(n));
                let keeps = record.lacks(last);
                self.all[n].coming = Some((term, (log, base, keeps)));
            }
        }
    }

    fn arrive(&mut self, n: usize) {
        // It looks at the tree before it replaces anything.
        if let Some((term, copied)) = self.all[n].coming.take()
            && self.all[n].is_seen
            && term == self.term
        {
            self.replace(n, copied);
        }
    }

    fn mark(&mut self, n: usize) {
        // It may not see all of those that there are.
        let live = (0..N).filter(|other| *other != n && self.all[*other].is_seen);
        let mut live: Vec<NimbusId> = live.map(id).collect();
        live.retain(|_| self.random.u32(0..4) > 0);
        let own = self.all[n].last();
        let Plays::Leads { term, record, acks } = &mut self.all[n].plays else { return };
        let followers = acks.awaited(live.iter(), self.now);
        let raised = safe::raised(record, (&id(n), *term, own), &followers);
        if let Some(raised) = raised.filter(|_| *term == self.term) {
            *record = raised;
            self.record = record.clone();
            self.safe.extend(self.all[n].log.iter().filter(|entry| **entry <= self.record.safe));
        }
    }

    fn check(&self) {
        let kept = self.on_disks();
        let lost: Vec<_> = self.safe.iter().filter(|entry| !kept.contains(entry)).collect();
        assert!(lost.is_empty(), "{lost:?} were safe, and are nowhere");
        let Some(One { log, plays: Plays::Leads { term, record, .. }, .. }) =
            self.leader.map(|leader| &self.all[leader])
        else {
            return;
        };
        if *term == self.term {
            // Whoever has what was given up would be known again.
            let has_more = |one: &One| one.log.iter().any(|e| self.safe.contains(e) && !log.contains(e));
            let missed = self.all.iter().find(|one| has_more(one) && !record.lacks(one.last()));
            assert!(missed.is_none(), "what {missed:?} has was safe, and the leader does not know");
        }
    }

    /// Everyone can be reached again: before long all have the same.
    fn heal(&mut self) {
        for n in 0..N {
            self.arrive(n);
            self.lose_session(n);
            self.come_back(n);
        }
        let next = self.random.usize(0..N);
        self.elect(next);
        let leader = self.leader.expect("nobody led, and all are there");
        for _ in 0..200 {
            self.take_over(leader);
        }
        assert!(matches!(self.all[leader].plays, Plays::Leads { .. }), "it waits though all are there");
        self.append(leader);
        for n in (0..N).cycle().take(N * STEPS) {
            self.follow(n);
            self.arrive(n);
        }
        let logs: BTreeSet<_> = self.all.iter().map(|one| &one.log).collect();
        assert_eq!(logs.len(), 1, "not all have the same");
        self.check();
    }
}

#[test]
fn nothing_that_was_safe_is_removed_whoever_comes_to_lead() {
    let (mut n_given_up, mut n_aside, mut n_safe) = (0, 0, 0);
    for seed in 0..4000 {
        let mut game = Game::new(seed);
        let played = std::panic::catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..STEPS {
                game.step();
                game.check();
            }
            game.heal();
        }));
        assert!(played.is_ok(), "seed {seed}");
        let aside = game.all.iter().map(|one| one.aside.len()).sum::<usize>();
        assert!(game.is_harsh || aside == 0, "seed {seed}: nothing was given up");
        n_given_up += game.n_given_up;
        n_aside += aside;
        n_safe += game.safe.len();
    }
    // The game is worth playing.
    assert!(n_given_up > 50 && n_aside > 30 && n_safe > 5_000, "{n_given_up} {n_aside} {n_safe}");
}
