use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

const API: Listener = Listener { what: "its API", key: "ui.host", address: None, callers: Callers::AllHosts };
const AGENT: Listener =
    Listener { what: "its agent", key: "supervisor.agent.host", address: None, callers: Callers::Monitors };

fn at(listener: Listener, address: &str) -> Listener {
    Listener { address: Some(ip(address)), ..listener }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn situation(doors: Doors) -> Situation {
    Situation { doors, is_insecure: false, own_address: None, other_host: None }
}

fn seeds(hosts: &[&str]) -> Option<OtherHost> {
    OtherHost::find("nimbus.seeds", hosts.iter().copied())
}

#[test]
fn daemon_without_locks_and_addresses_listens_on_loopback() {
    let open = situation(Doors::Open);
    assert_eq!(open.address_of(&API), ip("127.0.0.1"));
    assert_eq!(open.decide(&[API, AGENT]), Ok(None));
    let second = Situation { own_address: Some(ip("127.0.0.2")), other_host: seeds(&["n1"]), ..open };
    assert_eq!(second.address_of(&API), ip("127.0.0.2"), "it is announced there");
    let locked = Situation { doors: Doors::Locked, ..second };
    assert_eq!((locked.address_of(&API), locked.address_of(&AGENT)), (ip("0.0.0.0"), ip("0.0.0.0")));
    assert_eq!(locked.decide(&[API, AGENT]), Ok(None));
}

#[test]
fn open_daemon_of_several_hosts_is_refused_with_the_ways_to_start_it() {
    let open = Situation { other_host: seeds(&["localhost:8080", "n1:8080"]), ..situation(Doors::Open) };
    let refused = open.decide(&[API, AGENT]).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "nothing is locked, and everybody who reaches this host could use its API on 0.0.0.0, as `nimbus.seeds` \
         names another host, \"n1:8080\""
    );
    for way in [
        "storm.cluster.secret.file",
        "ui.tokens.file",
        "`ui.host: 127.0.0.1`",
        "storm.insecure: true",
        "--insecure",
    ] {
        assert!(refused.ways().contains(way), "{way}: {}", refused.ways());
    }
    let chosen = open.decide(&[at(API, "10.0.0.1"), at(AGENT, "::")]).expect_err("refused");
    assert_eq!(
        chosen.to_string(),
        "nothing is locked, and everybody who reaches this host could use its API on 10.0.0.1 and its agent on ::"
    );
    assert!(chosen.ways().contains("`supervisor.agent.host: 127.0.0.1`"), "{}", chosen.ways());
}

#[test]
fn what_is_allowed_without_a_required_proof_is_said() {
    let insecure = Situation { is_insecure: true, ..situation(Doors::Open) };
    let said = insecure.decide(&[at(API, "0.0.0.0")]).expect("allowed").expect("said");
    assert!(said.contains("its API on 0.0.0.0") && said.contains("`storm.insecure`"), "{said}");
    let optional = situation(Doors::Optional);
    let said = optional.decide(&[at(API, "0.0.0.0")]).expect("a step of locking a cluster").expect("said");
    assert!(said.contains("`storm.access: optional`"), "{said}");
    assert_eq!(insecure.decide(&[API]), Ok(None), "nothing is exposed");
}

#[test]
fn names_of_this_host_are_no_other_hosts() {
    for own in ["localhost", "LOCALHOST:8080", "localhost.", "127.0.0.1:1", "127.3.4.5", "::1", "[::1]:8080"]
    {
        assert_eq!(seeds(&[own]), None, "{own}");
    }
    for other in ["n1", "10.0.0.1:8080", "fd00::1", "localhost.example.com", "0.0.0.0"] {
        assert_eq!(seeds(&["localhost", other]).map(|found| found.host).as_deref(), Some(other));
    }
}

#[test]
fn locks_follow_the_mode_and_need_their_files() {
    let settings = |mode, tokens: bool, secret: bool| Settings {
        mode,
        tokens: tokens.then(|| PathBuf::from("tokens")),
        secret: secret.then(|| PathBuf::from("secret")),
        ..Settings::default()
    };
    for (mode, tokens, secret, nimbus, supervisor) in [
        (None, false, false, Doors::Open, Doors::Open),
        (None, false, true, Doors::Open, Doors::Locked),
        (None, true, true, Doors::Locked, Doors::Locked),
        (Some(Mode::Required), true, true, Doors::Locked, Doors::Locked),
        (Some(Mode::Optional), true, true, Doors::Optional, Doors::Optional),
        (Some(Mode::Optional), true, false, Doors::Open, Doors::Open),
        (Some(Mode::Optional), false, true, Doors::Open, Doors::Optional),
        (Some(Mode::Open), true, true, Doors::Open, Doors::Open),
    ] {
        let settings = settings(mode, tokens, secret);
        assert_eq!(settings.doors_of_nimbus(), nimbus, "{settings:?}");
        assert_eq!(settings.doors_of_supervisor(), supervisor, "{settings:?}");
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<IpAddr>(),
        any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([127, a, b, c])),
        Just(ip("::1")),
        Just(ip("::ffff:127.0.0.1")),
        Just(ip("0.0.0.0")),
        Just(ip("::")),
    ]
}

fn listener() -> impl Strategy<Value = Listener> {
    let callers = prop_oneof![Just(Callers::AllHosts), Just(Callers::Monitors)];
    (proptest::option::of(address()), callers).prop_map(|(address, callers)| Listener {
        address,
        callers,
        ..API
    })
}

fn any_situation() -> impl Strategy<Value = Situation> {
    let doors = prop_oneof![Just(Doors::Open), Just(Doors::Optional), Just(Doors::Locked)];
    let other = any::<bool>().prop_map(|names_one| seeds(if names_one { &["n1"] } else { &[] }));
    (doors, any::<bool>(), proptest::option::of(address()), other).prop_map(
        |(doors, is_insecure, own_address, other_host)| Situation {
            doors,
            is_insecure,
            own_address,
            other_host,
        },
    )
}

proptest! {
    /// Nothing that others reach is open without being said, and nothing without permission.
    #[test]
    fn open_listener_is_on_loopback_or_allowed_and_said(
        situation in any_situation(),
        listeners in proptest::collection::vec(listener(), 1..4),
    ) {
        let is_exposed = listeners.iter().any(|listener| !is_loopback(situation.address_of(listener)));
        let decided = situation.decide(&listeners);
        match situation.doors {
            _ if !is_exposed => prop_assert_eq!(decided, Ok(None)),
            Doors::Locked => prop_assert_eq!(decided, Ok(None)),
            Doors::Optional => prop_assert!(matches!(decided, Ok(Some(_)))),
            Doors::Open if situation.is_insecure => prop_assert!(matches!(decided, Ok(Some(_)))),
            Doors::Open => prop_assert!(decided.is_err()),
        }
    }

    /// A configured address is used as it is, and without one an unlocked daemon that names no other
    /// host stays on loopback.
    #[test]
    fn configured_address_is_kept_and_others_are_reached_only_on_purpose(
        situation in any_situation(),
        listener in listener(),
    ) {
        let address = situation.address_of(&listener);
        match listener.address {
            Some(configured) => prop_assert_eq!(address, configured),
            None if situation.doors == Doors::Locked => prop_assert!(address.is_unspecified()),
            None if situation.other_host.is_none() => prop_assert!(is_loopback(address)),
            None => prop_assert!(is_loopback(address) || listener.callers == Callers::AllHosts),
        }
    }
}
