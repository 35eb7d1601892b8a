//! `stormkeeper log-level TOPOLOGY`

use std::time::Duration;

use crate::cli::{Global, client_runtime, error::Failure, output, parse_duration, whole_seconds};
use stormkeeper_api_types::message::{LogLevelRequest, LogLevelView, LogLevels};
use stormkeeper_model::{ComponentId, log_control::LogLevel};

/// Show or set the log level of a topology's components, for a time.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Levels are error, warn, info, debug and trace. A level replaces the log filter of the workers for \
what these components log: the messages `log` of multilang, and events of `tracing` in components in Rust. The level of \
a component wins over that of all. Workers follow within seconds; without LEVEL and --reset the command prints the \
levels in effect.\n\
\n\
Examples:\n  \
stormkeeper log-level word-count debug --component split --for 5m\n  \
stormkeeper log-level word-count --reset"
)]
pub(super) struct Args {
    /// Name or id of the topology
    topology: String,
    /// The level: error, warn, info, debug or trace
    level: Option<LogLevel>,
    /// Of this component only
    #[arg(long, value_name = "COMPONENT")]
    component: Option<ComponentId>,
    /// End the level after this long, at most 24h [default: 10m]
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, requires = "level")]
    duration: Option<Duration>,
    /// End the level that was set before; without --component, all levels
    #[arg(long, conflicts_with = "level")]
    reset: bool,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    if args.component.is_some() && args.level.is_none() && !args.reset {
        return Err(Failure::usage("--component needs a level, or --reset".to_owned()));
    }
    let levels = client_runtime()?.block_on(async {
        if args.level.is_some() || args.reset {
            let request = LogLevelRequest {
                component: args.component.clone(),
                level: args.level,
                for_secs: args.duration.map(whole_seconds),
            };
            client.set_log_level(&args.topology, &request).await?;
        }
        Ok::<_, Failure>(client.log_levels(&args.topology).await?)
    })?;
    if global.json {
        return output::print_json(&levels);
    }
    match levels.is_empty() {
        true => output::print(&format!("{} logs as the log filter of its workers says\n", args.topology)),
        false => output::print(&lines(&levels)),
    }
}

/// Lines about the levels that are in effect, one for each.
pub(super) fn lines(levels: &LogLevels) -> String {
    let line = |whose: &str, view: &LogLevelView| {
        format!("log level of {} is {} until {}\n", output::one_line(whose), view.level, view.until_ms)
    };
    let all = levels.all.iter().map(|view| {
        let whose = if levels.components.is_empty() { "all components" } else { "all other components" };
        line(whose, view)
    });
    let own = levels.components.iter().map(|(component, view)| line(component.as_str(), view));
    all.chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_model::Timestamp;

    #[test]
    fn levels_in_effect_are_printed_with_their_ends() {
        let view = |level| LogLevelView { level, until_ms: Timestamp::EPOCH };
        let mut levels = LogLevels { all: Some(view(LogLevel::Warn)), ..LogLevels::default() };
        let end = Timestamp::EPOCH;
        assert_eq!(lines(&levels), format!("log level of all components is warn until {end}\n"));
        levels.components.insert("split".parse().expect("valid"), view(LogLevel::Debug));
        assert_eq!(
            lines(&levels),
            format!(
                "log level of all other components is warn until {end}\nlog level of split is debug until {end}\n"
            )
        );
    }
}
