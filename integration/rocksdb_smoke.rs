//! That RocksDB links and works here: it is what the metrics archive is for.

use rocksdb::{DB, Direction, IteratorMode, Options};

fn open(folder: &std::path::Path) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    DB::open(&options, folder).expect("it opens")
}

#[test]
fn keys_survive_a_restart_and_scan_in_byte_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys: [&[u8]; 6] = [b"a", b"m/\xff", b"m/\x00\x01", b"m/\x00", b"m0", b"m/\x7f"];
    {
        let db = open(folder.path());
        for key in keys {
            db.put(key, [key, b"=value"].concat()).expect("put");
        }
        db.delete(b"a").expect("deleted");
    }
    let db = open(folder.path());
    assert_eq!(db.get(b"a").expect("read"), None);
    assert_eq!(db.get(b"m0").expect("read").as_deref(), Some(&b"m0=value"[..]));
    let prefix = b"m/";
    let scanned: Vec<Vec<u8>> = db
        .iterator(IteratorMode::From(prefix, Direction::Forward))
        .map(|entry| entry.expect("read").0.to_vec())
        .take_while(|key| key.starts_with(prefix))
        .collect();
    assert_eq!(scanned, [&b"m/\x00"[..], b"m/\x00\x01", b"m/\x7f", b"m/\xff"]);
}
