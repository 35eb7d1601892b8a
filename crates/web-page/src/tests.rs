//! Rules of the files in `ui/`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::*;

/// Maximum bytes of all files as they are, without compression.
const BYTES_MAX: usize = 300 << 10;

/// Texts that turn data into markup or code, or that the policy of the page forbids. Code of other projects
/// has some of them in branches that the page does not use; the policy holds for it all the same.
const FORBIDDEN: [&str; 9] = [
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "dangerouslySetInnerHTML",
    "document.write",
    "eval(",
    "new Function",
    "javascript:",
    "http://",
];

fn ui() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui")
}

/// Paths of all files below a directory.
fn paths_below(directory: &Path, root: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            paths_below(&path, root, found);
        } else {
            let path = path.strip_prefix(root).expect("below it").to_str().expect("UTF-8");
            found.insert(path.to_owned());
        }
    }
}

fn text(path: &str) -> &'static str {
    let (_, content) = FILES.iter().find(|(known, _)| *known == path).expect("in the table");
    std::str::from_utf8(content).expect("UTF-8")
}

fn own_files() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, _)| *path).filter(|path| !path.starts_with("vendor/"))
}

#[test]
fn every_file_in_the_directory_is_served_and_no_other() {
    let mut found = BTreeSet::new();
    paths_below(&ui(), &ui(), &mut found);
    found.retain(|path| !path.ends_with("README.md"));
    let served: BTreeSet<String> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(served, found);
    assert!(FILES.is_sorted_by_key(|(path, _)| path));
}

#[test]
fn all_files_together_are_under_the_limit() {
    let bytes: usize = FILES.iter().map(|(_, content)| content.len()).sum();
    assert!(bytes < BYTES_MAX, "{bytes} bytes");
}

#[test]
fn imported_module_exists_and_lies_in_the_page() {
    let mut n_imports = 0;
    for path in FILES.iter().map(|(path, _)| *path).filter(|path| path.ends_with(".js")) {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        for part in text(path).split(" from \"").skip(1).chain(text(path).split("from\"").skip(1)) {
            let imported = part.split('"').next().expect("a part");
            let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
            for step in imported.split('/') {
                match step {
                    "." => {}
                    ".." => drop(parts.pop().expect("not above the page")),
                    name => parts.push(name),
                }
            }
            let target = parts.join("/");
            assert!(FILES.iter().any(|(known, _)| *known == target), "{path} imports {imported}");
            n_imports += 1;
        }
    }
    assert!(n_imports > 50, "{n_imports}");
}

#[test]
fn own_files_have_nothing_that_turns_data_into_markup_or_leads_to_another_site() {
    for path in own_files().filter(|path| !path.ends_with(".svg")) {
        for forbidden in FORBIDDEN {
            assert!(!text(path).contains(forbidden), "{path} has {forbidden}");
        }
        assert!(!text(path).contains("https://"), "{path} names another site");
    }
}

#[test]
fn index_has_no_script_and_no_style_of_its_own() {
    let index = text(INDEX);
    assert!(!index.contains("style=") && !index.contains("<style"), "{index}");
    assert!(index.contains("<script type=\"module\" src=\"{{version}}/app.js\"></script>"), "{index}");
    assert_eq!(index.matches("<script").count(), 1);
}

#[test]
fn index_names_the_version_and_every_module() {
    let page = WebPage::get();
    let index = std::str::from_utf8(&page.index.content).expect("UTF-8");
    assert!(!index.contains("{{"), "{index}");
    for path in FILES.iter().map(|(path, _)| path).filter(|path| path.ends_with(".js")) {
        assert!(index.contains(&format!("href=\"{}/{path}\"", page.version)), "{path}");
    }
    let named = index.split("=\"").skip(1).filter_map(|part| part.split('"').next());
    for path in named.filter_map(|target| target.strip_prefix(&format!("{}/", page.version))) {
        assert!(page.file(path).is_some(), "{path}");
    }
    assert!(page.file(INDEX).is_none(), "it has no version itself");
}

#[test]
fn version_changes_with_the_content_and_with_the_name_of_a_file() {
    let one = version(&[("a.js", b"1"), ("b.js", b"2")]);
    assert_eq!(one.len(), VERSION_CHARS);
    assert_eq!(one, version(&[("a.js", b"1"), ("b.js", b"2")]));
    for other in [&[("a.js", &b"1"[..]), ("b.js", b"3")], &[("a.js", b"1"), ("c.js", b"2")]] {
        assert_ne!(one, version(other));
    }
    assert_ne!(version(&[("a", b"bc")]), version(&[("ab", b"c")]));
}

#[test]
fn compressed_form_has_the_same_content() {
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    let app = WebPage::get().file("app.js").expect("there");
    decoder.write_all(&app.compressed).expect("valid");
    assert_eq!(decoder.finish().expect("valid"), app.content);
    assert!(app.compressed.len() < app.content.len() / 2);
}

#[test]
fn version_of_each_vendored_package_is_documented() {
    let readme = fs::read_to_string(ui().join("vendor/README.md")).expect("a file");
    for path in FILES.iter().filter_map(|(path, _)| path.strip_prefix("vendor/")) {
        assert!(readme.contains(&format!("`{path}`")), "{path}");
    }
}

/// Lines of the file beside the pictures: name of a picture, digest of its views, and their names.
fn pictures(text: &str) -> Vec<(String, String, Vec<String>)> {
    let line = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        (words.next().expect("a picture"), words.next().expect("a digest"), words.collect())
    };
    text.lines().map(line).collect()
}

/// Views without a picture, and pictures that are older than a view of theirs.
fn outdated(pictures: &[(String, String, Vec<String>)], files: &[(&str, &[u8])]) -> Vec<String> {
    let file = |view: &String| {
        let path = format!("views/{view}.js");
        files.iter().find(|(known, _)| *known == path).copied()
    };
    let mut found = Vec::new();
    for (name, digest, views) in pictures {
        let sources: Vec<_> = views.iter().filter_map(file).collect();
        if sources.len() < views.len() || version(&sources) != *digest {
            found.push(format!("{name} is older than {}", views.join(", ")));
        }
    }
    let views = files.iter().filter_map(|(path, _)| path.strip_prefix("views/")?.strip_suffix(".js"));
    let is_shown = |view: &str| pictures.iter().any(|(_, _, views)| views.iter().any(|one| one == view));
    found.extend(views.filter(|view| !is_shown(view)).map(|view| format!("{view} has no picture")));
    found
}

#[test]
fn each_view_has_a_picture_that_is_not_older_than_the_view() {
    let directory = ui().join("../docs/pictures");
    let pictures = pictures(&fs::read_to_string(directory.join("sources.txt")).expect("a file"));
    let found = outdated(&pictures, FILES);
    assert!(found.is_empty(), "run scripts/screenshots, look at the pictures and commit them: {found:?}");
    let mut taken = BTreeSet::new();
    paths_below(&directory, &directory, &mut taken);
    taken.retain(|path| path.ends_with(".png"));
    assert_eq!(taken, pictures.into_iter().map(|(name, ..)| name).collect());
}

#[test]
fn picture_of_a_view_that_was_changed_and_a_view_without_one_are_found() {
    let before: &[(&str, &[u8])] = &[("app.js", b"0"), ("views/a.js", b"1"), ("views/b.js", b"2")];
    let digest = version(&before[1..]);
    let both = pictures(&format!("both.png {digest} a b\n"));
    assert_eq!(outdated(&both, before), Vec::<String>::new());
    let after: &[(&str, &[u8])] = &[("views/a.js", b"1"), ("views/b.js", b"3"), ("views/c.js", b"4")];
    assert_eq!(outdated(&both, after), ["both.png is older than a, b", "c has no picture"]);
    assert_eq!(outdated(&both, &after[..1]), ["both.png is older than a, b"], "a view that was removed");
}
