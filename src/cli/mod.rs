//! Command line: one file per command.
//!
//! Data goes to standard output, everything else to standard error; `--json` prints the API's
//! response instead of a table. An error becomes a `Failure` with a heading, the chain of causes,
//! a hint if one is known, and an exit code.

mod activate;
mod cluster;
mod completions;
mod config;
mod confirm;
mod credentials;
mod doctor;
mod drain;
mod error;
mod events;
mod exposure;
mod get_errors;
mod kill;
mod last_writes;
mod list;
mod live;
mod local;
mod local_dir;
mod log_level;
mod logs;
mod man;
mod metrics;
mod metrics_control;
mod monitor;
mod new;
mod new_file;
mod nimbus;
mod nimbuses;
mod other_trees;
mod output;
mod owners;
mod progress;
mod rebalance;
mod recover;
mod room;
mod sample;
mod secret;
mod show;
mod submit;
mod supervisor;
mod token;
mod top;
mod topology_file;
mod trend;
mod update;
mod worker;
mod worker_connections;
mod zookeeper;
mod zookeeper_tls;
mod zookeeper_users;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use crate::config::{
    Config, Environment,
    value::{Kind, Value},
};
use error::{ErrorKind, Failure};
use last_writes::LastWrites;
use stormkeeper_access::{
    locks::Locks,
    tls::{TlsMode, client::ClientTls},
    token::Token,
};
use stormkeeper_api_types::client::{Client, Timeouts};
use stormkeeper_model::{
    address::{HostAndPort, InvalidAddress},
    secret_text::TOKEN_VARIABLE,
};
use stormkeeper_runtime::process;
use stormkeeper_supervisor::{LaunchDefaults, OnStop};
use stormkeeper_topology_package::yaml;

/// Environment variable with the file of the authorities that commands trust.
const CA_VARIABLE: &str = "STORMKEEPER_CA";

/// Control plane for stream topologies, coordinated by ZooKeeper.
#[derive(Debug, Parser)]
#[command(name = "stormkeeper", version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 success, 1 internal error, 2 usage error, 3 invalid configuration or \
topology file, 4 rejected by the cluster, 5 cluster unreachable or operation timed out."
)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
struct Global {
    /// Read this storm.yaml instead of the file named by STORMKEEPER_CONF
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a configuration key, overriding the file (can be repeated)
    #[arg(short = 'c', global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Send requests to this nimbus instead of those in nimbus.seeds (can be repeated)
    #[arg(long, global = true, value_name = "HOST[:PORT]", value_parser = nimbus_address)]
    nimbus: Vec<HostAndPort>,
    /// Read the token from this file, which only its owner may read, instead of STORMKEEPER_TOKEN or
    /// ui.token.file
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Use TLS, and trust the authorities in this file, instead of those of STORMKEEPER_CA or
    /// storm.tls.ca.file
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Show the client certificate in this file, instead of that in ui.cert.file
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Read the private key of --cert from this file, which only its owner may read
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a nimbus replica in the foreground
    Nimbus(nimbus::Args),
    /// Run the supervisor of this host in the foreground
    Supervisor(supervisor::Args),
    #[command(hide = true)]
    Worker(worker::Args),
    /// Write a directory with a topology that runs at once
    New(new::Args),
    /// Run a topology on a complete cluster in this process, without ZooKeeper
    Local(local::Args),
    /// Submit a topology file to the cluster
    Submit(submit::Args),
    /// List topologies
    List(list::Args),
    /// Show the workers, components and tasks of a topology
    Show(show::Args),
    /// Start the spouts of a topology
    Activate(activate::Args),
    /// Stop the spouts of a topology; tuples in flight are still processed
    Deactivate(activate::Args),
    /// Run new code in a running topology, a few workers at a time
    Update(update::Args),
    /// Reassign the tasks of a topology, with new numbers of workers or tasks
    Rebalance(rebalance::Args),
    /// Remove a topology
    Kill(kill::Args),
    /// Show throughput, latency and resource usage of a running or removed topology
    Metrics(Box<metrics::Args>),
    /// Print a line with the throughput of a topology in each interval
    Monitor(monitor::Args),
    /// Watch the cluster, a topology and its components on the whole screen
    Top(top::Args),
    /// Enable, disable or sample metrics of a running topology
    MetricsControl(metrics_control::Args),
    /// Show or set the log level of a topology's components, for a time
    LogLevel(log_level::Args),
    /// Print the errors of a topology's tasks
    GetErrors(get_errors::Args),
    /// Print the logs of a topology's workers, and follow them
    Logs(logs::Args),
    /// Show tuples that a component receives and emits, as they pass
    Sample(sample::Args),
    /// Hand secrets to the workers of a topology, or renew them while it runs
    Credentials(credentials::Args),
    /// Show the nimbuses and supervisors of the cluster
    Cluster(cluster::Args),
    /// Show the nimbus replicas: the leader, and the lag of each replica
    Nimbuses(nimbuses::Args),
    /// Show what each owner of topologies uses, and its quota
    Owners(owners::Args),
    /// Print the cluster's events: leader changes, moved tasks, and the reasons
    Events(events::Args),
    /// Move the workers of a host elsewhere and place no more workers on it
    Drain(drain::Args),
    /// Allow workers on a drained host again
    Undrain(drain::UndrainArgs),
    /// Bring back the tree that ZooKeeper lost, from the copy of a nimbus
    Recover(recover::Args),
    /// Make users for ZooKeeper, and protect the tree by access control lists
    #[command(subcommand, name = "zookeeper")]
    ZooKeeper(zookeeper::Command),
    /// Check this host, its configuration, ZooKeeper and the cluster, and say what to do
    Doctor(doctor::Args),
    /// Show the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Make a token for a person or a program
    #[command(subcommand)]
    Token(token::Command),
    /// Make a secret for the daemons of a cluster
    #[command(subcommand)]
    Secret(secret::Command),
    /// Print shell completions
    Completions(completions::Args),
    /// Write the manual pages of all commands
    Man(man::Args),
}

/// Runs the command line `args` and returns the exit code of the process.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => return error::usage(&error),
    };
    match dispatch(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(Args { global, command }: Args) -> Result<(), Failure> {
    match command {
        Command::Nimbus(args) => nimbus::run(&global, &args),
        Command::Recover(args) => recover::run(&global, &args),
        Command::Supervisor(args) => supervisor::run(&global, &args),
        Command::Worker(args) => worker::run(&args),
        Command::New(args) => new::run(&global, &args),
        Command::Local(args) => local::run(&global, &args),
        Command::Submit(args) => submit::run(&global, &args),
        Command::List(args) => list::run(&global, &args),
        Command::Show(args) => show::run(&global, &args),
        Command::Activate(args) => activate::activate(&global, &args),
        Command::Deactivate(args) => activate::deactivate(&global, &args),
        Command::Rebalance(args) => rebalance::run(&global, &args),
        Command::Kill(args) => kill::run(&global, &args),
        Command::Metrics(args) => metrics::run(&global, &args),
        Command::Monitor(args) => monitor::run(&global, &args),
        Command::Top(args) => top::run(&global, &args),
        Command::Update(args) => update::run(&global, &args),
        Command::LogLevel(args) => log_level::run(&global, &args),
        Command::MetricsControl(args) => metrics_control::run(&global, &args),
        Command::GetErrors(args) => get_errors::run(&global, &args),
        Command::Logs(args) => logs::run(&global, &args),
        Command::Sample(args) => sample::run(&global, &args),
        Command::Credentials(args) => credentials::run(&global, &args),
        Command::Cluster(args) => cluster::run(&global, &args),
        Command::Nimbuses(args) => nimbuses::run(&global, &args),
        Command::Owners(args) => owners::run(&global, &args),
        Command::Events(args) => events::run(&global, &args),
        Command::Drain(args) => drain::run(&global, &args),
        Command::Undrain(args) => drain::undrain(&global, &args),
        Command::ZooKeeper(command) => zookeeper::run(&global, &command),
        Command::Doctor(args) => doctor::run(&global, &args),
        Command::Config(command) => config::run(&global, &command),
        Command::Token(command) => token::run(&global, &command),
        Command::Secret(command) => secret::run(&command),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&global, &args),
    }
}

impl Global {
    /// Configuration from the file, the environment and `-c`. Warnings go to standard error.
    fn load(&self) -> Result<Config, Failure> {
        let environment = Environment::of_process();
        let (config, warnings) = Config::load(self.config.as_deref(), &self.set, &environment)?;
        for warning in warnings {
            output::note(&format!("warning: {warning}"));
        }
        Ok(config)
    }

    /// Client of the cluster's nimbuses.
    fn client(&self) -> Result<Client, Failure> {
        self.client_with(&self.load()?)
    }

    /// As [`client`](Self::client), with a configuration that was loaded before.
    fn client_with(&self, config: &Config) -> Result<Client, Failure> {
        let named = self.nimbus.iter().map(|nimbus| config.nimbus_at(nimbus));
        let seeds = if self.nimbus.is_empty() { config.nimbus_seeds() } else { named.collect() };
        let writes = LastWrites::of_user();
        let client = Client::new(seeds, Timeouts::default())?.over(&self.tls(config)?)?;
        let client = client.as_user(user()).after(writes.recall());
        Ok(client.with_token(self.token(config)?).reporting_to(Box::new(writes)))
    }

    /// TLS of commands, with the certificate of the user if there is one.
    fn tls(&self, config: &Config) -> Result<ClientTls, Failure> {
        #[expect(clippy::disallowed_methods, reason = "the command line may read the environment")]
        let variable = std::env::var(CA_VARIABLE).ok().filter(|file| !file.is_empty()).map(PathBuf::from);
        let settings = config.tls_settings();
        let named = self.ca.clone().or(variable);
        // A command that names an authority uses TLS.
        let mode = match (&named, settings.mode) {
            (Some(_), _) => TlsMode::Required,
            (None, Some(mode)) => mode,
            (None, None) if settings.authorities.is_some() => TlsMode::Required,
            (None, None) => TlsMode::Off,
        };
        if mode == TlsMode::Off {
            return Ok(ClientTls::off());
        }
        let authorities = named.or(settings.authorities).ok_or_else(|| {
            Failure::usage(
                "storm.tls is on, but no authority is known; set storm.tls.ca.file, or use --ca FILE",
            )
        })?;
        let [certificate, key] = match (&self.cert, &self.key) {
            (None, None) => config.certificate_files(),
            (certificate, key) => [certificate.clone(), key.clone()],
        };
        let both = match (&certificate, &key) {
            (Some(certificate), Some(key)) => Some((&**certificate, &**key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(Failure::usage("of ui.cert.file and ui.cert.key.file only one is set; set both"));
            }
        };
        ClientTls::of_command(mode, &authorities, both)
            .map_err(|error| Failure::new(ErrorKind::Config, error.into()))
    }

    /// Token of the user, if there is one.
    fn token(&self, config: &Config) -> Result<Option<Token>, Failure> {
        #[expect(clippy::disallowed_methods, reason = "the command line may read the environment")]
        let variable = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let file = match (&self.token_file, variable) {
            (Some(file), _) => Some(file.clone()),
            (None, Some(token)) => {
                let invalid = |error| Failure::usage(format!("{TOKEN_VARIABLE} is no token: {error}"));
                return Token::new(token.trim()).map(Some).map_err(invalid);
            }
            (None, None) => config.token_file(),
        };
        let read = |file: PathBuf| Token::read(&file);
        file.map(read).transpose().map_err(|error| Failure::new(ErrorKind::Config, error.into()))
    }
}

/// Reads the address of a nimbus, also in the form in which a browser shows it.
fn nimbus_address(text: &str) -> Result<HostAndPort, String> {
    let address = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let address = address.map_or(text, |text| text.trim_end_matches('/'));
    address.parse().map_err(|error: InvalidAddress| error.to_string())
}

/// Runtime of a command that sends requests to the cluster: one thread is enough.
fn client_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::internal(anyhow::Error::new(error).context("starting the async runtime")))
}

/// Runtime of a daemon.
fn daemon_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    process::runtime()
        .map_err(|error| Failure::internal(anyhow::Error::new(error).context("starting the async runtime")))
}

/// Launch settings of workers, from the configuration.
fn launch_defaults(config: &Config) -> LaunchDefaults {
    let timing = config.worker_timing();
    LaunchDefaults {
        config_file: config.file().map(std::path::Path::to_owned),
        overrides: config.overrides().to_vec(),
        heartbeat_period: timing.heartbeat_period,
        task_heartbeat_period: timing.task_heartbeat_period,
        subprocess_timeout: timing.subprocess_timeout,
        metric_report_period: timing.metric_report_period,
        settings: config.topology_defaults(),
        on_stop: OnStop::LeaveWorkers,
        withheld_variables: Vec::new(),
        abandoned_after: timing.abandoned_after,
        locks: Locks::open(),
        zookeeper_users: None,
        fixed_credentials: None,
        zookeeper_identity: None,
        connections: None,
        run_as: None,
    }
}

/// Longest wait that an option accepts.
const MAX_WAIT_SECS: u64 = 30 * 24 * 3600;

/// Parses a time of the command line: `500ms`, `10s`, `2m`, or plain seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let read = yaml::parse(text).ok().and_then(|node| Kind::Secs(0, MAX_WAIT_SECS).read(&node.value));
    match read {
        Some(Value::Duration(duration)) => Ok(duration),
        _ => Err("expected a time such as 500ms, 10s or 2m, at most 30 days".to_owned()),
    }
}

/// Converts a wait to the whole seconds of the API, rounded up.
fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// User that runs the command: the owner of what it submits. The name of the process' uid, or the
/// uid itself where it has no name, as in many containers.
fn user() -> String {
    let uid = uzers::get_current_uid();
    let name = uzers::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into_owned());
    name.unwrap_or_else(|| format!("uid-{uid}"))
}

/// Log filter from `STORMKEEPER_LOG`.
fn log_filter() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the command line may read the environment")]
    std::env::var("STORMKEEPER_LOG").ok().filter(|filter| !filter.is_empty())
}

/// Command line as a clap command, for completions and the reference.
fn command_line() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests;
