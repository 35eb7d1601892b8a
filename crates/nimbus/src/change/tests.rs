//! Changes of topology records, and names of topologies.

use std::collections::BTreeMap;

use super::*;
use crate::drain::WAIT_SECS_MAX;
use stormkeeper_coordination::cluster::record::UnknownFields;
use stormkeeper_model::{
    BlobKey,
    status::TopologyStatus,
    update::{FormerPackage, Update},
};

fn topology_record(status: TopologyStatus) -> TopologyRecord {
    TopologyRecord {
        status,
        workers: 2,
        unknown_fields: UnknownFields::from_iter([("colour".to_owned(), "blue".into())]),
        ..TopologyRecord::sample("wc")
    }
}

fn kill(wait_secs: Option<u64>) -> Change {
    Change::Kill(KillRequest { wait_secs })
}

#[test]
fn options_and_deadline_of_a_change_are_in_the_record() {
    let now = Timestamp::from_millis(1000);
    let request = RebalanceRequest {
        wait_secs: Some(5),
        workers: Some(3),
        parallelism: BTreeMap::from([("split".parse().expect("valid"), 4)]),
        restart: false,
    };
    let next = changed(&topology_record(TopologyStatus::Inactive), &Change::Rebalance(request.clone()), now)
        .expect("legal");
    assert_eq!(next.status, TopologyStatus::Rebalancing);
    assert_eq!(
        next.pending,
        Some(PendingChange::Rebalance {
            deadline: Timestamp::from_millis(6000),
            resume: TopologyStatus::Inactive,
            workers: Some(3),
            parallelism: request.parallelism,
            only_drained: false,
            restart: false,
            grow_back: false,
        })
    );
    assert_eq!(next.unknown_fields["colour"], "blue", "fields of a newer version are kept");
    let killed = changed(&next, &kill(None), now).expect("a topology that rebalances can be killed");
    assert_eq!(killed.pending, Some(PendingChange::Kill { deadline: Timestamp::from_millis(31_000) }));
    let sooner = changed(&killed, &kill(Some(0)), now).expect("a second kill replaces the deadline");
    assert_eq!(sooner.pending, Some(PendingChange::Kill { deadline: now }));
    assert!(matches!(changed(&killed, &Change::Activate, now), Err(Refusal::Illegal(_))));
}

#[test]
fn rebalance_waits_for_an_update_and_a_kill_ends_it() {
    let now = Timestamp::from_millis(1);
    let former = FormerPackage { blob: BlobKey::of(b"old"), blob_bytes: None, message_timeout_secs: 30 };
    let update = Update {
        former,
        left: Vec::new(),
        total: 1,
        at_once: 1,
        draining: None,
        starting: Vec::new(),
        failure: None,
    };
    let updated = TopologyRecord { update: Some(update), ..topology_record(TopologyStatus::Active) };
    let request = RebalanceRequest { workers: Some(3), ..RebalanceRequest::default() };
    let refused = changed(&updated, &Change::Rebalance(request), now);
    assert!(matches!(&refused, Err(Refusal::BadOption(text)) if text.contains("update")), "{refused:?}");
    let inactive = changed(&updated, &Change::Deactivate, now).expect("legal");
    assert_eq!(inactive.update, updated.update);
    assert_eq!(changed(&inactive, &kill(None), now).expect("legal").update, None);
}

#[test]
fn metric_settings_change_nothing_else_and_can_be_reset() {
    let control = MetricControl {
        enabled: vec!["EmitTime".to_owned()],
        sample_rate: Some(0.5),
        ..MetricControl::default()
    };
    let now = Timestamp::from_millis(1);
    let killed = changed(&topology_record(TopologyStatus::Active), &kill(None), now).expect("legal");
    let change = Change::Metrics(control.clone());
    let next = changed(&killed, &change, now).expect("legal");
    assert_eq!(next, TopologyRecord { metrics: Some(control.clone()), ..killed.clone() });
    let back = changed(&next, &Change::Metrics(MetricControl::default()), now).expect("legal");
    assert_eq!(back, killed);
    let draft = event_draft(&"wc-1-1".parse().expect("valid"), &change, None, &next);
    assert_eq!(draft.event, EventKind::MetricsChanged);
    assert!(draft.reason.ends_with("enabled: EmitTime; sample rate: 0.5"), "{}", draft.reason);

    assert!(check_control(&control).is_ok());
    for rate in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let bad = MetricControl { sample_rate: Some(rate), ..control.clone() };
        assert!(matches!(check_control(&bad), Err(Refusal::BadOption(_))), "{rate}");
    }
    for name in ["", "a@b", "a b", "a\n", &"x".repeat(MAX_PART_BYTES + 1)] {
        let bad = MetricControl { debug: vec![name.to_owned()], ..control.clone() };
        assert!(matches!(check_control(&bad), Err(Refusal::BadOption(_))), "{name:?}");
    }
    let many = vec!["a".to_owned(); CONTROLLED_NAMES_MAX + 1];
    assert!(check_control(&MetricControl { disabled: many, ..control }).is_err());
}

#[test]
fn invalid_rebalance_options_are_rejected() {
    let id: TopologyId = "wc-1-1".parse().expect("valid");
    let tasks = TaskTable::number([("split".parse().expect("valid"), 2)]);
    let check = |workers, component: &str, n| {
        let parallelism = BTreeMap::from([(component.parse().expect("valid"), n)]);
        let request = RebalanceRequest { wait_secs: None, workers, parallelism, restart: false };
        check_rebalance(&id, &request, &tasks, 2)
    };
    assert!(check(None, "split", 3).is_ok());
    assert!(matches!(check(Some(0), "split", 3), Err(Refusal::BadOption(_))));
    assert!(matches!(check(Some(100_001), "split", 3), Err(Refusal::BadOption(_))));
    assert!(matches!(check(None, "split", 0), Err(Refusal::BadOption(_))));
    assert!(matches!(check(None, "split", MAX_TASKS + 1), Err(Refusal::BadOption(_))));
    for (wait, is_accepted) in [(WAIT_SECS_MAX, true), (WAIT_SECS_MAX + 1, false), (u64::MAX, false)] {
        let request = RebalanceRequest {
            wait_secs: Some(wait),
            workers: None,
            parallelism: BTreeMap::new(),
            restart: false,
        };
        for change in [Change::Rebalance(request), kill(Some(wait))] {
            let result = changed(&topology_record(TopologyStatus::Active), &change, Timestamp::EPOCH);
            let is_limited = matches!(&result, Err(Refusal::BadOption(text)) if text.contains("86400 s"));
            assert_eq!((result.is_ok(), is_limited), (is_accepted, !is_accepted), "{change:?}");
        }
    }
    let refused = check(None, "spilt", 3).expect_err("unknown");
    assert_eq!(refused.hint().as_deref(), Some("its components are split"));
    assert!(matches!(check(None, "split", 100_000), Err(Refusal::TooLarge(_))));
    assert!(check(Some(1000), "split", 1000).is_ok());
    assert!(matches!(check(Some(2000), "split", 2000), Err(Refusal::TooLarge(_))));
    // The present number of workers counts if the request names none.
    let request =
        RebalanceRequest { wait_secs: None, workers: None, parallelism: BTreeMap::new(), restart: false };
    let many = TaskTable::number([("split".parse().expect("valid"), 2000)]);
    assert!(matches!(check_rebalance(&id, &request, &many, 2000), Err(Refusal::TooLarge(_))));
    assert!(check_rebalance(&id, &request, &many, 10).is_ok());
}

#[test]
fn an_id_takes_precedence_over_a_name() {
    let (first, second): (TopologyId, TopologyId) =
        ("wc-1-100".parse().expect("valid"), "wc-1-100-2-200".parse().expect("valid"));
    let mut namesake = topology_record(TopologyStatus::Active);
    namesake.name = "wc-1-100".parse().expect("valid");
    let stored = |value| Stored { value, version: tree::Version::FIRST };
    let mut view = ClusterView::default();
    for (id, named) in [(&first, topology_record(TopologyStatus::Active)), (&second, namesake)] {
        view.topologies.insert(id.clone(), stored(named));
    }
    assert_eq!(find(&view, "wc-1-100").ok(), Some(first.clone()));
    assert_eq!(find(&view, "wc").ok(), Some(first.clone()));
    view.topologies.remove(&first);
    assert_eq!(find(&view, "wc-1-100").ok(), Some(second));
}
