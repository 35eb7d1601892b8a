//! Commands of one user see what the commands before them wrote.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Command, Output},
    thread,
};

/// Answers one request with `body` and `headers`; returns the head of the request.
fn answer(listener: &TcpListener, headers: &str, body: &str) -> String {
    let (stream, _) = listener.accept().expect("a connection");
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).expect("a line") > 2 {}
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut request = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    reader.read_exact(&mut request).expect("the body");
    let mut stream: TcpStream = reader.into_inner();
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n\r\n{body}"
    )
    .expect("sent");
    head
}

#[test]
fn a_command_sends_the_last_write_of_the_command_before_it() {
    let dir = tempfile::tempdir().expect("made");
    let command = |args: &[&str], nimbus: &TcpListener| -> Output {
        let address = nimbus.local_addr().expect("bound").to_string();
        Command::new(env!("CARGO_BIN_EXE_stormkeeper"))
            .args(["--nimbus", &address])
            .args(args)
            .env_remove("STORMKEEPER_CONF")
            .env("XDG_STATE_HOME", dir.path())
            .output()
            .expect("the binary runs")
    };
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("free");
    let (leader, follower) = (bind(), bind());

    let written = thread::scope(|scope| {
        let served = scope.spawn(|| {
            let summary = answer(&leader, "x-stormkeeper-zxid: tree-a:41", r#"{"leader":null}"#);
            assert!(summary.starts_with("GET /api/stormkeeper/v1/cluster/summary"), "{summary}");
            answer(&leader, "x-stormkeeper-zxid: tree-a:42", r#"{"id":"wc-1-2","status":"inactive"}"#)
        });
        command(&["deactivate", "wc"], &leader);
        served.join().expect("served")
    });
    assert!(written.starts_with("POST /api/stormkeeper/v1/topology/wc/deactivate"), "{written}");

    let (read, output) = thread::scope(|scope| {
        let headers = "x-stormkeeper-zxid: tree-a:40\r\nx-stormkeeper-behind-ms: 2500";
        let served = scope.spawn(|| answer(&follower, headers, r#"{"topologies":[]}"#));
        let output = command(&["list"], &follower);
        (served.join().expect("served"), output)
    });
    assert!(read.contains("x-stormkeeper-zxid: tree-a:42\r\n"), "{read}");
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(warnings.contains("this is the state of 2.5 s ago"), "{warnings}");
}
