//! Over a real connection: limits, shutdown.

use std::time::Duration;

use runner_orchestrator::api::serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::world::{led, listening};

const SOON: Duration = Duration::from_secs(10);

async fn talk(address: std::net::SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn it_is_served_and_ends_when_told_though_a_log_is_followed() {
    let mut world = led().await;
    let now = world.now();
    let runner = world.runner(1, listening(now)).await;
    *world.docker.lines.lock().unwrap() = vec!["hello".to_owned()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let mut serving = JoinSet::new();
    serving.spawn(serve(listener, world.app.clone(), cancel.clone()));

    let close = "Connection: close\r\n\r\n";
    let alive = talk(address, &format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{close}")).await;
    assert!(alive.starts_with("HTTP/1.1 200"), "{alive}");
    let hostless = talk(address, &format!("GET /livez HTTP/1.1\r\n{close}")).await;
    assert!(hostless.starts_with("HTTP/1.1 400"), "{hostless}");
    let garbage = talk(address, "\u{1}\u{2}\r\n\r\n").await;
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    let rebound = "GET /api/v1/status HTTP/1.1\r\nHost: evil.example\r\n";
    let rebound = talk(address, &format!("{rebound}{close}")).await;
    assert!(rebound.starts_with("HTTP/1.1 421"), "{rebound}");
    assert!(rebound.contains("application/problem+json"));

    let mut follower = TcpStream::connect(address).await.unwrap();
    let path = format!("/api/v1/runners/{}/logs?follow=true", runner.id);
    let ask = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    follower.write_all(ask.as_bytes()).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("hello\n") {
        let mut piece = [0_u8; 4096];
        let read = timeout(SOON, follower.read(&mut piece)).await.unwrap().unwrap();
        assert_ne!(read, 0, "ended early: {seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..read]));
    }

    world.ready.send_modify(|ready| ready.stopping = true);
    cancel.cancel();
    let ended = timeout(SOON, serving.join_next()).await.unwrap().unwrap();
    ended.unwrap().unwrap();
    let mut rest = Vec::new();
    timeout(SOON, follower.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
