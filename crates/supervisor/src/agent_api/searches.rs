//! Limits on searches: one at a time for a client, some in all.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::Notify;

/// Maximum number of searches at the same time: they compete with workers for the disk.
const SEARCHES_MAX: usize = 4;

/// Longest wait for other searches.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5);

/// Maximum characters of a forwarded address.
const FORWARDED_CHARS_MAX: usize = 64;

/// Client of a search: the address of the peer and, if the peer is a nimbus that names one, of its own
/// client. A peer can name any; [`SEARCHES_MAX`] holds whatever it names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SearchClient {
    peer: Option<IpAddr>,
    forwarded_for: String,
}

impl SearchClient {
    pub(super) fn new(peer: Option<IpAddr>, forwarded_for: Option<&str>) -> Self {
        let forwarded_for = forwarded_for.unwrap_or_default().chars().take(FORWARDED_CHARS_MAX).collect();
        Self { peer, forwarded_for }
    }
}

/// The searches that run. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Searches {
    // Guards the clients of running searches; held for a few instructions.
    running: Arc<Mutex<BTreeSet<SearchClient>>>,
    ended: Arc<Notify>,
}

/// A running search, which ends when it is dropped.
#[derive(Debug)]
pub(super) struct Search {
    searches: Searches,
    client: SearchClient,
}

impl Searches {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<SearchClient>> {
        self.running.lock().expect("no one panics while holding the set")
    }

    /// Begins a search when there is room for it; `None` if there is none in time.
    pub(super) async fn begin(&self, client: SearchClient) -> Option<Search> {
        let begin = async {
            loop {
                let ended = self.ended.notified();
                let mut ended = std::pin::pin!(ended);
                // An end after the next look must not be missed.
                ended.as_mut().enable();
                if let Some(search) = self.try_begin(&client) {
                    return search;
                }
                ended.await;
            }
        };
        tokio::time::timeout(WAIT_MAX, begin).await.ok()
    }

    fn try_begin(&self, client: &SearchClient) -> Option<Search> {
        let mut running = self.lock();
        if running.len() >= SEARCHES_MAX || !running.insert(client.clone()) {
            return None;
        }
        Some(Search { searches: self.clone(), client: client.clone() })
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.searches.lock().remove(&self.client);
        self.searches.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u8) -> SearchClient {
        SearchClient::new(Some([10, 0, 0, n].into()), None)
    }

    #[tokio::test(start_paused = true)]
    async fn second_search_of_a_client_waits_for_the_first_and_is_refused_after_the_longest_wait() {
        let searches = Searches::default();
        let first = searches.begin(client(1)).await.expect("room");
        assert!(searches.begin(client(1)).await.is_none(), "the client has a search");
        assert!(searches.begin(client(2)).await.is_some(), "another client has none");
        let mut second = std::pin::pin!(searches.begin(client(1)));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(first);
        assert!(second.await.is_some(), "the first has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn searches_of_all_clients_are_limited_whatever_they_name() {
        let searches = Searches::default();
        let named = |n: usize| SearchClient::new(Some([10, 0, 0, 1].into()), Some(&n.to_string()));
        let mut running = Vec::new();
        for n in 0..SEARCHES_MAX {
            running.push(searches.begin(named(n)).await.expect("room"));
        }
        assert!(searches.begin(named(99)).await.is_none());
        running.pop();
        assert!(searches.begin(named(99)).await.is_some());
    }
}
