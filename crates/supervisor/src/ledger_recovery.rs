//! Recovery of workers whose ledger entry is damaged or was deleted: a living process is adopted if
//! its launch spec proves which worker it is; otherwise the start of the supervisor ends it, and says
//! why.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use crate::{
    launch::Launcher,
    ledger::{Contents, Entry},
    process::ProcessId,
    run_as::FilesPlace,
    slot::DesiredWorker,
    worker_dir,
};
use stormkeeper_coordination::cluster::reported_problem::ReportedProblem;
use stormkeeper_model::{Port, WorkerId, assignment::AssignedWorker};
use stormkeeper_runtime::blocking;
use stormkeeper_topology_package::launch::LaunchSpec;

/// Returns the entries of the ledger with the recovered ones, and a problem for each worker that
/// cannot be recovered and is launched again.
pub(super) async fn recover(
    launcher: &Launcher,
    contents: Contents,
    host: &str,
) -> (BTreeMap<Port, Entry>, Vec<ReportedProblem>) {
    let Contents { mut entries, mut damaged } = contents;
    for port in ports_of_launches(launcher).await.filter(|port| !entries.contains_key(port)) {
        damaged.entry(port).or_insert_with(|| "it was deleted".to_owned());
    }
    let mut problems = Vec::new();
    for (port, reason) in damaged {
        let known: BTreeSet<_> = entries.values().map(|entry| entry.worker.clone()).collect();
        match living(launcher, port, &known).await {
            Ok(None) => {}
            Ok(Some((worker, process, desired))) => {
                warn!(
                    %port, %worker, %process, topology = %desired.topology,
                    "recovered a damaged ledger entry from the launch spec of its worker, which runs on; check the disk"
                );
                launcher.record_process(port, &worker, desired.clone(), process).await;
                entries.insert(port, launcher.ledger.entry(&worker, &desired, Some(process)));
            }
            Err(obstacle) => {
                warn!(
                    %port, obstacle,
                    "cannot recover a damaged ledger entry: its worker is ended and launched again; check the disk"
                );
                let text = format!(
                    "the worker at {host}:{port} was launched again when its supervisor started, at most ten minutes \
                     ago: its ledger entry is damaged ({reason}), and {obstacle}; check the disk"
                );
                problems.push(ReportedProblem::of_slot(port, None, &text));
            }
        }
    }
    (entries, problems)
}

/// Returns the ports of the launches that have a directory. The id of a launch begins with its port.
async fn ports_of_launches(launcher: &Launcher) -> impl Iterator<Item = Port> {
    let local_dir = launcher.local_dir.clone();
    // If they cannot be listed, no worker is looked for, and none is ended either.
    let listed = blocking::run(move || worker_dir::all(&local_dir)).await.unwrap_or_default();
    let ports = listed.iter().filter_map(|worker| worker.as_str().split_once('-')?.0.parse().ok().map(Port));
    ports.collect::<BTreeSet<_>>().into_iter()
}

/// Returns the living worker of the slot at `port`; `None` if there is none.
///
/// A process is the worker if it leads its group, runs as the user of the launch, has the data directory of
/// this supervisor and the id of the launch in its environment, and the spec of that launch is whole, of
/// this slot, and cannot have been changed by that user.
async fn living(
    launcher: &Launcher,
    port: Port,
    known: &BTreeSet<WorkerId>,
) -> Result<Option<(WorkerId, ProcessId, DesiredWorker)>, String> {
    let local_dir = launcher.local_dir.clone();
    let listed = blocking::run(move || worker_dir::all(&local_dir)).await;
    let listed = listed.map_err(|error| format!("the directories of workers cannot be listed: {error}"))?;
    let prefix = format!("{port}-");
    let mut found = Vec::new();
    for worker in listed {
        if known.contains(&worker) || !worker.as_str().starts_with(&prefix) {
            continue;
        }
        let (local_dir, id) = (launcher.local_dir.clone(), worker.clone());
        let place = blocking::run(move || FilesPlace::of_worker(&local_dir, &id)).await;
        // Without a place, a process that claims to be the worker is ended as unknown.
        let Ok(place) = place else { continue };
        if let Some(process) = launcher.processes.find(&worker, place.uid()).await {
            found.push((worker, process, place));
        }
    }
    let Some((worker, process, place)) = found.pop() else { return Ok(None) };
    if !found.is_empty() {
        return Err(format!("{} processes run in the slot", found.len() + 1));
    }
    let read = move || place.read_spec();
    let spec = blocking::run(read).await?;
    if spec.worker != worker || spec.slot.port != port || spec.slot.supervisor != launcher.me {
        return Err(format!("the launch spec of {worker} is of another launch"));
    }
    desired(spec).map(|desired| Some((worker, process, desired)))
}

/// Returns the worker that a launch runs.
fn desired(spec: LaunchSpec) -> Result<DesiredWorker, String> {
    let LaunchSpec { topology, start, host, code, tasks, owner, .. } = spec;
    if tasks.is_empty() {
        return Err("an earlier build launched it, whose launch spec does not list the tasks".to_owned());
    }
    // The copy for a user has the id of the user before the key.
    let key = code.file_name().and_then(|name| name.to_str()?.rsplit('-').next()?.parse().ok());
    let blob = key.ok_or_else(|| format!("{} is not the directory of a package", code.display()))?;
    Ok(DesiredWorker { topology, worker: AssignedWorker { host, tasks, start }, blob, owner })
}
