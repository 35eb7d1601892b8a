//! Exact output of `stormkeeper metrics`.

use super::*;
use stormkeeper_api_types::message::{
    CounterValue, DropSummary, ExportQueueSummary, ExporterSummary, ExporterWork, FollowerSummary,
    GaugeValue, HistogramValue, MeterValue, MetricMetaView, MetricStoreStatus, MetricValue, PastTopology,
    Series, TaskPlace, TimedValue, TimerValue,
};

/// End of the windows: 2026-11-26T12:34Z.
const END: Timestamp = Timestamp::from_millis(1_795_696_440_000);

fn view(behind: Option<u64>) -> MetricStoreView {
    let nimbus = "n1".parse().expect("valid");
    MetricStoreView { nimbus, term: 3, index: 812, entries_behind: behind, behind_ms: Some(65_000) }
}

/// Metric metadata for a full name, as the API returns it.
fn meta(name: &str, unit: Option<&str>) -> MetricMetaView {
    let parsed: stormkeeper_metrics::MetricName = name.parse().expect("a name");
    let parts: Vec<&str> = name.split('@').collect();
    let at = |i: usize| parts.get(i).filter(|part| !part.is_empty() && **part != "0");
    let has_host = matches!(parsed.meta(), MetaType::Worker | MetaType::Netty | MetaType::Nimbus);
    let of_component = |i| at(i).filter(|_| parts.len() == 8);
    MetricMetaView {
        id: stormkeeper_metrics::MetricId::of(name, 0).to_string(),
        name: name.to_owned(),
        level: parsed.meta().word().to_owned(),
        kind: parsed.kind().word().to_owned(),
        group: parsed.group().to_owned(),
        metric: parsed.name().to_owned(),
        unit: unit.map(str::to_owned),
        component: of_component(3).map(|part| part.parse().expect("valid")),
        task: of_component(4).map(|part| part.parse().expect("valid")),
        stream: of_component(5).map(|part| part.parse().expect("valid")),
        host: at(3).filter(|_| has_host).map(|part| (*part).to_owned()),
        port: at(4).filter(|_| has_host).map(|part| part.parse().expect("a port")),
    }
}

fn latest(name: &str, unit: Option<&str>, value: MetricValue) -> LatestValue {
    LatestValue { meta: meta(name, unit), from_ms: END, to_ms: END, value }
}

fn counter(count: u64) -> MetricValue {
    MetricValue::Counter(CounterValue { count })
}

fn gauge(value: f64, n: u64, max: f64) -> MetricValue {
    MetricValue::Gauge(GaugeValue { value, n, min: 0.0, max, at_ms: Some(END) })
}

fn rate(mean: f64) -> MeterValue {
    MeterValue { count: (mean * 600.0) as u64, m1: mean * 1.1, m5: mean, m15: mean * 0.9, mean }
}

fn micros(p50: f64) -> HistogramValue {
    HistogramValue {
        count: 1000,
        sum: p50 * 1000.0,
        min: Some(1.0),
        max: Some(p50 * 100.0),
        mean: Some(p50),
        stddev: Some(1.0),
        p50: Some(p50),
        p75: Some(p50 * 1.5),
        p90: Some(p50 * 2.0),
        p95: Some(p50 * 3.0),
        p98: Some(p50 * 4.0),
        p99: Some(p50 * 5.0),
        p999: Some(p50 * 10.0),
    }
}

fn list(values: Vec<LatestValue>, behind: Option<u64>) -> LatestList {
    let topology_id = "wc-1-1".parse().expect("valid");
    LatestList { topology_id, window_secs: 600, values, next: None, store: view(behind) }
}

fn args(line: &str) -> Args {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    <Line as clap::Parser>::try_parse_from(line.split(' ')).expect("a command line").args
}

/// A topology of a spout and a bolt.
fn word_count() -> Vec<LatestValue> {
    let us = Some("µs");
    vec![
        latest("5@1@wc-1-1@@0@sys@Emitted", None, counter(2_400_000)),
        latest("5@3@wc-1-1@@0@sys@SendTps", None, MetricValue::Meter(rate(4000.0))),
        latest("5@1@wc-1-1@@0@sys@Acked", None, counter(1_200_000)),
        latest("5@1@wc-1-1@@0@sys@Failed", None, counter(3)),
        latest("5@4@wc-1-1@@0@sys@ProcessLatency", us, MetricValue::Histogram(micros(850.0))),
        latest("5@2@wc-1-1@@0@sys@CpuUsedRatio", Some("% of a core"), gauge(131.0, 2, 90.0)),
        latest("5@2@wc-1-1@@0@sys@MemoryUsed", Some("bytes"), gauge(222_298_112.0, 2, 150_000_000.0)),
        latest("2@1@wc-1-1@split@0@@sys@Emitted", None, counter(1_200_000)),
        latest("2@3@wc-1-1@split@0@@sys@RecvTps", None, MetricValue::Meter(rate(200.0))),
        latest("2@1@wc-1-1@split@0@@sys@Failed", None, counter(3)),
        latest("2@4@wc-1-1@split@0@@sys@ProcessLatency", us, MetricValue::Histogram(micros(850.0))),
        latest("2@2@wc-1-1@split@0@@sys@Capacity", Some("0 to 1"), gauge(0.45, 2, 0.92)),
        latest("2@1@wc-1-1@lines@0@@sys@Emitted", None, counter(1_200_000)),
        latest("2@1@wc-1-1@lines@0@@udf@files", None, counter(7)),
        latest("4@2@wc-1-1@node-1@6700@sys@CpuUsedRatio", Some("% of a core"), gauge(90.0, 1, 90.0)),
        latest("4@2@wc-1-1@node-1@6700@sys@MemoryUsed", Some("bytes"), gauge(1_536.0, 1, 1_536.0)),
    ]
}

#[test]
fn a_topology_shows_its_components_and_workers() {
    let list = list(word_count(), Some(0));
    let now = END.plus(Duration::from_secs(35));
    let text = format!(
        "{}{}",
        heading(&list, now, None),
        tables(&list, args("metrics wc").levels(), now, &Trends::default()).expect("values")
    );
    let expected = "\
wc-1-1, 10m until 2026-11-26T12:34Z (35s ago)
emitted 2.4M (4k/s)   acked 1.2M   failed 3   latency p50 850 µs, p99 4.25 ms   CPU 131 %   memory 212 MiB

Components
  COMPONENT  EMITTED  RECEIVE  FAILED  LATENCY p50  p95      p99      CAPACITY
  lines      1.2M     -        -       -            -        -        -
  split      1.2M     200/s    3       850 µs       2.55 ms  4.25 ms  45 %, max 92 %

Workers
  HOST:PORT    CPU   MEMORY
  node-1:6700  90 %  1.5 KiB

User metrics
  LEVEL      OF     METRIC     KIND     VALUE
  component  lines  udf/files  counter  7
";
    assert_eq!(text, expected);
}

#[test]
fn a_component_shows_its_tasks_in_order_and_its_streams() {
    let values = vec![
        latest("2@1@wc-1-1@split@0@@sys@Emitted", None, counter(30)),
        latest("1@1@wc-1-1@split@10@@sys@Emitted", None, counter(10)),
        latest("1@1@wc-1-1@split@9@@sys@Emitted", None, counter(20)),
        latest("8@1@wc-1-1@split@0@default@sys@Emitted", None, counter(30)),
        latest("8@3@wc-1-1@split@0@default@sys@lines.RecvTps", None, MetricValue::Meter(rate(0.5))),
    ];
    let list = list(values, None);
    let text = tables(&list, args("metrics wc split").levels(), END, &Trends::default()).expect("values");
    let expected = "\
emitted 30

Tasks
  TASK  EMITTED
  9     20
  10    10

Streams
  STREAM              EMITTED  RECEIVE
  default             30       -
  default from lines  -        0.5/s
";
    assert_eq!(text, expected);
    assert_eq!(
        lag_warning(&list.store),
        "! the lag of the metric store of n1 behind the leader is unknown\n"
    );
    assert_eq!(
        lag_warning(&view(Some(12))),
        "! the metric store of n1 is 12 entries (1m 5s) behind the leader\n"
    );
    assert_eq!(lag_warning(&view(Some(0))), "");
}

#[test]
fn values_of_the_past_are_said_to_be_of_the_past() {
    let now = END.plus(Duration::from_secs(2 * 3600));
    let list = list(word_count(), Some(0));
    let expected = "\
wc-1-1, 10m until 2026-11-26T12:34Z (2h 0m ago)
! values of the past: nothing newer has arrived for 2h 0m (n1: metric ingest paused)
";
    assert_eq!(heading(&list, now, Some("n1: metric ingest paused")), expected);
    let fresh = heading(&list, END.plus(Duration::from_secs(170)), None);
    assert_eq!(fresh, "wc-1-1, 10m until 2026-11-26T12:34Z (2m 50s ago)\n");
}

#[test]
fn level_and_gauge_that_are_older_than_the_others_show_their_age() {
    let mut values = word_count();
    let earlier = Timestamp::from_millis(END.as_millis() - 480_000);
    for value in values.iter_mut().filter(|value| value.meta.level == "worker") {
        value.to_ms = earlier;
    }
    for value in &mut values {
        if let MetricValue::Gauge(gauge) = &mut value.value {
            gauge.at_ms = Some(earlier);
        }
    }
    let now = END.plus(Duration::from_secs(35));
    let text =
        tables(&list(values, Some(0)), args("metrics wc").levels(), now, &Trends::default()).expect("values");
    for expected in [
        "CPU 131 % (8m 0s before)",
        "45 %, max 92 % (8m 0s before)\n",
        "\nWorkers, until 2026-11-26T12:26Z (8m 35s ago)\n",
        "node-1:6700  90 %  1.5 KiB\n",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn supervisors_are_named_by_their_host() {
    let usage = latest("4@2@__SUPERVISOR__@node-1@0@sys@DiskUsage", Some("0 to 1"), gauge(0.5, 1, 0.5));
    let mut list = list(vec![usage], Some(0));
    list.topology_id = stormkeeper_metrics::name::SUPERVISOR.parse().expect("valid");
    let text =
        tables(&list, args("metrics __SUPERVISOR__").levels(), END, &Trends::default()).expect("values");
    assert_eq!(text, "\nSupervisors\n  HOST    DISK\n  node-1  50 %\n");
    assert!(listed(&list).expect("values").contains("worker  node-1  DiskUsage"));
}

#[test]
fn absence_of_metrics_names_a_misspelt_component_a_wrong_task_and_a_pause_of_ingest() {
    use absence::{Known, no_metrics};
    let tasks = [TaskId(3), TaskId(4)].into_iter().collect();
    let components = [("split".to_owned(), tasks), ("count".to_owned(), Default::default())];
    let known = Known { components: components.into_iter().collect(), problem: None };
    let shown = |line, known: &Known| {
        let failure = no_metrics("wc-1-1", &args(line), known);
        format!("{failure:?}")
    };
    let check = |line, known: &Known, parts: &[&str]| {
        let text = shown(line, known);
        assert!(parts.iter().all(|part| text.contains(part)), "{line}: {text}");
    };
    check("metrics wc splti", &known, &["has no component", "splti", "did you mean `split`?"]);
    check("metrics wc zzzzzz", &known, &["one of: count, split"]);
    check("metrics wc split 9", &known, &["task 9 of wc-1-1 is not a task of split", "its tasks are 3, 4"]);
    check("metrics wc split 3", &known, &["no metrics of task 3 of split", "about a minute after the start"]);
    // Nothing is known of the tasks of this component.
    check("metrics wc count 9", &known, &["no metrics of task 9 of count"]);
    check("metrics gone splti", &Known::default(), &["no metrics of splti"]);
    let paused = Known { problem: Some("n1: metric ingest paused".to_owned()), ..Known::default() };
    check("metrics wc split", &paused, &["no metrics are stored at present", "n1: metric ingest paused"]);
}

#[test]
fn list_shows_every_metric_with_the_widest_level_first() {
    let timer = TimerValue { histogram: micros(1000.0), meter: rate(2.0) };
    let values = vec![
        latest("3@5@wc-1-1@split@3@default@udf@parse", None, MetricValue::Timer(timer)),
        latest(
            "4@3@wc-1-1@node-1@6700@netty@NettyCliSendSpeed",
            Some("bytes/s"),
            MetricValue::Meter(rate(2048.0)),
        ),
        latest(
            "5@4@wc-1-1@@0@sys@ProcessLatency",
            Some("µs"),
            MetricValue::Histogram(HistogramValue::default()),
        ),
    ];
    let expected = "
LEVEL     OF               METRIC                   KIND       VALUE
topology  topology         ProcessLatency           histogram  n 0
stream    split/3/default  udf/parse                timer      2/s, n 1k, mean 1 ms, p50 1 ms, p95 3 ms, p99 5 ms, max 100 ms
worker    node-1:6700      netty/NettyCliSendSpeed  meter      2 KiB/s (m1 2.2 KiB/s, m5 2 KiB/s, m15 1.8 KiB/s)
";
    assert_eq!(listed(&list(values, Some(0))).as_deref(), Some(expected));
    assert_eq!(listed(&list(Vec::new(), Some(0))), None);
}

#[test]
fn history_shows_one_table_per_metric() {
    let timed = |minute: u64, value| TimedValue { from_ms: Timestamp::from_millis(60_000 * minute), value };
    let series = [
        Series {
            meta: meta("1@1@wc-1-1@split@3@@sys@Emitted", Some("tuples")),
            points: vec![timed(0, counter(5)), timed(1, counter(12_345))],
        },
        Series { meta: meta("1@1@wc-1-1@split@3@@sys@Acked", None), points: Vec::new() },
        Series {
            meta: meta("1@4@wc-1-1@split@3@@sys@ProcessLatency", Some("µs")),
            points: vec![
                timed(0, MetricValue::Histogram(micros(100.0))),
                timed(1, MetricValue::Histogram(HistogramValue::default())),
            ],
        },
        Series {
            meta: meta("1@2@wc-1-1@split@3@@sys@Capacity", Some("0 to 1")),
            points: vec![timed(0, gauge(0.5, 1, 0.75))],
        },
    ];
    let expected = "\
Emitted of split/3 (counter, tuples)
  TIME               COUNT
  1970-01-01T00:00Z  5
  1970-01-01T00:01Z  12.3k

ProcessLatency of split/3 (histogram, µs)
  TIME               COUNT  MEAN    P50     P95     P99     MAX
  1970-01-01T00:00Z  1k     100 µs  100 µs  300 µs  500 µs  10 ms
  1970-01-01T00:01Z  0      -       -       -       -       -

Capacity of split/3 (gauge, 0 to 1)
  TIME               VALUE  MIN  MAX
  1970-01-01T00:00Z  50 %   0 %  75 %
";
    assert_eq!(history::series(&series), expected);
}

#[test]
fn task_track_and_past_topologies_are_shown_as_tables() {
    let at = Timestamp::from_millis(1_795_696_440_000);
    let place = |to_ms, ended: Option<&str>| TaskPlace {
        task: TaskId(3),
        component: "split".parse().expect("valid"),
        host: "node-1".parse().expect("valid"),
        port: stormkeeper_model::Port(6700),
        from_ms: at,
        to_ms,
        reason: "placed".to_owned(),
        ended: ended.map(str::to_owned),
    };
    let later = at.plus(Duration::from_secs(61));
    let expected = "\
TASK  COMPONENT  HOST:PORT    FROM                  TO                    WHY THERE  WHY GONE
3     split      node-1:6700  2026-11-26T12:34:00Z  now                   placed
3     split      node-1:6700  2026-11-26T12:34:00Z  2026-11-26T12:35:01Z  placed     drained
";
    assert_eq!(history::track(&[place(None, None), place(Some(later), Some("drained"))]).text(0), expected);
    let past = |killed_ms| PastTopology {
        id: "wc-1-1".parse().expect("valid"),
        name: "wc".parse().expect("valid"),
        started_ms: at,
        started_by: Some("ann".to_owned()),
        killed_ms,
        killed_by: None,
        kill_reason: None,
        sample_rate: 0.1,
    };
    let expected = "\
ID      NAME  STARTED               BY   KILLED                BY
wc-1-1  wc    2026-11-26T12:34:00Z  ann  runs                  -
wc-1-1  wc    2026-11-26T12:34:00Z  ann  2026-11-26T12:35:01Z  -
";
    assert_eq!(history::topologies(&[past(None), past(Some(later))]).text(0), expected);
}

#[test]
fn status_shows_failures_lag_and_dropped_values() {
    let work = ExporterWork {
        doing: "pausing".to_owned(),
        since_ms: END,
        points: 9,
        points_rejected: 1234,
        failures: 2,
        events: 1,
        events_dropped: 0,
        last_failure: Some("connection refused".to_owned()),
        last_rejection: Some("Unknown metric".to_owned()),
    };
    let status = MetricStoreStatus {
        store: view(Some(0)),
        state: "leading".to_owned(),
        problem: None,
        followers: vec![FollowerSummary { nimbus: "n2".parse().expect("valid"), index: 800 }],
        bytes: 5 << 20,
        metas: 12_345,
        log_from: 7,
        log_bytes: 1 << 20,
        failure: Some("the disk is full".to_owned()),
        quarantined: vec!["/var/lib/metrics/quarantine-2-7".to_owned()],
        drops: vec![DropSummary {
            topology_id: "wc-1-1".parse().expect("valid"),
            cause: "too-many-names".to_owned(),
            count: 1234,
        }],
        queue: ExportQueueSummary {
            reserved: 1,
            ready: 2,
            bytes: 2048,
            oldest_ms: Some(END),
            exporters: vec![ExporterSummary {
                name: "log".to_owned(),
                pending: 2,
                leased: 0,
                acked: 10_000,
                dropped: 0,
                nacked: 2,
                last_nack: None,
                work: Some(work),
            }],
        },
    };
    let expected = "\
Metric store of n1, leading
  log      entry 812 of term 3, up to date
  reaches  back to entry 7 (1 MiB)
  metrics  12,345
  on disk  5 MiB
! the last write failed: the disk is full
! quarantined database with metrics that the cluster is missing: /var/lib/metrics/quarantine-2-7

Followers
  FOLLOWER  LOG END  LAG
  n2        800      12

Export queue
  2 entries ready (2 KiB, oldest from 2026-11-26T12:34Z), 1 minutes open
  EXPORTER  STATE    PENDING  LEASED  ACKED   NACKED  DROPPED  POINTS  REFUSED
  log       pausing  2        0       10,000  2       0        9       1,234
! log lost 1,234 points, which its store refuses: Unknown metric
! log failed: connection refused

Dropped values
  TOPOLOGY  CAUSE           COUNT
  wc-1-1    too-many-names  1,234
";
    assert_eq!(status::text(&status), expected);
}

#[test]
fn conflicting_options_are_rejected() {
    let parse = |line: &str| {
        let words = format!("stormkeeper {line}");
        <crate::cli::Args as clap::Parser>::try_parse_from(words.split(' ')).map(drop)
    };
    for good in [
        "metrics wc",
        "metrics wc split 3 --window 2h --watch --every 1s",
        "metrics wc --all --name E*",
        "metrics wc split --history Emitted --from -6h --to -1h --window 1d",
        "metrics wc --level worker",
        "metrics --status --watch",
        "metrics --topologies",
        "metrics wc --topologies --json",
        "metrics-control wc --enable A --enable B --sample-rate 0.5",
    ] {
        assert!(parse(good).is_ok(), "{good}: {:?}", parse(good));
    }
    for bad in [
        "metrics",
        "metrics wc split x",
        "metrics wc --window 3m",
        "metrics wc --all --track",
        "metrics wc --from -1h",
        "metrics wc --name E*",
        "metrics wc --every 1s",
        "metrics wc --track --watch",
        "metrics wc --level planet",
        "metrics wc --status",
        "metrics-control wc --sample-rate 2",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn default_level_of_a_history_follows_from_the_arguments() {
    let check = |line, level| assert_eq!(args(line).default_level(), level, "{line}");
    check("metrics wc --history E", MetaType::Topology);
    check("metrics wc split --history E", MetaType::Component);
    check("metrics wc split --stream s --history E", MetaType::ComponentStream);
    check("metrics wc split 3 --history E", MetaType::Task);
    check("metrics wc split 3 --stream s --history E", MetaType::Stream);
}
