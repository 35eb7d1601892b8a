//! Addresses on which a process listens for other hosts.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rustix::net::sockopt;
use tokio::net::TcpSocket;

/// Addresses of this host on which to listen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListenOn {
    /// All addresses: of IPv6 and IPv4, or of IPv4 only where the host has no IPv6.
    #[default]
    All,
    /// This address.
    Address(IpAddr),
    /// This address or, if the host does not have it, as behind a translation of addresses, all.
    Preferred(IpAddr),
}

impl ListenOn {
    /// Binds a socket that may use an address again whose connections have just ended. `prepare`
    /// sets further options before the socket is bound.
    ///
    /// # Errors
    /// I/O error, for example if the port is in use.
    pub fn bind(self, port: u16, prepare: impl Fn(&TcpSocket) -> io::Result<()>) -> io::Result<TcpSocket> {
        match self {
            Self::Address(address) => bind_to((address, port).into(), &prepare),
            Self::Preferred(address) => match bind_to((address, port).into(), &prepare) {
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => bind_to_all(port, &prepare),
                bound => bound,
            },
            Self::All => bind_to_all(port, &prepare),
        }
    }
}

fn bind_to_all(port: u16, prepare: &impl Fn(&TcpSocket) -> io::Result<()>) -> io::Result<TcpSocket> {
    match bind_to((Ipv6Addr::UNSPECIFIED, port).into(), prepare) {
        Ok(socket) => Ok(socket),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        // The host has no IPv6.
        Err(_) => bind_to((Ipv4Addr::UNSPECIFIED, port).into(), prepare),
    }
}

fn bind_to(address: SocketAddr, prepare: &impl Fn(&TcpSocket) -> io::Result<()>) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // Also accepts connections of IPv4, whatever the default of the host is.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    prepare(&socket)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Returns the addresses at which processes of this host reach one that listens on `bound`.
pub fn local_addresses(bound: IpAddr) -> Vec<IpAddr> {
    match bound {
        IpAddr::V4(address) if address.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into()],
        IpAddr::V6(address) if address.is_unspecified() => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        IpAddr::V4(_) | IpAddr::V6(_) => vec![bound],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(on: ListenOn, port: u16) -> io::Result<tokio::net::TcpListener> {
        on.bind(port, |_| Ok(()))?.listen(8)
    }

    #[tokio::test]
    async fn listener_is_reached_at_each_of_its_local_addresses() {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        // An address of documentation, which no host has.
        let foreign = IpAddr::from([192, 0, 2, 1]);
        for on in [ListenOn::All, ListenOn::Address(loopback), ListenOn::Preferred(foreign)] {
            let listener = listen(on, 0).expect("bound");
            let bound = listener.local_addr().expect("bound");
            for address in local_addresses(bound.ip()) {
                let connected = tokio::net::TcpStream::connect((address, bound.port())).await;
                assert!(connected.is_ok(), "{on:?} at {address}: {connected:?}");
            }
        }
        let error = listen(ListenOn::Address(foreign), 0).expect_err("not of this host");
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn address_that_is_configured_is_the_only_one() {
        let listener = listen(ListenOn::Address(Ipv4Addr::LOCALHOST.into()), 0).expect("bound");
        assert_eq!(listener.local_addr().expect("bound").ip(), IpAddr::from(Ipv4Addr::LOCALHOST));
        let elsewhere = (Ipv4Addr::new(127, 0, 0, 2), listener.local_addr().expect("bound").port());
        assert!(tokio::net::TcpStream::connect(elsewhere).await.is_err());
    }

    #[tokio::test]
    async fn port_in_use_is_an_error_on_all_addresses() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = taken.local_addr().expect("bound").port();
        for on in [ListenOn::All, ListenOn::Preferred(Ipv4Addr::LOCALHOST.into())] {
            let error = on.bind(port, |_| Ok(())).expect_err("in use");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{on:?}");
        }
    }
}
