//! Pages read back: by readers that are written from the formats' documents, not from the encoder.

mod protobuf;
mod text;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Description, Distribution, FamilyKind, Labels, Sample, SampleValue, Unit};

/// Family as a reader sees it.
#[derive(Debug, Clone, PartialEq)]
struct Read {
    help: String,
    kind: String,
    unit: Option<String>,
    samples: Vec<(BTreeMap<String, String>, ReadValue)>,
}

#[derive(Debug, Clone, PartialEq)]
enum ReadValue {
    Number(f64),
    /// Count, sum, and cumulative counts by bound.
    Histogram {
        count: u64,
        sum: f64,
        classic: Vec<(f64, u64)>,
    },
}

const BOUNDS: &[f64] = &[0.001, 0.1, 10.0];

fn labels() -> impl Strategy<Value = Labels> {
    ("\\PC{0,6}|[\\\\\"\n,{}= ]{0,6}", proptest::option::of("[a-z\"]{0,4}")).prop_map(
        |(topology, component)| {
            let component = component.map(|component| ("component", component));
            [("topology", topology)].into_iter().chain(component).collect()
        },
    )
}

fn distribution() -> impl Strategy<Value = SampleValue> {
    let native = proptest::collection::btree_map(-700..700_i32, 1..1_000_000_u64, 0..20);
    (0..1000_u64, native, 0.0..1e9_f64).prop_map(|(zeros, native, sum)| {
        let upper = |index: i32| (f64::from(index) / 32.0).exp2();
        let below =
            |bound: f64| native.iter().filter(|(i, _)| upper(**i) <= bound).map(|(_, n)| n).sum::<u64>();
        SampleValue::Distribution(Box::new(Distribution {
            count: zeros + native.values().sum::<u64>(),
            sum,
            zeros,
            cumulative: BOUNDS.iter().map(|bound| zeros + below(*bound)).collect(),
            bounds: BOUNDS,
            native: native.into_iter().collect(),
        }))
    })
}

fn family() -> impl Strategy<Value = Family> {
    let numbers = prop_oneof![
        any::<u32>().prop_map(|n| SampleValue::Count(n.into())),
        (-1e300..1e300).prop_map(SampleValue::Real)
    ];
    let of = |kind, values: BoxedStrategy<SampleValue>| {
        let samples = proptest::collection::vec((labels(), values), 0..4);
        ("[a-z]{1,5}", "\\PC{0,9}|[\\\\\"\n ]{0,6}", samples).prop_map(move |(name, help, samples)| {
            // Names of different kinds differ, and no name is that of a sample of another family.
            let name = format!("n_{name}_{}_bytes", kind as u8);
            let about =
                Description { name: name.into(), kind, unit: Unit::Bytes, help: help.into(), note: "Note." };
            let samples = samples.into_iter().map(|(labels, value)| Sample { labels, value });
            Family { about: about.into(), samples: samples.collect() }
        })
    };
    prop_oneof![
        of(FamilyKind::Counter, numbers.clone().boxed()),
        of(FamilyKind::Gauge, numbers.boxed()),
        of(FamilyKind::Histogram, distribution().boxed()),
    ]
}

/// Families with different names.
fn families() -> impl Strategy<Value = Vec<Family>> {
    proptest::collection::vec(family(), 0..5).prop_map(|all| {
        let by_name: BTreeMap<_, _> =
            all.into_iter().map(|family| (family.about.name.clone(), family)).collect();
        by_name.into_values().collect()
    })
}

/// Returns what a reader should find, by the name of the family in `format`.
fn expected(families: &[Family], format: Format) -> BTreeMap<String, Read> {
    let families = families.iter().filter(|family| !family.samples.is_empty());
    let read = |family: &Family| {
        let about = &family.about;
        let is_total = about.kind == FamilyKind::Counter && format != Format::OpenMetrics;
        let name = format!("{}{}", about.name, if is_total { "_total" } else { "" });
        let value = |value: &SampleValue| match value {
            SampleValue::Count(n) => ReadValue::Number(*n as f64),
            SampleValue::Real(value) => ReadValue::Number(*value),
            SampleValue::Distribution(of) => {
                let classic = of.bounds.iter().copied().zip(of.cumulative.iter().copied()).collect();
                ReadValue::Histogram { count: of.count, sum: of.sum, classic }
            }
        };
        let samples = family.samples.iter().map(|sample| {
            let labels = sample.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
            (labels.collect(), value(&sample.value))
        });
        let read = Read {
            help: format!("{} Note.", about.help),
            kind: about.kind.word().to_owned(),
            unit: (format != Format::Text).then(|| "bytes".to_owned()),
            samples: samples.collect(),
        };
        (name, read)
    };
    families.map(read).collect()
}

proptest! {
    #[test]
    fn text_reads_back_as_the_families(families in families()) {
        for format in [Format::Text, Format::OpenMetrics] {
            let page = String::from_utf8(format.encode(&families)).expect("text");
            prop_assert_eq!(page.ends_with("# EOF\n"), format == Format::OpenMetrics);
            let read = text::read(&page);
            prop_assert_eq!(read, Ok(expected(&families, format)), "{}", page);
        }
    }

    #[test]
    fn protobuf_reads_back_as_the_families(families in families()) {
        let page = Format::Protobuf.encode(&families);
        let (read, native) = protobuf::read(&page).expect("a page");
        prop_assert_eq!(read, expected(&families, Format::Protobuf));
        let distributions = families.iter().flat_map(|family| &family.samples).filter_map(|sample| match &sample.value {
            SampleValue::Distribution(of) => Some((of.zeros, of.native.clone())),
            SampleValue::Count(_) | SampleValue::Real(_) => None,
        });
        prop_assert_eq!(native, distributions.collect::<Vec<_>>());
    }

    #[test]
    fn any_accept_has_a_format(accept in "\\PC{0,200}") {
        // No panic, whatever a client sends.
        Format::preferred(&accept);
    }
}

#[test]
fn page_has_the_documented_form() {
    let labels: Labels = [("topology", "a\"b".to_owned())].into();
    let counter = Description::fixed("n_bytes", FamilyKind::Counter, Unit::Bytes, "Help \"of\" it.");
    let gauge = Description::fixed("share_ratio", FamilyKind::Gauge, Unit::Ratio, "Help.");
    let families = [
        Family::labelled(&counter, [(labels, SampleValue::Count(3))]),
        Family::single(&gauge, SampleValue::Real(0.5)),
    ];
    let text = "# HELP n_bytes_total Help \"of\" it.\n# TYPE n_bytes_total counter\n\
                n_bytes_total{topology=\"a\\\"b\"} 3\n# HELP share_ratio Help.\n# TYPE share_ratio gauge\nshare_ratio 0.5\n";
    assert_eq!(String::from_utf8(Format::Text.encode(&families)).expect("text"), text);
    let text = "# HELP n_bytes Help \\\"of\\\" it.\n# TYPE n_bytes counter\n# UNIT n_bytes bytes\n\
                n_bytes_total{topology=\"a\\\"b\"} 3\n# HELP share_ratio Help.\n# TYPE share_ratio gauge\n\
                # UNIT share_ratio ratio\nshare_ratio 0.5\n# EOF\n";
    assert_eq!(String::from_utf8(Format::OpenMetrics.encode(&families)).expect("text"), text);
}

#[test]
fn reader_gets_the_format_that_it_prefers() {
    let prometheus = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                      application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;\
                      q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let check = |accept: &str, format| assert_eq!(Format::preferred(accept), format, "{accept}");
    check(prometheus, Format::Protobuf);
    check(&prometheus[prometheus.find(',').expect("several") + 1..], Format::OpenMetrics);
    check("application/openmetrics-text; version=\"1.0.0\"", Format::OpenMetrics);
    check("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", Format::Text);
    check(
        "text/plain;version=1.0.0;escaping=allow-utf-8,application/openmetrics-text;q=0.2",
        Format::OpenMetrics,
    );
    check("APPLICATION/OpenMetrics-Text;Q=0.9, */*;q=0.95", Format::Text);
    check("application/openmetrics-text;q=0, text/html", Format::Text);
    check("application/openmetrics-text;q=7", Format::Text);
    check("application/vnd.google.protobuf", Format::Text);
    check("", Format::Text);
    // Beyond the limits nothing is read.
    check(&format!("{}application/openmetrics-text", "x/y,".repeat(ALTERNATIVES_MAX)), Format::Text);
    check(&format!("{},application/openmetrics-text", "é".repeat(ACCEPT_BYTES_MAX)), Format::Text);
}
