//! Topologies as `stormkeeper new` writes them, each run by `stormkeeper local`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::rust_topology;

/// Lines and words of the text of every template.
const TEXT: &str = include_str!("../src/cli/new/rust/lines.txt");

fn stormkeeper(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormkeeper"));
    command.args(args).current_dir(dir).env("TMPDIR", dir).output().expect("the binary runs")
}

fn ok(dir: &Path, args: &[&str]) -> serde_json::Value {
    let output = stormkeeper(dir, args);
    let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{args:?}: {told}{said}");
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}{said}"))
}

/// Runs a topology until it is idle, and checks the numbers of each component and that there is no error.
fn runs(dir: &Path, file: &str) {
    let ran = ok(dir, &["local", file, "--until-idle", "3s", "--for", "120s", "--json"]);
    let n_lines = TEXT.lines().count();
    let n_words: usize = TEXT.split_whitespace().count();
    for (component, emitted, acked) in
        [("lines", n_lines, n_lines), ("split", n_words, n_lines), ("count", 0, n_words)]
    {
        let components = ran["topology"]["components"].as_array().expect("components");
        let one = components.iter().find(|one| one["id"] == component).expect(component);
        assert_eq!((&one["emitted"], &one["acked"]), (&emitted.into(), &acked.into()), "{component}: {ran}");
    }
    assert_eq!(
        (&ran["errors"]["errors"], &ran["unfinished"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
}

#[test]
fn topologies_in_python_and_shell_run_at_once_and_process_every_word() {
    let dir = tempfile::tempdir().expect("a directory");
    for (language, n_files) in [("python", 6), ("shell", 7)] {
        let written = ok(dir.path(), &["new", language, "--lang", language, "--json"]);
        assert_eq!(written["files"].as_array().map(Vec::len), Some(n_files), "{written}");
        runs(&dir.path().join(language), "topology.yaml");
    }
    let again = stormkeeper(dir.path(), &["new", "shell"]);
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.code() == Some(2) && said.contains("shell exists already"), "{said}");
    assert!(dir.path().join("shell/resources/count.sh").exists(), "the directory stays as it is");
}

/// The code is built with the tests; the package itself is read by Cargo.
#[test]
fn topology_in_rust_runs_at_once_and_its_package_finds_the_crate() {
    let dir = tempfile::tempdir().expect("a directory");
    runs(dir.path(), &rust_topology::program(dir.path(), "new"));

    ok(dir.path(), &["new", "words", "--lang", "rust", "--checkout", env!("CARGO_MANIFEST_DIR"), "--json"]);
    let package = dir.path().join("words");
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/new/rust");
    for file in ["src/main.rs", "lines.txt"] {
        let read = |dir: &Path| fs::read_to_string(dir.join(file)).expect(file);
        assert_eq!(read(&package), read(&built), "{file} is not what was built");
    }
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(&package)
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).expect("metadata");
    let described = &metadata["packages"][0];
    let path = described["dependencies"][0]["path"].as_str().map(PathBuf::from);
    assert_eq!(described["name"], "words");
    assert_eq!(path, Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/topology")));
    assert_eq!(metadata["workspace_root"], package.canonicalize().expect("it exists").display().to_string());
}
