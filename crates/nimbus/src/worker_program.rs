//! Check of the worker program of a new topology against the hosts. Pure.

use crate::refusal::Refusal;
use stormkeeper_coordination::cluster::{layout::LAYOUT_VERSION, view::ClusterView};
use stormkeeper_model::platform::{Formats, Program};
use stormkeeper_topology_package::launch;

/// Formats of the daemons of this build.
const FORMATS: Formats = Formats { launch: launch::FORMAT, tree: LAYOUT_VERSION };

/// Hosts that a refusal names.
const NAMED_MAX: usize = 3;

/// Checks that every supervisor can run the program, as any of them may get a worker of the topology.
///
/// # Errors
/// [`Refusal::InvalidTopology`] with what does not fit, and the supervisors.
pub(super) fn check(program: Option<&Program>, view: &ClusterView) -> Result<(), Refusal> {
    let Some(program) = program else { return Ok(()) };
    let mut problems = Vec::new();
    problems.extend(program.check_formats(FORMATS).err().map(|unfit| format!("its worker program: {unfit}")));
    for (id, record) in &view.supervisors {
        let unfit = match &record.platform {
            Some(platform) => platform.check(&program.needs).err().map(|unfit| unfit.to_string()),
            None => Some(
                "its supervisor runs an older build, which starts no worker programs; upgrade it".to_owned(),
            ),
        };
        problems.extend(unfit.map(|unfit| {
            format!("its worker program cannot run on {} (supervisor {id}): {unfit}", record.host)
        }));
    }
    if problems.is_empty() {
        return Ok(());
    }
    let n_more = problems.len().saturating_sub(NAMED_MAX);
    problems.truncate(NAMED_MAX);
    if n_more > 0 {
        problems.push(format!("and {n_more} more hosts"));
    }
    Err(Refusal::InvalidTopology { problems })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use stormkeeper_model::platform::Platform;

    fn view(platforms: &[(&str, Option<&str>)]) -> ClusterView {
        let record = |libc: Option<&str>| {
            let mut record = json!({ "host": "h", "ports": [], "resources": { "cpu_percent": 1, "memory_mb": 1 },
                                     "version": "0", "start_ms": 0 });
            if let Some(libc) = libc {
                record["platform"] = json!({ "arch": "x86_64", "libc": libc });
            }
            serde_json::from_value(record).expect("a record")
        };
        let records = platforms.iter().map(|(id, libc)| (id.parse().expect("valid"), record(*libc)));
        ClusterView { supervisors: records.collect(), ..ClusterView::default() }
    }

    fn program(launch: u32) -> Program {
        let Ok(libc) = "gnu-2.36".parse();
        let needs = Platform { arch: "x86_64".to_owned(), libc };
        Program { version: "0.1.0".to_owned(), formats: Formats { launch, ..FORMATS }, needs }
    }

    fn problems(program: &Program, view: &ClusterView) -> Vec<String> {
        match check(Some(program), view) {
            Ok(()) => Vec::new(),
            Err(Refusal::InvalidTopology { problems }) => problems,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn program_is_refused_by_the_hosts_that_cannot_run_it() {
        let program = program(launch::FORMAT);
        assert_eq!(problems(&program, &view(&[("a", Some("gnu-2.36")), ("b", Some("gnu-2.40"))])), [""; 0]);
        assert_eq!(problems(&program, &view(&[])), [""; 0]);
        let found =
            problems(&program, &view(&[("a", Some("gnu-2.31")), ("b", Some("gnu-2.36")), ("c", None)]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].contains("on h (supervisor a): it needs gnu-2.36 and the host has gnu-2.31"),
            "{found:?}"
        );
        assert!(found[1].contains("(supervisor c): its supervisor runs an older build"), "{found:?}");
        let many: Vec<(String, Option<&str>)> = (0..5).map(|n| (format!("s{n}"), Some("musl"))).collect();
        let many: Vec<(&str, Option<&str>)> = many.iter().map(|(id, libc)| (id.as_str(), *libc)).collect();
        let found = problems(&program, &view(&many));
        assert_eq!((found.len(), found[3].as_str()), (4, "and 2 more hosts"));
        assert!(check(None, &view(&[("c", None)])).is_ok());
    }

    #[test]
    fn program_of_an_older_format_is_refused() {
        let found = problems(&program(launch::FORMAT - 1), &view(&[]));
        assert!(found[0].contains("launch specification has version 0"), "{found:?}");
    }
}
