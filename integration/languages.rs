//! Components of several languages and libraries in one topology: each speaks Storm's protocol, and
//! none knows of this project.

use std::{fs, path::Path};

use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, WAIT_MAX},
    counting,
};

/// Number of lines. Each is failed once.
const N_LINES: usize = 60;

/// Copies the components, with the place of pystorm and those of the results. Returns the topology file.
fn topology(cluster: &Cluster) -> String {
    #[expect(clippy::disallowed_methods, reason = "scripts/test passes the path of pystorm")]
    let pystorm = std::env::var("STORMKEEPER_PYSTORM")
        .expect("STORMKEEPER_PYSTORM is not set: run scripts/test, which installs pystorm and sets it");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/components");
    let resources = cluster.path("languages/resources");
    fs::create_dir_all(&resources).expect("a directory");
    let path = |name: &str| cluster.path(name).display().to_string();
    let replace = |text: String| {
        text.replace("PYSTORM", &pystorm)
            .replace("\"LINES\"", &format!("{:?}", path("lines.txt")))
            .replace("\"DONE\"", &format!("{:?}", path("done.txt")))
            .replace("\"COUNTS\"", &format!("{:?}", path("counts.tsv")))
    };
    for entry in fs::read_dir(source).expect("the components") {
        let entry = entry.expect("readable").path();
        let name = entry.file_name().expect("a file");
        let to = if name == "topology.yaml" { resources.with_file_name(name) } else { resources.join(name) };
        fs::write(to, replace(fs::read_to_string(&entry).expect("text"))).expect("written");
    }
    resources.with_file_name("topology.yaml").display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn node_shell_messagepack_storm_style_and_pystorm_components_count_every_word_once() {
    let cluster = Cluster::start().await;
    let file = topology(&cluster);
    let text: String =
        (0..N_LINES).map(|n| format!("The Line {n} of\tgr\u{fc}n \"words\" \\ {}\n", n % 7)).collect();
    fs::write(cluster.path("lines.txt"), &text).expect("written");
    let mut expected = counting::Table::new();
    for word in text.to_lowercase().split_whitespace() {
        *expected.entry(word.to_owned()).or_default() += 1;
    }
    cluster.ok(&["submit", &file, "--wait"]);
    wait_until("every word is counted, and every line acked", WAIT_MAX, async || {
        let read = |name: &str| fs::read_to_string(cluster.path(name)).unwrap_or_default();
        let counted = counting::table(&read("counts.tsv"));
        let n_acked = read("done.txt").lines().count();
        if counted == expected && n_acked == N_LINES {
            return Ok(());
        }
        let differs = expected.iter().find(|(word, n)| counted.get(*word) != Some(n));
        Err(format!("{n_acked} of {N_LINES} lines; {} words, {differs:?}\n{}", counted.len(), cluster.logs()))
    })
    .await;
    let mut acked: Vec<usize> = fs::read_to_string(cluster.path("done.txt"))
        .expect("text")
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    acked.sort_unstable();
    assert_eq!(acked, (0..N_LINES).collect::<Vec<_>>(), "each line is acked once");
    let errors = cluster.json(&["get-errors", "languages"]);
    let last = &errors["last"];
    assert!(
        last["split"]["error"].as_str().is_some_and(|text| text.contains("the first attempt of")),
        "{errors}"
    );
    for component in ["lines", "lower", "pass", "pack", "group", "store"] {
        assert!(last[component].is_null(), "{component}: {errors}");
    }
    cluster.ok(&["kill", "languages", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
}
