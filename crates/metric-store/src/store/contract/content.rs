//! Cases about content: values, merges, batches, ranges, cursors, compaction.

use super::*;

contract!(
    last_value_of_a_key_is_read,
    merged_values_add_up_in_the_order_of_their_writes,
    operations_of_a_batch_take_effect_in_their_order,
    deleted_range_includes_its_begin_and_excludes_its_end,
    scan_reads_its_range_in_both_directions,
    scan_stops_when_told_and_passes_errors_on,
    scan_and_cursor_read_what_was_there_when_they_began,
    cursor_reads_from_any_key,
    tables_are_separate,
    compaction_removes_expired_points_only,
);

fn get(store: &Store, table: Table, key: &[u8]) -> Option<Vec<u8>> {
    store.with(|view| view.get(table, key)).expect("read")
}

fn last_value_of_a_key_is_read(site: &Site) {
    let store = open(site, site.path());
    put(&store, &[("a", "1"), ("b", ""), ("c", "3")]);
    put(&store, &[("a", "2")]);
    write(&store, |batch| {
        batch.delete(TABLE, b"c");
        batch.delete(TABLE, b"missing");
    })
    .expect("written");
    let values: Vec<_> = ["a", "b", "c"].iter().map(|key| get(&store, TABLE, key.as_bytes())).collect();
    assert_eq!(values, [Some(b"2".to_vec()), Some(Vec::new()), None]);
    let keys = ["", "a", "aa", "b", "c"];
    let values = store.with(|view| view.get_all(TABLE, &keys)).expect("read");
    assert_eq!(values, [None, Some(b"2".to_vec()), None, Some(Vec::new()), None]);
    assert!(store.with(|view| Ok(view.bytes())).expect("read") > 0);
}

fn bytes(point: &Point) -> Vec<u8> {
    let mut bytes = Vec::new();
    point_merge::encode(point, &mut bytes);
    bytes
}

fn counter(count: u64) -> Vec<u8> {
    bytes(&Point::Counter(Counter { count }))
}

fn merged_values_add_up_in_the_order_of_their_writes(site: &Site) {
    let store = open(site, site.path());
    let merge = |table, key: &[u8], value: &[u8]| {
        write(&store, |batch| batch.merge(table, key, value)).expect("written");
    };
    let points = Table::Points;
    merge(points, b"new", &counter(1));
    merge(points, b"new", &counter(2));
    assert_eq!(get(&store, points, b"new"), Some(counter(3)));
    write(&store, |batch| batch.put(points, b"new", &counter(10))).expect("written");
    merge(points, b"new", &counter(2));
    assert_eq!(get(&store, points, b"new"), Some(counter(12)));
    write(&store, |batch| batch.delete(points, b"new")).expect("written");
    merge(points, b"new", &counter(5));
    assert_eq!(get(&store, points, b"new"), Some(counter(5)), "a deleted value is not merged");
    // The first point determines the kind.
    let gauge = bytes(&Point::Gauge(Gauge { at: Minute(1), sum: 1.0, n: 1, min: 1.0, max: 1.0 }));
    for (key, first, second) in [(b"a", counter(1), gauge.clone()), (b"b", gauge, counter(1))] {
        merge(points, key, &first);
        merge(points, key, &second);
        assert_eq!(get(&store, points, key), Some(first));
    }
    // The last minute wins, whenever it is written; its points add up.
    for (minute, count) in [(5, 1), (7, 2), (6, 4), (7, 8)] {
        merge(Table::Latest, b"m", &point_merge::encode_latest(Minute(minute), &counter(count)));
    }
    assert_eq!(get(&store, Table::Latest, b"m"), Some(point_merge::encode_latest(Minute(7), &counter(10))));
}

fn operations_of_a_batch_take_effect_in_their_order(site: &Site) {
    let store = open(site, site.path());
    put(&store, &[("a", "0"), ("b", "0"), ("c", "0")]);
    write(&store, |batch| {
        batch.put(TABLE, b"a", b"1");
        batch.delete_range(TABLE, &range("a", "c"));
        batch.put(TABLE, b"b", b"2");
        batch.put(TABLE, b"c", b"2");
        batch.delete(TABLE, b"c");
        batch.put(TABLE, b"d", b"1");
        batch.put(TABLE, b"d", b"2");
        batch.put(Table::Points, b"p", &counter(1));
        batch.merge(Table::Points, b"p", &counter(2));
        batch.delete(Table::Points, b"q");
        batch.merge(Table::Points, b"q", &counter(4));
    })
    .expect("written");
    assert_eq!(all(&store), ["b2", "d2"]);
    assert_eq!(get(&store, Table::Points, b"p"), Some(counter(3)));
    assert_eq!(get(&store, Table::Points, b"q"), Some(counter(4)));
    // A batch that is not written has no effect.
    store
        .with(|view| {
            let mut batch = view.batch();
            batch.put(TABLE, b"x", b"x");
            drop(batch);
            Ok(())
        })
        .expect("nothing to do");
    assert_eq!(all(&store), ["b2", "d2"]);
}

fn deleted_range_includes_its_begin_and_excludes_its_end(site: &Site) {
    let store = open(site, site.path());
    put(&store, &[("a", "1"), ("b", "1"), ("bb", "1"), ("c", "1"), ("d", "1")]);
    write(&store, |batch| batch.put(Table::State, b"b", b"1")).expect("written");
    write(&store, |batch| batch.delete_range(TABLE, &range("b", "c"))).expect("written");
    assert_eq!(all(&store), ["a1", "c1", "d1"]);
    write(&store, |batch| batch.delete_range(TABLE, &range("b", "b"))).expect("written");
    assert_eq!(all(&store), ["a1", "c1", "d1"]);
    assert_eq!(get(&store, Table::State, b"b"), Some(b"1".to_vec()));
}

fn scan_reads_its_range_in_both_directions(site: &Site) {
    let store = open(site, site.path());
    put(&store, &[("b", "1"), ("d", "2"), ("db", "3"), ("f", "4")]);
    for (from, to, expected) in [
        ("", "~", &["b1", "d2", "db3", "f4"][..]),
        ("b", "f", &["b1", "d2", "db3"]),
        ("c", "e", &["d2", "db3"]),
        ("d", "db", &["d2"]),
        ("da", "fa", &["db3", "f4"]),
        ("d", "d", &[]),
        ("g", "z", &[]),
        ("", "a", &[]),
    ] {
        let mut expected = expected.to_vec();
        assert_eq!(scan(&store, &range(from, to)), expected, "{from:?}..{to:?}");
        expected.reverse();
        assert_eq!(scan_back(&store, &range(from, to)), expected, "{to:?} back to {from:?}");
    }
}

fn scan_stops_when_told_and_passes_errors_on(site: &Site) {
    let store = open(site, site.path());
    put(&store, &[("a", "1"), ("b", "2"), ("c", "3")]);
    store
        .with(|view| {
            let (all, mut seen) = (range("", "~"), String::new());
            view.scan(TABLE, &all, |key, value| {
                seen += &item(key, value);
                Ok(if key == b"b" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            view.scan_back(TABLE, &all, |key, value| {
                seen += &item(key, value);
                Ok(if key == b"b" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            assert_eq!(seen, "a1b2c3b2");
            let failed = view.scan(TABLE, &all, |_, _| Err(Error::Busy));
            assert!(matches!(failed, Err(Error::Busy)));
            let failed = view.scan_back(TABLE, &all, |_, _| Err(Error::Busy));
            assert!(matches!(failed, Err(Error::Busy)));
            Ok(())
        })
        .expect("read");
}

fn scan_and_cursor_read_what_was_there_when_they_began(site: &Site) {
    let store = open(site, site.path());
    put(&store, &[("a", "1"), ("b", "1")]);
    let mut seen = Vec::new();
    store
        .with(|view| {
            let mut cursor = view.cursor(TABLE);
            view.scan(TABLE, &range("", "~"), |key, value| {
                seen.push(item(key, value));
                let mut batch = view.batch();
                batch.put(TABLE, b"b", b"2");
                batch.put(TABLE, b"c", b"2");
                view.write(batch)?;
                Ok(ControlFlow::Continue(()))
            })?;
            cursor.from(b"b", |key, value| {
                seen.push(item(key, value));
                ControlFlow::Continue(())
            })
        })
        .expect("read");
    assert_eq!(seen, ["a1", "b1", "b1"]);
    assert_eq!(all(&store), ["a1", "b2", "c2"]);
}

fn cursor_reads_from_any_key(site: &Site) {
    let store = open(site, site.path());
    put(&store, &[("a", "1"), ("c", "2"), ("e", "3")]);
    store
        .with(|view| {
            let mut cursor = view.cursor(TABLE);
            for (from, expected) in [
                ("b", &["c2", "e3"][..]),
                ("e", &["e3"]),
                ("f", &[]),
                // Back again, after the end was reached.
                ("", &["a1", "c2", "e3"]),
                ("c", &["c2", "e3"]),
            ] {
                let mut seen = Vec::new();
                cursor.from(from.as_bytes(), |key, value| {
                    seen.push(item(key, value));
                    ControlFlow::Continue(())
                })?;
                assert_eq!(seen, expected, "from {from:?}");
            }
            let mut n_seen = 0;
            cursor.from(b"a", |_, _| {
                n_seen += 1;
                ControlFlow::Break(())
            })?;
            assert_eq!(n_seen, 1);
            Ok(())
        })
        .expect("read");
}

fn tables_are_separate(site: &Site) {
    let store = open(site, site.path());
    for table in Table::ALL {
        write(&store, |batch| batch.put(table, b"~key", table.name().as_bytes())).expect("written");
    }
    for table in Table::ALL {
        assert_eq!(get(&store, table, b"~key"), Some(table.name().as_bytes().to_vec()));
    }
    write(&store, |batch| batch.delete(TABLE, b"~key")).expect("written");
    assert_eq!(all(&store), Vec::<String>::new());
    assert!(get(&store, Table::Points, b"~key").is_some());
}

fn compact(store: &Store, table: Table) {
    let compacted = store.with(|view| {
        view.compact(table);
        Ok(())
    });
    compacted.expect("done");
}

fn compaction_removes_expired_points_only(site: &Site) {
    let dir = site.dir("metrics");
    let store = open(site, &dir);
    let kept = site.options().retention.minutes(Window::M1);
    let [old, young] = [Minute(1000), Minute(1001)];
    let key = |window, minute| key::point(MetricId(1), window, minute);
    write(&store, |batch| {
        for (window, minute) in [(Window::M1, old), (Window::M1, young), (Window::D1, Minute(0))] {
            batch.put(Table::Points, &key(window, minute), &counter(1));
            batch.put(Table::Latest, &key(window, minute), &point_merge::encode_latest(minute, &counter(1)));
        }
        batch.put(Table::Points, b"of another version", b"x");
    })
    .expect("written");
    sync(&store);
    store.set_now(Minute(old.0 + 1 + kept + 1));
    compact(&store, Table::Points);
    assert_eq!(get(&store, Table::Points, &key(Window::M1, old)), None);
    assert_eq!(get(&store, Table::Points, &key(Window::M1, young)), Some(counter(1)));
    assert_eq!(get(&store, Table::Points, &key(Window::D1, Minute(0))), Some(counter(1)));
    assert!(get(&store, Table::Points, b"of another version").is_some());
    compact(&store, Table::Latest);
    assert!(get(&store, Table::Latest, &key(Window::M1, old)).is_some());
    site.crash(&dir, store);
    let store = open(site, &dir);
    assert_eq!(get(&store, Table::Points, &key(Window::M1, old)), None, "a removal is permanent");
}
