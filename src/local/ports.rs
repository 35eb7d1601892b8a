//! Free ports for the workers of a local cluster.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
};

use stormkeeper_model::Port;

/// Below the range of Linux for the ports of outgoing connections (32768 and up), so that a free
/// port does not become a local port of another connection before its worker listens.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Maximum number of ports that are tried.
const MAX_TRIES: usize = 2_000;

/// Returns `n` ports of the loopback that are free now.
pub(super) fn free(n: usize) -> io::Result<Vec<Port>> {
    let mut ports = Vec::with_capacity(n);
    let start = fastrand::u16(RANGE);
    let candidates = (start..RANGE.end).chain(RANGE.start..start);
    for port in candidates.take(MAX_TRIES) {
        if ports.len() == n {
            break;
        }
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            ports.push(Port(port));
        }
    }
    match ports.len() == n {
        true => Ok(ports),
        false => Err(io::Error::new(io::ErrorKind::AddrInUse, "too many ports are in use")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_different_and_free() {
        let ports = free(8).expect("there are free ports");
        assert_eq!(ports.iter().collect::<std::collections::BTreeSet<_>>().len(), 8);
        let _held = TcpListener::bind((Ipv4Addr::UNSPECIFIED, ports[0].0)).expect("free");
    }
}
