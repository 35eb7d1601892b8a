//! Check whether a worker could listen on a port of this host.

use std::{fs, io, path::Path};

use stormkeeper_model::Port;
use stormkeeper_runtime::net::ListenOn;

/// Returns why no worker could listen on `port`; `None` if one could, or if that cannot be found out.
pub(super) fn obstacle(listen_on: ListenOn, port: Port) -> Option<String> {
    let error = listen_on.bind(port.0, |_| Ok(())).err()?;
    match error.kind() {
        io::ErrorKind::AddrInUse => Some(match owner(port) {
            Some(owner) => format!("port {port} is already in use by another program: {owner}"),
            None => format!("port {port} is already in use by another program"),
        }),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::PermissionDenied => {
            Some(format!("port {port} cannot be opened: {error}"))
        }
        // This process may have no free descriptor: that says nothing about the port.
        _ => None,
    }
}

/// Returns the process that listens on `port`, if this user may see that.
fn owner(port: Port) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            let inodes = table.lines().filter_map(|line| listener_inode(line, port));
            inodes.map(|inode| format!("socket:[{inode}]")).collect::<Vec<_>>()
        })
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let holds = |dir: &Path| {
        let descriptors = fs::read_dir(dir.join("fd")).ok()?;
        let mut links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str())).then_some(())
    };
    for process in fs::read_dir("/proc").ok()?.filter_map(Result::ok) {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if holds(&process.path()).is_some() {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", command.trim()));
        }
    }
    None
}

/// Returns the inode of the socket in a line of `/proc/net/tcp` if it listens on `port`.
fn listener_inode(line: &str, port: Port) -> Option<&str> {
    const LISTEN: &str = "0A";
    let mut words = line.split_ascii_whitespace();
    let (_, local) = words.nth(1)?.rsplit_once(':')?;
    let (state, inode) = (words.nth(1)?, words.nth(5)?);
    (state == LISTEN && u16::from_str_radix(local, 16).ok()? == port.0).then_some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn obstacle_of_a_taken_port_names_the_program_that_has_it() {
        let taken = std::net::TcpListener::bind("0.0.0.0:0").expect("bound");
        let port = Port(taken.local_addr().expect("bound").port());
        let found = obstacle(ListenOn::All, port).expect("an obstacle");
        let me = format!("(pid {})", std::process::id());
        assert!(found.contains("already in use by another program") && found.contains(&me), "{found}");
        drop(taken);
        assert_eq!(obstacle(ListenOn::All, port), None);
    }

    #[test]
    fn only_listening_sockets_of_the_port_are_found() {
        let line = |port: &str, state: &str| {
            format!(
                "   0: 00000000:{port} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0"
            )
        };
        assert_eq!(listener_inode(&line("1A2C", "0A"), Port(6700)), Some("4711"));
        assert_eq!(listener_inode(&line("1A2C", "01"), Port(6700)), None);
        assert_eq!(listener_inode(&line("1A2D", "0A"), Port(6700)), None);
        assert_eq!(listener_inode("  sl  local_address rem_address   st", Port(6700)), None);
    }
}
