//! Runs each fuzz body on its corpus, and on a fixed number of mutations of it.
//!
//! A failure prints the input and the seed of the mutation. An input that made a body fail becomes
//! a file in the corpus.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use stormkeeper_fuzz_bodies as bodies;

/// Largest mutated input; longer ones are truncated.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// Numbers at which parsers of lengths and counts go wrong.
const LENGTHS: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xff, 0xffff, 16 << 20, (16 << 20) + 1, u32::MAX as u64, u64::MAX];

/// Returns the inputs of a target, by the name of their file.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut inputs: Vec<(String, Vec<u8>)> = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("readable").path())
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("readable"))
        })
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 5, "{} has {} inputs", dir.display(), inputs.len());
    inputs
}

/// Returns the mutation of the corpus that belongs to `seed`.
fn mutation(corpus: &[(String, Vec<u8>)], seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut input = corpus[random.usize(..corpus.len())].1.clone();
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..=input.len());
        match random.u8(..7) {
            0 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            1 if at < input.len() => input[at] = random.u8(..),
            2 => input.truncate(at),
            3 => splice(&mut input, &corpus[random.usize(..corpus.len())].1, at, &mut random),
            4 => overwrite_length(&mut input, at, &mut random),
            5 => {
                let end = random.usize(at..=input.len()).min(at + 256);
                let part = input[at..end].repeat(random.usize(1..64));
                input.splice(at..at, part);
            }
            _ => drop(input.drain(at..random.usize(at..=input.len()))),
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// Replaces the rest from `at` on by the rest of another input, or inserts that rest.
fn splice(input: &mut Vec<u8>, other: &[u8], at: usize, random: &mut fastrand::Rng) {
    let rest = &other[random.usize(..=other.len())..];
    let end = if random.bool() { input.len() } else { at };
    input.splice(at..end, rest.iter().copied());
}

fn overwrite_length(input: &mut [u8], at: usize, random: &mut fastrand::Rng) {
    let length = LENGTHS[random.usize(..LENGTHS.len())];
    let width = [1, 2, 4, 8][random.usize(..4)];
    let bytes = match random.bool() {
        true => length.to_be_bytes()[8 - width..].to_vec(),
        false => length.to_le_bytes()[..width].to_vec(),
    };
    for (to, from) in input[at..].iter_mut().zip(bytes) {
        *to = from;
    }
}

/// Runs a body on its corpus and on `n_mutations` mutations.
fn run(target: &str, body: fn(&[u8]), n_mutations: u64) {
    let corpus = corpus(target);
    for (name, input) in &corpus {
        run_one(target, body, &format!("file {name}"), input);
    }
    // These list a million tasks, which takes a moment, also if nothing is wrong.
    let (_large, small): (Vec<_>, Vec<_>) =
        corpus.into_iter().partition(|(name, _)| name.starts_with("large_"));
    for seed in 0..n_mutations {
        run_one(target, body, &format!("seed {seed}"), &mutation(&small, seed));
    }
}

fn run_one(target: &str, body: fn(&[u8]), source: &str, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| body(input))).is_err() {
        panic!(
            "{target} failed, see above; {source}; input of {} bytes: {}",
            input.len(),
            input.escape_ascii()
        );
    }
}

/// A test per body. Each takes about a second.
macro_rules! targets {
    ($($target:ident: $n_mutations:literal,)*) => {
        $(
            #[test]
            fn $target() {
                run(stringify!($target), bodies::$target, $n_mutations);
            }
        )*

        #[test]
        fn every_target_has_a_corpus_and_a_target_of_cargo_fuzz() {
            let targets = [$(stringify!($target)),*];
            let top = Path::new(env!("CARGO_MANIFEST_DIR"));
            let names = |dir: &Path| {
                let name = |entry: fs::DirEntry| entry.path().file_stem().expect("a name").to_owned();
                let entries = fs::read_dir(dir).expect("readable");
                let mut names: Vec<_> = entries.map(|entry| name(entry.expect("readable"))).collect();
                names.sort();
                names
            };
            let mut expected = targets.to_vec();
            expected.sort_unstable();
            assert_eq!(names(&top.join("corpus")), expected);
            assert_eq!(names(&top.join("../../fuzz/fuzz_targets")), expected);
        }
    };
}

targets! {
    metric_log_entry: 50_000,
    metric_name: 50_000,
    multilang_frame: 3000,
    package_tar: 1500,
    point_codec: 50_000,
    spool_report: 3000,
    storm_yaml: 1000,
    topology_yaml: 500,
    worker_wire: 5000,
    znode_record: 2000,
}

#[test]
fn failing_body_is_reported_with_its_seed() {
    let fails = |input: &[u8]| assert!(input.len() < 2, "too long");
    let failure = catch_unwind(|| run("metric_name", fails, 1)).expect_err("the body fails");
    let text = failure.downcast_ref::<String>().expect("a text");
    assert!(text.starts_with("metric_name failed, see above; file "), "{text}");
    let seeds: Vec<Vec<u8>> = (0..100).map(|seed| mutation(&corpus("metric_name"), seed)).collect();
    let again: Vec<Vec<u8>> = (0..100).map(|seed| mutation(&corpus("metric_name"), seed)).collect();
    assert_eq!(seeds, again, "a seed does not repeat its input");
}
