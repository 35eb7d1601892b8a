//! Names and values of measured metrics.

mod documents;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{Distribution, Format, cluster, family};
use stormkeeper_metrics::point::{Counter, Meter, Timer};
use stormkeeper_metrics::{Minute, percentile};

fn target(name: &str) -> MeasuredSeries {
    MeasuredSeries::of(&name.parse().expect("a name"), "wc").expect("it has a family")
}

/// Returns the descriptions of all families but those of users, each with the level of its metrics.
fn all() -> Vec<(Option<Level>, Description)> {
    let measured = Level::ALL
        .into_iter()
        .flat_map(|level| catalog(level).into_iter().map(move |about| (Some(level), (*about).clone())));
    cluster::ALL.iter().map(|about| (None, (*about).clone())).chain(measured).collect()
}

/// Tells whether the page of a nimbus has metrics of a level. That of an agent has families of its own.
fn is_on_a_page(level: Level) -> bool {
    match level {
        Level::Topology | Level::Component | Level::ComponentStream | Level::Nimbus => true,
        Level::Stream | Level::Task | Level::Worker | Level::Connection | Level::Host => false,
    }
}

/// Returns the name of a family with all names that its samples have in some format.
fn names_of(about: &Description) -> Vec<String> {
    let ends: &[&str] = match about.kind {
        FamilyKind::Gauge => &[""],
        FamilyKind::Counter => &["", "_total", "_created"],
        FamilyKind::Histogram => &["", "_bucket", "_count", "_sum", "_created"],
    };
    ends.iter().map(|end| format!("{}{end}", about.name)).collect()
}

/// Returns a point of a metric's kind.
fn point(kind: MetricType) -> Point {
    let (at, histogram) =
        (Minute(9), Histogram { count: 1, sum: 1.0, min: 1.0, max: 1.0, ..Histogram::default() });
    let meter = Meter { count: 1, from: at, at, m1: 0.0, m5: 0.0, m15: 0.0 };
    match kind {
        MetricType::Counter => Point::Counter(Counter { count: 1 }),
        MetricType::Gauge => Point::Gauge(Gauge { at, sum: 1.0, n: 1, min: 1.0, max: 1.0 }),
        MetricType::Meter => Point::Meter(meter),
        MetricType::Histogram => Point::Histogram(histogram),
        MetricType::Timer => Point::Timer(Timer { histogram, meter }),
    }
}

#[test]
fn names_are_valid_end_with_their_unit_and_do_not_clash() {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (_, about) in all() {
        let name = &about.name;
        assert!(name.starts_with("stormkeeper_"), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
        assert!(!about.help.trim().is_empty() && !about.help.contains('\n'), "{name}");
        if let Some(unit) = about.unit.suffix() {
            assert!(name.ends_with(&format!("_{unit}")), "{name} does not end with {unit}");
        }
        for of in names_of(&about) {
            let before = seen.insert(of.clone(), name.to_string());
            assert_eq!(before, None, "{of} of {name}");
        }
    }
    assert!(seen.len() > 100, "{seen:?}");
}

#[test]
fn numbers_have_base_units() {
    let value = |name: &str, point: Point| {
        let mut families = MeasuredFamilies::default();
        families.add(&target(name), &point);
        let families = families.into_families();
        let numbers = families.iter().map(|family| match &family.samples[..] {
            [Sample { value: SampleValue::Count(n), .. }] => (family.about.name.to_string(), *n as f64),
            [Sample { value: SampleValue::Real(value), .. }] => (family.about.name.to_string(), *value),
            [Sample { value: SampleValue::Distribution(of), .. }] => (family.about.name.to_string(), of.sum),
            other => panic!("{other:?}"),
        });
        numbers.collect::<Vec<_>>()
    };
    let gauge = |sum, n| Point::Gauge(Gauge { at: Minute(9), sum, n, min: 0.0, max: 0.0 });
    let one = |name: &str, value: f64| vec![(name.to_owned(), value)];
    // A mean of two tasks, in percent; a sum of two workers, in percent of a core.
    let found = value("2@2@wc-1-1@split@0@@sys@ExecutorQueue", gauge(50.0, 2));
    assert_eq!(found, one("stormkeeper_component_executor_queue_ratio", 0.25));
    let found = value("5@2@wc-1-1@@0@sys@CpuUsedRatio", gauge(150.0, 2));
    assert_eq!(found, one("stormkeeper_topology_cpu_used_cores", 1.5));
    let found = value("7@2@__NIMBUS__@h@8080@sys@ViewAge", gauge(1500.0, 1));
    assert_eq!(found, one("stormkeeper_nimbus_view_age_seconds", 1.5));
    // A reading that another point replaces.
    assert_eq!(value("5@2@wc-1-1@@0@sys@CpuUsedRatio", gauge(0.0, 0)), []);
    let found = value(
        "5@3@wc-1-1@@0@netty@NettyCliSendSpeed",
        Point::Meter(Meter { count: 7, from: Minute(1), at: Minute(2), m1: 0.1, m5: 0.1, m15: 0.1 }),
    );
    assert_eq!(found, one("stormkeeper_topology_sent_bytes", 7.0));
    let mut histogram =
        Histogram { count: 30, sum: 45_000_001.0, min: 1.0, max: 2e6, ..Histogram::default() };
    histogram.buckets.add(percentile::bucket(1.5e6), 3);
    let found = value("2@4@wc-1-1@split@0@@sys@ProcessLatency", Point::Histogram(histogram));
    let [(sum_name, sum), (_, sampled), (values_name, values)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (sum_name.as_str(), *sum),
        ("stormkeeper_component_process_latency_accumulated_seconds", 45.000001)
    );
    assert_eq!((values_name.as_str(), *values), ("stormkeeper_component_process_latency_values", 30.0));
    assert!((sampled - 4.5).abs() < 0.05, "{sampled}");
}

#[test]
fn labels_name_the_subject() {
    let text = |name: &str| {
        target(name).labels.iter().map(|(l, v)| format!("{l}={v}")).collect::<Vec<_>>().join(" ")
    };
    let of_topology = "topology=wc topology_id=wc-1-1";
    let check = |name: &str, rest: &str| assert_eq!(text(name), format!("{of_topology}{rest}"), "{name}");
    check("5@1@wc-1-1@@0@sys@Emitted", "");
    check("2@1@wc-1-1@split@0@@sys@Emitted", " component=split");
    check("8@1@wc-1-1@split@0@default@sys@Emitted", " component=split stream=default");
    check("1@4@wc-1-1@split@4@@sys@ExecutorTime", " component=split task=4");
    check(
        "3@3@wc-1-1@split@4@default@sys@lines.RecvTps",
        " component=split task=4 stream=default sender=lines",
    );
    check("4@2@wc-1-1@host-1@6700@sys@MemoryUsed", " host=host-1 port=6700");
    check(
        "6@4@wc-1-1@host-1@6700@netty@host-2:6701.NettyCliSendTime",
        " host=host-1 port=6700 peer=host-2:6701",
    );
    assert_eq!(text("4@2@__SUPERVISOR__@host-1@0@sys@DiskUsage"), "host=host-1");
    assert_eq!(text("7@2@__NIMBUS__@host-0@8080@sys@MemoryUsed"), "");
}

#[test]
fn metric_of_another_kind_than_this_build_knows_is_left_out() {
    let of = |name: &str| MeasuredSeries::of(&name.parse().expect("a name"), "wc");
    assert_eq!(of("2@2@wc-1-1@split@0@@sys@Emitted"), None);
    assert_eq!(of("2@1@wc-1-1@split@0@@sys@Unheard"), None);
    assert_eq!(of("2@3@wc-1-1@split@0@@sys@SendTps"), None);
    let mut families = MeasuredFamilies::default();
    families.add(&target("2@4@wc-1-1@split@0@@sys@ProcessLatency"), &point(MetricType::Counter));
    assert!(families.into_families().iter().all(|family| family.samples.is_empty()));
}

#[test]
fn number_of_series_is_that_of_the_text() {
    for name in [
        "2@1@wc-1-1@s@0@@sys@Emitted",
        "2@4@wc-1-1@s@0@@sys@ProcessLatency",
        "2@5@wc-1-1@s@0@@udf@t",
        "2@2@wc-1-1@s@0@@udf@g",
    ] {
        let target = target(name);
        let mut families = MeasuredFamilies::default();
        families.add(&target, &point(name.parse::<MetricName>().expect("a name").kind()));
        let page = String::from_utf8(Format::Text.encode(&families.into_families())).expect("text");
        assert_eq!(page.lines().filter(|line| !line.starts_with('#')).count(), target.n_series(), "{page}");
    }
}

#[test]
fn page_of_a_host_has_its_workers_and_itself() {
    let names = [
        "4@2@wc-1-1@host-1@6700@sys@Threads",
        "4@2@wc-1-1@host-1@6701@sys@Threads",
        "4@2@__SUPERVISOR__@host-1@0@sys@DiskUsage",
        "6@4@wc-1-1@host-1@6700@netty@host-2:6701.NettyCliSendTime",
    ];
    let names = names.map(|name| name.parse::<MetricName>().expect("a name"));
    let points: Vec<_> = names.iter().map(|name| (name, point(name.kind()))).collect();
    let families = families(points.iter().map(|(name, point)| (*name, point)), |id| format!("name of {id}"));
    let page = String::from_utf8(Format::Text.encode(&families)).expect("text");
    let of_topology = "topology=\"name of wc-1-1\",topology_id=\"wc-1-1\",host=\"host-1\"";
    for line in [
        format!("stormkeeper_worker_threads{{{of_topology},port=\"6700\"}} 1.0"),
        format!("stormkeeper_worker_threads{{{of_topology},port=\"6701\"}} 1.0"),
        "stormkeeper_host_disk_used_ratio{host=\"host-1\"} 1.0".to_owned(),
        format!(
            "stormkeeper_connection_frame_send_values_total{{{of_topology},port=\"6700\",peer=\"host-2:6701\"}} 1"
        ),
    ] {
        assert!(page.lines().any(|of| of == line), "no {line} in\n{page}");
    }
}

fn histogram() -> impl Strategy<Value = Histogram> {
    let buckets = proptest::collection::vec((-100..1400_i16, 1..1000_u64), 0..12);
    (0..50_u64, buckets).prop_map(|(zeros, buckets)| {
        let buckets: stormkeeper_metrics::Buckets = buckets.into_iter().collect();
        let count = zeros + buckets.iter().map(|(_, n)| n).sum::<u64>();
        Histogram { count: count * 10, sum: count as f64, min: 0.0, max: 1e15, zeros, buckets }
    })
}

#[test]
fn classic_buckets_count_the_values_up_to_their_bound() {
    let mut histogram = Histogram { count: 100, zeros: 1, max: 3e6, ..Histogram::default() };
    for (micros, n) in [(50.0, 1), (2000.0, 2), (3e6, 4)] {
        histogram.buckets.add(percentile::bucket(micros), n);
    }
    let of = distribution(&histogram, 1e-6, TIME_BOUNDS);
    let counts: Vec<_> = of.bounds.iter().zip(&of.cumulative).map(|(bound, n)| (*bound, *n)).collect();
    let expected = [
        (0.0001, 2),
        (0.0005, 2),
        (0.001, 2),
        (0.005, 4),
        (0.01, 4),
        (0.05, 4),
        (0.1, 4),
        (0.5, 4),
        (1.0, 4),
        (10.0, 8),
    ];
    assert_eq!(counts, expected);
}

/// Returns the quantile as Prometheus computes it from native buckets, without interpolation.
fn native_quantile(of: &Distribution, q: f64) -> f64 {
    let rank = (q * of.count as f64).ceil().max(1.0) as u64;
    let mut seen = of.zeros;
    if seen >= rank {
        return 0.0;
    }
    for (index, n) in &of.native {
        seen += n;
        if seen >= rank {
            return ((f64::from(*index) - 0.5) / 32.0).exp2();
        }
    }
    panic!("{of:?} has no {q}")
}

proptest! {
    #[test]
    fn every_number_of_a_distribution_only_grows(a in histogram(), b in histogram()) {
        let mut both = a.clone();
        both.merge(&b);
        let (before, after) = (distribution(&a, 1e-6, TIME_BOUNDS), distribution(&both, 1e-6, TIME_BOUNDS));
        prop_assert!(before.count <= after.count && before.sum <= after.sum && before.zeros <= after.zeros);
        prop_assert!(before.cumulative.iter().zip(&after.cumulative).all(|(before, after)| before <= after));
        let after: BTreeMap<_, _> = after.native.into_iter().collect();
        prop_assert!(before.native.iter().all(|(index, n)| after.get(index).is_some_and(|after| after >= n)));
    }

    #[test]
    fn count_is_the_sum_of_the_buckets(histogram in histogram()) {
        // Prometheus rejects a native histogram otherwise.
        let of = distribution(&histogram, 1e-6, TIME_BOUNDS);
        prop_assert_eq!(of.zeros + of.native.iter().map(|(_, n)| n).sum::<u64>(), of.count);
        prop_assert!(of.native.is_sorted_by(|a, b| a.0 < b.0));
        prop_assert!(of.cumulative.iter().all(|n| *n <= of.count));
    }

    #[test]
    fn quantiles_of_native_buckets_are_near_our_own(histogram in histogram(), q in 0.01..1.0_f64) {
        prop_assume!(histogram.n_sampled() > 0);
        let ours = histogram.quantile(q).expect("sampled values") * 1e-6;
        let theirs = native_quantile(&distribution(&histogram, 1e-6, TIME_BOUNDS), q);
        prop_assert!((ours - theirs).abs() <= ours * 0.015, "{ours} {theirs}");
    }

    #[test]
    fn user_metrics_of_different_names_or_kinds_share_no_name(
        a in "[a-z_.x]{1,6}(_total|_count|_value|_events|_bucket|)",
        b in "[a-z_.x]{1,6}(_total|_count|_value|_events|_bucket|)",
    ) {
        let mut seen = BTreeMap::new();
        for name in BTreeSet::from([&a, &b]) {
            for kind in MetricType::ALL {
                let target = target(&format!("2@{}@wc-1-1@split@0@@udf@{name}", kind.number()));
                for about in target.descriptions() {
                    for of in names_of(about) {
                        prop_assert_eq!(seen.insert(of.clone(), (name, kind)), None, "{}", of);
                    }
                }
            }
        }
    }
}

/// Returns the table of `docs/prometheus.md`: families whose names differ only in the level are one row.
fn documented() -> String {
    let mut rows: BTreeMap<String, (Vec<&str>, Description)> = BTreeMap::new();
    let mut order = Vec::new();
    for (level, about) in all() {
        let Some(level) = level.filter(|level| is_on_a_page(*level)) else { continue };
        let base = about.name.trim_start_matches(&format!("stormkeeper_{}_", level.word())).to_owned();
        let key = format!("{base} {}", about.help);
        let row = rows.entry(key.clone()).or_insert_with(|| {
            order.push(key);
            (Vec::new(), about)
        });
        row.0.push(level.word());
    }
    let mut text = String::from(
        "| family: `stormkeeper_{level}_…` | kind | levels | meaning |\n| --- | --- | --- | --- |\n",
    );
    for key in order {
        let (levels, about) = &rows[&key];
        let base = key.split_once(' ').map_or("", |(base, _)| base);
        let total = if about.kind == FamilyKind::Counter { "_total" } else { "" };
        let note = if about.note.is_empty() { String::new() } else { format!(" {}", about.note) };
        text += &format!(
            "| `{base}{total}` | {} | {} | {}{note} |\n",
            about.kind.word(),
            levels.iter().map(|level| format!("`{level}`")).collect::<Vec<_>>().join(", "),
            about.help
        );
    }
    text
}

#[test]
fn generated_tables_of_families() {
    let mut text = String::from("| family | kind | meaning |\n| --- | --- | --- |\n");
    for family::Description { name, kind, help, .. } in cluster::ALL {
        let total = if *kind == FamilyKind::Counter { "_total" } else { "" };
        text += &format!("| `{name}{total}` | {} | {help} |\n", kind.word());
    }
    stormkeeper_runtime::test_support::assert_generated("docs/prometheus.md", "cluster", &text);
    stormkeeper_runtime::test_support::assert_generated("docs/prometheus.md", "measured", &documented());
}
