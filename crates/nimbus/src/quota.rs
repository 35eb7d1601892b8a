//! Quotas of owners: what an owner has in the view, and whether a request may add to it. Pure, except
//! for the uploads that this nimbus remembers.
//!
//! The leader checks a request right before it writes it, on a view with all its earlier writes, so that
//! two requests at once cannot both take the last place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{refusal::Refusal, submit::PreparedTopology, update::NewPackage};
use stormkeeper_access::quota::{Exceeded, Quotas, Usage};
use stormkeeper_api_types::message::{OwnerSummary, RebalanceRequest};
use stormkeeper_coordination::cluster::{record::TopologyRecord, view::ClusterView};
use stormkeeper_model::{BlobKey, TopologyId, status::PendingChange, topology::TaskTable};

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Returns what the topologies of an owner use, those of `except` not counted. A killed topology counts
/// until it is removed, and a topology that waits for a rebalance has the larger number of tasks. A
/// package counts once, and one of an earlier build, whose size is not known, not at all.
fn usage(view: &ClusterView, owner: &str, except: Option<&TopologyId>) -> Usage {
    let (mut usage, mut blobs) = (Usage::default(), BTreeMap::new());
    for (id, stored) in &view.topologies {
        let record = &stored.value;
        if record.owner != owner {
            continue;
        }
        blobs.extend(record.packages().map(|(blob, bytes)| (blob, bytes.unwrap_or_default())));
        if except != Some(id) {
            usage.topologies += 1;
            let table = view.tasks.get(id).map(|tasks| &tasks.value.components);
            usage.tasks += table.map_or(0, |table| tasks_of(table, record));
        }
    }
    usage.blob_bytes = blobs.values().fold(0, |sum, bytes| sum.saturating_add(*bytes));
    usage
}

fn tasks_of(table: &TaskTable, record: &TopologyRecord) -> u64 {
    let now = count(table.tasks().len());
    match &record.pending {
        Some(PendingChange::Rebalance { parallelism, .. }) => now.max(table.n_resized(parallelism)),
        Some(PendingChange::Kill { .. }) | None => now,
    }
}

fn exceeded(owner: &str) -> impl FnOnce(Exceeded) -> Refusal {
    let owner = owner.to_owned();
    move |exceeded| Refusal::QuotaExceeded { owner, exceeded }
}

/// Checks that the owner of a topology may have it.
///
/// # Errors
/// [`Refusal::QuotaExceeded`].
pub(super) fn check_submit(
    view: &ClusterView,
    quotas: Option<&Quotas>,
    prepared: &PreparedTopology,
) -> Result<(), Refusal> {
    let Some(quotas) = quotas else { return Ok(()) };
    let PreparedTopology { owner, blob, blob_bytes, tasks, .. } = prepared;
    let before = usage(view, owner, None);
    let has_blob =
        view.topologies.values().any(|record| record.value.owner == *owner && record.value.uses(blob));
    let more_bytes = if has_blob { 0 } else { blob_bytes.unwrap_or_default() };
    let after = Usage {
        topologies: before.topologies + 1,
        tasks: before.tasks.saturating_add(count(tasks.tasks().len())),
        blob_bytes: before.blob_bytes.saturating_add(more_bytes),
    };
    quotas.of(owner).check(&before, &after).map_err(exceeded(owner))
}

/// Checks that the owner of a topology may have another package during an update.
///
/// # Errors
/// [`Refusal::QuotaExceeded`].
pub(super) fn check_update(
    view: &ClusterView,
    quotas: Option<&Quotas>,
    id: &TopologyId,
    package: &NewPackage,
) -> Result<(), Refusal> {
    let (Some(quotas), Some(record)) = (quotas, view.topologies.get(id)) else { return Ok(()) };
    let owner = &record.value.owner;
    let before = usage(view, owner, None);
    let more = match is_used(view, owner, &package.blob) {
        true => 0,
        false => package.blob_bytes.unwrap_or_default(),
    };
    let blob_bytes = before.blob_bytes.saturating_add(more);
    quotas.of(owner).check(&before, &Usage { blob_bytes, ..before }).map_err(exceeded(owner))
}

/// Checks that the owner of a topology may have the tasks of a rebalance.
///
/// # Errors
/// [`Refusal::QuotaExceeded`].
pub(super) fn check_rebalance(
    view: &ClusterView,
    quotas: Option<&Quotas>,
    id: &TopologyId,
    request: &RebalanceRequest,
) -> Result<(), Refusal> {
    let (Some(quotas), Some(record), Some(tasks)) = (quotas, view.topologies.get(id), view.tasks.get(id))
    else {
        return Ok(());
    };
    let (owner, table) = (&record.value.owner, &tasks.value.components);
    let before = usage(view, owner, None);
    let tasks = usage(view, owner, Some(id)).tasks + table.n_resized(&request.parallelism);
    quotas.of(owner).check(&before, &Usage { tasks, ..before }).map_err(exceeded(owner))
}

/// Returns what each owner uses and may use: those with topologies, those with `uploads` that no topology
/// uses, and those with a line of their own.
pub(super) fn owners(
    view: &ClusterView,
    quotas: Option<&Quotas>,
    uploads: &BTreeMap<String, u64>,
) -> Vec<OwnerSummary> {
    let mut names: BTreeSet<&str> = view.topologies.values().map(|record| &*record.value.owner).collect();
    names.extend(quotas.into_iter().flat_map(Quotas::owners));
    names.extend(uploads.keys().map(String::as_str));
    let summary = |owner: &str| {
        let (used, quota) = (usage(view, owner, None), quotas.map(|quotas| quotas.of(owner)));
        let quota = quota.unwrap_or_default();
        OwnerSummary {
            owner: owner.to_owned(),
            topologies: used.topologies,
            topologies_max: quota.topologies,
            tasks: used.tasks,
            tasks_max: quota.tasks,
            blob_bytes: used.blob_bytes,
            unused_blob_bytes: uploads.get(owner).copied().unwrap_or_default(),
            blob_bytes_max: quota.blob_bytes,
        }
    };
    names.into_iter().map(summary).collect()
}

/// Packages that owners have uploaded and no topology uses yet. A restart forgets them; the limit of
/// all unused packages holds beside this.
#[derive(Debug, Default)]
pub(super) struct Uploads(
    // Held for the check of one upload.
    Mutex<BTreeMap<String, BTreeMap<BlobKey, u64>>>,
    // Packages that arrive now; locked after the first.
    Mutex<Vec<(String, BlobKey)>>,
);

/// Upload that arrives; its bytes count although they are not stored yet.
#[derive(Debug)]
pub(super) struct Arriving {
    uploads: Arc<Uploads>,
    upload: (String, BlobKey),
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut arriving = self.uploads.arriving();
        if let Some(at) = arriving.iter().position(|upload| *upload == self.upload) {
            arriving.swap_remove(at);
        }
    }
}

impl Uploads {
    /// Checks that an owner may store a package of `bytes`, and remembers it, also before it is stored: until
    /// the result is dropped. `is_stored` says whether a package is still on this nimbus.
    ///
    /// # Errors
    /// [`Refusal::QuotaExceeded`].
    pub(super) fn begin(
        self: &Arc<Self>,
        (view, quotas): (&ClusterView, &Quotas),
        owner: &str,
        (key, bytes): (&BlobKey, u64),
        is_stored: impl Fn(&BlobKey) -> bool,
    ) -> Result<Option<Arriving>, Refusal> {
        if is_used(view, owner, key) {
            return Ok(None);
        }
        let mut owners = self.0.lock().expect("nobody panics while holding the uploads");
        let mut arriving = self.arriving();
        // So the list is no longer than that of the packages of this nimbus, and of its connections.
        keep_stored(&mut owners, |key| {
            is_stored(key) || arriving.iter().any(|(_, arriving)| arriving == key)
        });
        let unused = owners.get(owner).map_or(0, |own| unused(view, owner, own, Some(key)));
        let used = usage(view, owner, None);
        let before = Usage { blob_bytes: used.blob_bytes.saturating_add(unused), ..used };
        let after = Usage { blob_bytes: before.blob_bytes.saturating_add(bytes), ..before };
        quotas.of(owner).check(&before, &after).map_err(exceeded(owner))?;
        owners.entry(owner.to_owned()).or_default().insert(key.clone(), bytes);
        let upload = (owner.to_owned(), key.clone());
        arriving.push(upload.clone());
        Ok(Some(Arriving { uploads: Arc::clone(self), upload }))
    }

    fn arriving(&self) -> MutexGuard<'_, Vec<(String, BlobKey)>> {
        self.1.lock().expect("nobody panics while holding the uploads")
    }

    /// Remembers a package of `bytes` that an owner has stored here, whatever its quota. `is_stored` says
    /// whether a package is still on this nimbus.
    pub(super) fn remember(
        &self,
        view: &ClusterView,
        owner: &str,
        (key, bytes): (&BlobKey, u64),
        is_stored: impl Fn(&BlobKey) -> bool,
    ) {
        if is_used(view, owner, key) {
            return;
        }
        let mut owners = self.0.lock().expect("nobody panics while holding the uploads");
        keep_stored(&mut owners, is_stored);
        owners.entry(owner.to_owned()).or_default().insert(key.clone(), bytes);
    }

    /// Returns the bytes of each owner that has uploaded packages which no topology of it uses. `is_stored`
    /// says whether a package is still on this nimbus.
    pub(super) fn unused(
        &self,
        view: &ClusterView,
        is_stored: impl Fn(&BlobKey) -> bool,
    ) -> BTreeMap<String, u64> {
        let mut owners = self.0.lock().expect("nobody panics while holding the uploads").clone();
        keep_stored(&mut owners, is_stored);
        let all = owners.iter().map(|(owner, blobs)| (owner.clone(), unused(view, owner, blobs, None)));
        all.filter(|(_, bytes)| *bytes > 0).collect()
    }
}

fn is_used(view: &ClusterView, owner: &str, key: &BlobKey) -> bool {
    view.topologies.values().any(|record| record.value.owner == owner && record.value.uses(key))
}

/// Forgets packages that were deleted.
fn keep_stored(owners: &mut BTreeMap<String, BTreeMap<BlobKey, u64>>, is_stored: impl Fn(&BlobKey) -> bool) {
    owners.values_mut().for_each(|blobs| blobs.retain(|key, _| is_stored(key)));
    owners.retain(|_, blobs| !blobs.is_empty());
}

/// Returns the bytes of `blobs` that no topology of their owner uses, `except` not counted.
fn unused(view: &ClusterView, owner: &str, blobs: &BTreeMap<BlobKey, u64>, except: Option<&BlobKey>) -> u64 {
    let unused = blobs.iter().filter(|(key, _)| except != Some(*key) && !is_used(view, owner, key));
    unused.fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use stormkeeper_coordination::{
        cluster::record::{Stored, TasksRecord, UnknownFields},
        tree::Version,
    };
    use stormkeeper_model::{
        ComponentId, Timestamp,
        status::TopologyStatus,
        update::{FormerPackage, Update},
    };

    fn quotas(text: &str) -> Quotas {
        Quotas::parse(Path::new("quotas"), text).expect("valid")
    }

    fn split() -> ComponentId {
        "split".parse().expect("valid")
    }

    fn add(view: &mut ClusterView, id: &str, owner: &str, (blob, bytes): (&[u8], u64), n_tasks: u32) {
        let id: TopologyId = id.parse().expect("valid");
        let record = TopologyRecord {
            owner: owner.to_owned(),
            blob: BlobKey::of(blob),
            blob_bytes: Some(bytes),
            ..TopologyRecord::sample("t")
        };
        let tasks = TasksRecord {
            components: TaskTable::number([(split(), n_tasks)]),
            requests: Default::default(),
            unknown_fields: UnknownFields::new(),
        };
        view.topologies.insert(id.clone(), Stored { value: record, version: Version::FIRST });
        view.tasks.insert(id, Stored { value: tasks, version: Version::FIRST });
    }

    fn prepared(owner: &str, (blob, bytes): (&[u8], u64), n_tasks: u32) -> PreparedTopology {
        PreparedTopology {
            name: "new".parse().expect("valid"),
            blob: BlobKey::of(blob),
            blob_bytes: Some(bytes),
            owner: owner.to_owned(),
            status: TopologyStatus::Active,
            workers: 1,
            message_timeout_secs: 30,
            program: None,
            ackers: Default::default(),
            grow_back_secs: None,
            tasks: TaskTable::number([(split(), n_tasks)]),
            requests: Default::default(),
            sample_rate: None,
        }
    }

    fn code<T>(result: Result<T, Refusal>) -> Option<String> {
        result.err().map(|refusal| refusal.code().to_string())
    }

    #[test]
    fn both_packages_of_an_update_count_and_an_update_beyond_the_quota_is_refused() {
        let mut view = ClusterView::default();
        add(&mut view, "a-1-1", "ann", (b"x", 100), 3);
        let id: TopologyId = "a-1-1".parse().expect("valid");
        let package = |blob: &[u8], bytes| NewPackage {
            blob: BlobKey::of(blob),
            blob_bytes: Some(bytes),
            message_timeout_secs: 30,
            former: BlobKey::of(b"x"),
            at_once: 1,
        };
        let quotas = quotas("ann blob-bytes=250");
        let check =
            |view: &ClusterView, blob, bytes| check_update(view, Some(&quotas), &id, &package(blob, bytes));
        assert_eq!(code(check(&view, b"y", 150)), None);
        assert_eq!(code(check(&view, b"y", 151)).as_deref(), Some("quota_exceeded"));
        assert_eq!(code(check(&view, b"x", 999)), None, "it is counted already");
        let record = view.topologies.get_mut(&id).expect("there");
        let former =
            FormerPackage { blob: BlobKey::of(b"z"), blob_bytes: Some(50), message_timeout_secs: 30 };
        record.value.update = Some(Update {
            former,
            left: Vec::new(),
            total: 1,
            at_once: 1,
            draining: None,
            starting: Vec::new(),
            failure: None,
        });
        assert_eq!(usage(&view, "ann", None).blob_bytes, 150);
    }

    #[test]
    fn submit_beyond_a_quota_is_refused_with_what_is_used_and_who_can_change_it() {
        let mut view = ClusterView::default();
        add(&mut view, "a-1-1", "ann", (b"x", 100), 3);
        add(&mut view, "b-1-1", "ann", (b"x", 100), 3);
        add(&mut view, "c-1-1", "bob", (b"y", 1000), 50);
        let check = |text: &str, blob: (&[u8], u64), n_tasks| {
            check_submit(&view, Some(&quotas(text)), &prepared("ann", blob, n_tasks))
        };
        check("ann topologies=3 tasks=7 blob-bytes=100", (b"x", 100), 1)
            .expect("the package is counted once");
        for text in ["ann topologies=2", "ann tasks=6", "* topologies=0"] {
            assert_eq!(code(check(text, (b"x", 100), 1)).as_deref(), Some("quota_exceeded"), "{text}");
        }
        check("ann blob-bytes=150", (b"z", 50), 1).expect("exactly the limit");
        let refused = check("ann blob-bytes=149", (b"z", 50), 1).expect_err("too much");
        let said = refused.to_string();
        assert!(said.contains("ann") && said.contains("149 bytes of packages: 100 are in use"), "{said}");
        assert!(refused.hint().is_some_and(|hint| hint.contains("nimbus.quotas.file")));
        assert!(check_submit(&view, None, &prepared("ann", (b"z", 1 << 50), 1)).is_ok(), "without quotas");
    }

    #[test]
    fn rebalance_counts_the_tasks_that_it_will_have_and_pending_ones_count_too() {
        let mut view = ClusterView::default();
        add(&mut view, "a-1-1", "ann", (b"x", 100), 3);
        add(&mut view, "b-1-1", "ann", (b"x", 100), 3);
        let id: TopologyId = "a-1-1".parse().expect("valid");
        let to = |n| RebalanceRequest {
            wait_secs: None,
            workers: None,
            parallelism: [(split(), n)].into(),
            restart: false,
        };
        let limits = quotas("ann tasks=8");
        assert!(check_rebalance(&view, Some(&limits), &id, &to(5)).is_ok());
        let refused = check_rebalance(&view, Some(&limits), &id, &to(6));
        assert_eq!(code(refused).as_deref(), Some("quota_exceeded"));
        let pending = PendingChange::Rebalance {
            deadline: Timestamp::EPOCH,
            resume: TopologyStatus::Active,
            workers: None,
            parallelism: to(5).parallelism,
            only_drained: false,
            restart: false,
            grow_back: false,
        };
        view.topologies.get_mut(&id).expect("there").value.pending = Some(pending);
        let refused = check_rebalance(&view, Some(&limits), &id, &to(u32::MAX));
        assert_eq!(code(refused).as_deref(), Some("quota_exceeded"), "at once, and without their memory");
        let other: TopologyId = "b-1-1".parse().expect("valid");
        let refused = check_rebalance(&view, Some(&limits), &other, &to(4));
        assert_eq!(code(refused).as_deref(), Some("quota_exceeded"), "5 wait for their deadline");
        let shrinking = quotas("ann tasks=2");
        assert!(
            check_rebalance(&view, Some(&shrinking), &other, &to(1)).is_ok(),
            "fewer tasks are always fine"
        );
    }

    #[test]
    fn uploads_before_a_submit_count_until_they_are_gone() {
        let (uploads, view, limits) =
            (Arc::new(Uploads::default()), ClusterView::default(), quotas("ann blob-bytes=100"));
        let begin = |blob: &[u8], bytes, is_stored: bool| {
            uploads.begin((&view, &limits), "ann", (&BlobKey::of(blob), bytes), |_| is_stored)
        };
        assert_eq!(code(begin(b"x", 101, true)).as_deref(), Some("quota_exceeded"));
        begin(b"x", 60, true).expect("room");
        begin(b"x", 60, true).expect("the same package again");
        assert_eq!(code(begin(b"y", 60, true)).as_deref(), Some("quota_exceeded"));
        begin(b"y", 60, false).expect("the first was deleted");
        uploads.begin((&view, &limits), "bob", (&BlobKey::of(b"z"), 1 << 40), |_| true).expect("no limit");
    }

    #[test]
    fn uploads_that_arrive_together_share_the_quota() {
        let (uploads, view, limits) =
            (Arc::new(Uploads::default()), ClusterView::default(), quotas("ann blob-bytes=100"));
        let begin = |blob: &[u8]| uploads.begin((&view, &limits), "ann", (&BlobKey::of(blob), 60), |_| false);
        let first = begin(b"x").expect("room");
        assert_eq!(code(begin(b"y")).as_deref(), Some("quota_exceeded"), "the first is not stored yet");
        let again = begin(b"x").expect("the same package, sent twice");
        drop(first);
        assert_eq!(code(begin(b"y")).as_deref(), Some("quota_exceeded"));
        drop(again);
        begin(b"y").expect("the first broke off");
    }

    #[test]
    fn upload_without_a_quota_is_remembered_until_a_topology_has_it_or_it_is_gone() {
        let (uploads, mut view) = (Uploads::default(), ClusterView::default());
        let remember = |view: &ClusterView, blob: &[u8], is_stored: bool| {
            uploads.remember(view, "ann", (&BlobKey::of(blob), 7), |_| is_stored);
            uploads.unused(view, |_| true).get("ann").copied()
        };
        assert_eq!(remember(&view, b"x", true), Some(7));
        assert_eq!(remember(&view, b"y", true), Some(14));
        assert_eq!(remember(&view, b"z", false), Some(7), "x and y were deleted");
        add(&mut view, "a-1-1", "ann", (b"z", 7), 3);
        assert_eq!(remember(&view, b"z", true), None);
    }

    #[test]
    fn owners_are_listed_with_what_they_use_and_may_use() {
        let mut view = ClusterView::default();
        add(&mut view, "a-1-1", "ann", (b"x", 100), 3);
        let (uploads, limits) = (Arc::new(Uploads::default()), quotas("* tasks=9\nbob topologies=2"));
        for (owner, blob, bytes) in
            [("ann", b"x", 100), ("ann", b"y", 60), ("ann", b"z", 3), ("cay", b"y", 7)]
        {
            uploads.begin((&view, &limits), owner, (&BlobKey::of(blob), bytes), |_| true).expect("no limit");
        }
        let unused = uploads.unused(&view, |key| *key != BlobKey::of(b"z"));
        let all = owners(&view, Some(&limits), &unused);
        let bytes: Vec<_> = all.iter().map(|owner| (owner.blob_bytes, owner.unused_blob_bytes)).collect();
        assert_eq!(bytes, [(100, 60), (0, 0), (0, 7)], "x is used, and z is gone");
        let shown =
            |owner: &OwnerSummary| (owner.owner.clone(), owner.tasks, owner.tasks_max, owner.topologies_max);
        let all: Vec<_> = all.iter().map(shown).collect();
        let expected = [("ann", 3, Some(9), None), ("bob", 0, Some(9), Some(2)), ("cay", 0, Some(9), None)];
        assert_eq!(all, expected.map(|(name, tasks, max, most)| (name.to_owned(), tasks, max, most)));
    }
}
