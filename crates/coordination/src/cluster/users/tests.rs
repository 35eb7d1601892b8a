use super::*;
use crate::cluster::layout;
use stormkeeper_model::{BlobKey, TaskId};

const NIMBUS: &str = "nimbus:0123456789abcdef-nimbus";
const SUPERVISOR: &str = "supervisor:0123456789abcdef-supervisor";

fn text(own: &str) -> String {
    let id = |user: &str| user.parse::<Credential>().expect("valid").id();
    let key = "ab".repeat(KEY_BYTES);
    format!("own {own}\nnimbus {}\n# ids\nsupervisor {}\n\nworkers {key}\n", id(NIMBUS), id(SUPERVISOR))
}

fn users(own: &str) -> Users {
    Users::parse(&text(own)).expect("valid")
}

fn topology(id: &str) -> TopologyId {
    id.parse().expect("valid id")
}

/// Rights of `user` in the list of a znode, except those of anyone.
fn rights(acl: &[Acl], user: &Credential) -> Vec<Rights> {
    let of_user = |(who, _): &&Acl| *who == Who::User(user.id());
    acl.iter().filter(of_user).map(|(_, rights)| *rights).collect()
}

#[test]
fn file_is_read_back_as_it_was_written() {
    let nimbus = users(NIMBUS);
    assert_eq!(Users::parse(&nimbus.to_string()), Ok(nimbus.clone()));
    assert!(nimbus.is_nimbus() && !users(SUPERVISOR).is_nimbus());
    let worker = nimbus.of_worker(&topology("t-1-1"));
    assert_eq!(Users::parse(&worker.to_string()), Ok(worker.clone()));
    assert!(!worker.to_string().contains("workers "), "a worker has no key");
    assert!(!worker.to_string().contains("0123456789abcdef"), "and no password of others");
}

#[test]
fn mistake_in_a_file_is_named_with_its_line_and_without_a_password() {
    let error = |text: &str| Users::parse(text).expect_err("invalid").to_string();
    let secret = "nimbus:0123456789abcdef-nimbus";
    assert_eq!(
        error(&format!("\n{secret} x\n")),
        "line 2: \"nimb…\" is not one of `own`, `nimbus`, `supervisor`, `workers`, `worker`, `open`, `sasl`, `sasl-workers`"
    );
    let short = error("own nimbus:secret\n");
    assert!(short.starts_with("line 1: a password has") && !short.contains("secret"), "{short}");
    assert_eq!(error("workers abc\n"), "line 1: the key of the workers has 64 hex digits");
    assert_eq!(error(""), "no line begins with \"own\"");
    assert_eq!(error(&text(NIMBUS).replace("supervisor ", "#")), "no line begins with \"supervisor\"");
    let many: String = (0..9).map(|n| format!("own nimbus:0123456789abcdef{n}\n")).collect();
    assert_eq!(error(&many), "line 9: too many lines begin with \"own\"; at most 8 may");
    let twice = error("sasl keeper:one\nsasl keeper:two\n");
    assert_eq!(twice, "line 2: too many lines begin with \"sasl\"; at most 1 may");
    let empty = error("sasl-workers keeper:\n");
    assert!(empty.starts_with("line 1: a password of SASL has 1 to"), "{empty}");
}

#[test]
fn worker_opens_sessions_as_the_user_of_workers_and_does_not_know_that_of_daemons() {
    let lines = "sasl daemons:one:two\nsasl-workers workers:three\n";
    let users = Users::parse(&(text(SUPERVISOR) + lines)).expect("valid");
    assert_eq!(Users::parse(&users.to_string()).as_ref(), Ok(&users));
    assert_eq!(users.sasl().map(SaslUser::reveal), Some("daemons:one:two".to_owned()));
    let worker = users.of_worker(&topology("t-1-1"));
    assert_eq!(worker.sasl().map(SaslUser::reveal), Some("workers:three".to_owned()));
    assert!(!worker.to_string().contains("one:two") && !format!("{users:?}").contains("three"));
}

#[test]
fn users_of_two_topologies_differ_and_all_nimbuses_derive_the_same() {
    let (one, other) = (topology("t-1-1"), topology("t-2-1"));
    let of = |users: &Users, id| users.of_worker(id).own()[0].id();
    assert_eq!(of(&users(NIMBUS), &one), of(&users(SUPERVISOR), &one));
    assert_ne!(of(&users(NIMBUS), &one), of(&users(NIMBUS), &other));
}

#[test]
fn each_znode_is_writable_by_its_writers_alone() {
    let nimbus = users(NIMBUS);
    let id = topology("t-1-1");
    let supervisor: Credential = SUPERVISOR.parse().expect("valid");
    let [worker, stranger] = [&id, &topology("t-2-1")].map(|id| nimbus.of_worker(id).own()[0].clone());
    let (both, children) = (Rights::ReadAndWrite, Rights::ReadAndChildren);
    let name = || "s".parse().expect("valid id");
    let component = "c".parse().expect("valid id");
    let cases = [
        (layout::storm(&id), None, None),
        (layout::assignment(&id), None, None),
        (layout::tasks(&id), None, None),
        (layout::term(), None, None),
        (layout::leader(), None, None),
        (layout::tree_id(), None, None),
        (layout::layout(), None, None),
        (layout::event_prefix(), None, None),
        (layout::blob(&BlobKey::of(b"x")), None, None),
        (layout::supervisor_assignments(&name()), None, None),
        (layout::metrics(&id), None, None),
        (layout::taskbeats_parent(), None, None),
        (layout::taskerrors_parent(), None, None),
        (TreePath::root(), None, None),
        (layout::supervisors(), Some(children), None),
        (layout::supervisor(&name()), Some(both), None),
        (layout::stopped_supervisor(&name()), Some(both), None),
        (layout::taskbeats(&id), None, Some(children)),
        (layout::taskbeat(&id, TaskId(1)), None, Some(both)),
        (layout::taskerrors(&id), Some(both), Some(both)),
        (layout::taskerror_prefix(&id, TaskId(1)), Some(both), Some(both)),
        (layout::last_error(&id, &component), Some(both), Some(both)),
    ];
    for (path, of_supervisor, of_worker) in cases {
        let acl = nimbus.acl_of(&path);
        assert_eq!(rights(&acl, &nimbus.own()[0]), [Rights::All], "{path}");
        assert_eq!(rights(&acl, &supervisor), Vec::from_iter(of_supervisor), "{path}");
        assert_eq!(rights(&acl, &worker), Vec::from_iter(of_worker), "{path}");
        assert_eq!(rights(&acl, &stranger), [], "{path}");
        let anyone = acl.iter().filter(|(who, _)| *who == Who::Anyone).collect::<Vec<_>>();
        assert_eq!(anyone, [&(Who::Anyone, Rights::Read)], "{path}");
    }
}

#[test]
fn worker_creates_what_a_nimbus_would_create() {
    let (nimbus, id) = (users(NIMBUS), topology("t-1-1"));
    let worker = nimbus.of_worker(&id);
    for path in [layout::taskbeat(&id, TaskId(1)), layout::taskerror_prefix(&id, TaskId(1))] {
        assert_eq!(worker.acl_of(&path), nimbus.acl_of(&path), "{path}");
    }
}

#[test]
fn users_of_another_cluster_or_kind_do_not_replace_those_in_force() {
    let of = |seed: u8| UserFiles::generate([seed, seed + 1, seed + 2].map(|byte| [byte; 32]));
    let (ours, theirs) = (of(1), of(11));
    assert_eq!(ours.nimbus.check_successor(&theirs.nimbus), Err(NoSuccessor::Strange));
    assert_eq!(ours.supervisor.check_successor(&theirs.supervisor), Err(NoSuccessor::Strange));
    let kind = |is, wanted| Err(NoSuccessor::Kind { is, wanted });
    assert_eq!(ours.nimbus.check_successor(&ours.supervisor), kind("supervisor", "nimbus"));
    assert_eq!(ours.supervisor.check_successor(&ours.nimbus), kind("nimbus", "supervisor"));
    // Each step of a replacement follows the one before.
    let mut files = ours.clone();
    for kind in [UserKind::Nimbus, UserKind::Supervisor, UserKind::Workers] {
        for step in [
            |files: &mut UserFiles, kind| files.add(kind, [77; 32]),
            |files: &mut UserFiles, kind| {
                assert!(files.remove_old(kind));
            },
        ] {
            let before = files.clone();
            step(&mut files, kind);
            assert_eq!(before.nimbus.check_successor(&files.nimbus), Ok(()));
            assert_eq!(before.supervisor.check_successor(&files.supervisor), Ok(()));
        }
    }
    assert_eq!(ours.nimbus.check_successor(&files.nimbus), Err(NoSuccessor::Strange), "all steps at once");
}
