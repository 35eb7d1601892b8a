//! The report of this worker about itself: what keeps it from its work, for its supervisor, which
//! passes it on to every nimbus.
//!
//! The file is opened when the worker starts and rewritten in place, so that a worker whose
//! descriptors have run out can still report that.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tracing::warn;

use crate::{errors::ErrorReporter, heartbeat::StatusBoard};
use stormkeeper_model::{ComponentId, TaskId};
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
};
use stormkeeper_topology_package::worker_report::{PROBLEMS_MAX, REPORT_FILE, WorkerReport};

/// Period of comparing the report with the file; the file is written only if they differ.
const WRITE_PERIOD: Duration = Duration::from_secs(1);

/// Present problems of this worker. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problems {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    // Guards the problems by what they concern; held for a few instructions.
    texts: Mutex<BTreeMap<String, String>>,
    errors: Option<(ErrorReporter, ComponentId, TaskId)>,
}

impl Problems {
    /// Problems that are also reported as errors of `task`, once for each time that they begin.
    pub(crate) fn with_errors(errors: ErrorReporter, component: ComponentId, task: TaskId) -> Self {
        let shared = Shared { texts: Mutex::default(), errors: Some((errors, component, task)) };
        Self { shared: Arc::new(shared) }
    }

    /// Begins the problem of `subject`, or changes its text.
    pub(crate) fn raise(&self, subject: &str, text: String) {
        let begins = self.lock().insert(subject.to_owned(), text.clone()).is_none();
        if let Some((errors, component, task)) = self.shared.errors.as_ref().filter(|_| begins) {
            errors.report(component, *task, text, String::new());
        }
    }

    /// Ends the problem of `subject`, if it has one.
    pub(crate) fn clear(&self, subject: &str) {
        self.lock().remove(subject);
    }

    /// Returns the texts of all problems.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.shared.texts.lock().expect("no one panics while holding the problems")
    }
}

/// Opens the file of the report, and writes an empty report.
///
/// # Errors
/// I/O error of the file.
pub(crate) fn open(dir: &Path) -> io::Result<File> {
    let file = File::create(dir.join(REPORT_FILE))?;
    file.write_all_at(&WorkerReport::default().encode(), 0)?;
    Ok(file)
}

/// Keeps `file` equal to the problems and the statuses of the tasks.
pub(crate) fn start(file: File, problems: Problems, board: StatusBoard, tasks: &Tasks) {
    tasks.start("report of this worker", OnExit::StopOwner, async move {
        let file = Arc::new(file);
        let mut written = WorkerReport::default();
        loop {
            tokio::time::sleep(WRITE_PERIOD).await;
            let report = current(&problems, &board);
            if report == written {
                continue;
            }
            let (bytes, to) = (report.encode(), Arc::clone(&file));
            match blocking::run(move || to.write_all_at(&bytes, 0)).await {
                Ok(()) => written = report,
                Err(error) => warn!(%error, "cannot write the report of this worker; retrying"),
            }
        }
    });
}

fn current(problems: &Problems, board: &StatusBoard) -> WorkerReport {
    let (idle, reasons) = board.idle();
    let problems = reasons.into_iter().chain(problems.texts()).take(PROBLEMS_MAX).collect();
    WorkerReport { idle, problems }
}
