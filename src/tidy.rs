//! Rules of the source tree, as tests: files that may name a crate, files that may write to the
//! tree, and the length of files and comment lines.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Crates that only some files may name, so that changing one costs one place.
const CRATES: &[(&str, &[&str])] = &[
    ("zookeeper_client", &["crates/coordination/src/tree/zookeeper/"]),
    ("rocksdb", &["crates/metric-store/src/store/"]),
    ("axum", &["crates/nimbus/src/api/", "crates/serving/src/", "crates/supervisor/src/agent_api/"]),
    (
        "reqwest",
        &[
            "crates/api-types/src/",
            "crates/metric-shipping/src/ingest_client.rs",
            "crates/metrics-service/src/export/exporters/",
            "crates/metrics-service/src/query/",
            "crates/nimbus/src/api/forward.rs",
            "crates/nimbus/src/blobs/",
            "crates/nimbus/src/handle/",
        ],
    ),
    ("clap", &["src/cli/"]),
    ("anyhow", &["src/cli/", "src/main.rs"]),
    ("saphyr", &["crates/topology-package/src/yaml.rs"]),
    ("saphyr_parser", &["crates/topology-package/src/yaml/extent.rs"]),
];

/// Files outside of `tree` that may have write access to the tree: types that write only the
/// records that they own, and files that pass the tree to these types. So the types show which code
/// writes the leader's records.
const MAY_WRITE: &[&str] = &[
    // Makes every write of a daemon wait for the check of the layout.
    "crates/coordination/src/cluster/checked_tree.rs",
    // Creates `/layout` in an empty tree, before there is a leader.
    "crates/coordination/src/cluster/layout_version.rs",
    "crates/coordination/src/cluster/presence/mod.rs",
    "crates/coordination/src/cluster/store/mod.rs",
    // Waits for a server that is behind with a transaction that changes nothing.
    "crates/coordination/src/cluster/tree_id/mod.rs",
    "crates/coordination/src/election/candidate.rs",
    "crates/coordination/src/election/leadership.rs",
    // These bring back a tree that ZooKeeper lost, which has no leader, at the request of an operator.
    "crates/nimbus/src/handle/recovery.rs",
    "crates/nimbus/src/tree_copy/restore.rs",
    // These open the tree, close it, and pass it on.
    "crates/nimbus/src/api/mod.rs",
    "crates/nimbus/src/daemon.rs",
    "crates/supervisor/src/lib.rs",
    "crates/supervisor/src/start.rs",
    "crates/worker/src/lib.rs",
    "crates/worker-process/src/lib.rs",
    "src/cli/doctor/session.rs",
    "src/cli/nimbus.rs",
    "src/cli/supervisor.rs",
    "src/cli/zookeeper/live.rs",
];

/// Maximum length of a file. Split a file before it exceeds this length.
const MAX_LINES: usize = 600;

/// `max_width` of rustfmt, which wraps code and leaves comments alone.
const MAX_COMMENT_COLUMNS: usize = 110;

/// Words that do not describe the contents of a file.
const EMPTY_NAMES: &[&str] =
    &["manager", "helper", "util", "utils", "common", "misc", "handler", "base", "core"];

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders =
        ["src", "crates", "testing", "integration", "benches"].map(|name| root.join(name)).to_vec();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the source tree is readable") {
            let path: PathBuf = entry.expect("the source tree is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("below the root").display().to_string();
                sources.push((name, fs::read_to_string(&path).expect("sources are text")));
            }
        }
    }
    assert!(sources.len() > 50, "only {} sources were found: the search is broken", sources.len());
    sources.sort();
    sources
}

/// Returns whether `line` contains `name` as a whole word followed by `::`.
fn names_path(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_') && line[at + name.len()..].starts_with("::")
    })
}

/// Returns the code of a file without comments and without unit tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        // `mod tests;` does not match: it is at the top of a file with tests in another file.
        .take_while(|line| !line.starts_with("mod tests {"))
        .filter(|line| !line.trim_start().starts_with("//"))
}

/// Returns true if `file` is part of the shipped code.
fn is_product(file: &str) -> bool {
    file.starts_with("src/") || file.starts_with("crates/")
}

fn is_test(file: &str) -> bool {
    file.contains("/tests")
        || file.contains("_tests/")
        || file.ends_with("_tests.rs")
        || file.ends_with("_test.rs")
        || file.contains("test_support")
        || file.ends_with("tidy.rs")
}

#[test]
fn crates_are_named_in_their_files_only() {
    let mut offences = Vec::new();
    for (file, text) in sources().iter().filter(|(file, _)| is_product(file) && !is_test(file)) {
        for (name, places) in CRATES {
            let here = places.iter().any(|place| file.starts_with(place));
            if let Some(line) = code(text).find(|line| !here && names_path(line, name)) {
                offences.push(format!("{file} names the crate {name}: {}", line.trim()));
            }
        }
    }
    assert_eq!(offences, Vec::<String>::new());
}

/// Returns whether `line` gives its file write access to a tree.
fn can_write(line: &str) -> bool {
    ["dyn Tree", "Tree as _"].iter().any(|name| {
        line.match_indices(name).any(|(at, _)| {
            let (before, after) = (line[..at].chars().next_back(), line[at + name.len()..].chars().next());
            ![before, after].into_iter().flatten().any(|c| c.is_alphanumeric() || c == '_')
        })
    })
}

#[test]
fn only_a_few_types_can_write_to_the_tree() {
    let is_free =
        |file: &str| file.starts_with("crates/coordination/src/tree/") || !is_product(file) || is_test(file);
    let sources = sources();
    let writers = sources.iter().filter(|(file, text)| !is_free(file) && code(text).any(can_write));
    let writers: Vec<&str> = writers.map(|(file, _)| file.as_str()).collect();
    let unexpected: Vec<_> = writers.iter().filter(|file| !MAY_WRITE.contains(file)).collect();
    assert!(unexpected.is_empty(), "{unexpected:?} should use a ReadTree, or one of the guarding types");
    assert_eq!(writers.len(), MAY_WRITE.len(), "the list contains files without write access: {writers:?}");
}

#[test]
fn files_are_short_and_have_descriptive_names() {
    let mut offences = Vec::new();
    for (file, text) in sources() {
        let n_lines = text.lines().count();
        if n_lines > MAX_LINES {
            offences.push(format!("{file} has {n_lines} lines; split it before {MAX_LINES}"));
        }
        let stem = Path::new(&file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if stem.split('_').any(|part| EMPTY_NAMES.contains(&part)) {
            offences.push(format!("{file}: the name does not describe the contents"));
        }
    }
    assert_eq!(offences, Vec::<String>::new());
}

/// True if `line` is a comment line that is too long and can be wrapped. A table row and a
/// line without a space, such as a link, cannot.
fn is_long_comment(line: &str) -> bool {
    let Some(comment) = line.trim_start().strip_prefix("//") else {
        return false;
    };
    let text = comment.trim_start_matches(['/', '!']).trim();
    line.chars().count() > MAX_COMMENT_COLUMNS && text.contains(' ') && !text.starts_with('|')
}

#[test]
fn comment_lines_are_wrapped() {
    let mut offences = Vec::new();
    for (file, text) in sources() {
        for (index, line) in text.lines().enumerate().filter(|(_, line)| is_long_comment(line)) {
            let columns = line.chars().count();
            offences.push(format!(
                "{file}:{} is {columns} columns wide, at most {MAX_COMMENT_COLUMNS}",
                index + 1
            ));
        }
    }
    assert!(offences.is_empty(), "wrap these comment lines:\n{}", offences.join("\n"));
}

#[test]
fn the_checker_finds_what_it_looks_for() {
    assert!(names_path("use axum::Router;", "axum"));
    assert!(!names_path("use my_axum::Router;", "axum"));
    assert!(
        can_write("    tree: Arc<dyn Tree>,")
            && can_write("use stormkeeper_coordination::tree::{Tree as _, TreePath};")
    );
    assert!(
        !can_write("    tree: Arc<dyn ReadTree>,")
            && !can_write("use stormkeeper_coordination::tree::ReadTree as _;")
    );
    assert!(code("// axum::x\nmod tests {\naxum::y").next().is_none());
    assert_eq!(code("mod tests;\nuse axum::x;").count(), 2);

    let long = format!("    //! {}", "long ".repeat(30));
    assert!(is_long_comment(&long) && is_long_comment(&long.replace("//!", "///")));
    assert!(is_long_comment(&long.replace("//!", "//")));
    // 110 columns of 3 bytes each; a table row; a link; code, which is the concern of rustfmt.
    assert!(!is_long_comment(&format!("// {}", "│ ".repeat(53))));
    assert!(!is_long_comment(&long.replace("//!", "//! |")));
    assert!(!is_long_comment(&format!("// <https://{}>", "x".repeat(120))));
    assert!(!is_long_comment(&long.replace("//!", "let")));
}

/// Returns the names of tests in the last column of the tables of `document`.
fn named_tests(document: &str) -> Vec<&str> {
    let list = document.split_once("## Penetration list").map_or("", |(_, list)| list);
    let cells = list.lines().filter_map(|line| line.strip_suffix('|')?.rsplit_once('|'));
    cells.flat_map(|(_, cell)| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn tests_of_the_penetration_list_exist() {
    assert_eq!(named_tests("| `x` |\n## Penetration list\n| a `y` | `b`, `c` |\n| d | - |"), ["b", "c"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/security.md")).expect("the page");
    let named = named_tests(&document);
    assert!(named.len() > 20, "only {} tests are named", named.len());
    let sources = sources();
    let exists = |name: &str| {
        let function = format!("fn {name}(");
        sources.iter().any(|(_, text)| {
            let before = text.split_once(&function).map(|(before, _)| before);
            // The attribute is in one of the lines above.
            before.is_some_and(|before| before.lines().rev().take(3).any(|line| line.contains("test")))
        })
    };
    let missing: Vec<_> = named.into_iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that do not exist: {missing:?}");
}

#[test]
fn documents_have_no_unfilled_placeholders() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("zk-layout.md"), root.join("CHANGELOG.md")];
    for entry in fs::read_dir(root.join("docs")).expect("docs exists") {
        files.push(entry.expect("docs is readable").path());
    }
    for file in files.iter().filter(|file| file.is_file()) {
        let text = fs::read_to_string(file).expect("documents are text");
        // Full names of metrics have empty parts.
        let mut lines = text.lines().filter(|line| !line.contains("@sys@"));
        assert!(!lines.any(|line| line.contains("@@")), "{} has an unfilled placeholder", file.display());
    }
}
