//! Model test of the replication rules: seeds play elections, leaders that stand still, stale views
//! and lost disks. Logs are lists here. No database, no network, no clock.
//!
//! [`Game::check`] and [`Game::replace`] assert the invariants.

use std::{collections::BTreeSet, panic::AssertUnwindSafe, time::Duration};

use crate::{
    replication::commit::{self, ReplicaProgress},
    replication::takeover_decision::{self, CatchUpSource, TakeoverDecision, TakeoverInput},
};
use stormkeeper_coordination::cluster::metric_log::MetricLogState;
use stormkeeper_model::Timestamp;
use stormkeeper_model::clock::Monotonic;
use stormkeeper_model::{LogPosition, NimbusId, Term, clock::Clock};

const N: usize = 4;
const STEPS: usize = 300;
const GRACE: Duration = Duration::from_secs(600);

/// Role of a nimbus, as the nimbus itself sees it.
#[derive(Debug)]
enum Role {
    Follows,
    TakesOver { term: Term, record: MetricLogState },
    Leads { term: Term, record: MetricLogState, progress: ReplicaProgress },
}

#[derive(Debug)]
struct One {
    /// An entry is its term and index, nothing else: no term has two leaders.
    log: Vec<LogPosition>,
    /// Number of entries that are trimmed from the beginning of the log.
    base: usize,
    quarantined: Vec<Vec<LogPosition>>,
    role: Role,
    /// True if the nimbus has a session, so that other nimbuses see it.
    is_seen: bool,
    /// Term of the latest leader that the nimbus has seen.
    latest: Term,
    /// A checkpoint on its way, from the leader of a term.
    incoming: Option<(Term, CheckpointCopy)>,
}

impl One {
    fn last(&self) -> LogPosition {
        self.log.last().copied().unwrap_or_default()
    }
}

/// Checkpoint for another nimbus: its log, the trimmed entries, and whether the receiver must
/// quarantine its own log.
type CheckpointCopy = (Vec<LogPosition>, usize, bool);

/// State of one game, with its random numbers.
struct Game {
    random: fastrand::Rng,
    all: Vec<One>,
    term: Term,
    leader: Option<usize>,
    record: MetricLogState,
    /// Every entry that was ever committed and is on a disk.
    committed: BTreeSet<LogPosition>,
    now: Monotonic,
    /// Number of unclean takeovers.
    n_unclean: usize,
    /// True if the takeover grace may end, and disks may be lost.
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
            quarantined: Vec::new(),
            role: Role::Follows,
            is_seen: true,
            latest: Term(0),
            incoming: None,
        };
        Self {
            random: fastrand::Rng::with_seed(seed),
            all: (0..N).map(one).collect(),
            term: Term(0),
            leader: None,
            record: MetricLogState::default(),
            committed: BTreeSet::new(),
            now: Clock::manual(Timestamp::EPOCH).monotonic(),
            n_unclean: 0,
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
            83..98 => self.advance(n),
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
        // A checkpoint that has arrived is installed first: both take the apply lock.
        if self.random.bool() {
            self.arrive(n);
        }
        self.term = Term(self.term.0 + 1);
        self.leader = Some(n);
        let one = &mut self.all[n];
        (one.incoming, one.latest) = (None, self.term);
        one.role = Role::TakesOver { term: self.term, record: self.record.clone() };
    }

    /// Ends the session of a nimbus; the nimbus need not notice.
    fn lose_session(&mut self, n: usize) {
        self.all[n].is_seen = false;
        self.leader = self.leader.filter(|leader| *leader != n);
    }

    fn come_back(&mut self, n: usize) {
        let one = &mut self.all[n];
        if !one.is_seen {
            (one.is_seen, one.role, one.incoming) = (true, Role::Follows, None);
        }
    }

    fn lose_disk(&mut self, n: usize) {
        self.lose_session(n);
        let one = &mut self.all[n];
        (one.role, one.incoming, one.base) = (Role::Follows, None, 0);
        (one.log, one.quarantined) = (Vec::new(), Vec::new());
        let kept = self.on_disks();
        self.committed.retain(|entry| kept.contains(entry));
    }

    fn on_disks(&self) -> BTreeSet<LogPosition> {
        self.all
            .iter()
            .flat_map(|one| one.log.iter().chain(one.quarantined.iter().flatten()))
            .copied()
            .collect()
    }

    /// Returns the entries after `last` in the log of `of`; `None` if the log does not continue there.
    fn after(&self, of: usize, last: LogPosition) -> Option<Vec<LogPosition>> {
        let (log, base) = (&self.all[of].log, self.all[of].base);
        match log.iter().position(|entry| *entry == last) {
            Some(at) if at + 1 >= base => Some(log[at + 1..].to_vec()),
            None if last == LogPosition::default() && base == 0 => Some(log.clone()),
            Some(_) | None => None,
        }
    }

    /// Replaces the log of `n` by a checkpoint. A deleted log must not have a committed entry that
    /// the checkpoint lacks.
    fn replace(&mut self, n: usize, (log, base, quarantine): CheckpointCopy) {
        let one = &mut self.all[n];
        let own = std::mem::replace(&mut one.log, log);
        one.base = base;
        if quarantine {
            one.quarantined.push(own);
            return;
        }
        let lost: Vec<_> =
            own.iter().filter(|e| self.committed.contains(e) && !one.log.contains(e)).collect();
        assert!(lost.is_empty(), "nimbus {n} deletes committed entries {lost:?}");
    }

    fn take_over(&mut self, n: usize) {
        let Role::TakesOver { term, record } = &self.all[n].role else { return };
        let (term, record) = (*term, record.clone());
        let others = (0..N).filter(|other| *other != n && self.all[*other].is_seen);
        let mut reached: Vec<usize> = others.collect();
        reached.retain(|_| self.random.u32(0..4) > 0);
        reached.retain(|other| !matches!(self.all[*other].role, Role::TakesOver { .. }));
        let mut done = Vec::new();
        loop {
            let own = self.all[n].last();
            let sources = reached.iter().filter(|other| !done.contains(*other)).map(|other| {
                let log_end = self.all[*other].last();
                (takeover_decision::catch_up_source(&record, term, own, log_end), log_end, *other)
            });
            let best = sources.filter(|(source, ..)| *source > CatchUpSource::None).max();
            let Some((source, _, other)) = best else { break };
            done.push(other);
            match self.after(other, own) {
                Some(entries) => self.all[n].log.extend(entries),
                None if source < CatchUpSource::Checkpoint => {}
                // The nimbus checks its term in ZooKeeper before it replaces its log.
                None if term != self.term => return,
                None => {
                    let copied =
                        (self.all[other].log.clone(), self.all[other].base, record.may_hold_discarded(own));
                    self.replace(n, copied);
                }
            }
        }
        let own = self.all[n].last();
        let input = TakeoverInput {
            me: &id(n),
            term,
            own,
            polled: &reached.into_iter().map(id).collect(),
            has_reachable_source: false,
            waited: if self.is_harsh && self.random.u32(0..20) == 0 { GRACE } else { Duration::ZERO },
            live: &BTreeSet::new(),
            grace: GRACE,
        };
        let record = match input.decide(&record) {
            TakeoverDecision::Ready => record,
            TakeoverDecision::ProceedUnclean => {
                if term != self.term {
                    return;
                }
                assert!(self.is_harsh, "unclean takeover, though no disk was lost and no grace ended");
                self.n_unclean += 1;
                self.record = record.record_unclean_takeover(&id(n), term, own, Timestamp::EPOCH);
                self.record.clone()
            }
            TakeoverDecision::AwaitReplicas(_) => return,
            TakeoverDecision::RetryFetch | TakeoverDecision::WrongCluster => {
                panic!("{n} leads in {term} with {own}")
            }
        };
        self.all[n].role = Role::Leads { term, record, progress: ReplicaProgress::default() };
    }

    fn append(&mut self, n: usize) {
        if let Role::Leads { term, .. } = &self.all[n].role {
            let next = LogPosition { term: term.0, index: self.all[n].last().index + 1 };
            self.all[n].log.push(next);
        }
    }

    fn follow(&mut self, n: usize) {
        let one = &self.all[n];
        if !matches!(one.role, Role::Follows) || one.incoming.is_some() {
            return;
        }
        // A follower may see a deposed leader, but never returns to the leader of an earlier term.
        let candidates: Vec<(usize, Term)> = (0..N)
            .filter_map(|other| match &self.all[other].role {
                Role::Leads { term, .. } if *term >= one.latest => Some((other, *term)),
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
        let leader_end = self.all[leader].last();
        let Role::Leads { record, progress, .. } = &mut self.all[leader].role else { return };
        match entries {
            Some(mut entries) => {
                progress.record_fetch(id(n), (last, leader_end), self.now);
                entries.truncate(self.random.usize(0..=3));
                self.all[n].log.extend(entries);
            }
            None => {
                progress.reset(&id(n));
                let quarantine = record.may_hold_discarded(last);
                self.all[n].incoming = Some((term, (log, base, quarantine)));
            }
        }
    }

    fn arrive(&mut self, n: usize) {
        // The follower checks the leader's term in ZooKeeper before it replaces its log.
        if let Some((term, copied)) = self.all[n].incoming.take()
            && self.all[n].is_seen
            && term == self.term
        {
            self.replace(n, copied);
        }
    }

    fn advance(&mut self, n: usize) {
        // The view of the leader need not have every live nimbus.
        let live = (0..N).filter(|other| *other != n && self.all[*other].is_seen);
        let mut live: Vec<NimbusId> = live.map(id).collect();
        live.retain(|_| self.random.u32(0..4) > 0);
        let own = self.all[n].last();
        let Role::Leads { term, record, progress } = &mut self.all[n].role else { return };
        let in_sync = progress.in_sync(live.iter(), self.now);
        let advanced = commit::advance_high_watermark(record, (&id(n), *term, own), &in_sync);
        if let Some(advanced) = advanced.filter(|_| *term == self.term) {
            *record = advanced;
            self.record = record.clone();
            self.committed
                .extend(self.all[n].log.iter().filter(|entry| **entry <= self.record.high_watermark));
        }
    }

    fn check(&self) {
        let kept = self.on_disks();
        let lost: Vec<_> = self.committed.iter().filter(|entry| !kept.contains(entry)).collect();
        assert!(lost.is_empty(), "committed entries {lost:?} are on no disk");
        let Some(One { log, role: Role::Leads { term, record, .. }, .. }) =
            self.leader.map(|leader| &self.all[leader])
        else {
            return;
        };
        if *term == self.term {
            // The leader must recognize every replica that has discarded entries.
            let has_more = |one: &One| one.log.iter().any(|e| self.committed.contains(e) && !log.contains(e));
            let missed = self.all.iter().find(|one| has_more(one) && !record.may_hold_discarded(one.last()));
            assert!(missed.is_none(), "the leader does not recognize the discarded entries of {missed:?}");
        }
    }

    /// Lets every nimbus reach every other: before long all logs are equal.
    fn heal(&mut self) {
        for n in 0..N {
            self.arrive(n);
            self.lose_session(n);
            self.come_back(n);
        }
        let next = self.random.usize(0..N);
        self.elect(next);
        let leader = self.leader.expect("there was no leader, and every nimbus is reachable");
        for _ in 0..200 {
            self.take_over(leader);
        }
        assert!(
            matches!(self.all[leader].role, Role::Leads { .. }),
            "the leader waits, though every nimbus is reachable"
        );
        self.append(leader);
        for n in (0..N).cycle().take(N * STEPS) {
            self.follow(n);
            self.arrive(n);
        }
        let logs: BTreeSet<_> = self.all.iter().map(|one| &one.log).collect();
        assert_eq!(logs.len(), 1, "the logs differ");
        self.check();
    }
}

#[test]
fn no_committed_entry_is_deleted_whichever_nimbus_leads() {
    let (mut n_unclean, mut n_quarantined, mut n_committed) = (0, 0, 0);
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
        let quarantined = game.all.iter().map(|one| one.quarantined.len()).sum::<usize>();
        assert!(
            game.is_harsh || quarantined == 0,
            "seed {seed}: a database was quarantined without an unclean takeover"
        );
        n_unclean += game.n_unclean;
        n_quarantined += quarantined;
        n_committed += game.committed.len();
    }
    // The games contain what they are about.
    assert!(
        n_unclean > 50 && n_quarantined > 30 && n_committed > 5_000,
        "{n_unclean} {n_quarantined} {n_committed}"
    );
}
