//! `stormkeeper metrics-control TOPOLOGY`

use std::collections::BTreeSet;

use crate::cli::{Global, client_runtime, error::Failure, output};
use stormkeeper_api_types::{
    client::{Client, MetricFilter, Page},
    message::MetricControlRequest,
};
use stormkeeper_metrics::{
    Builtin, Window,
    builtin::{self, BuiltinStatus},
};
use stormkeeper_model::suggest;

/// Enable, disable or sample metrics of a running topology, without a restart.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A metric is given by the last part of its name, as shown by `stormkeeper metrics TOPOLOGY \
--all`. A name that is neither built in nor measured yet is accepted with a warning, since components \
register their own metrics while they run. Earlier changes stay in effect unless --reset is given. Without options the command prints the changes \
in effect. Workers apply a change within seconds.\n\
\n\
Examples:\n  \
stormkeeper metrics-control word-count --enable EmitTime --sample-rate 0.5\n  \
stormkeeper metrics-control word-count --disable TupleLifeCycle\n  \
stormkeeper metrics-control word-count --debug ProcessLatency      # log it in the workers\n  \
stormkeeper metrics-control word-count --reset                     # as submitted"
)]
pub(super) struct Args {
    /// Name or id of the topology
    topology: String,
    /// Measure this metric even if the settings disable it (can be repeated)
    #[arg(long, value_name = "NAME")]
    enable: Vec<String>,
    /// Stop measuring this metric (can be repeated)
    #[arg(long, value_name = "NAME")]
    disable: Vec<String>,
    /// Record this fraction of values in histograms, from 0 to 1; counts and sums include all
    /// values
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    sample_rate: Option<f64>,
    /// Write this metric to the log of each worker every minute (can be repeated)
    #[arg(long, value_name = "NAME")]
    debug: Vec<String>,
    /// Discard all earlier changes
    #[arg(long)]
    reset: bool,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1, such as 0.1".to_owned())
}

impl Args {
    fn changes(&self) -> bool {
        let Self { topology: _, enable, disable, sample_rate, debug, reset } = self;
        *reset || sample_rate.is_some() || !(enable.is_empty() && disable.is_empty() && debug.is_empty())
    }

    /// Returns the names on the command line, each once.
    fn names(&self) -> BTreeSet<&str> {
        [&self.enable, &self.disable, &self.debug].into_iter().flatten().map(String::as_str).collect()
    }

    /// Returns the changes in effect, `before`, merged with the changes of the command line.
    fn merge_into(&self, before: MetricControlRequest) -> Result<MetricControlRequest, Failure> {
        if let Some(name) = self.enable.iter().find(|name| self.disable.contains(name)) {
            return Err(Failure::usage(format!("{name} cannot be both enabled and disabled")));
        }
        let MetricControlRequest { mut enabled, mut disabled, sample_rate, mut debug } =
            if self.reset { MetricControlRequest::default() } else { before };
        enabled.retain(|name| !self.disable.contains(name));
        disabled.retain(|name| !self.enable.contains(name));
        for (list, more) in
            [(&mut enabled, &self.enable), (&mut disabled, &self.disable), (&mut debug, &self.debug)]
        {
            list.extend(more.iter().cloned());
            list.sort();
            list.dedup();
        }
        Ok(MetricControlRequest { enabled, disabled, sample_rate: self.sample_rate.or(sample_rate), debug })
    }
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    let control = client_runtime()?.block_on(async {
        let before = client.metric_control(&args.topology).await?;
        if !args.changes() {
            return Ok(before);
        }
        let control = args.merge_into(before)?;
        client.control_metrics(&args.topology, &control).await?;
        for name in args.names() {
            if let Some(warning) =
                warning(&args.topology, name, is_measured(&client, &args.topology, name).await)
            {
                output::note(&warning);
            }
        }
        Ok::<_, Failure>(control)
    })?;
    if global.json {
        return output::print_json(&control);
    }
    output::print(&text(&args.topology, &control))
}

/// Returns whether the topology had a metric of this name within a day; `None` if that cannot be read.
async fn is_measured(client: &Client, topology: &str, name: &str) -> Option<bool> {
    let page = Page { after: None, limit: Some(1) };
    // Metrics of streams and connections have a prefix.
    for pattern in [name.to_owned(), format!("*.{name}")] {
        let filter = MetricFilter { name: Some(pattern), ..MetricFilter::default() };
        let list = client.latest_metrics(topology, Window::D1, &filter, &page).await.ok()?;
        // An empty page may have a next one.
        if !list.values.is_empty() || list.next.is_some() {
            return Some(true);
        }
    }
    Some(false)
}

/// Returns a warning for a name without effect, as far as is known.
fn warning(topology: &str, name: &str, is_measured: Option<bool>) -> Option<String> {
    let of_workers: Vec<&Builtin> = builtin::ALL.iter().filter(|one| one.subject.is_of_topology()).collect();
    if let Some(known) = of_workers.iter().find(|one| one.name == name) {
        let reason = match known.status {
            BuiltinStatus::Measured => return None,
            BuiltinStatus::NotApplicable(reason) => reason,
        };
        return Some(format!("Warning: {name} is not measured, whatever is enabled: {reason}."));
    }
    let without = match is_measured {
        Some(true) => return None,
        Some(false) => format!("no component of {topology} has measured a metric {name:?}, and none"),
        None => format!("no metric {name:?}"),
    };
    let hint = match suggest::nearest(name, of_workers.iter().map(|one| one.name)) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => ". It takes effect when a component registers a metric of that name.".to_owned(),
    };
    Some(format!("Warning: {without} is built in{hint}"))
}

fn text(topology: &str, control: &MetricControlRequest) -> String {
    let MetricControlRequest { enabled, disabled, sample_rate, debug } = control;
    if *control == MetricControlRequest::default() {
        return format!("{topology} measures its metrics as its settings say\n");
    }
    let mut text = format!("{topology} measures its metrics as its settings say, except\n");
    for (what, names) in [("enabled", enabled), ("disabled", disabled), ("debug", debug)] {
        if !names.is_empty() {
            text.push_str(&format!("  {what:<11}  {}\n", names.join(", ")));
        }
    }
    if let Some(rate) = sample_rate {
        text.push_str(&format!("  sample rate  {rate}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn args(enable: &[&str], disable: &[&str]) -> Args {
        Args {
            topology: "wc".to_owned(),
            enable: names(enable),
            disable: names(disable),
            sample_rate: None,
            debug: Vec::new(),
            reset: false,
        }
    }

    #[test]
    fn earlier_changes_stay_in_effect_until_reverted_or_reset() {
        let before = MetricControlRequest {
            enabled: names(&["A", "B"]),
            disabled: names(&["C"]),
            sample_rate: Some(0.5),
            debug: names(&["D"]),
        };
        let next = args(&["C", "A"], &["B"]).merge_into(before.clone()).expect("no conflict");
        let expected =
            MetricControlRequest { enabled: names(&["A", "C"]), disabled: names(&["B"]), ..before.clone() };
        assert_eq!(next, expected);
        let reset = Args { reset: true, sample_rate: Some(0.1), ..args(&[], &[]) };
        let expected = MetricControlRequest { sample_rate: Some(0.1), ..MetricControlRequest::default() };
        assert_eq!(reset.merge_into(before.clone()).expect("no conflict"), expected);
        assert!(args(&["A"], &["A"]).merge_into(before).is_err());
        assert!(!args(&[], &[]).changes());
    }

    #[test]
    fn name_without_effect_is_warned_about() {
        let check = |name, is_measured, expected: Option<&str>| {
            assert_eq!(warning("wc", name, is_measured).as_deref(), expected, "{name}");
        };
        check("EmitTime", Some(false), None);
        check("words", Some(true), None);
        let typo = "Warning: no component of wc has measured a metric \"EmitTimes\", and none is built in; \
                    did you mean `EmitTime`?";
        check("EmitTimes", Some(false), Some(typo));
        let unknown = "Warning: no component of wc has measured a metric \"words\", and none is built in. It takes \
                       effect when a component registers a metric of that name.";
        check("words", Some(false), Some(unknown));
        let unread = "Warning: no metric \"words\" is built in. It takes effect when a component registers a metric \
                      of that name.";
        check("words", None, Some(unread));
        let none =
            "Warning: HeapMemory is not measured, whatever is enabled: there is no JVM; see MemoryUsed.";
        check("HeapMemory", Some(false), Some(none));
        // A metric of another daemon.
        assert!(warning("wc", "RequestTime", Some(false)).is_some());
    }

    #[test]
    fn sample_rates_outside_of_0_to_1_are_rejected() {
        assert_eq!(parse_share("0.5"), Ok(0.5));
        for bad in ["-0.1", "1.1", "NaN", "half", ""] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn changes_in_effect_are_printed() {
        let control = MetricControlRequest {
            enabled: names(&["A", "B"]),
            sample_rate: Some(0.5),
            ..MetricControlRequest::default()
        };
        let expected =
            "wc measures its metrics as its settings say, except\n  enabled      A, B\n  sample rate  0.5\n";
        assert_eq!(text("wc", &control), expected);
        let unchanged = text("wc", &MetricControlRequest::default());
        assert_eq!(unchanged, "wc measures its metrics as its settings say\n");
    }
}
