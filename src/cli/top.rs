//! `stormkeeper top`
//!
//! [`state`] decides what keys do and [`view`] draws lines, both without a terminal; [`screen`] is the
//! terminal.

mod keys;
mod screen;
mod state;
mod view;

use std::{io::IsTerminal as _, time::Duration};

use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::cli::{Global, client_runtime, error::Failure, live, parse_duration};
use keys::Key;
use screen::Screen;
use state::{Data, Effect, Level, State};
use stormkeeper_api_types::client::Client;
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
};

/// Shortest time between two refreshes.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// Longest wait for a nimbus: the screen says then that its numbers are old.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Chunks of keys that wait; what is typed faster waits in the terminal.
const KEYS_MAX: usize = 16;

/// Watch the cluster, a topology and its components on the whole screen.
#[derive(Debug, clap::Args)]
#[command(after_help = "Keys: up and down select, Enter opens a topology or a component, Esc goes back, \
left and right choose the column to sort by, r reverses, q ends. Rates are those of the last seconds; where a \
worker sends no live numbers, those of the last 20 seconds. Without a terminal use \
`stormkeeper monitor`, or `list --json` and `show --json`.\n\
Example: stormkeeper top word-count")]
pub(super) struct Args {
    /// Name or id of the topology to begin with
    topology: Option<String>,
    /// Time between two refreshes, at least 1s
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    every: Duration,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let has_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if global.json || !has_terminal {
        return Err(Failure::usage("top draws on a terminal").with_hint(
            "in a script use `stormkeeper monitor TOPOLOGY`, `list --json` or `show TOPOLOGY --json`",
        ));
    }
    let client = global.client()?;
    let runtime = Background(Some(client_runtime()?));
    runtime.0.as_ref().map_or(Ok(()), |runtime| runtime.block_on(watch(args, &client)))
}

/// Runtime that does not wait at its end, also after a panic: the read of a key lasts until there is one.
struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn watch(args: &Args, client: &Client) -> Result<(), Failure> {
    let clock = Clock::new();
    let mut state = State::new(args.topology.clone());
    // What is wrong with the first answer is said without a screen.
    state.take(fetch(client, &state.level).await?, clock.monotonic());
    let internal =
        |error: std::io::Error| Failure::internal(anyhow::Error::new(error).context("using the terminal"));
    let mut resized = signal(SignalKind::window_change()).map_err(internal)?;
    // Before the screen is open: a signal must not end the process with the terminal as it is then.
    let ended = end_signals().map_err(internal)?;
    tokio::pin!(ended);
    let screen = Screen::open().map_err(internal)?;
    let tasks = Tasks::default();
    let mut keys = read_keys(&tasks);
    let mut refresh = tokio::time::interval(args.every.max(EVERY_MIN));
    refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    refresh.reset();
    let request = |level: Level| {
        Box::pin(async move { tokio::time::timeout(REQUEST_TIMEOUT, fetch(client, &level)).await })
    };
    let mut answer = None;
    loop {
        let size = screen.size();
        screen.draw(&view::lines(&mut state, size, clock.monotonic())).map_err(internal)?;
        // Keys are answered while a request waits; a new one takes the place of that of another level.
        tokio::select! {
            key = keys.recv() => match key.map(|key| state.press(key)) {
                None | Some(Effect::Quit) => return Ok(()),
                Some(Effect::Redraw) => {}
                Some(Effect::Fetch) => answer = Some(request(state.level.clone())),
            },
            _ = refresh.tick(), if answer.is_none() => answer = Some(request(state.level.clone())),
            fetched = async { answer.as_mut().expect("there is a request").await }, if answer.is_some() => {
                answer = None;
                match fetched {
                    Ok(Ok(data)) => state.take(data, clock.monotonic()),
                    Ok(Err(failure)) => state.problem = Some(failure.text()),
                    Err(_elapsed) => state.problem = Some(format!("no answer within {REQUEST_TIMEOUT:?}")),
                }
            }
            _ = resized.recv() => {}
            () = &mut ended => return Ok(()),
        }
    }
}

/// Waits for a signal that ends the command; none is lost after this returns.
fn end_signals() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut closed = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
            _ = closed.recv() => {}
        }
    })
}

async fn fetch(client: &Client, level: &Level) -> Result<Data, Failure> {
    Ok(match level {
        Level::Cluster => Data::Cluster(Box::new((client.cluster().await?, client.list().await?))),
        Level::Topology(name) | Level::Component(name, _) => {
            let (detail, numbers) = tokio::join!(client.show(name), live::read(client, name, false));
            Data::Topology(Box::new(detail?), numbers.map(Box::new))
        }
    })
}

/// Reads keys until the input ends.
fn read_keys(tasks: &Tasks) -> mpsc::Receiver<Key> {
    let (sender, receiver) = mpsc::channel(KEYS_MAX);
    tasks.start("keys", OnExit::Ignore, async move {
        while let Ok(bytes) = blocking::run(screen::read).await {
            if bytes.is_empty() {
                break;
            }
            for key in keys::parse(&bytes) {
                if sender.send(key).await.is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests;
