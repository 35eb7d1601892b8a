//! Two processes with one nimbus id.

use std::{io, path::Path};

use super::*;

/// Copies the data directory of a running nimbus to another host, where the path of the original means
/// nothing.
fn copy(f: &Fixture, from: &str, to: &str) {
    let to = f.dir.path().join(to);
    copy_dir(&f.dir.path().join(from), &to);
    std::fs::remove_file(to.join("directory")).expect("the file with its path");
    assert!(to.join("nimbus-id").exists(), "the copy has the id");
}

/// Copies a directory whose owner runs. A file that is gone when its turn comes, as the new content of a
/// file before it is renamed into its place, is not copied; `cp` fails then.
fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a new directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        let copied = match entry.file_type().expect("a type").is_dir() {
            true => {
                copy_dir(&entry.path(), &target);
                Ok(())
            }
            false => std::fs::copy(entry.path(), target).map(drop),
        };
        match copied {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => copied.expect("copied"),
        }
    }
}

#[tokio::test]
async fn nimbus_with_a_copied_id_ends_with_the_directory_in_its_error_and_causes_no_election() {
    let f = Fixture::new().await;
    let leader = f.leader().await;
    let term = leader.handle().leader().expect("it leads").term;
    copy(&f, "leader", "copy");
    let twin = f.start("copy").await;
    let error = tokio::time::timeout(LONG, twin.stopped()).await.expect("it ends").expect_err("a twin");
    let text = error.to_string();
    for part in [leader.handle().id().as_str(), leader.handle().api(), "/copy", "nimbus-id"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(leader.handle().takes_writes());
    let path = layout::nimbus(leader.handle().id());
    let node = f.tree.get(&path).await.expect("read").expect("registered");
    let record: record::NimbusRecord = record::decode(&path, &node.data).expect("valid");
    assert_eq!(record.api, leader.handle().api());
    assert_eq!(leader.handle().leader().expect("it leads").term, term);
}

/// The former session of a killed nimbus lives on for a while, and nobody answers at its address.
#[tokio::test]
async fn restarted_nimbus_takes_over_from_its_former_session_at_another_address() {
    let f = Fixture::new().await;
    let stop = CancellationToken::new();
    let options = || nimbus::Options::of_test(f.dir.path().join("a"));
    let first = start(options(), f.server.connect(), Clock::new(), stop.clone()).await.expect("started");
    let first = f.leading(first).await;
    let (id, term) = (first.handle().id().clone(), first.handle().leader().expect("it leads").term);
    let former = f.server.connect() as Arc<dyn Tree>;
    let path = layout::nimbus(&id);
    wait_until("it is registered", LONG, || async {
        f.tree.get(&path).await.expect("read").map(drop).ok_or("not yet".to_owned())
    })
    .await;
    let node = f.tree.get(&path).await.expect("read").expect("registered");
    let record: record::NimbusRecord = record::decode(&path, &node.data).expect("valid");
    stop.cancel();
    first.stopped().await.expect("it was stopped");
    let api = "127.0.0.1:1".to_owned();
    let leader = record::Leader { nimbus: id, api: api.clone(), term, unknown_fields: Default::default() };
    let record = record::NimbusRecord { api, ..record };
    for (path, data) in [(path, record::encode(&record)), (layout::leader(), record::encode(&leader))] {
        former.create(&path, &data, CreateMode::Ephemeral).await.expect("created");
    }
    f.leading(
        start(options(), f.server.connect(), Clock::new(), CancellationToken::new()).await.expect("started"),
    )
    .await;
}
