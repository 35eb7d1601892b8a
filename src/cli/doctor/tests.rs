use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{
    facts::{
        CertificateFile, Descriptors, Disk, Facts, Holder, Memory, Name, Port, SecretFile, Seed, Server,
        Tree, Unread,
    },
    host,
    judge::{Check, State, judge},
    text,
};
use stormkeeper_access::tls::certificate::PeerCertificate;
use stormkeeper_api_types::message::{NimbusList, SupervisorList};
use stormkeeper_coordination::{
    cluster::tree_id::{FoundTree, TreeIdentity, TreeMark, random_id},
    tree::Version,
};
use stormkeeper_model::{Term, Timestamp, TreeId, clock_difference::ClockReading};
use stormkeeper_runtime::proc::DiskSpace;

const SRVR: &str =
    "Zookeeper version: 3.8.4-2+deb12u1, built on 2024\nLatency min/avg/max: 0/0.0/0\nMode: standalone\n";

const DAY_MS: u64 = 24 * 3600 * 1000;

fn found(id: &TreeId) -> FoundTree {
    let identity = TreeIdentity {
        id: id.clone(),
        term: Term(3),
        succeeds: Vec::new(),
        unknown_fields: Default::default(),
    };
    FoundTree {
        identity: Some(identity),
        zxid: 9,
        version: Some(Version(3)),
        term: Some((Version(3), 2)),
        ..FoundTree::default()
    }
}

fn mark(id: &TreeId) -> TreeMark {
    TreeMark { id: id.clone(), term: Term(3), zxid: 9, term_created: 2 }
}

fn server(answer: &str) -> Server {
    Server {
        address: "z1:2181".to_owned(),
        connected: Ok(Duration::from_micros(300)),
        answer: Ok(answer.to_owned()),
    }
}

fn name(name: &str, is_own: bool, address: [u8; 4]) -> Name {
    let key = if is_own { "own name" } else { "nimbus.seeds" };
    Name { name: name.to_owned(), key, is_own, addresses: Ok(vec![IpAddr::from(address)]) }
}

/// Facts of a host without a problem.
fn healthy() -> Facts {
    let id = random_id();
    let reading = ClockReading { ahead_ms: 3, error_ms: 2 };
    Facts {
        now: Timestamp::from_millis(1_000 * DAY_MS),
        version: "1.0".to_owned(),
        names: vec![name("h1", true, [10, 0, 0, 1]), name("h2", false, [10, 0, 0, 2])],
        servers: vec![server(SRVR)],
        tree: Ok(Tree {
            root: "/stormkeeper".parse().expect("valid"),
            is_empty: Ok(false),
            found: Ok(found(&id)),
            latency: Duration::from_millis(2),
        }),
        memories: vec![
            Memory { daemon: "nimbus", mark: Ok(Some(mark(&id))) },
            Memory { daemon: "supervisor", mark: Ok(None) },
        ],
        seeds: vec![Seed { address: "h2:8080".to_owned(), answer: Ok(Some(reading)) }],
        cluster: Ok((nimbuses("1.0"), SupervisorList::default())),
        ports: Ok(vec![Port { port: 8080, key: "ui.port", holder: None }]),
        disk: Disk {
            dir: PathBuf::from("/d"),
            existing: PathBuf::from("/d"),
            space: Ok(DiskSpace { free_bytes: 50 << 30, total_bytes: 100 << 30 }),
            write: Ok(()),
            risk: None,
        },
        descriptors: vec![Descriptors { of: "this shell".to_owned(), limit: Some(65536) }],
        files: vec![SecretFile { key: "ui.token.file", path: PathBuf::from("/t"), read: Ok(()) }],
        certificates: vec![certificate(100)],
        cgroup: Ok("cpu memory pids\n".to_owned()),
    }
}

fn nimbuses(version: &str) -> NimbusList {
    let list = serde_json::json!({"term": 3, "nimbuses": [{
        "id": "n1", "host": "h2", "api": "h2:8080", "status": "Leader", "nimbusUpTimeSeconds": 1,
        "blobsMissing": 0, "version": version,
    }]});
    serde_json::from_value(list).expect("a list")
}

/// File of a certificate that ends after some days.
fn certificate(days: u64) -> CertificateFile {
    let not_after = Timestamp::from_millis((1_000 + days) * DAY_MS);
    let certificate = PeerCertificate { names: vec!["h1".to_owned()], not_after };
    CertificateFile {
        key: "storm.tls.cert.file",
        path: PathBuf::from("/c"),
        certificates: Ok(vec![certificate]),
    }
}

/// Checks that a change of healthy facts has one more result that is not `ok`, and returns it.
fn found_by(change: impl FnOnce(&mut Facts)) -> Check {
    let mut facts = healthy();
    change(&mut facts);
    let mut bad: Vec<Check> = judge(&facts).into_iter().filter(|check| check.state != State::Ok).collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    bad.remove(0)
}

#[track_caller]
fn assert_found(state: State, about: &str, parts: &[&str], change: impl FnOnce(&mut Facts)) {
    let check = found_by(change);
    assert_eq!((check.state, check.about), (state, about), "{check:?}");
    let said = format!("{} {}", check.text, check.remedy.clone().unwrap_or_default());
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing: {said}");
    }
}

#[test]
fn nothing_is_found_on_a_healthy_host_and_every_part_is_checked() {
    let checks = judge(&healthy());
    assert!(checks.iter().all(|check| check.state == State::Ok), "{checks:?}");
    let mut parts: Vec<&str> = checks.iter().map(|check| check.about).collect();
    parts.dedup();
    let expected = [
        "names",
        "zookeeper",
        "tree",
        "nimbus",
        "clock",
        "versions",
        "ports",
        "disk",
        "limits",
        "files",
        "certificates",
        "cgroups",
    ];
    assert_eq!(parts, expected);
}

#[test]
fn names_that_do_not_resolve_or_lead_to_loopback_only_are_found() {
    let refused = Err("no such host".to_owned());
    assert_found(State::Fail, "names", &["h2", "no such host", "/etc/hosts"], |facts| {
        facts.names[1].addresses = refused;
    });
    assert_found(State::Warn, "names", &["h1", "loopback", "storm.local.hostname"], |facts| {
        facts.names[0] = name("h1", true, [127, 0, 1, 1]);
    });
    // A cluster of one host.
    let mut facts = healthy();
    facts.names = vec![name("h1", true, [127, 0, 1, 1]), name("localhost", false, [127, 0, 0, 1])];
    assert!(judge(&facts).iter().all(|check| check.state == State::Ok));
}

#[test]
fn servers_of_zookeeper_that_are_old_or_not_reached_are_found() {
    let lost = || Server { connected: Err("refused".to_owned()), answer: Err("-".to_owned()), ..server("") };
    assert_found(State::Fail, "zookeeper", &["z1:2181", "refused"], |facts| facts.servers = vec![lost()]);
    assert_found(State::Warn, "zookeeper", &["refused"], |facts| facts.servers.push(lost()));
    assert_found(State::Fail, "zookeeper", &["3.5.9", "3.6"], |facts| {
        facts.servers = vec![server("Zookeeper version: 3.5.9-abc, built on\nMode: leader\n")];
    });
    // The four-letter words are off.
    let mut facts = healthy();
    facts.servers = vec![server("srvr is not executed because it is not in the whitelist.\n")];
    let checks = judge(&facts);
    let check = checks.iter().find(|check| check.about == "zookeeper").expect("checked");
    assert!(check.state == State::Ok && check.text.contains("`srvr` is off"), "{check:?}");
}

#[test]
fn tree_that_is_slow_empty_refused_or_another_than_remembered_is_found() {
    fn tree(facts: &mut Facts) -> &mut Tree {
        facts.tree.as_mut().expect("a tree")
    }
    assert_found(State::Fail, "tree", &["no session"], |facts| facts.tree = Err("no session".to_owned()));
    assert_found(State::Warn, "tree", &["takes 150 ms", "disk"], |facts| {
        tree(facts).latency = Duration::from_millis(150);
    });
    assert_found(State::Warn, "tree", &["empty", "nimbus"], |facts| tree(facts).is_empty = Ok(true));
    assert_found(State::Fail, "tree", &["layout 9"], |facts| {
        tree(facts).is_empty = Err("it has layout 9".to_owned());
    });
    assert_found(State::Fail, "tree", &["nimbus of this host", "another tree", "recover"], |facts| {
        tree(facts).found = Ok(found(&random_id()));
    });
    assert_found(State::Warn, "tree", &["denied", "as the user"], |facts| {
        facts.memories[0].mark = Err("permission denied".to_owned());
    });
}

#[test]
fn nimbuses_that_do_not_answer_or_lead_and_their_clocks_are_found() {
    let lost = || Seed { address: "h3:8080".to_owned(), answer: Err("refused".to_owned()) };
    assert_found(State::Warn, "nimbus", &["h3:8080", "refused"], |facts| facts.seeds.push(lost()));
    assert_found(State::Fail, "nimbus", &["h3:8080", "stormkeeper nimbus"], |facts| {
        (facts.seeds, facts.cluster) = (vec![lost()], Err("refused".to_owned()));
    });
    assert_found(State::Warn, "nimbus", &["a token is needed", "--token-file"], |facts| {
        facts.cluster = Err("a token is needed".to_owned());
    });
    assert_found(State::Fail, "nimbus", &["no nimbus leads"], |facts| {
        facts.cluster.as_mut().expect("a list").0.term = None;
    });
    assert_found(State::Fail, "nimbus", &["lost its data"], |facts| {
        facts.cluster.as_mut().expect("a list").0.tree_problem = Some("ZooKeeper lost its data".to_owned());
    });
    assert_found(State::Warn, "versions", &["1.0 (this program)", "2.0 (nimbus n1)"], |facts| {
        facts.cluster = Ok((nimbuses("2.0"), SupervisorList::default()));
    });
    for (ahead_ms, side) in [(2600, "ahead of"), (-2600, "behind")] {
        assert_found(State::Warn, "clock", &["2.6 s", side, "h2:8080", "chrony"], |facts| {
            facts.seeds[0].answer = Ok(Some(ClockReading { ahead_ms, error_ms: 500 }));
        });
    }
    let mut facts = healthy();
    facts.seeds[0].answer = Ok(Some(ClockReading { ahead_ms: 2600, error_ms: 700 }));
    assert!(judge(&facts).iter().all(|check| check.state == State::Ok), "it may be the network");
}

#[test]
fn ports_disks_and_limits_that_do_not_do_are_found() {
    let port = |holder| {
        move |facts: &mut Facts| {
            facts.ports = Ok(vec![Port { port: 6700, key: "supervisor.slots.ports", holder: Some(holder) }]);
        }
    };
    let process = |program: &str| Holder::Process { pid: 7, program: program.to_owned() };
    assert_found(State::Warn, "ports", &["6700", "java, pid 7"], port(process("java")));
    assert_found(State::Warn, "ports", &["another user"], port(Holder::Unknown));
    let mut facts = healthy();
    port(process("stormkeeper"))(&mut facts);
    assert!(judge(&facts).iter().all(|check| check.state == State::Ok));

    let disk = |free_mb: u64, total_gb: u64| {
        move |facts: &mut Facts| {
            facts.disk.space = Ok(DiskSpace { free_bytes: free_mb << 20, total_bytes: total_gb << 30 });
        }
    };
    assert_found(State::Warn, "disk", &["900 MiB free", "make room"], disk(900, 10));
    assert_found(State::Warn, "disk", &["4 %"], disk(4000, 100));
    assert_found(State::Fail, "disk", &["99 MiB free"], disk(99, 1));
    assert_found(State::Fail, "disk", &["read-only"], |facts| facts.disk.write = Err("read-only".to_owned()));
    assert_found(State::Warn, "disk", &["chmod go-w /d"], |facts| {
        facts.disk.risk = Some("run `chmod go-w /d`".to_owned());
    });
    assert_found(State::Warn, "limits", &["1024 files", "LimitNOFILE"], |facts| {
        facts.descriptors[0].limit = Some(1024);
    });
    assert_found(State::Warn, "cgroups", &["memory controller"], |facts| {
        facts.cgroup = Ok("cpu\n".to_owned())
    });
    assert_found(State::Warn, "cgroups", &["not use", "Delegate"], |facts| {
        facts.cgroup = Err("this host does not use cgroup v2".to_owned());
    });
}

#[test]
fn files_that_others_may_read_and_certificates_that_end_are_found() {
    for (is_denied, state, part) in [(false, State::Fail, "chmod 600"), (true, State::Warn, "as the user")] {
        assert_found(state, "files", &["ui.token.file", part], |facts| {
            facts.files[0].read = Err(Unread { text: "run `chmod 600 /t`".to_owned(), is_denied });
        });
    }
    assert_found(State::Warn, "certificates", &["of h1 ends in 3 days", "renew"], |facts| {
        facts.certificates = vec![certificate(3)];
    });
    assert_found(State::Fail, "certificates", &["of h1 has ended"], |facts| {
        facts.certificates = vec![certificate(0)];
        facts.now = Timestamp::from_millis(1_001 * DAY_MS);
    });
    assert_found(State::Fail, "certificates", &["has no certificate"], |facts| {
        facts.certificates[0].certificates = Ok(Vec::new());
    });
}

#[test]
fn texts_of_the_kernel_are_read() {
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                 0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n   \
                 1: 0100007F:1F91 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n";
    assert_eq!(host::listening(table).collect::<Vec<_>>(), [("4711".to_owned(), 8080)]);
    let limits = |n| {
        format!("Limit  Soft Limit  Hard Limit  Units\nMax open files            {n}   1048576   files\n")
    };
    assert_eq!(host::limit(&limits("1024")), Some(Some(1024)));
    assert_eq!(host::limit(&limits("unlimited")), Some(None));
    assert_eq!(host::limit("Limit\n"), None);
    assert_eq!(host::daemon("/usr/bin/stormkeeper\0supervisor\0--config\0x\0"), Some("supervisor"));
    assert_eq!(host::daemon("/usr/bin/stormkeeper\0-c\0a=b\0nimbus\0"), Some("nimbus"));
    for other in ["/usr/bin/stormkeeper\0list\0", "vi\0nimbus\0", ""] {
        assert_eq!(host::daemon(other), None, "{other}");
    }
}

#[test]
fn advice_is_below_its_line_and_text_of_others_is_escaped() {
    let check = Check {
        state: State::Fail,
        about: "ports",
        text: "used by \u{1b}[2J".to_owned(),
        remedy: Some("stop it".to_owned()),
    };
    assert_eq!(text(&[&check]), "fail  ports        used by \\u{1b}[2J\n                   -> stop it\n");
}
