//! Judgement on the facts. Pure.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::Serialize;

use super::facts::{
    CertificateFile, Disk, Facts, Holder, Memory, Name, Port, SecretFile, Server, Tree, Unread,
};
use stormkeeper_access::tls::certificate::{Expiry, PeerCertificate, expiry};
use stormkeeper_api_types::message::{NimbusList, SupervisorList};
use stormkeeper_coordination::cluster::tree_id::{ForeignTree, Verdict, compare};
use stormkeeper_model::{Timestamp, clock_difference::DIFFERENCE_MAX, text::counted};

/// Latency of ZooKeeper from which an operator is warned.
const SLOW: Duration = Duration::from_millis(100);

/// Oldest version of ZooKeeper that works.
const ZOOKEEPER_MIN: (u32, u32) = (3, 6);

/// Free bytes and share of the disk below which an operator is warned, and below which daemons soon fail.
const DISK_WARN: (u64, f64) = (1 << 30, 0.05);
const DISK_FAIL: (u64, f64) = (100 << 20, 0.01);

/// Open files that daemons of a middling cluster need.
const DESCRIPTORS_MIN: u64 = 4096;

/// Daemons of one version that are named.
const NAMED_MAX: usize = 5;

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    /// It works, and may not for long.
    Warn,
    /// Something does not work.
    Fail,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One check and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) state: State,
    #[serde(rename = "check")]
    pub(super) about: &'static str,
    pub(super) text: String,
    /// Advice; absent if there is nothing to do, or the text has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

fn ok(about: &'static str, text: String) -> Check {
    Check { state: State::Ok, about, text, remedy: None }
}

fn warn(about: &'static str, text: String, remedy: &str) -> Check {
    Check { state: State::Warn, about, text, remedy: Some(remedy.to_owned()) }
}

fn fail(about: &'static str, text: String, remedy: &str) -> Check {
    Check { state: State::Fail, about, text, remedy: Some(remedy.to_owned()) }
}

/// Decides on all facts.
pub(super) fn judge(facts: &Facts) -> Vec<Check> {
    let mut checks = names(&facts.names);
    checks.extend(servers(&facts.servers));
    checks.extend(tree(facts));
    checks.extend(nimbuses(facts));
    checks.extend(clocks(facts));
    checks.extend(versions(facts));
    checks.extend(ports(facts));
    checks.extend(disk(&facts.disk));
    checks.extend(descriptors(facts));
    checks.extend(facts.files.iter().map(file));
    checks.extend(facts.certificates.iter().flat_map(|file| certificates(file, facts.now)));
    checks.push(cgroup(facts));
    checks
}

fn names(names: &[Name]) -> Vec<Check> {
    let others = names.iter().filter(|name| !name.is_own).filter_map(|name| name.addresses.as_ref().ok());
    let has_other_hosts = others.flatten().any(|address| !address.is_loopback());
    let check = |Name { name, key, is_own, addresses }: &Name| match addresses {
        Err(reason) => fail(
            "names",
            format!("{key} {name} does not resolve: {reason}"),
            "add the name to the DNS or to /etc/hosts, or correct the key; storm.local.hostname sets the own name",
        ),
        Ok(found) if *is_own && has_other_hosts && found.iter().all(|address| address.is_loopback()) => warn(
            "names",
            format!("{key} {name} leads to this host's loopback only, and the cluster has other hosts"),
            "let the name resolve to an address that the other hosts reach, or set storm.local.hostname",
        ),
        Ok(found) => {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            ok("names", format!("{key} {name} is {}", found.join(", ")))
        }
    };
    // An address resolves to itself.
    let is_address = |name: &&Name| name.name.parse::<IpAddr>().is_ok();
    let (addresses, names): (Vec<&Name>, Vec<&Name>) = names.iter().partition(is_address);
    let of_addresses = addresses.into_iter().map(check).filter(|check| check.state != State::Ok);
    of_addresses.chain(names.into_iter().map(check)).collect()
}

fn servers(servers: &[Server]) -> Vec<Check> {
    let is_one_reached = servers.iter().any(|server| server.connected.is_ok());
    let check = |Server { address, connected, answer }: &Server| {
        let time = match connected {
            Err(reason) => {
                let text = format!("{address} is not reached: {reason}");
                let remedy =
                    "start it, or correct storm.zookeeper.servers and storm.zookeeper.port, or a firewall";
                return match is_one_reached {
                    true => warn("zookeeper", text, remedy),
                    false => fail("zookeeper", text, remedy),
                };
            }
            Ok(time) => format!("{address} is reached in {}", millis(*time)),
        };
        let Some((version, mode)) = answer.as_deref().ok().and_then(version_and_mode) else {
            let reason = match answer {
                Err(reason) => reason.as_str(),
                Ok(_) => "the command `srvr` is off, which is no problem",
            };
            return ok("zookeeper", format!("{time}; its version is unknown: {reason}"));
        };
        match numbers(version) {
            Some(found) if found < ZOOKEEPER_MIN => fail(
                "zookeeper",
                format!("{time} and has version {version}"),
                "upgrade it to version 3.6 or newer",
            ),
            _ => ok("zookeeper", format!("{time}, version {version}, {mode}")),
        }
    };
    servers.iter().map(check).collect()
}

/// Returns the version and the mode from the answer to `srvr`.
fn version_and_mode(answer: &str) -> Option<(&str, &str)> {
    let value = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let version = value("Zookeeper version:")?.split([',', '-', ' ']).next()?;
    Some((version, value("Mode:").unwrap_or("in an unknown mode")))
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn millis(time: Duration) -> String {
    match time.as_micros() {
        micros @ ..1000 => format!("{:.1} ms", micros as f64 / 1000.0),
        _ => format!("{} ms", time.as_millis()),
    }
}

fn tree(facts: &Facts) -> Vec<Check> {
    let tree = match &facts.tree {
        Ok(tree) => tree,
        Err(reason) => {
            let remedy = "repair what is above; `stormkeeper nimbus` creates a tree that is missing";
            return vec![fail("tree", reason.clone(), remedy)];
        }
    };
    let root = &tree.root;
    let latency = format!("a read of {root} takes {}", millis(tree.latency));
    let mut checks = vec![match tree.latency {
        time if time >= SLOW => warn(
            "tree",
            latency,
            "look for a slow disk of the transaction log, long garbage collections, or a distant server",
        ),
        _ => ok("tree", latency),
    }];
    checks.push(match &tree.is_empty {
        // Its text says what to do.
        Err(reason) => Check { state: State::Fail, about: "tree", text: reason.clone(), remedy: None },
        Ok(true) => warn("tree", format!("the tree at {root} is empty"), "start a nimbus, which creates it"),
        Ok(false) => ok("tree", format!("the tree at {root} has the layout of this build")),
    });
    checks.extend(facts.memories.iter().filter_map(|memory| remembered(memory, tree)));
    checks
}

/// Compares the tree with what a daemon of this host remembers.
fn remembered(Memory { daemon, mark }: &Memory, tree: &Tree) -> Option<Check> {
    let (mark, found) = match (mark, &tree.found) {
        (Ok(mark), Ok(found)) => (mark.as_ref()?, found),
        (Err(reason), _) => {
            let text = format!("the memory of the {daemon} of this host is unknown: {reason}");
            return Some(warn("tree", text, "run this command as the user of the daemon"));
        }
        (_, Err(reason)) => {
            return Some(fail("tree", format!("the id of the tree is unknown: {reason}"), "try again"));
        }
    };
    Some(match compare(Some(mark), found) {
        Verdict::Known(_) => ok("tree", format!("the {daemon} of this host belongs to it: {}", mark.id)),
        Verdict::Unnamed => ok("tree", format!("the {daemon} of this host belongs to it; its id comes back")),
        Verdict::Foreign(difference) => {
            let foreign = ForeignTree { root: tree.root.clone(), remembered: mark.clone(), difference };
            fail("tree", format!("{daemon} of this host: {foreign}"), foreign.advice())
        }
    })
}

fn nimbuses(facts: &Facts) -> Vec<Check> {
    let is_one_reached = facts.seeds.iter().any(|seed| seed.answer.is_ok());
    let mut checks: Vec<Check> = facts.seeds.iter().map(|seed| match &seed.answer {
        Ok(_) => ok("nimbus", format!("{} answers", seed.address)),
        Err(reason) => {
            let text = format!("{} does not answer: {reason}", seed.address);
            let remedy = "start `stormkeeper nimbus` there, or correct nimbus.seeds and ui.port; its log has the reason";
            match is_one_reached {
                true => warn("nimbus", text, remedy),
                false => fail("nimbus", text, remedy),
            }
        }
    }).collect();
    match &facts.cluster {
        Ok((NimbusList { term: None, .. }, _)) => checks.push(fail(
            "nimbus",
            "no nimbus leads".to_owned(),
            "`stormkeeper nimbuses` and the logs of the nimbuses say why",
        )),
        Ok((list, _)) => checks.extend(list.tree_problem.iter().map(|problem| {
            fail("nimbus", problem.clone(), "docs/operations/disaster.md, ZooKeeper lost its data")
        })),
        Err(reason) if is_one_reached => checks.push(warn(
            "nimbus",
            format!("the cluster cannot be asked: {reason}"),
            "name a token with --token-file, ui.token.file or STORMKEEPER_TOKEN",
        )),
        // The addresses are listed above.
        Err(_) => {}
    }
    checks
}

fn clocks(facts: &Facts) -> Vec<Check> {
    let max = i64::try_from(DIFFERENCE_MAX.as_millis()).unwrap_or(i64::MAX);
    let readings = facts.seeds.iter().filter_map(|seed| {
        let reading = (*seed.answer.as_ref().ok()?)?;
        let size = reading.ahead_ms.saturating_abs();
        let side = if reading.ahead_ms >= 0 { "ahead of" } else { "behind" };
        Some(match size.saturating_sub(reading.error_ms) > max {
            true => warn(
                "clock",
                format!("this clock is {:.1} s {side} that of {}", size as f64 / 1000.0, seed.address),
                "synchronize the clocks of both hosts, for example with chrony",
            ),
            false => ok(
                "clock",
                format!(
                    "this clock and that of {} differ by at most {} ms",
                    seed.address,
                    size + reading.error_ms
                ),
            ),
        })
    });
    readings.collect()
}

fn versions(facts: &Facts) -> Vec<Check> {
    let Ok((NimbusList { nimbuses, .. }, SupervisorList { supervisors, .. })) = &facts.cluster else {
        return Vec::new();
    };
    let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    versions.entry(&facts.version).or_default().push("this program".to_owned());
    for nimbus in nimbuses {
        versions.entry(&nimbus.version).or_default().push(format!("nimbus {}", nimbus.id));
    }
    for supervisor in supervisors {
        versions.entry(&supervisor.version).or_default().push(format!("supervisor {}", supervisor.id));
    }
    let plural = if nimbuses.len() == 1 { "" } else { "es" };
    let count = format!("{} nimbus{plural}, {}", nimbuses.len(), counted(supervisors.len(), "supervisor"));
    if versions.len() == 1 {
        return vec![ok("versions", format!("{count} and this program have version {}", facts.version))];
    }
    let named = versions.iter().map(|(version, daemons)| {
        let more = daemons.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let first: Vec<&str> = daemons.iter().take(NAMED_MAX).map(String::as_str).collect();
        format!("{version} ({}{more})", first.join(", "))
    });
    let text = format!("several versions run: {}", named.collect::<Vec<_>>().join(", "));
    vec![warn("versions", text, "finish the upgrade: docs/operations/upgrade.md")]
}

fn ports(facts: &Facts) -> Vec<Check> {
    let ports = match &facts.ports {
        Ok(ports) => ports,
        Err(reason) => {
            let text = format!("the ports in use are unknown: {reason}");
            return vec![warn("ports", text, "look at the ports with `ss -ltnp`")];
        }
    };
    let free: Vec<&Port> = ports.iter().filter(|port| port.holder.is_none()).collect();
    let mut checks = Vec::new();
    if !free.is_empty() {
        let free: Vec<String> = free.iter().map(|port| format!("{} {}", port.key, port.port)).collect();
        checks.push(ok("ports", format!("free: {}", free.join(", "))));
    }
    checks.extend(ports.iter().filter_map(|Port { port, key, holder }| {
        Some(match holder.as_ref()? {
            // Threads of worker programs have other names, so these are compared with the daemons'.
            Holder::Process { pid, program } if program.starts_with("stormkeeper") => {
                ok("ports", format!("{key} {port} is used by {program}, pid {pid}"))
            }
            Holder::Process { pid, program } => {
                let text = format!("{key} {port} is used by {program}, pid {pid}");
                let remedy = "if that is no worker or daemon of this cluster, stop it or set another port";
                warn("ports", text, remedy)
            }
            Holder::Unknown => {
                let text = format!("{key} {port} is used by a process of another user");
                warn(
                    "ports",
                    text,
                    "run this command as root, or see `ss -ltnp`; set another port if it is no daemon",
                )
            }
        })
    }));
    checks
}

fn disk(Disk { dir, existing, space, write, risk }: &Disk) -> Vec<Check> {
    let shown = dir.display();
    let mut checks = vec![match space {
        Err(reason) => fail(
            "disk",
            format!("storm.local.dir {shown}: {reason}"),
            "look at the file system: it may hang, as one of a server that is gone",
        ),
        Ok(space) => {
            let share = space.free_bytes as f64 / space.total_bytes.max(1) as f64;
            let is_below = |(bytes, least): (u64, f64)| space.free_bytes < bytes || share < least;
            let text = format!(
                "storm.local.dir {shown} has {} MiB free of {} MiB ({:.0} %)",
                space.free_bytes >> 20,
                space.total_bytes >> 20,
                share * 100.0
            );
            let remedy = "make room, or move storm.local.dir to a larger disk";
            match (is_below(DISK_FAIL), is_below(DISK_WARN)) {
                (true, _) => fail("disk", text, remedy),
                (_, true) => warn("disk", text, remedy),
                _ => ok("disk", text),
            }
        }
    }];
    checks.push(match write {
        Err(reason) => fail(
            "disk",
            format!("no file can be written in {}: {reason}", existing.display()),
            "run this command as the user of the daemons; `chown` the directory to that user if this is it",
        ),
        Ok(()) if existing == dir => ok("disk", format!("{shown} can be written")),
        Ok(()) => ok("disk", format!("{shown} does not exist yet; a daemon creates it")),
    });
    // Its text says what to do.
    checks.extend(risk.iter().map(|risk| Check {
        state: State::Warn,
        about: "disk",
        text: risk.clone(),
        remedy: None,
    }));
    checks
}

fn descriptors(facts: &Facts) -> Vec<Check> {
    let checks = facts.descriptors.iter().map(|limit| match limit.limit {
        Some(n) if n < DESCRIPTORS_MIN => warn(
            "limits",
            format!("{} may open {n} files", limit.of),
            "raise LimitNOFILE= of the unit, or `ulimit -n`, to 65536: a worker needs four for each of its tasks, and \
             a nimbus one for each connection",
        ),
        Some(n) => ok("limits", format!("{} may open {n} files", limit.of)),
        None => ok("limits", format!("{} may open any number of files", limit.of)),
    });
    checks.collect()
}

fn file(SecretFile { key, path, read }: &SecretFile) -> Check {
    match read {
        Ok(()) => ok("files", format!("{key} {} has a mode that keeps others out", path.display())),
        Err(reason) => unread("files", key, reason),
    }
}

fn unread(about: &'static str, key: &str, Unread { text, is_denied }: &Unread) -> Check {
    match is_denied {
        true => warn(about, format!("{key}: {text}"), "run this command as the user of the daemon"),
        false => fail(about, format!("{key}: {text}"), "see docs/security.md and docs/operations/tls.md"),
    }
}

fn certificates(file: &CertificateFile, now: Timestamp) -> Vec<Check> {
    let (key, path) = (file.key, file.path.display());
    let all = match &file.certificates {
        Ok(all) => all,
        Err(reason) => return vec![unread("certificates", key, reason)],
    };
    let named = |certificate: &PeerCertificate| {
        let name = certificate.names.first().map_or("without a name", String::as_str);
        format!("{key} {path}: the certificate of {name}")
    };
    let remedy = "renew it; daemons and workers read the new file without a restart (docs/operations/tls.md)";
    let mut checks: Vec<Check> = all
        .iter()
        .filter_map(|certificate| match expiry(certificate.not_after, now) {
            Expiry::Far => None,
            Expiry::Soon { days } => {
                let text = format!("{} ends in {}", named(certificate), days_left(days));
                Some(warn("certificates", text, remedy))
            }
            Expiry::Past => Some(fail("certificates", format!("{} has ended", named(certificate)), remedy)),
        })
        .collect();
    if all.is_empty() {
        checks.push(fail("certificates", format!("{key} {path} has no certificate"), remedy));
    } else if checks.is_empty() {
        let n = counted(all.len(), "certificate");
        checks.push(ok("certificates", format!("{key} {path}: {n}, valid for more than two weeks")));
    }
    checks
}

fn days_left(days: u64) -> String {
    match days {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        n => format!("{n} days"),
    }
}

fn cgroup(facts: &Facts) -> Check {
    let remedy = "memory limits of components are not enforced, and processes that hide from a killed worker are found \
                  by a search: boot with systemd.unified_cgroup_hierarchy=1, and run the supervisor with Delegate=yes";
    match &facts.cgroup {
        Err(reason) => warn("cgroups", reason.clone(), remedy),
        Ok(controllers) if controllers.split_whitespace().any(|one| one == "memory") => {
            ok("cgroups", "this host has cgroup v2 with the memory controller".to_owned())
        }
        Ok(_) => warn("cgroups", "cgroup v2 has no memory controller on this host".to_owned(), remedy),
    }
}
