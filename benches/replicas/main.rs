//! Speed of nimbus replicas, with real ZooKeeper servers and real nimbus processes.
//!
//! ```sh
//! cargo bench --bench replicas -- failover   # a stopped, a killed, a restarted leader
//! cargo bench --bench replicas -- takeover   # a new leader of 300 topologies
//! cargo bench --bench replicas -- steady     # 100,000 tasks with heartbeats, and a lost host
//! cargo bench --bench replicas -- register   # 10,000 heartbeats from one host
//! cargo bench --bench replicas -- apis       # the APIs of a leader of 300 topologies
//! ```
//!
//! With a trailing `3`, ZooKeeper is an ensemble of three servers instead of one. Each benchmark
//! prints a table: the figure, its goal, and floors that are measured in the same run. A missed
//! goal is not a failure; a benchmark fails only if an expected event does not happen at all.

#![expect(clippy::print_stdout, reason = "the table is printed")]

mod apis;
mod cluster;
mod failover;
mod floor;
mod hosts;
mod load;
mod measured;
mod process;
mod register;
mod report;
mod requests;
mod steady;
mod takeover;
mod watching;

const VERBS: [&str; 5] = ["failover", "takeover", "steady", "register", "apis"];

fn main() {
    // Cargo adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        // Simulates hosts and their workers, in a process started by the other benchmarks.
        [hosts::VERB, ref rest @ ..] => runtime().block_on(hosts::run(rest)),
        [] => VERBS.iter().for_each(|verb| measure(verb, 1)),
        [verb] if VERBS.contains(&verb) => measure(verb, 1),
        [verb, "3"] if VERBS.contains(&verb) => measure(verb, 3),
        _ => println!("usage: cargo bench --bench replicas -- [{}] [3]", VERBS.join("|")),
    }
}

fn measure(verb: &str, n_servers: usize) {
    let report = runtime().block_on(async {
        match verb {
            "failover" => failover::run(n_servers).await,
            "takeover" => takeover::run(n_servers).await,
            "steady" => steady::run(n_servers).await,
            "register" => register::run(n_servers).await,
            "apis" => apis::run(n_servers).await,
            _ => unreachable!("the caller has checked the verb"),
        }
    });
    report.print();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}
