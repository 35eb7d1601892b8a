//! Standard error of a child: each line is logged, and the last lines are kept.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bytes::BytesMut;
use tokio::{io::AsyncReadExt as _, process::ChildStderr, sync::oneshot};
use tracing::info;

use stormkeeper_model::{ComponentId, TaskId};

/// Limit of stderr kept for an error report: a stack trace fits, a znode is not filled.
pub(super) const MAX_STDERR_TAIL_BYTES: usize = 4 << 10;

/// Longest stderr line in one log event; a longer line is logged in pieces.
const MAX_STDERR_LINE_BYTES: usize = 2 << 10;

/// Last lines of stderr.
#[derive(Debug, Default)]
pub(super) struct StderrTail {
    // Guards the lines, oldest first; held for a few instructions.
    lines: Mutex<VecDeque<String>>,
}

impl StderrTail {
    fn add(&self, line: String) {
        let mut lines = self.lines.lock().expect("no one panics while holding last words");
        lines.push_back(line);
        while lines.iter().map(|line| line.len() + 1).sum::<usize>() > MAX_STDERR_TAIL_BYTES {
            lines.pop_front();
        }
    }

    pub(super) fn take(&self) -> String {
        let lines = std::mem::take(&mut *self.lines.lock().expect("no one panics while holding last words"));
        Vec::from(lines).join("\n")
    }
}

/// Reads stderr to its end, and reports the end to `ended`.
pub(super) async fn read_stderr(
    mut stderr: ChildStderr,
    component: ComponentId,
    task: TaskId,
    stderr_tail: Arc<StderrTail>,
    ended: oneshot::Sender<()>,
) {
    let mut unread = BytesMut::new();
    let record = |line: &[u8]| {
        let line = String::from_utf8_lossy(line.trim_ascii_end());
        if !line.is_empty() {
            info!(%component, %task, "stderr: {line}");
            stderr_tail.add(line.into_owned());
        }
    };
    while stderr.read_buf(&mut unread).await.is_ok_and(|n| n > 0) {
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            record(&unread.split_to(end + 1));
        }
        if unread.len() > MAX_STDERR_LINE_BYTES {
            record(&unread.split());
        }
    }
    record(&unread);
    // Fails if no receiver waits, which is the usual case.
    let _nobody_waits = ended.send(());
}
