//! Runs the simulated cluster, once per seed: some hundreds of seeds with `cargo test`, any number
//! with `scripts/simulate`. The first failures are printed with the command line that reproduces
//! them.

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
    injected_bugs::{self, InjectedBug},
    telemetry,
};
use stormkeeper_sim as sim;
use stormkeeper_sim::{Links, Report};

/// Number of runs of `cargo test`, and of additional runs on bad links and with updates.
const SEEDS: u64 = 200;
const BAD_SEEDS: u64 = 100;
const UPDATED_SEEDS: u64 = 50;

/// Number of journal lines that are printed of a failure.
const TAIL: usize = 60;

const USAGE: &str = "\
Runs the simulated cluster.

  --seeds N     number of runs (200, and another 100 on bad links)
  --from N      first seed (0)
  --seed S      run this seed only, and print its whole journal
  --bad-links   the nimbuses' links lose responses and events all the time
  --updates     running topologies are updated, too; 50 of the runs without arguments
  --bug B  inject this bug into the daemons, to check that it is found
  --jobs N      number of runs at a time (one per core)
  --log FILTER  log filter of the daemons, as with STORMKEEPER_LOG";

#[derive(Debug, Clone)]
struct Args {
    from: u64,
    seeds: u64,
    jobs: usize,
    is_single: bool,
    /// True without a selection of seeds: the runs of `cargo test`.
    is_default: bool,
    links: Links,
    updates: bool,
    bug: Option<InjectedBug>,
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
    if args.is_default {
        rounds.push(Args { seeds: BAD_SEEDS, links: Links::Bad, ..args.clone() });
        rounds.push(Args { seeds: UPDATED_SEEDS, updates: true, ..args });
    }
    let (mut n_passed, mut n_failed) = (0, 0);
    for round in &rounds {
        let (passed, failures) = run_seeds(round);
        for report in failures.iter().take(3) {
            print_report(report, round, if round.is_single { usize::MAX } else { TAIL });
        }
        n_passed += passed;
        n_failed += failures.len();
    }
    println!("simulation: {n_passed} passed, {n_failed} failed");
    if n_failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Parses the command line; returns `None` if there is nothing to run. The options of rustc's test
/// harness are accepted, as `cargo test` passes the same arguments to every target.
fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let jobs = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut parsed = Args {
        from: 0,
        seeds: SEEDS,
        jobs,
        is_single: false,
        is_default: true,
        links: Links::ByChance,
        updates: false,
        bug: None,
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text} is not a number"));
        if matches!(&*arg, "--seeds" | "--from" | "--seed" | "--bad-links" | "--updates" | "--bug") {
            parsed.is_default = false;
        }
        match &*arg {
            "--seeds" => parsed.seeds = number(value()?)?,
            "--from" => parsed.from = number(value()?)?,
            "--seed" => {
                parsed.from = number(value()?)?;
                (parsed.seeds, parsed.is_single) = (1, true);
            }
            "--jobs" => parsed.jobs = value()?.parse().map_err(|_| "--jobs needs a number".to_owned())?,
            "--bad-links" => parsed.links = Links::Bad,
            "--updates" => parsed.updates = true,
            "--bug" => {
                let text = value()?;
                let known = InjectedBug::ALL.iter().find(|bug| format!("{bug:?}") == text);
                let known = known.ok_or_else(|| format!("the bugs are {:?}", InjectedBug::ALL))?;
                parsed.bug = Some(*known);
            }
            "--log" => telemetry::log_to_stderr(Some(&value()?)),
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(None);
            }
            "--list" => {
                // Test runners ask for the ignored tests in a second call; there are none.
                if !args.any(|arg| arg == "--ignored") {
                    println!("simulation: test");
                }
                return Ok(None);
            }
            "--ignored" => return Ok(None),
            "--test-threads" | "--color" | "--format" | "--skip" | "--logfile" => drop(value()?),
            flag if flag.starts_with('-') => {}
            // Name filter of the test harness.
            name if "simulation".contains(name) => {}
            _ => return Ok(None),
        }
    }
    Ok(Some(parsed))
}

/// Runs the seeds, several at a time. Returns the number of runs that passed, and the reports of
/// the others, by seed.
fn run_seeds(args: &Args) -> (u64, Vec<Report>) {
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
                    let run = || match args.updates {
                        true => sim::run_with_updates(seed),
                        false => sim::run_on(args.links, seed),
                    };
                    let report = match args.bug {
                        Some(bug) => injected_bugs::with(bug, run),
                        None => run(),
                    };
                    reports.lock().expect("no panic").add(report, args);
                }
            });
        }
    });
    let mut progress = reports.into_inner().expect("no panic");
    progress.print();
    progress.failures.sort_by_key(|report| report.seed);
    (progress.n_passed, progress.failures)
}

struct Progress {
    clock: Clock,
    start: Monotonic,
    printed_at: Duration,
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
            printed_at: Duration::ZERO,
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
                print_report(&report, args, usize::MAX);
                self.n_passed += 1;
            }
            None => self.n_passed += 1,
            Some(violation) => {
                eprintln!("seed {} failed: {violation}", report.seed);
                self.failures.push(report);
            }
        }
        let period = if std::io::stderr().is_terminal() { 1 } else { 20 };
        if self.elapsed().saturating_sub(self.printed_at) >= Duration::from_secs(period) {
            self.print();
        }
    }

    fn elapsed(&self) -> Duration {
        self.clock.monotonic().since(self.start)
    }

    fn print(&mut self) {
        self.printed_at = self.elapsed();
        let n_done = self.n_passed + self.failures.len() as u64;
        eprintln!(
            "{n_done} of {} runs in {:.0} s: {:.1} h of simulated time, {} transactions, at most {:.0} s to \
             converge, {} failed",
            self.n_wanted,
            self.printed_at.as_secs_f64(),
            self.lasted.as_secs_f64() / 3600.0,
            self.n_commits,
            self.slowest.as_secs_f64(),
            self.failures.len()
        );
    }
}

fn print_report(report: &Report, round: &Args, n_lines: usize) {
    let skipped = report.tail.len().saturating_sub(n_lines);
    println!("\nthe end of the journal of seed {}:", report.seed);
    report.tail.iter().skip(skipped).for_each(|line| println!("  {line}"));
    if let Some(violation) = &report.violation {
        println!("seed {} failed: {violation}", report.seed);
    }
    let flag = match (round.links, round.updates) {
        (_, true) => " --updates",
        (Links::ByChance, false) => "",
        (Links::Bad, false) => " --bad-links",
    };
    println!("reproduce: scripts/simulate --seed {}{flag}", report.seed);
}
