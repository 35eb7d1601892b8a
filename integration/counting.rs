//! Expected counts of the examples, computed by other programs: `tr`, `sort`, `uniq`, `awk`.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

pub(crate) type Table = BTreeMap<String, u64>;

/// Runs a shell pipeline in `dir`; returns its standard output.
pub(crate) fn shell(script: &str, dir: &Path) -> String {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .stderr(Stdio::inherit())
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{script}: {}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// Parses `word<TAB>count` lines.
pub(crate) fn table(text: &str) -> Table {
    let rows = text.lines().filter(|line| !line.is_empty()).map(|line| {
        let (key, n) = line.rsplit_once('\t').unwrap_or_else(|| panic!("{line:?} has no tab"));
        (key.to_owned(), n.parse::<u64>().unwrap_or_else(|_| panic!("{line:?} has no count")))
    });
    rows.fold(Table::new(), |mut table, (key, n)| {
        *table.entry(key).or_default() += n;
        table
    })
}

/// Counts the words of the example's texts with `uniq -c`.
pub(crate) fn expected_words(resources: &Path) -> Table {
    let script =
        r#"awk 1 text/*.txt | tr -s '[:space:]' '\n' | grep . | sort | uniq -c | awk '{print $2 "\t" $1}'"#;
    let words = table(&shell(script, resources));
    assert!(words.len() > 100, "the texts have only {} words", words.len());
    words
}

/// Counts the lines of the access log with `awk`, by `FIELD VALUE`.
pub(crate) fn expected_requests(example: &Path) -> Table {
    let script =
        r#"awk -f expected.awk resources/logs/*.log | sort | uniq -c | awk '{print $2 " " $3 "\t" $1}'"#;
    table(&shell(script, example))
}

/// Reads all result files `PREFIX-*.tsv` in `dir` into one table.
pub(crate) fn results(dir: &Path, prefix: &str) -> Table {
    let mut text = String::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(prefix) && name.ends_with(".tsv") {
            text.push_str(&fs::read_to_string(&path).unwrap_or_default());
        }
    }
    table(&text)
}
