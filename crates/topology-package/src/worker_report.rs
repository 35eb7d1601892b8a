//! Files with which a worker tells its supervisor about itself, in the directory of the worker: its
//! report while it runs ([`crate::status_file`]), and the reason why it ended.

use serde::{Deserialize, Serialize};

use crate::status_file;
use stormkeeper_model::{task_set::TaskSet, text};

/// Name of the file with the report of a running worker.
pub const REPORT_FILE: &str = "report.json";

/// Name of the file with the reason why the worker ended, of one line; absent if it was killed.
pub const EXIT_REASON_FILE: &str = "exit-reason";

/// Maximum number of problems in a report, and maximum length of each in bytes.
pub const PROBLEMS_MAX: usize = 8;
const PROBLEM_BYTES_MAX: usize = 300;

/// Report of a running worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Tasks of the worker that do not run.
    #[serde(default)]
    pub idle: TaskSet,
    /// Problems that keep the worker from its work, with the remedy, each in one line.
    #[serde(default)]
    pub problems: Vec<String>,
}

impl WorkerReport {
    /// Encodes the report as the content of its file, always [`status_file::FILE_BYTES`] long. A report
    /// that is too long is cut: first its problems, then the idle tasks.
    pub fn encode(&self) -> Vec<u8> {
        let mut report = self.clone();
        report.problems.truncate(PROBLEMS_MAX);
        for problem in &mut report.problems {
            *problem = shortened(problem);
        }
        status_file::encode(report, |report| {
            // Control characters take six bytes each in JSON.
            if report.problems.pop().is_none() {
                report.idle = report.idle.iter().take(report.idle.len() / 2).collect();
            }
            true
        })
    }

    /// Decodes the content of the file; `None` if it is half written, or of a newer format. A component
    /// may have written it: it is bounded as a report that was encoded, and each problem is one line.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut report: Self = status_file::decode(bytes)?;
        report.problems.truncate(PROBLEMS_MAX);
        for problem in &mut report.problems {
            let line = problem.replace(char::is_control, "?");
            *problem = shortened(&line);
        }
        Some(report)
    }
}

/// Returns what fits into a report, with the name of the log that has the rest.
fn shortened(problem: &str) -> String {
    text::shortened_from(problem, PROBLEM_BYTES_MAX, "worker.log").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status_file::FILE_BYTES;
    use stormkeeper_model::TaskId;

    #[test]
    fn report_has_a_fixed_length_and_is_read_back() {
        let report = WorkerReport { idle: TaskSet::range(3, 9), problems: vec!["why".to_owned()] };
        let bytes = report.encode();
        assert_eq!(bytes.len(), FILE_BYTES);
        assert_eq!(WorkerReport::decode(&bytes), Some(report));
        let shorter = WorkerReport::default().encode();
        assert_eq!(shorter.len(), FILE_BYTES);
        let half: Vec<u8> = shorter[..20].iter().chain(&bytes[20..]).copied().collect();
        assert_ne!(WorkerReport::decode(&half), Some(WorkerReport::default()));
        assert_eq!(WorkerReport::decode(b"{\"v\":9}"), None);
    }

    #[test]
    fn problem_that_is_cut_keeps_its_remedy_and_names_the_log_that_has_the_rest() {
        let long = format!("cannot start: {}; install it", "é".repeat(400));
        let report = WorkerReport { idle: TaskSet::default(), problems: vec![long, "short".to_owned()] };
        let read = WorkerReport::decode(&report.encode()).expect("valid");
        let cut = &read.problems[0];
        assert!(cut.len() <= PROBLEM_BYTES_MAX && cut.starts_with("cannot start: é"), "{cut}");
        assert!(cut.ends_with("; install it (cut; worker.log has all of it)"), "{cut}");
        assert_eq!(read.problems[1], "short");
        assert_eq!(WorkerReport::decode(&read.encode()), Some(read), "it is cut once");
    }

    #[test]
    fn report_that_a_component_has_written_is_bounded_when_it_is_read() {
        let many = serde_json::json!({ "v": 1, "problems": vec!["x\n! supervisor s0\u{1b}[2J"; 50] });
        let read = WorkerReport::decode(many.to_string().as_bytes()).expect("valid");
        assert_eq!(read.problems, vec!["x?! supervisor s0?[2J".to_owned(); PROBLEMS_MAX]);
        let long = serde_json::json!({ "v": 1, "problems": ["x".repeat(3000)] });
        let read = WorkerReport::decode(long.to_string().as_bytes()).expect("valid");
        assert!(read.problems[0].len() <= PROBLEM_BYTES_MAX, "{}", read.problems[0].len());
    }

    #[test]
    fn report_that_is_too_long_is_cut_and_still_read() {
        let every_other = (1..5000).map(|n| TaskId(2 * n)).collect();
        let report = WorkerReport { idle: every_other, problems: vec!["\u{1}é".repeat(1000); 100] };
        let bytes = report.encode();
        assert_eq!(bytes.len(), FILE_BYTES);
        let read = WorkerReport::decode(&bytes).expect("valid");
        assert!(!read.idle.is_empty() && read.idle.len() < report.idle.len());
        let problems = WorkerReport { idle: TaskSet::default(), ..report };
        let read = WorkerReport::decode(&problems.encode()).expect("valid");
        assert!(!read.problems.is_empty() && read.problems.len() <= PROBLEMS_MAX);
    }
}
