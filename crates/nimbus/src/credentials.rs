//! Credentials of topologies: what an operator hands to the workers of one topology.
//!
//! The tree has them sealed with the cluster secret ([`stormkeeper_access::sealed`]). Only supervisors
//! open them, for the workers that they run; no request returns a value. When the cluster secret is
//! replaced, the leader seals them with the next one.

use std::collections::BTreeMap;

use crate::{
    plan::{ClusterProblem, Finding},
    refusal::Refusal,
};
use stormkeeper_access::{
    sealed::{SealError, Sealed},
    secret::Secrets,
};
use stormkeeper_api_types::message::CredentialsRequest;
use stormkeeper_coordination::{
    cluster::{
        event::EventDraft,
        layout,
        record::{self, CredentialEntry, CredentialsRecord, Stored, TopologyRecord, UnknownFields},
        store::Store,
        view::ClusterView,
    },
    election::{FencedWriter, WriteError},
    tree::{self, CreateMode, Op, TreePath},
};
use stormkeeper_model::{Timestamp, TopologyId, event::EventKind, id::quoted, status::TopologyStatus};

/// Maximum number of credentials of a topology.
const CREDENTIALS_MAX: usize = 100;

/// Maximum characters of a name.
const NAME_CHARS_MAX: usize = 100;

/// Maximum bytes of all names and values of a topology: each supervisor reads all of them.
const BYTES_MAX: usize = 64 * 1024;

/// Most attempts when others write the record at the same time; only a person with zkCli does.
const TRIES: usize = 8;

/// Maximum number of records that are sealed again in one round of the leader.
const RESEALS_MAX: usize = 10;

/// Values by name.
type Values = BTreeMap<String, String>;

/// Sets and removes credentials of a topology.
pub(super) async fn execute(
    id: &TopologyId,
    (request, by): (&CredentialsRequest, &Option<String>),
    now: Timestamp,
    (view, secrets): (&ClusterView, Option<&Secrets>),
    (store, writer): (&Store, &FencedWriter),
) -> Result<TopologyRecord, Refusal> {
    let unknown = || Refusal::UnknownTopology { topology: id.to_string() };
    let topology_record = view.topologies.get(id).ok_or_else(unknown)?.value.clone();
    if topology_record.status == TopologyStatus::Killed {
        return Err(Refusal::BadOption(format!("{id} is killed: its credentials are removed with it")));
    }
    let secrets = secrets.ok_or(Refusal::NoClusterSecret)?;
    let path = layout::credentials(id);
    for _ in 0..TRIES {
        // The view may be older than the last write, as of a record that was sealed again.
        let before = store.credentials(id).await?;
        let next = changed(id, before.as_ref().map(|stored| &stored.value), request, (now, by), secrets)?;
        let Some(next) = next else { return Ok(topology_record) };
        let op = op(path.clone(), before.as_ref(), next.as_ref());
        let event = EventDraft::of(id, EventKind::CredentialsChanged, reason(request));
        match writer.commit_with_event(vec![op], EventDraft { by: by.clone(), ..event }).await {
            Ok(_) => return Ok(topology_record),
            Err(WriteError::Op {
                source:
                    tree::Error::BadVersion { .. } | tree::Error::NoNode { .. } | tree::Error::NodeExists { .. },
                ..
            }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::Conflict { path })
}

fn op(path: TreePath, before: Option<&Stored<CredentialsRecord>>, next: Option<&CredentialsRecord>) -> Op {
    let version = before.map(|stored| stored.version);
    match (next, before) {
        (Some(next), Some(_)) => Op::Set { path, data: record::encode(next), version },
        (Some(next), None) => Op::Create { path, data: record::encode(next), mode: CreateMode::Persistent },
        (None, _) => Op::Delete { path, version },
    }
}

/// Returns the record after a request: `None` if the request changes nothing, `Some(None)` if no
/// credential is left. A name that is set again counts as changed, also with the same value.
fn changed(
    id: &TopologyId,
    before: Option<&CredentialsRecord>,
    request: &CredentialsRequest,
    (now, by): (Timestamp, &Option<String>),
    secrets: &Secrets,
) -> Result<Option<Option<CredentialsRecord>>, Refusal> {
    let CredentialsRequest { set, remove, remove_others } = request;
    for (name, value) in set {
        check(name, value).map_err(Refusal::BadOption)?;
    }
    let (mut values, mut entries) = match (before, remove_others) {
        (Some(before), false) => (opened(id, before, secrets)?, before.entries.clone()),
        (None, _) | (_, true) => (Values::new(), BTreeMap::new()),
    };
    let unknown = remove.iter().find(|name| !*remove_others && !values.contains_key(*name));
    if let Some(name) = unknown {
        return Err(Refusal::BadOption(format!("{id} has no credential {}", quoted(name))));
    }
    values.retain(|name, _| !remove.contains(name));
    values.extend(set.iter().map(|(name, value)| (name.clone(), value.clone())));
    entries.retain(|name, _| values.contains_key(name));
    let entry = CredentialEntry { changed: now, by: by.clone() };
    entries.extend(set.keys().map(|name| (name.clone(), entry.clone())));
    check_size(&values, id.as_str()).map_err(Refusal::BadOption)?;
    match (values.is_empty(), before) {
        (true, None) => Ok(None),
        (true, Some(_)) => Ok(Some(None)),
        (false, before) => {
            let unknown_fields =
                before.map_or_else(UnknownFields::new, |before| before.unknown_fields.clone());
            let number = before.map_or(0, |before| before.number).saturating_add(1);
            let bytes = serde_json::to_vec(&values).expect("texts are JSON");
            let Sealed { key, data } = secrets.seal(id, number, &bytes).map_err(|error| cannot(id, error))?;
            Ok(Some(Some(CredentialsRecord { number, entries, key, sealed: data, unknown_fields })))
        }
    }
}

fn sealed(record: &CredentialsRecord) -> Sealed {
    Sealed { key: record.key.clone(), data: record.sealed.clone() }
}

fn opened(id: &TopologyId, record: &CredentialsRecord, secrets: &Secrets) -> Result<Values, Refusal> {
    let bytes = secrets.open(id, record.number, &sealed(record)).map_err(|error| cannot(id, error))?;
    serde_json::from_slice(&bytes).map_err(|_not_ours| cannot(id, SealError::Damaged))
}

fn cannot(id: &TopologyId, error: SealError) -> Refusal {
    Refusal::SealedCredentials { topology: id.clone(), error }
}

/// Checks all credentials of a topology without a cluster, as a leader would.
///
/// # Errors
/// The defect of the first wrong one, without its value.
pub fn check_all(values: &BTreeMap<String, String>) -> Result<(), String> {
    values.iter().try_for_each(|(name, value)| check(name, value))?;
    check_size(values, "it")
}

fn check_size(values: &Values, owner: &str) -> Result<(), String> {
    let n_bytes: usize = values.iter().map(|(name, value)| name.len() + value.len()).sum();
    if values.len() > CREDENTIALS_MAX || n_bytes > BYTES_MAX {
        return Err(format!(
            "a topology has at most {CREDENTIALS_MAX} credentials of {BYTES_MAX} bytes together, and with these \
             {owner} would have {} of {n_bytes} bytes",
            values.len()
        ));
    }
    Ok(())
}

/// Checks a name and a value. No error contains a value.
fn check(name: &str, value: &str) -> Result<(), String> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fault = match () {
        () if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.bytes().all(is_of_name) => {
            let name = quoted(name);
            format!(
                "{name} is no name of a credential: it has 1 to {NAME_CHARS_MAX} letters, digits or one of . _ -"
            )
        }
        () if value.is_empty() => format!("the credential {name} is empty"),
        () if value.contains('\0') => format!("the credential {name} contains a NUL character"),
        () => return Ok(()),
    };
    Err(fault)
}

/// Describes a request for people: names, and no values.
fn reason(request: &CredentialsRequest) -> String {
    let CredentialsRequest { set, remove, remove_others } = request;
    let list = |names: Vec<&str>| names.join(", ");
    let mut parts = Vec::new();
    if !set.is_empty() {
        parts.push(format!("set {}", list(set.keys().map(String::as_str).collect())));
    }
    if !remove.is_empty() {
        parts.push(format!("removed {}", list(remove.iter().map(String::as_str).collect())));
    }
    if *remove_others {
        parts.push("removed all others".to_owned());
    }
    parts.join(", ")
}

/// Operations that seal records with the first secret which another one has sealed, and problems of
/// records that none of the secrets opens.
pub(super) fn review(view: &ClusterView, secrets: Option<&Secrets>) -> (Vec<Op>, Vec<Finding>) {
    let (mut ops, mut findings) = (Vec::new(), Vec::new());
    for (id, stored) in &view.credentials {
        let path = layout::credentials(id);
        let is_first = secrets.and_then(|secrets| secrets.is_sealed_by_first(id, &sealed(&stored.value)));
        let resealed = match (is_first, secrets) {
            (Some(true), _) => continue,
            (Some(false), Some(_)) if ops.len() >= RESEALS_MAX => continue,
            (Some(false), Some(secrets)) => resealed(id, &stored.value, secrets),
            (Some(false) | None, _) => None,
        };
        match resealed {
            Some(next) => ops.push(op(path, Some(stored), Some(&next))),
            None => findings.push(Finding {
                topology: Some(id.clone()),
                problem: ClusterProblem::SealedCredentials { path },
            }),
        }
    }
    (ops, findings)
}

fn resealed(id: &TopologyId, record: &CredentialsRecord, secrets: &Secrets) -> Option<CredentialsRecord> {
    let number = record.number.saturating_add(1);
    let values = secrets.open(id, record.number, &sealed(record)).ok()?;
    let Sealed { key, data } = secrets.seal(id, number, &values).ok()?;
    Some(CredentialsRecord { number, key, sealed: data, ..record.clone() })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;
    use stormkeeper_coordination::tree::Version;

    fn secrets(lines: &[&str]) -> Secrets {
        let lines: Vec<String> = lines.iter().map(|line| line.repeat(32)).collect();
        Secrets::parse(Path::new("secret"), &lines.join("\n")).expect("valid")
    }

    fn request(set: &[(&str, &str)], remove: &[&str]) -> CredentialsRequest {
        let text = |text: &&str| (*text).to_owned();
        CredentialsRequest {
            set: set.iter().map(|(name, value)| (text(name), text(value))).collect(),
            remove: remove.iter().map(text).collect::<BTreeSet<_>>(),
            remove_others: false,
        }
    }

    fn wc() -> TopologyId {
        "wc-1-1".parse().expect("valid")
    }

    fn at(secs: u64, by: &str) -> (Timestamp, Option<String>) {
        (Timestamp::from_millis(secs * 1000), Some(by.to_owned()))
    }

    fn next(
        before: Option<&CredentialsRecord>,
        asked: &CredentialsRequest,
        (now, by): &(Timestamp, Option<String>),
        secrets: &Secrets,
    ) -> CredentialsRecord {
        changed(&wc(), before, asked, (*now, by), secrets)
            .expect("valid")
            .expect("a change")
            .expect("some left")
    }

    #[test]
    fn others_stay_with_their_date_and_author_and_the_record_has_no_value() {
        let secrets = secrets(&["a"]);
        let first = next(None, &request(&[("db", "s3cr3t"), ("old", "x")], &[]), &at(1, "ann"), &secrets);
        let second = next(Some(&first), &request(&[("api.key", "k")], &["old"]), &at(2, "bob"), &secrets);
        let values = opened(&wc(), &second, &secrets).expect("opens");
        let expected =
            [("api.key", "k"), ("db", "s3cr3t")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(values, Values::from(expected));
        let by = |name: &str| second.entries[name].by.clone().expect("known");
        assert_eq!((by("db"), by("api.key"), second.entries.len()), ("ann".to_owned(), "bob".to_owned(), 2));
        assert_eq!((first.number, second.number), (1, 2));
        let text = String::from_utf8(record::encode(&first)).expect("JSON");
        assert!(text.contains("\"db\"") && !text.contains("s3cr3t"), "{text}");
        // A record of an earlier change does not open as the present one.
        let replayed = CredentialsRecord { sealed: first.sealed.clone(), ..second.clone() };
        assert!(opened(&wc(), &replayed, &secrets).is_err());
        let all = request(&[], &["db", "api.key"]);
        let (now, by) = at(3, "ann");
        assert_eq!(changed(&wc(), Some(&second), &all, (now, &by), &secrets).expect("valid"), Some(None));
        let nothing = CredentialsRequest { remove_others: true, ..CredentialsRequest::default() };
        assert_eq!(changed(&wc(), None, &nothing, (now, &by), &secrets).expect("valid"), None);
    }

    #[test]
    fn bad_names_and_too_many_or_too_large_values_are_refused_and_no_value_is_shown() {
        let secrets = secrets(&["a"]);
        let long = "s3cr3t".repeat(BYTES_MAX / 6 + 1);
        let many: Vec<(String, String)> =
            (0..=CREDENTIALS_MAX).map(|n| (format!("n{n}"), "s3cr3t".to_owned())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, &**value)).collect();
        let long_name = "n".repeat(101);
        for (set, remove, expected) in [
            (&[("", "s3cr3t")][..], &[][..], "no name"),
            (&[("a b", "s3cr3t")], &[], "no name"),
            (&[("../x", "s3cr3t")], &[], "no name"),
            (&[(&*long_name, "s3cr3t")], &[], "no name"),
            (&[("a", "")], &[], "is empty"),
            (&[("a", "s3cr3t\0")], &[], "NUL"),
            (&[("name", &*long)], &[], "65536 bytes"),
            (&many, &[], "at most 100 credentials"),
            (&[], &["a"], "no credential \"a\""),
        ] {
            let (now, by) = at(1, "ann");
            let refused = changed(&wc(), None, &request(set, remove), (now, &by), &secrets);
            let refused = refused.expect_err(expected).to_string();
            assert!(refused.contains(expected) && !refused.contains("s3cr3t"), "{refused}");
        }
        let shown = reason(&request(&[("db", "s3cr3t")], &["old"]));
        assert_eq!(shown, "set db, removed old");
    }

    #[test]
    fn credentials_survive_the_replacement_of_the_secret_and_a_lost_secret_is_a_problem() {
        let (a, both, b) = (secrets(&["a"]), secrets(&["b", "a"]), secrets(&["b"]));
        let record = next(None, &request(&[("db", "s3cr3t")], &[]), &at(1, "ann"), &a);
        let view = |record: &CredentialsRecord| ClusterView {
            credentials: [(wc(), Stored { value: record.clone(), version: Version::FIRST })].into(),
            ..ClusterView::default()
        };
        assert_eq!(review(&view(&record), Some(&a)), (Vec::new(), Vec::new()));
        let (ops, findings) = review(&view(&record), Some(&both));
        assert!(findings.is_empty());
        let [Op::Set { path, data, version: Some(Version::FIRST) }] = &ops[..] else { panic!("{ops:?}") };
        let resealed: CredentialsRecord = record::decode(path, data).expect("readable");
        assert_eq!(resealed.entries, record.entries, "dates and authors stay");
        assert_eq!(opened(&wc(), &resealed, &b).expect("opens")["db"], "s3cr3t");
        assert!(opened(&wc(), &resealed, &a).is_err(), "the secret before opens it no longer");
        for secrets in [Some(&b), None] {
            let (ops, findings) = review(&view(&record), secrets);
            assert!(ops.is_empty());
            assert!(findings[0].problem.to_string().contains("/credentials/wc-1-1"), "{findings:?}");
        }
        // Credentials that cannot be opened can be replaced as a whole.
        let (now, by) = at(2, "ann");
        let set = request(&[("db", "new")], &[]);
        let refused = changed(&wc(), Some(&record), &set, (now, &by), &b).expect_err("not opened");
        assert!(refused.hint().is_some_and(|hint| hint.contains("--remove-others")), "{refused:?}");
        let set = CredentialsRequest { remove_others: true, ..set };
        let replaced = next(Some(&record), &set, &at(2, "ann"), &b);
        assert_eq!(opened(&wc(), &replaced, &b).expect("opens").len(), 1);
    }
}
