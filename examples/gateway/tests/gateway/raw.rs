//! Requests that no client library would send.

use crate::common::{PATIENCE, gateway};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// An upstream that notes every byte that comes, and answers each connection's first request.
async fn noting() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, noted) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let notes = Arc::clone(&noted);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let notes = Arc::clone(&notes);
            tokio::spawn(async move {
                let (mut text, mut buffer) = (String::new(), [0; 4096]);
                let index = {
                    let mut notes = notes.lock().unwrap();
                    notes.push(String::new());
                    notes.len() - 1
                };
                while let Ok(length @ 1..) = socket.read(&mut buffer).await {
                    text.push_str(&String::from_utf8_lossy(&buffer[..length]));
                    notes.lock().unwrap()[index].clone_from(&text);
                    if text.ends_with("\r\n\r\n") || text.ends_with("END") {
                        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        let _ = socket.write_all(answer.as_bytes()).await;
                    }
                }
            });
        }
    });
    (address, noted)
}

/// What comes back until the gateway closes, or a whole answer is there.
async fn send(gateway: SocketAddr, text: &str) -> String {
    let mut socket = TcpStream::connect(gateway).await.unwrap();
    socket.write_all(text.as_bytes()).await.unwrap();
    let (mut answer, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let read = tokio::time::timeout(PATIENCE, socket.read(&mut buffer)).await.expect("no answer");
        match read {
            Ok(length @ 1..) => answer.push_str(&String::from_utf8_lossy(&buffer[..length])),
            _ => return answer,
        }
        if answer.ends_with("ok") || answer.ends_with('}') || answer.contains("content-length: 0") {
            return answer;
        }
    }
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    let (upstream, noted) = noting().await;
    let gateway = gateway(upstream, "").await;
    let cases = [
        ("two lengths", "Content-Length: 4\r\nContent-Length: 5", "12345"),
        ("two lengths in one", "Content-Length: 4, 5", "12345"),
        ("a signed length", "Content-Length: +4", "1234"),
        ("an unknown coding", "Transfer-Encoding: xchunked", "0\r\n\r\n"),
        ("chunks that are not last", "Transfer-Encoding: chunked, gzip", "0\r\n\r\n"),
        ("a space before the colon", "Content-Length : 4", "1234"),
        ("a folded line", "X-A: 1\r\n Content-Length: 4", "1234"),
        ("a null in a value", "X-A: 1\0", ""),
        ("a bare carriage return", "X-A: 1\rX-B: 2", ""),
        ("two hosts", "Host: other", ""),
        ("a bad chunk size", "Transfer-Encoding: chunked", "-1\r\n\r\n"),
    ];
    for (what, fields, body) in cases {
        let text = format!("POST /smuggled HTTP/1.1\r\nHost: gateway\r\n{fields}\r\n\r\n{body}");
        let answer = send(gateway.address(), &text).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{what}: {answer:?}");
    }
    // A stream with a bad chunk was on its way already, and must not look as if it were complete.
    let noted = noted.lock().unwrap();
    assert!(noted.iter().all(|text| !text.contains("0\r\n\r\n")), "{noted:?}");
}

#[tokio::test]
async fn a_length_beside_chunks_hides_no_second_request() {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: gateway\r\n\r\n";
    let fields = ["Transfer-Encoding: chunked", "Content-Length: 99"];
    for fields in
        [fields.join("\r\n"), fields.map(str::to_owned).into_iter().rev().collect::<Vec<_>>().join("\r\n")]
    {
        let (upstream, noted) = noting().await;
        let gateway = gateway(upstream, "").await;
        let head = format!("POST /seen HTTP/1.1\r\nHost: gateway\r\n{fields}\r\n\r\n");
        let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
        let text = format!("{head}3\r\nEND\r\n0\r\n\r\n{hidden}");
        socket.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read =
            tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("it is not closed");
        // It may be reset, for what was not read.
        let _ = read;
        let noted = noted.lock().unwrap().concat().to_lowercase();
        assert!(noted.starts_with("post /seen") && noted.contains("transfer-encoding: chunked"), "{noted}");
        assert!(!noted.contains("content-length") && !noted.contains("hidden"), "{noted}");
        let answers = String::from_utf8_lossy(&answer).matches("HTTP/1.1").count();
        assert_eq!(answers, 1);
    }
}

#[tokio::test]
async fn fields_of_the_connection_do_not_pass_and_the_path_decides_where_to() {
    let (upstream, noted) = noting().await;
    let gateway = gateway(upstream, "").await;
    let text = "GET http://evil.example/path HTTP/1.1\r\nHost: evil.example\r\nConnection: Keep-Alive, x-hop\r\n\
                Connection: X-Other-Hop\r\nX-Hop: 1\r\nX-Other-Hop: 1\r\nUpgrade: websocket\r\nTE: trailers\r\n\
                Proxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: close\r\nKeep-Alive: 5\r\nTrailer: X-T\r\n\
                Expect: 100-continue\r\nX-Mine: 1\r\n\r\n";
    let answer = send(gateway.address(), text).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let noted = noted.lock().unwrap().concat().to_lowercase();
    let (line, fields) = noted.split_once("\r\n").unwrap();
    assert_eq!(line, "get /path http/1.1");
    let names: Vec<_> = fields.lines().filter_map(|field| Some(field.split_once(':')?.0)).collect();
    assert_eq!(names, ["x-mine", "via", "host"]);
    assert!(noted.contains(&format!("host: {upstream}")));
}

#[tokio::test]
async fn no_tunnels() {
    let (upstream, noted) = noting().await;
    let gateway = gateway(upstream, "").await;
    let answer =
        send(gateway.address(), "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    assert!(noted.lock().unwrap().is_empty());
}
