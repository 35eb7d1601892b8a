//! The serving end.

use std::{collections::HashMap, io, sync::Arc};

use tokio::{
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::mpsc,
};
use tracing::debug;

use super::messages::{self, Answer, Ask, Request, Told};
use crate::tree::{
    Error, ReadTree as _, Tree as _, Watcher,
    memory::{MemorySession, MemoryTree},
};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Capacity of the queue of messages to one client. Requests are read no faster than they are answered.
const QUEUE: usize = 256;

/// Serves `tree` to every process that connects to `listener`, until it is dropped. The connections are
/// tasks of `tasks`.
pub async fn serve(tree: MemoryTree, listener: UnixListener, tasks: Tasks) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (session, own) = (tree.connect(), tasks.child());
                tasks.start("shared tree", OnExit::Ignore, async move {
                    let Err(end) = converse(session, stream, own).await;
                    debug!(%end, "a process left the tree");
                });
            }
            // No descriptors are left: those that wait are served later.
            Err(error) => {
                debug!(%error, "cannot accept a connection to the tree");
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn converse(
    session: Arc<MemorySession>,
    stream: UnixStream,
    tasks: Tasks,
) -> Result<std::convert::Infallible, io::Error> {
    let (mut requests, responses) = stream.into_split();
    let (told, queue) = mpsc::channel(QUEUE);
    tasks.start("messages", OnExit::StopOwner, send_all(responses, queue));
    let mut state = session.session();
    let states = told.clone();
    tasks.start("session", OnExit::Ignore, async move {
        loop {
            let now = *state.borrow_and_update();
            if states.send(Told::Session(now)).await.is_err() || state.changed().await.is_err() {
                return;
            }
        }
    });
    // Each watch ends when its entry is removed.
    let mut watches = HashMap::new();
    loop {
        let Request { id, ask } = messages::read(&mut requests).await?;
        let answer = match ask {
            Ask::Watch(path, scope) => {
                let watch = tasks.child();
                watch.start("watch", OnExit::Ignore, forward(session.watch(&path, scope), id, told.clone()));
                watches.insert(id, watch);
                Ok(Answer::Done)
            }
            Ask::Unwatch(watch) => {
                watches.remove(&watch);
                Ok(Answer::Done)
            }
            ask => answer(&session, ask).await,
        };
        if told.send(Told::Answer { id, answer }).await.is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
}

async fn answer(session: &MemorySession, ask: Ask) -> Result<Answer, Error> {
    Ok(match ask {
        Ask::Get(path) => Answer::Node(session.get(&path).await?),
        Ask::Children(path) => Answer::Children(session.children(&path).await?),
        Ask::GetMany(paths) => Answer::Nodes(session.get_many(&paths).await?),
        Ask::Create(path, data, mode) => Answer::Path(session.create(&path, &data, mode).await?),
        Ask::Set(path, data, expected) => Answer::Version(session.set(&path, &data, expected).await?),
        Ask::Delete(path, expected) => {
            session.delete(&path, expected).await?;
            Answer::Done
        }
        Ask::Multi(ops) => Answer::Results(session.multi(ops).await?),
        Ask::Close => {
            session.close().await;
            Answer::Done
        }
        // The caller has handled them.
        Ask::Watch(..) | Ask::Unwatch(_) => Answer::Done,
    })
}

async fn forward(mut watcher: Watcher, id: u64, told: mpsc::Sender<Told>) {
    loop {
        let changes = watcher.changed().await;
        if told.send(Told::Changed { id, changes }).await.is_err() {
            return;
        }
    }
}

async fn send_all(mut to: OwnedWriteHalf, mut queue: mpsc::Receiver<Told>) {
    while let Some(told) = queue.recv().await {
        if messages::write(&mut to, &told).await.is_err() {
            return;
        }
    }
}
