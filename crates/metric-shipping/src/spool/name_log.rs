//! Append-only files of metric ids and names, one metric per line.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use stormkeeper_metrics::{MetricId, MetricName};

/// An append-only file of lines. The next line overwrites a line that was not written completely.
#[derive(Debug)]
pub(super) struct NameLog {
    file: File,
    length: u64,
}

impl NameLog {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create_new(path)?, length: 0 })
    }

    pub(super) fn add(&mut self, id: MetricId, name: &MetricName) -> io::Result<()> {
        let line = format!("{id} {name}\n");
        self.file.write_all_at(line.as_bytes(), self.length)?;
        self.length += line.len() as u64;
        Ok(())
    }
}

/// Reads the complete lines of a file; none if the file does not exist. A line that cannot be
/// parsed is `None` and keeps its index.
pub(super) fn read(path: &Path) -> io::Result<Vec<Option<(MetricId, MetricName)>>> {
    let text = match stormkeeper_runtime::fs::regular_file::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = text[..whole].split_inclusive(|byte| *byte == b'\n');
    Ok(lines.map(|line| parse(line.strip_suffix(b"\n")?)).collect())
}

fn parse(line: &[u8]) -> Option<(MetricId, MetricName)> {
    let (id, name) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    Some((id.parse().ok()?, name.parse().ok()?))
}
