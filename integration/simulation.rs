//! Plays runs of the simulated cluster, one seed each: some hundreds with `cargo test`, as
//! many as wanted with `scripts/simulate`. The first failure is shown with the line that
//! plays it again.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is for a terminal")]

use std::{
    io::IsTerminal as _,
    num::NonZero,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use stormkeeper_model::clock::{Clock, Monotonic};
use stormkeeper_runtime::{
    injected_bugs::{self, Sabotage},
    telemetry,
};
use stormkeeper_sim as sim;
use stormkeeper_sim::{Links, Report};

/// What `cargo test` plays, and how many of these once more on bad links.
const SEEDS: u64 = 200;
const BAD_SEEDS: u64 = 100;

/// The last lines of the journal that are shown of a failure.
const TAIL: usize = 60;

const USAGE: &str = "\
Plays runs of the simulated cluster.

  --seeds N     how many (200, and 100 of them once more on bad links)
  --from N      the first seed (0)
  --seed S      this one alone, with its whole journal
  --bad-links   the nimbuses' links lose answers and events all the time
  --sabotage B  with this bug put into the daemons, to see that it is found
  --jobs N      how many at a time (one for each core)
  --log FILTER  the logs of the daemons, as with STORMKEEPER_LOG";

#[derive(Debug, Clone)]
struct Args {
    from: u64,
    seeds: u64,
    jobs: usize,
    is_single: bool,
    /// Nobody said how many or which: what `cargo test` plays.
    is_usual: bool,
    links: Links,
    sabotage: Option<Sabotage>,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => return ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut rounds = vec![args.clone()];
    if args.is_usual {
        rounds.push(Args { seeds: BAD_SEEDS, links: Links::Bad, ..args });
    }
    let (mut n_passed, mut n_failed) = (0, 0);
    for round in &rounds {
        let (passed, failures) = play(round);
        for report in failures.iter().take(3) {
            show(report, round.links, if round.is_single { usize::MAX } else { TAIL });
        }
        n_passed += passed;
        n_failed += failures.len();
    }
    println!("simulation: {n_passed} passed, {n_failed} failed");
    if n_failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is asked for; `None` when nothing is to be played. What the test harness of rustc
/// would take is taken as well, as `cargo test` gives every target the same arguments.
fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let jobs = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut parsed = Args {
        from: 0,
        seeds: SEEDS,
        jobs,
        is_single: false,
        is_usual: true,
        links: Links::ByChance,
        sabotage: None,
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text} is not a number"));
        if matches!(&*arg, "--seeds" | "--from" | "--seed" | "--bad-links" | "--sabotage") {
            parsed.is_usual = false;
        }
        match &*arg {
            "--seeds" => parsed.seeds = number(value()?)?,
            "--from" => parsed.from = number(value()?)?,
            "--seed" => {
                parsed.from = number(value()?)?;
                (parsed.seeds, parsed.is_single) = (1, true);
            }
            "--jobs" => parsed.jobs = value()?.parse().map_err(|_| "--jobs takes a number".to_owned())?,
            "--bad-links" => parsed.links = Links::Bad,
            "--sabotage" => {
                let text = value()?;
                let known = Sabotage::ALL.iter().find(|bug| format!("{bug:?}") == text);
                let known = known.ok_or_else(|| format!("the bugs are {:?}", Sabotage::ALL))?;
                parsed.sabotage = Some(*known);
            }
            "--log" => telemetry::log_to_stderr(Some(&value()?)),
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(None);
            }
            "--list" => {
                println!("simulation: test");
                return Ok(None);
            }
            "--test-threads" | "--color" | "--format" | "--skip" | "--logfile" => drop(value()?),
            flag if flag.starts_with('-') => {}
            // The name of a test that is wanted.
            name if "simulation".contains(name) => {}
            _ => return Ok(None),
        }
    }
    Ok(Some(parsed))
}

/// Plays the seeds, several at a time. Answers how many passed, and those that did not, by
/// seed.
fn play(args: &Args) -> (u64, Vec<Report>) {
    let next = AtomicU64::new(args.from);
    let end = args.from.saturating_add(args.seeds);
    let reports = Mutex::new(Progress::new(args.seeds));
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let play = || sim::run_on(args.links, seed);
                    let report = match args.sabotage {
                        Some(bug) => injected_bugs::with(bug, play),
                        None => play(),
                    };
                    reports.lock().expect("no panic").add(report, args);
                }
            });
        }
    });
    let mut progress = reports.into_inner().expect("no panic");
    progress.show();
    progress.failures.sort_by_key(|report| report.seed);
    (progress.n_passed, progress.failures)
}

struct Progress {
    clock: Clock,
    start: Monotonic,
    shown: Duration,
    n_wanted: u64,
    n_passed: u64,
    n_commits: u64,
    lasted: Duration,
    slowest: Duration,
    failures: Vec<Report>,
}

impl Progress {
    fn new(n_wanted: u64) -> Self {
        let clock = Clock::new();
        Self {
            start: clock.monotonic(),
            clock,
            shown: Duration::ZERO,
            n_wanted,
            n_passed: 0,
            n_commits: 0,
            lasted: Duration::ZERO,
            slowest: Duration::ZERO,
            failures: Vec::new(),
        }
    }

    fn add(&mut self, report: Report, args: &Args) {
        self.n_commits += report.n_commits;
        self.lasted += report.lasted;
        self.slowest = self.slowest.max(report.converged_in);
        match &report.violation {
            None if args.is_single => {
                show(&report, args.links, usize::MAX);
                self.n_passed += 1;
            }
            None => self.n_passed += 1,
            Some(violation) => {
                eprintln!("seed {} failed: {violation}", report.seed);
                self.failures.push(report);
            }
        }
        let period = if std::io::stderr().is_terminal() { 1 } else { 20 };
        if self.elapsed().saturating_sub(self.shown) >= Duration::from_secs(period) {
            self.show();
        }
    }

    fn elapsed(&self) -> Duration {
        self.clock.monotonic().since(self.start)
    }

    fn show(&mut self) {
        self.shown = self.elapsed();
        let n_done = self.n_passed + self.failures.len() as u64;
        eprintln!(
            "{n_done} of {} runs in {:.0} s: {:.1} h of simulated time, {} transactions, at most {:.0} s to \
             converge, {} failed",
            self.n_wanted,
            self.shown.as_secs_f64(),
            self.lasted.as_secs_f64() / 3600.0,
            self.n_commits,
            self.slowest.as_secs_f64(),
            self.failures.len()
        );
    }
}

fn show(report: &Report, links: Links, n_lines: usize) {
    let skipped = report.tail.len().saturating_sub(n_lines);
    println!("\nthe end of the journal of seed {}:", report.seed);
    report.tail.iter().skip(skipped).for_each(|line| println!("  {line}"));
    if let Some(violation) = &report.violation {
        println!("seed {} failed: {violation}", report.seed);
    }
    let flag = match links {
        Links::ByChance => "",
        Links::Bad => " --bad-links",
    };
    println!("play it again: scripts/simulate --seed {}{flag}", report.seed);
}
