//! Replacement of the database, with removal and with quarantine, whenever the process dies.

use super::*;

contract!(
    replaced_database_is_removed,
    replaced_database_is_quarantined,
    quarantine_has_a_limit,
    bad_copy_changes_nothing,
    swap_that_is_interrupted_between_two_renames_is_finished,
    crash_after_a_swap_does_not_undo_it,
);

const AT: LogPosition = LogPosition { term: 3, index: 12 };

/// Makes a checkpoint with one value in `dir`.
fn make_copy(site: &Site, dir: &Path, value: &str) {
    let source = site.dir("source");
    let store = open(site, &source);
    put(&store, &[("a", value)]);
    store.checkpoint(dir).expect("copied");
    drop(store);
    site.medium.remove_dir(&source).expect("removed");
}

fn names(site: &Site, dir: &Path) -> Vec<String> {
    let mut names = site.medium.names(dir).expect("listed");
    // Only a directory on disk has a file with its layout.
    names.retain(|name| name != "layout");
    names
}

fn replaced_database_is_removed(site: &Site) {
    let [dir, copy] = ["metrics", "copy"].map(|name| site.dir(name));
    let store = open(site, &dir);
    put(&store, &[("a", "old"), ("b", "old")]);
    make_copy(site, &copy, "new");
    site.leave(&dir.join("before"));
    site.leave(&dir.join("next"));
    store.replace_with(&copy, OldDatabase::Remove).expect("replaced");
    assert_eq!(all(&store), ["anew"]);
    assert!(!site.exists(&copy), "the copy is moved");
    assert_eq!(names(site, &dir), ["db"]);
    put(&store, &[("b", "new")]);
    drop(store);
    assert_eq!(all(&open(site, &dir)), ["anew", "bnew"]);
}

fn replaced_database_is_quarantined(site: &Site) {
    let [dir, copy] = ["metrics", "copy"].map(|name| site.dir(name));
    let store = open(site, &dir);
    put(&store, &[("a", "old")]);
    make_copy(site, &copy, "new");
    store.replace_with(&copy, OldDatabase::Quarantine(AT)).expect("replaced");
    assert_eq!(all(&store), ["anew"]);
    assert_eq!(store.quarantined().expect("listed"), [dir.join("quarantine-3-12")]);
    assert_eq!(names(site, &dir), ["db", "quarantine-3-12"]);
    drop(store);
    // The quarantined database is complete.
    site.medium.remove_dir(&dir.join("db")).expect("removed");
    site.rename(&dir.join("quarantine-3-12"), &dir.join("db"));
    assert_eq!(all(&open(site, &dir)), ["aold"]);
}

fn quarantine_has_a_limit(site: &Site) {
    let [dir, copy] = ["metrics", "copy"].map(|name| site.dir(name));
    let store = open(site, &dir);
    let position = |index| OldDatabase::Quarantine(LogPosition { term: 3, index });
    let is_full = |replaced: Result<(), Error>| match replaced {
        Err(Error::QuarantineFull { quarantined }) => quarantined.len(),
        other => panic!("{other:?}"),
    };
    make_copy(site, &copy, "1");
    store.replace_with(&copy, position(1)).expect("replaced");
    make_copy(site, &copy, "2");
    assert_eq!(is_full(store.replace_with(&copy, position(1))), 1, "there is one of that name");
    store.replace_with(&copy, position(2)).expect("replaced");
    make_copy(site, &copy, "3");
    assert_eq!(is_full(store.replace_with(&copy, position(3))), 2);
    assert_eq!(all(&store), ["a2"]);
    assert!(site.exists(&copy), "the copy is unchanged");
    store.replace_with(&copy, OldDatabase::Remove).expect("replaced");
    assert_eq!(all(&store), ["a3"]);
    assert_eq!(names(site, &dir), ["db", "quarantine-3-1", "quarantine-3-2"]);
}

fn bad_copy_changes_nothing(site: &Site) {
    let [dir, copy, newer] = ["metrics", "copy", "newer"].map(|name| site.dir(name));
    let store = open(site, &dir);
    put(&store, &[("a", "old")]);
    let missing = store.replace_with(&copy, OldDatabase::Remove);
    assert!(matches!(missing, Err(Error::Invalid(_))), "{missing:?}");
    let source = open(site, &newer);
    let key = key::setting(Setting::Format);
    write(&source, |batch| batch.put(Table::State, &key, &record::encode(&99_u32))).expect("written");
    source.checkpoint(&copy).expect("copied");
    for old in [OldDatabase::Remove, OldDatabase::Quarantine(AT)] {
        let rejected = store.replace_with(&copy, old);
        assert!(matches!(rejected, Err(Error::Version { found: 99, .. })), "{rejected:?}");
    }
    assert_eq!(all(&store), ["aold"]);
    assert_eq!(names(site, &dir), ["db"]);
    assert!(site.exists(&copy));
}

fn swap_that_is_interrupted_between_two_renames_is_finished(site: &Site) {
    for (old, next, before) in [
        (OldDatabase::Remove, "next", "before"),
        (OldDatabase::Quarantine(AT), "next-quarantine-3-12", "quarantine-3-12"),
    ] {
        for n_renames in 1..=3 {
            let case = format!("{old:?} after {n_renames} renames");
            let dir = site.dir(&format!("{n_renames}-{before}"));
            let store = open(site, &dir);
            put(&store, &[("a", "old")]);
            drop(store);
            make_copy(site, &dir.join(next), "new");
            if n_renames >= 2 {
                site.rename(&dir.join("db"), &dir.join(before));
            }
            if n_renames >= 3 {
                site.rename(&dir.join(next), &dir.join("db"));
            }
            for _ in 0..2 {
                assert_eq!(all(&open(site, &dir)), ["anew"], "{case}");
            }
            let expected: &[&str] = match old {
                OldDatabase::Remove => &["db"],
                OldDatabase::Quarantine(_) => &["db", "quarantine-3-12"],
            };
            assert_eq!(names(site, &dir), expected, "{case}");
        }
    }
}

fn crash_after_a_swap_does_not_undo_it(site: &Site) {
    for old in [OldDatabase::Remove, OldDatabase::Quarantine(AT)] {
        let home = site.dir(&format!("{old:?}"));
        let [dir, copy] = ["metrics", "copy"].map(|name| home.join(name));
        let store = open(site, &dir);
        put(&store, &[("a", "old")]);
        sync(&store);
        make_copy(site, &copy, "new");
        store.replace_with(&copy, old).expect("replaced");
        put(&store, &[("b", "new")]);
        sync(&store);
        site.crash(&home, store);
        assert_eq!(all(&open(site, &dir)), ["anew", "bnew"], "{old:?}");
    }
}
