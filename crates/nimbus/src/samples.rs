//! Samples of the tuples of running components: what an operator may ask for, and what it does to the
//! record of the topology. The leader ends a sample at its time; each worker ends it by its own clock
//! too, so that it ends while there is no leader.

use std::time::Duration;

use crate::refusal::Refusal;
use stormkeeper_api_types::message::SampleRequest;
use stormkeeper_coordination::cluster::record::TopologyRecord;
use stormkeeper_model::{
    Timestamp, TopologyId,
    topology::TaskTable,
    tuple_samples::{TupleSample, TupleSamples},
};

/// Time of a sample that the request does not limit.
const FOR_SECS: u64 = 60;

/// Longest time: tuples may be secrets, and nobody may watch them by mistake for long.
const FOR_SECS_MAX: u64 = 3600;

/// Share of the tuples, as one of so many, that the request does not name.
const ONE_IN: u32 = 100;

/// Limit of the tuples of a worker in a second that the request does not name.
const PER_SEC: u32 = 10;

/// Highest limit of the tuples of a worker in a second: so many lines of the greatest size are a MiB.
const PER_SEC_MAX: u32 = 200;

/// Maximum number of components of a topology with a sample.
const COMPONENTS_MAX: usize = 20;

/// Checks a request against the components and the samples of the topology.
///
/// # Errors
/// [`Refusal::UnknownComponent`] and [`Refusal::BadOption`].
pub(crate) fn check(
    id: &TopologyId,
    (request, record, now): (&SampleRequest, &TopologyRecord, Timestamp),
    tasks: &TaskTable,
) -> Result<(), Refusal> {
    let SampleRequest { component, one_in, per_sec, for_secs, stop } = request;
    if !tasks.0.contains_key(component) {
        let known = tasks.0.keys().cloned().collect();
        return Err(Refusal::UnknownComponent { topology: id.clone(), component: component.clone(), known });
    }
    let bad = |text: String| Err(Refusal::BadOption(text));
    if *stop && (one_in.is_some() || per_sec.is_some() || for_secs.is_some()) {
        return bad("a request that ends a sample has no share, limit and time".to_owned());
    }
    if *one_in == Some(0) {
        return bad("a sample of one in 0 tuples is none; one in 1 is all of them".to_owned());
    }
    if let Some(n) = per_sec.filter(|n| !(1..=PER_SEC_MAX).contains(n)) {
        return bad(format!("{n} tuples in a second are not between 1 and {PER_SEC_MAX}"));
    }
    if let Some(secs) = for_secs.filter(|secs| !(1..=FOR_SECS_MAX).contains(secs)) {
        return bad(format!("{secs} s are not between 1 s and the limit of {FOR_SECS_MAX} s"));
    }
    let samples = record.tuple_samples.clone().unwrap_or_default().at(now);
    if !stop && samples.0.len() >= COMPONENTS_MAX && !samples.0.contains_key(component) {
        return bad(format!(
            "{COMPONENTS_MAX} components of the topology have a sample; end one of them first"
        ));
    }
    Ok(())
}

/// Returns the record of a topology with the sample of `request`.
pub(crate) fn with_sample(
    record: &TopologyRecord,
    request: &SampleRequest,
    now: Timestamp,
) -> TopologyRecord {
    let mut samples = record.tuple_samples.clone().unwrap_or_default().at(now);
    let for_secs = request.for_secs.unwrap_or(FOR_SECS);
    let sample = TupleSample {
        one_in: request.one_in.unwrap_or(ONE_IN),
        per_sec: request.per_sec.unwrap_or(PER_SEC),
        for_secs,
        until: now.plus(Duration::from_secs(for_secs)),
    };
    match request.stop {
        true => samples.0.remove(&request.component),
        false => samples.0.insert(request.component.clone(), sample),
    };
    with(record, samples)
}

/// Returns the record of a topology without the samples whose time is over; `None` if there is none.
pub(crate) fn without_ended(record: &TopologyRecord, now: Timestamp) -> Option<TopologyRecord> {
    let samples = record.tuple_samples.as_ref()?;
    let left = samples.at(now);
    (left != *samples).then(|| with(record, left))
}

fn with(record: &TopologyRecord, samples: TupleSamples) -> TopologyRecord {
    let tuple_samples = Some(samples).filter(|samples| !samples.0.is_empty());
    TopologyRecord { tuple_samples, ..record.clone() }
}

/// Describes a request for people.
pub(crate) fn describe(request: &SampleRequest) -> String {
    let SampleRequest { component, one_in, for_secs, stop, .. } = request;
    match stop {
        true => format!("the tuples of {component} are shown no more"),
        false => format!(
            "one in {} tuples of {component} is shown for {} s",
            one_in.unwrap_or(ONE_IN),
            for_secs.unwrap_or(FOR_SECS)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_model::{ComponentId, task_set::TaskSet};

    fn id(text: &str) -> ComponentId {
        text.parse().expect("valid")
    }

    fn request(component: &str) -> SampleRequest {
        SampleRequest { component: id(component), one_in: None, per_sec: None, for_secs: None, stop: false }
    }

    #[test]
    fn sample_is_in_the_record_until_its_time_is_over_or_it_is_stopped() {
        let at = Timestamp::from_millis;
        let before = TopologyRecord::sample("wc");
        let record = with_sample(&before, &request("split"), at(1000));
        let expected = TupleSample { one_in: 100, per_sec: 10, for_secs: 60, until: at(61_000) };
        assert_eq!(record.tuple_samples, Some(TupleSamples([(id("split"), expected)].into())));
        assert_eq!(without_ended(&record, at(60_999)), None, "nothing to write");
        assert_eq!(without_ended(&record, at(61_000)), Some(before.clone()));
        let short =
            SampleRequest { one_in: Some(1), per_sec: Some(5), for_secs: Some(2), ..request("count") };
        let both = with_sample(&record, &short, at(2000));
        assert_eq!(both.tuple_samples.as_ref().map(|samples| samples.0.len()), Some(2));
        assert_eq!(without_ended(&both, at(4000)), Some(record.clone()));
        let stop = SampleRequest { stop: true, ..request("count") };
        assert_eq!(with_sample(&both, &stop, at(2000)), record);
        assert_eq!(describe(&short), "one in 1 tuples of count is shown for 2 s");
    }

    #[test]
    fn requests_that_make_no_sense_are_refused_by_name() {
        let topology = TopologyId::new(&"wc".parse().expect("valid"), 1, Timestamp::EPOCH);
        let names = (0..=COMPONENTS_MAX).map(|n| id(&format!("c{n}")));
        let tasks = TaskTable(names.map(|name| (name, TaskSet::default())).collect());
        let mut record = TopologyRecord::sample("wc");
        for n in 0..COMPONENTS_MAX {
            let refused = check(&topology, (&request(&format!("c{n}")), &record, Timestamp::EPOCH), &tasks);
            assert!(refused.is_ok(), "{refused:?}");
            record = with_sample(&record, &request(&format!("c{n}")), Timestamp::EPOCH);
        }
        let last = format!("c{COMPONENTS_MAX}");
        let longest = SampleRequest { for_secs: Some(FOR_SECS_MAX), ..request("c0") };
        assert!(check(&topology, (&longest, &record, Timestamp::EPOCH), &tasks).is_ok());
        for (request, text) in [
            (request("spilt"), "spilt"),
            (SampleRequest { one_in: Some(0), ..request("c0") }, "one in 0"),
            (SampleRequest { per_sec: Some(201), ..request("c0") }, "between 1 and 200"),
            (SampleRequest { per_sec: Some(0), ..request("c0") }, "between 1 and 200"),
            (SampleRequest { for_secs: Some(3601), ..request("c0") }, "limit of 3600 s"),
            (SampleRequest { for_secs: Some(0), ..request("c0") }, "between 1 s"),
            (SampleRequest { for_secs: Some(1), stop: true, ..request("c0") }, "ends a sample"),
            (request(&last), "20 components"),
        ] {
            let refused = check(&topology, (&request, &record, Timestamp::EPOCH), &tasks);
            let error = refused.expect_err("refused").to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
