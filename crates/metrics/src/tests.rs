//! Names, ids, points and buckets, over all possible values.

use proptest::prelude::*;

use super::{
    name::{CLUSTER, InvalidName, MAX_PART_BYTES, NETTY, SYS, UDF},
    point::{Counter, Gauge, Histogram, Meter, Timer},
    *,
};
use stormkeeper_model::{TaskId, Timestamp};

fn id<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[a-zA-Z0-9_.-]{1,12}".prop_map(|text| format!("i{text}").parse().expect("valid id"))
}

fn subject() -> impl Strategy<Value = Subject> {
    let task = || any::<u32>().prop_map(TaskId);
    let host = || "[a-z0-9.-]{1,20}";
    prop_oneof![
        (id(), task(), id()).prop_map(|(component, task, stream)| Subject::Stream {
            component,
            task,
            stream
        }),
        (id(), task()).prop_map(|(component, task)| Subject::Task { component, task }),
        (id(), id()).prop_map(|(component, stream)| Subject::ComponentStream { component, stream }),
        id().prop_map(|component| Subject::Component { component }),
        (host(), any::<u16>()).prop_map(|(host, port)| Subject::Worker { host, port }),
        (host(), any::<u16>()).prop_map(|(host, port)| Subject::Connection { host, port }),
        (host(), any::<u16>()).prop_map(|(host, port)| Subject::Nimbus { host, port }),
        Just(Subject::Topology),
    ]
}

/// Any valid name.
pub(super) fn name() -> impl Strategy<Value = MetricName> {
    let kind = prop::sample::select(&MetricType::ALL[..]);
    let group = prop::sample::select(&[SYS, UDF, NETTY][..]);
    (id(), kind, subject(), group, "[^@\\s\\p{C}]{1,40}").prop_map(
        |(topology, kind, subject, group, name)| {
            MetricName::new(topology, kind, subject, group, &name).expect("valid parts")
        },
    )
}

/// Whole numbers: their sums are exact, so tests can compare them for equality.
fn value() -> impl Strategy<Value = f64> {
    (-1_000_000i32..1_000_000).prop_map(f64::from)
}

fn minute() -> impl Strategy<Value = Minute> {
    (0u32..4).prop_map(Minute)
}

fn meter() -> impl Strategy<Value = Meter> {
    (any::<u64>(), minute(), minute(), prop::array::uniform3(value())).prop_map(|(count, a, b, rates)| {
        Meter { count, from: a.min(b), at: a.max(b), m1: rates[0], m5: rates[1], m15: rates[2] }
    })
}

fn histogram() -> impl Strategy<Value = Histogram> {
    prop::collection::vec((value(), any::<bool>()), 0..20).prop_map(|values| {
        let mut histogram = Histogram::default();
        for (value, is_sampled) in values {
            histogram.count_value(value);
            if is_sampled {
                histogram.sample(value);
            }
        }
        histogram
    })
}

/// Any point of one kind.
pub(super) fn point_of(kind: MetricType) -> BoxedStrategy<Point> {
    match kind {
        MetricType::Counter => any::<u64>().prop_map(|count| Point::Counter(Counter { count })).boxed(),
        MetricType::Gauge => prop::collection::vec((minute(), value()), 1..4)
            .prop_map(|readings| {
                let read = |(at, value)| Point::Gauge(Gauge::reading(at, value).expect("finite"));
                let mut readings = readings.into_iter().map(read);
                let mut point = readings.next().expect("at least one");
                readings.for_each(|other| assert!(point.merge(&other)));
                point
            })
            .boxed(),
        MetricType::Meter => meter().prop_map(Point::Meter).boxed(),
        MetricType::Histogram => histogram().prop_map(Point::Histogram).boxed(),
        MetricType::Timer => (histogram(), meter())
            .prop_map(|(histogram, meter)| Point::Timer(Timer { histogram, meter }))
            .boxed(),
    }
}

pub(super) fn kind() -> impl Strategy<Value = MetricType> {
    prop::sample::select(&MetricType::ALL[..])
}

fn merged(a: &Point, b: &Point) -> Point {
    let mut sum = a.clone();
    assert!(sum.merge(b));
    sum
}

proptest! {
    #[test]
    fn a_name_survives_formatting(name in name()) {
        let text = name.to_string();
        prop_assert_eq!(text.parse::<MetricName>(), Ok(name.clone()));
        let letters = format!(
            "{}{}{}",
            name.meta().letter(),
            name.kind().letter(),
            &text[3..],
        );
        prop_assert_eq!(letters.parse::<MetricName>(), Ok(name), "{}", letters);
    }

    #[test]
    fn a_part_with_an_at_sign_or_white_space_is_rejected(
        name in name(), at in 0usize..40, bad in "[@\\s\\x00\\x7f]",
    ) {
        let mut last: Vec<char> = name.name().chars().collect();
        last.splice(at.min(last.len())..at.min(last.len()), bad.chars());
        let last: String = last.into_iter().collect();
        let made = MetricName::new(name.topology().clone(), name.kind(), name.subject().clone(), SYS, &last);
        let InvalidName { reason, .. } = made.expect_err("a forbidden character");
        prop_assert!(reason.contains("its name contains"), "{}", reason);
    }

    #[test]
    fn any_text_is_rejected_or_survives_parsing(text in "[0-9A-Z]{0,2}[@a-z0-9]{0,30}") {
        if let Ok(name) = text.parse::<MetricName>() {
            prop_assert_eq!(name.to_string().parse::<MetricName>(), Ok(name));
        }
    }

    #[test]
    fn points_merge_in_any_order(
        (a, b, c) in kind().prop_flat_map(|kind| (point_of(kind), point_of(kind), point_of(kind))),
    ) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
    }

    #[test]
    fn points_of_two_types_do_not_merge(
        (a, b) in (kind(), kind()).prop_flat_map(|(a, b)| (point_of(a), point_of(b))),
    ) {
        let mut sum = a.clone();
        prop_assert_eq!(sum.merge(&b), a.kind() == b.kind());
        if a.kind() != b.kind() {
            prop_assert_eq!(sum, a);
        }
    }

    #[test]
    fn buckets_tile_time(window in prop::sample::select(&Window::ALL[..]), minute in any::<u32>()) {
        let bucket = window.bucket(Minute(minute));
        prop_assert!(bucket.0 <= minute && minute - bucket.0 < window.minutes());
        prop_assert_eq!(bucket.0 % window.minutes(), 0);
        // A bucket of a longer window consists of whole buckets of each shorter window.
        for shorter in Window::ALL.into_iter().filter(|shorter| *shorter <= window) {
            prop_assert_eq!(window.minutes() % shorter.minutes(), 0);
            prop_assert_eq!(window.bucket(shorter.bucket(Minute(minute))), bucket);
        }
    }

    #[test]
    fn a_minute_contains_the_times_between_its_ends(millis in 0u64..4_102_444_800_000) {
        let time = Timestamp::from_millis(millis);
        let minute = Minute::of(time);
        prop_assert!(minute.start() <= time && time < minute.end());
        prop_assert_eq!(Minute::of(minute.end()), minute.plus(1));
        prop_assert_eq!(minute.plus(7).minus(7), minute);
    }

    #[test]
    fn an_id_survives_formatting(id in any::<u64>()) {
        let id = MetricId(id);
        prop_assert_eq!(id.to_string().parse::<MetricId>(), Ok(id));
    }
}

#[test]
fn spellings_of_jstorm_are_parsed() {
    let check = |text: &str, written: &str| {
        let name: MetricName = text.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(name.to_string(), written);
    };
    let seq = "3@1@SeqTest-1-1@spout1@1@default@sys@emitted";
    check(seq, seq);
    check("SC@SeqTest-1-1@spout1@1@default@sys@emitted", seq);
    check(
        "CC@kafkaboltTest-5-1484289385@kafkaSpout@0@@udf@MyCounter",
        "2@1@kafkaboltTest-5-1484289385@kafkaSpout@0@@udf@MyCounter",
    );
    check("OH@t@c@0@s@sys@x", "8@4@t@c@0@s@sys@x");
    check("TT@t@c@7@@sys@x", "1@5@t@c@7@@sys@x");
    check("WG@t@h@6700@sys@MemoryUsed", "4@2@t@h@6700@sys@MemoryUsed");
    check("NM@t@h@6700@netty@NettyCliSendSpeed.h:1-h:2", "6@3@t@h@6700@netty@NettyCliSendSpeed.h:1-h:2");
    check("MG@__NIMBUS__@h@8080@sys@MemoryUsed", "7@2@__NIMBUS__@h@8080@sys@MemoryUsed");
    check("PC@t@@0@sys@Emitted", "5@1@t@@0@sys@Emitted");
    check("5@1@__CLUSTER__@@@sys@Emitted", "5@1@__CLUSTER__@@0@sys@Emitted");
}

#[test]
fn invalid_names_are_rejected_with_the_reason() {
    let check = |text: &str, reason: &str| {
        let error = text.parse::<MetricName>().expect_err(text).to_string();
        assert!(error.contains(reason), "{error}");
    };
    check("", "too few parts");
    check("3@1", "ends after its types");
    check("9@1@t@c@1@s@sys@x", "meta type");
    check("3@6@t@c@1@s@sys@x", "metric type");
    check("XC@t@c@1@s@sys@x", "letters");
    check("3@1@t@c@1@s@sys@x@y", "5 parts");
    check("3@1@t@c@one@s@sys@x", "not a task id");
    check("3@1@t@c@1@@sys@x", "stream id");
    check("1@1@t@c@1@s@sys@x", "the task or stream does not fit a task");
    check("4@1@t@h@66000@sys@x", "not a port");
    check("4@1@t@@1@sys@x", "host is empty");
    check("5@1@t@h@1@sys@x", "no host");
    check("3@1@t@c@1@s@sys@", "name is empty");
    check(&format!("3@1@t@c@1@s@sys@{}", "x".repeat(MAX_PART_BYTES + 1)), "longer than 200 bytes");
    let long = "c".repeat(200);
    let name = "n".repeat(200);
    let whole = format!("3@1@{long}@{long}@1@{long}@{name}@{}", "é".repeat(100));
    assert!(whole.len() < 1024 && whole.parse::<MetricName>().is_ok(), "the longest parts fit");
}

#[test]
fn metric_ids_are_stable() {
    // Every nimbus stores ids: a change here loses the history of all metrics.
    let check = |name: &str, probe, id: u64| assert_eq!(MetricId::of(name, probe), MetricId(id), "{name}");
    check("3@1@SeqTest-1-1@spout1@1@default@sys@emitted", 0, 0x17ec_54e9_b2f2_20db);
    check("3@1@SeqTest-1-1@spout1@1@default@sys@emitted", 1, 0xe49d_e14d_f4c0_6725);
    check("5@1@__CLUSTER__@@0@sys@Emitted", 0, 0x39f9_653c_0ea4_a657);
}

#[test]
fn only_the_short_name_is_rolled_up() {
    let check = |name: &str, short: &str| {
        let name: MetricName = format!("3@3@t@c@1@s@sys@{name}").parse().expect("a name");
        assert_eq!(name.short_name(), short);
        let rolled_up = name.rolled_up(CLUSTER.parse().expect("an id"), Subject::Topology);
        assert_eq!(rolled_up.to_string(), format!("5@3@__CLUSTER__@@0@sys@{short}"));
    };
    check("RecvTps", "RecvTps");
    check("compA.RecvTps", "RecvTps");
    check("10.0.0.1:6700.X", "X");
    check("ends.", "ends.");
}

#[test]
fn user_metrics_whose_names_have_dots_stay_different_on_every_level() {
    let rolled_up = |name: &str| {
        let name: MetricName = format!("1@1@t@c@1@@udf@{name}").parse().expect("a name");
        assert_eq!(name.short_name(), name.name());
        rollup::ancestors(&name).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for name in ["errors", "read.errors", "write.errors", "took.p99"] {
        let expected = ["2@1@t@c@0@@udf", "5@1@t@@0@udf", "5@1@__CLUSTER__@@0@udf"];
        assert_eq!(rolled_up(name), expected.map(|level| format!("{level}@{name}")));
    }
}

#[test]
fn windows_are_named_as_in_jstorm() {
    let named: Vec<_> = Window::ALL.iter().map(|window| (window.secs(), window.to_string())).collect();
    let expected = [(60, "0d0h1m0s"), (600, "0d0h10m0s"), (7200, "0d2h0m0s"), (86_400, "1d0h0m0s")];
    assert_eq!(named, expected.map(|(secs, text)| (secs, text.to_owned())));
    assert!(Window::ALL.iter().all(|window| Window::of_secs(window.secs()) == Some(*window)));
    assert_eq!(Window::of_secs(61), None);
}

#[test]
fn gauges_of_one_minute_add_up_and_a_later_one_replaces_them() {
    let gauge = |at, sum, n, min, max| Point::Gauge(Gauge { at: Minute(at), sum, n, min, max });
    let (one, two) = (gauge(3, 5.0, 1, 5.0, 5.0), gauge(3, 9.0, 2, 4.0, 5.0));
    let both = merged(&one, &two);
    assert_eq!(both, gauge(3, 14.0, 3, 4.0, 5.0));
    assert_eq!(merged(&both, &gauge(4, 7.0, 1, 7.0, 7.0)), gauge(4, 7.0, 1, 4.0, 7.0));
}

#[test]
fn meters_cover_the_minutes_of_all_and_show_the_last_rates() {
    let meter =
        |from, at, count, m1| Meter { count, from: Minute(from), at: Minute(at), m1, m5: m1, m15: m1 };
    let point = |from, at, count, m1| Point::Meter(meter(from, at, count, m1));
    let both = merged(&point(3, 3, 60, 1.0), &point(3, 3, 120, 2.0));
    assert_eq!(both, point(3, 3, 180, 3.0));
    assert_eq!(merged(&both, &point(5, 5, 0, 0.5)), point(3, 5, 180, 0.5));
    assert_eq!(meter(3, 5, 180, 0.0).mean(), 1.0);
}

#[test]
fn sums_stay_finite() {
    let great = Point::Gauge(Gauge::reading(Minute(1), f64::MAX).expect("finite"));
    let sum = merged(&great, &great);
    assert_eq!(sum.check(), Ok(()));
    let full = Point::Counter(Counter { count: u64::MAX });
    assert_eq!(merged(&full, &full), full);
    assert_eq!(Gauge::reading(Minute(1), f64::NAN), None);
    assert_eq!(Gauge::reading(Minute(1), f64::NEG_INFINITY), None);
}

#[test]
fn histograms_without_values_merge_in_any_order() {
    let bare = Histogram { zeros: 1, buckets: Buckets::from([(3, 2)]), ..Histogram::default() };
    let one =
        Histogram { count: 1, sum: 5.0, min: 5.0, max: 5.0, zeros: 0, buckets: Buckets::from([(4, 1)]) };
    let expected = Histogram { zeros: 1, buckets: Buckets::from([(3, 2), (4, 1)]), ..one.clone() };
    for (mut into, other) in [(bare.clone(), one.clone()), (one, bare)] {
        into.merge(&other);
        assert_eq!(into, expected);
    }
}

#[test]
fn error_of_a_name_does_not_repeat_long_parts() {
    for text in ["4@2@t@h@PART@g@n", "3@1@t@c@PART@s@g@n", "3@1@PART@c@1@s@g@n", "4@2@t@PART@1@g@n"] {
        let error = text.replace("PART", &"6".repeat(100_000)).parse::<MetricName>().expect_err(text);
        assert!(error.to_string().len() < 1000, "{text}: {} bytes", error.to_string().len());
    }
}
