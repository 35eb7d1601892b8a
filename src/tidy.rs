//! The rules of the source tree, as a test: who may use whom, which file may name which
//! crate, how long a file may be.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The modules in the order of `lib.rs`, with what each may use on top of `model` and
/// `clock`. A module that is not named by another is not used by it.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("clock", &[]),
    ("backoff", &[]),
    ("daemon", &[]),
    ("tree", &["backoff", "daemon"]),
    ("cluster", &["backoff", "daemon", "tree"]),
    ("election", &["cluster", "tree"]),
    ("schedule", &[]),
    ("tuple", &[]),
    ("metrics", &[]),
    ("rpc", &["backoff", "daemon", "tree", "cluster", "metrics"]),
    ("archive", &["daemon", "metrics", "rpc"]),
    ("plugin", &["backoff", "daemon", "metrics", "rpc", "archive"]),
    (
        "nimbus",
        &[
            "backoff", "daemon", "tree", "cluster", "election", "schedule", "metrics", "rpc", "archive",
            "plugin", "api",
        ],
    ),
    ("supervisor", &["backoff", "daemon", "tree", "cluster", "metrics", "rpc"]),
    ("worker", &["backoff", "daemon", "tree", "cluster", "tuple", "metrics", "rpc"]),
    ("config", &["tree", "cluster", "metrics", "archive", "plugin", "nimbus", "supervisor", "worker"]),
    ("flux", &["config", "rpc"]),
    ("api", &["daemon", "cluster", "tree", "metrics", "rpc", "archive", "nimbus"]),
    ("local", &["daemon", "tree", "cluster", "rpc", "nimbus", "supervisor", "worker", "api"]),
    (
        "cli",
        &[
            "daemon",
            "tree",
            "cluster",
            "metrics",
            "rpc",
            "nimbus",
            "supervisor",
            "worker",
            "config",
            "flux",
            "api",
            "local",
        ],
    ),
];

/// Crates that only some files may name, so that changing one costs one place.
const CRATES: &[(&str, &[&str])] = &[
    ("zookeeper_client", &["src/tree/zookeeper/"]),
    ("rocksdb", &["src/archive/store/"]),
    ("axum", &["src/api/"]),
    (
        "reqwest",
        &["src/rpc/", "src/plugin/", "src/api/forward.rs", "src/nimbus/blobs/", "src/nimbus/handle.rs"],
    ),
    ("clap", &["src/cli/"]),
    ("anyhow", &["src/cli/", "src/main.rs"]),
    ("saphyr", &["src/config/yaml.rs"]),
    ("rustix", &["src/supervisor/", "src/config/", "src/worker/", "src/daemon/usage.rs"]),
];

/// Files outside of `tree` that may hold a tree to write, and not only to read: those that
/// guard it by a type which writes what is its own, and those that hand it to them. So who
/// writes what leaders own can be read off the types.
const MAY_WRITE: &[&str] = &[
    "src/cluster/presence/mod.rs",
    "src/cluster/store/mod.rs",
    "src/election/candidate.rs",
    "src/election/leadership.rs",
    // These open it, close it, and hand it on.
    "src/api/mod.rs",
    "src/cli/nimbus.rs",
    "src/cli/supervisor.rs",
    "src/cli/worker.rs",
    "src/nimbus/daemon.rs",
    "src/supervisor/mod.rs",
    "src/supervisor/start.rs",
    "src/worker/mod.rs",
];

/// Split a file before it gets longer than this.
const MAX_LINES: usize = 600;

/// Words that say nothing about what a file holds.
const EMPTY_NAMES: &[&str] =
    &["manager", "helper", "util", "utils", "common", "misc", "handler", "base", "core"];

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("integration"), root.join("benches")];
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
    assert!(sources.len() > 50, "only {} sources were found: the search is wrong", sources.len());
    sources.sort();
    sources
}

/// Whether `name` stands in `line` as a whole word followed by `::`.
fn names_path(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_') && line[at + name.len()..].starts_with("::")
    })
}

/// The code of a file without its comments and without what only tests see.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        // Not `mod tests;`, which stands at the top of a file whose tests are elsewhere.
        .take_while(|line| !line.starts_with("mod tests {"))
        .filter(|line| !line.trim_start().starts_with("//"))
}

fn is_test(file: &str) -> bool {
    file.contains("/tests")
        || file.ends_with("_tests.rs")
        || file.contains("test_support")
        || file.ends_with("tidy.rs")
}

/// The modules of this crate that `text` names by `crate::`, also inside `crate::{…}`.
fn used_modules(text: &str) -> Vec<String> {
    let joined = code(text).collect::<Vec<_>>().join("\n");
    let mut used = Vec::new();
    for (at, _) in joined.match_indices("crate::") {
        let rest = &joined[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => used.push(word(rest)),
            Some(list) => used.extend(top_level_items(list).iter().map(|item| word(item))),
        }
    }
    used
}

fn word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The items of a `{…}` list, without splitting the lists inside it.
fn top_level_items(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut items = vec![String::new()];
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        items.last_mut().expect("never empty").push(c);
    }
    items
}

#[test]
fn modules_use_only_what_they_may() {
    let table: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut offences = Vec::new();
    for (file, text) in sources().iter().filter(|(file, _)| file.starts_with("src/") && !is_test(file)) {
        let module = file["src/".len()..].split(['/', '.']).next().unwrap_or_default();
        let Some(allowed) = table.get(module) else { continue };
        for used in used_modules(text) {
            let fine = used == module
                || ["model", "clock", "test_support"].contains(&used.as_str())
                || allowed.contains(&used.as_str());
            if table.contains_key(used.as_str()) && !fine {
                offences.push(format!("{file} uses crate::{used}, which {module} may not"));
            }
        }
    }
    assert_eq!(offences, Vec::<String>::new());
}

#[test]
fn crates_are_named_where_they_belong() {
    let mut offences = Vec::new();
    for (file, text) in sources().iter().filter(|(file, _)| file.starts_with("src/") && !is_test(file)) {
        for (name, places) in CRATES {
            let here = places.iter().any(|place| file.starts_with(place));
            if let Some(line) = code(text).find(|line| !here && names_path(line, name)) {
                offences.push(format!("{file} names the crate {name}: {}", line.trim()));
            }
        }
    }
    assert_eq!(offences, Vec::<String>::new());
}

/// Whether `line` lets its file write by a tree.
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
    let is_free = |file: &str| file.starts_with("src/tree/") || !file.starts_with("src/") || is_test(file);
    let sources = sources();
    let writers = sources.iter().filter(|(file, text)| !is_free(file) && code(text).any(can_write));
    let writers: Vec<&str> = writers.map(|(file, _)| file.as_str()).collect();
    let unexpected: Vec<_> = writers.iter().filter(|file| !MAY_WRITE.contains(file)).collect();
    assert!(unexpected.is_empty(), "{unexpected:?} should take a ReadTree, or one of the guarding types");
    assert_eq!(writers.len(), MAY_WRITE.len(), "the list names files that need not be there: {writers:?}");
}

#[test]
fn files_are_short_and_named_for_what_they_hold() {
    let mut offences = Vec::new();
    for (file, text) in sources() {
        let n_lines = text.lines().count();
        if n_lines > MAX_LINES {
            offences.push(format!("{file} has {n_lines} lines; split it before {MAX_LINES}"));
        }
        let stem = Path::new(&file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if stem.split('_').any(|part| EMPTY_NAMES.contains(&part)) {
            offences.push(format!("{file}: the name says nothing; what is it?"));
        }
    }
    assert_eq!(offences, Vec::<String>::new());
}

#[test]
fn the_checker_finds_what_it_looks_for() {
    let text =
        "use crate::{\n    model::{TaskId, Port},\n    tree::Tree,\n};\nfn f() { crate::nimbus::run() }\n";
    assert_eq!(used_modules(text), ["model", "tree", "", "nimbus"]);
    assert!(names_path("use axum::Router;", "axum"));
    assert!(!names_path("use my_axum::Router;", "axum"));
    assert!(can_write("    tree: Arc<dyn Tree>,") && can_write("use crate::tree::{Tree as _, TreePath};"));
    assert!(!can_write("    tree: Arc<dyn ReadTree>,") && !can_write("use crate::tree::ReadTree as _;"));
    assert!(code("// axum::x\nmod tests {\naxum::y").next().is_none());
    assert_eq!(code("mod tests;\nuse axum::x;").count(), 2);
}

#[test]
fn documents_have_no_open_places() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("zk-layout.md"), root.join("CHANGELOG.md")];
    for entry in fs::read_dir(root.join("docs")).expect("docs is there") {
        files.push(entry.expect("docs is readable").path());
    }
    for file in files.iter().filter(|file| file.is_file()) {
        let text = fs::read_to_string(file).expect("documents are text");
        // Full names of metrics have empty parts.
        let mut lines = text.lines().filter(|line| !line.contains("@sys@"));
        assert!(!lines.any(|line| line.contains("@@")), "{} has a place that was left open", file.display());
    }
}
