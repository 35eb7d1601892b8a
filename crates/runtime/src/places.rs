//! Places for connections, in all and per address, shared fairly.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard},
};

/// Places for connections. Clones share them.
#[derive(Debug, Clone)]
pub struct Places {
    all: usize,
    per_address: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    per_address: HashMap<IpAddr, usize>,
}

/// Place of a connection, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    address: IpAddr,
}

impl Places {
    /// Returns `all` free places, of which one address may have at most `per_address`.
    pub fn new(all: usize, per_address: usize) -> Self {
        Self { all, per_address, taken: Arc::default() }
    }

    /// Takes a place; `None` if there is none. An address has at most as many places as are free, so that a
    /// few addresses do not take all: with each further one that takes what it can, half of the rest is
    /// left. All addresses of a network of IPv6 are one, as a host has at least 2^64 of them.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = shared(address);
        let mut taken = lock(&self.taken);
        let n = taken.per_address.get(&address).copied().unwrap_or_default();
        let n_free = self.all.saturating_sub(taken.all);
        if n >= n_free || n >= self.per_address {
            return None;
        }
        taken.all += 1;
        taken.per_address.insert(address, n + 1);
        Some(Place { taken: Arc::clone(&self.taken), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        if let Some(n) = taken.per_address.get_mut(&self.address) {
            *n -= 1;
            if *n == 0 {
                taken.per_address.remove(&self.address);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().expect("no one panics while holding the counts")
}

/// Returns the address under which a connection is counted.
fn shared(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_in_all_and_per_address_and_shared_fairly() {
        let places = Places::new(8, 3);
        let take_all = |address: &str| {
            let enter = || places.enter(address.parse().expect("an address"));
            let places: Vec<Place> = std::iter::from_fn(enter).collect();
            places
        };
        let first = take_all("10.0.0.1");
        assert_eq!((first.len(), take_all("::ffff:10.0.0.1").len()), (3, 0), "the limit of an address");
        let second = take_all("2001:db8::1");
        assert_eq!((second.len(), take_all("2001:db8::2").len()), (3, 0), "one network is one address");
        let third = take_all("10.0.0.3");
        assert_eq!(third.len(), 1, "half of the rest");
        let last = take_all("10.0.0.4");
        assert_eq!((last.len(), take_all("10.0.0.5").len()), (1, 0), "the last place");
        drop(first);
        assert_eq!(take_all("10.0.0.5").len(), 2);
        drop((second, third, last));
        let taken = lock(&places.taken);
        assert_eq!((taken.all, taken.per_address.len()), (0, 0));
    }
}
