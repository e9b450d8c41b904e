//! Each fault of the proxy is what it says. None of these tests waits for something not to happen: a cut
//! after the stall shows what passed.

use std::io::ErrorKind;

use retouch_tests::proxy::Proxy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The two ends of one connection through a proxy.
async fn connection(proxy: &Proxy, server: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    let (server, _) = server.accept().await.unwrap();
    (client, server)
}

async fn proxied() -> (Proxy, TcpListener) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(&server.local_addr().unwrap().to_string()).await;
    (proxy, server)
}

async fn passes(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"word").await.unwrap();
    let mut word = [0; 4];
    to.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"word");
}

/// All that still arrives before the connection ends, in whichever way.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

#[tokio::test]
async fn a_cut_ends_every_connection_and_new_ones_work() {
    let (proxy, listener) = proxied().await;
    let mut connections = vec![connection(&proxy, &listener).await, connection(&proxy, &listener).await];
    for (client, server) in &mut connections {
        passes(client, server).await;
        passes(server, client).await;
    }
    proxy.cut().await;
    for (client, server) in &mut connections {
        assert_eq!(rest(client).await, b"");
        assert_eq!(rest(server).await, b"");
    }
    let (mut client, mut server) = connection(&proxy, &listener).await;
    passes(&mut client, &mut server).await;
    assert_eq!(proxy.accepted(), 3);
}

#[tokio::test]
async fn nothing_passes_a_stalled_proxy() {
    let (proxy, listener) = proxied().await;
    let (mut client, mut server) = connection(&proxy, &listener).await;
    proxy.stall();
    client.write_all(b"question").await.unwrap();
    server.write_all(b"answer").await.unwrap();
    proxy.cut().await;
    assert_eq!(rest(&mut server).await, b"");
    assert_eq!(rest(&mut client).await, b"");
}

#[tokio::test]
async fn stalled_bytes_pass_when_the_proxy_resumes() {
    let (proxy, listener) = proxied().await;
    let (mut client, mut server) = connection(&proxy, &listener).await;
    proxy.stall();
    client.write_all(b"question").await.unwrap();
    proxy.resume();
    let mut question = [0; 8];
    server.read_exact(&mut question).await.unwrap();
    assert_eq!(&question, b"question");
}

#[tokio::test]
async fn with_answers_stalled_the_server_acts_and_its_client_never_learns() {
    let (proxy, listener) = proxied().await;
    let (mut client, mut server) = connection(&proxy, &listener).await;
    proxy.stall_answers();
    passes(&mut client, &mut server).await;
    server.write_all(b"answer").await.unwrap();
    proxy.cut().await;
    assert_eq!(rest(&mut client).await, b"");
}

#[tokio::test]
async fn a_reset_is_an_error_on_both_sides() {
    let (proxy, listener) = proxied().await;
    let (mut client, mut server) = connection(&proxy, &listener).await;
    passes(&mut client, &mut server).await;
    proxy.reset().await;
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(server.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_refusing_proxy_accepts_again_at_the_same_address() {
    let (mut proxy, listener) = proxied().await;
    let (mut client, _server) = connection(&proxy, &listener).await;
    proxy.refuse().await;
    assert_eq!(rest(&mut client).await, b"");
    let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    proxy.accept().await;
    let (mut client, mut server) = connection(&proxy, &listener).await;
    passes(&mut client, &mut server).await;
}

#[tokio::test]
async fn more_than_the_buffers_hold_passes_unharmed() {
    let (proxy, listener) = proxied().await;
    let (mut client, mut server) = connection(&proxy, &listener).await;
    let sent: Vec<u8> = (0..16 * 1024 * 1024_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        client.write_all(&sent).await.unwrap();
        client
    });
    let mut got = vec![0; expected.len()];
    server.read_exact(&mut got).await.unwrap();
    assert!(got == expected);
    drop(writer.await.unwrap());
    assert_eq!(rest(&mut server).await, b"");
}
