//! Log levels of the components of a topology: what an operator may ask for, and what it does to the record
//! of the topology. The leader ends a level at its time, so the clocks of workers play no part.

use std::time::Duration;

use crate::refusal::Refusal;
use stormkeeper_api_types::message::LogLevelRequest;
use stormkeeper_coordination::cluster::record::TopologyRecord;
use stormkeeper_model::{Timestamp, TopologyId, log_control::TimedLevel, topology::TaskTable};

/// Time of a level that the request does not limit.
const FOR_SECS: u64 = 600;

/// Longest time: a forgotten level must not fill disks for ever.
const FOR_SECS_MAX: u64 = 24 * 3600;

/// Checks a request against the components of the topology.
///
/// # Errors
/// [`Refusal::UnknownComponent`] and [`Refusal::BadOption`].
pub(crate) fn check(id: &TopologyId, request: &LogLevelRequest, tasks: &TaskTable) -> Result<(), Refusal> {
    let bad = |text: String| Err(Refusal::BadOption(text));
    if let Some(component) = request.component.as_ref().filter(|component| !tasks.0.contains_key(*component))
    {
        let known = tasks.0.keys().cloned().collect();
        return Err(Refusal::UnknownComponent { topology: id.clone(), component: component.clone(), known });
    }
    match (request.level, request.for_secs) {
        (None, Some(_)) => bad("a time without a level: name the level too".to_owned()),
        (Some(_), Some(0)) => bad(
            "a level for 0 s has no effect; `log-level --reset` ends one (in the API: leave the level out)"
                .to_owned(),
        ),
        (_, Some(secs)) if secs > FOR_SECS_MAX => {
            bad(format!("{secs} s are longer than the limit of {FOR_SECS_MAX} s"))
        }
        _ => Ok(()),
    }
}

/// Returns the record of a topology with the level of `request`.
pub(crate) fn with_level(
    record: &TopologyRecord,
    request: &LogLevelRequest,
    now: Timestamp,
) -> TopologyRecord {
    let mut levels = record.log_levels.clone().unwrap_or_default().at(now);
    let time = Duration::from_secs(request.for_secs.unwrap_or(FOR_SECS));
    let timed = request.level.map(|level| TimedLevel { level, until: now.plus(time) });
    levels.set(request.component.clone(), timed);
    TopologyRecord { log_levels: Some(levels).filter(|levels| !levels.is_empty()), ..record.clone() }
}

/// Returns the record of a topology without the levels whose time is over; `None` if there is none.
pub(crate) fn without_ended(record: &TopologyRecord, now: Timestamp) -> Option<TopologyRecord> {
    let levels = record.log_levels.as_ref()?;
    let left = levels.at(now);
    let log_levels = Some(left).filter(|left| !left.is_empty());
    (log_levels.as_ref() != Some(levels)).then(|| TopologyRecord { log_levels, ..record.clone() })
}

/// Describes a request for people.
pub(crate) fn describe(request: &LogLevelRequest) -> String {
    let whose = match &request.component {
        Some(component) => format!("log level of {component}"),
        None => "log level of all components".to_owned(),
    };
    match request.level {
        Some(level) => format!("{whose}: {level} for {} s", request.for_secs.unwrap_or(FOR_SECS)),
        None => format!("{whose}: as the log filter of the workers says"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_model::{ComponentId, log_control::LogLevel, task_set::TaskSet};

    fn id(text: &str) -> ComponentId {
        text.parse().expect("valid")
    }

    fn request(component: Option<&str>, level: Option<LogLevel>, for_secs: Option<u64>) -> LogLevelRequest {
        LogLevelRequest { component: component.map(id), level, for_secs }
    }

    #[test]
    fn level_is_in_the_record_until_its_time_is_over() {
        let at = Timestamp::from_millis;
        let before = TopologyRecord::sample("wc");
        let debug = request(Some("split"), Some(LogLevel::Debug), None);
        let record = with_level(&before, &debug, at(1000));
        let levels = record.log_levels.clone().expect("a level");
        assert_eq!(levels.next_end(), Some(at(601_000)));
        assert_eq!(without_ended(&record, at(600_999)), None, "nothing to write");
        assert_eq!(without_ended(&record, at(601_000)), Some(before.clone()));
        let both = with_level(&record, &request(None, Some(LogLevel::Warn), Some(5)), at(2000));
        assert_eq!(without_ended(&both, at(7000)), Some(record.clone()));
        assert_eq!(with_level(&both, &request(None, None, None), at(2000)), before);
        assert_eq!(describe(&debug), "log level of split: debug for 600 s");
    }

    #[test]
    fn requests_that_make_no_sense_are_refused_by_name() {
        let topology = TopologyId::new(&"wc".parse().expect("valid"), 1, Timestamp::EPOCH);
        let tasks = TaskTable([(id("split"), TaskSet::default())].into());
        let refused =
            |request: &LogLevelRequest| check(&topology, request, &tasks).map_err(|e| e.to_string());
        let level = Some(LogLevel::Info);
        assert_eq!(refused(&request(Some("split"), level, Some(86_400))), Ok(()));
        for (component, level, secs, text) in [
            (Some("spilt"), level, None, "spilt"),
            (None, level, Some(86_401), "limit of 86400 s"),
            (None, level, Some(0), "for 0 s"),
            (None, None, Some(5), "a time without a level"),
        ] {
            let error = refused(&request(component, level, secs)).expect_err("refused");
            assert!(error.contains(text), "{error}");
        }
    }
}
