//! Over real sockets: the local one, TLS, clients that are slow or gone, and the live stream.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use common::{World, world};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use weir_api::Tls;
use weir_api::server::{Identity, Listeners, bind_local};

struct Running {
    address: SocketAddr,
    folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn serve(world: &World, tls: bool) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let tcp = weir_api::server::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = tcp.local_addr().unwrap();
    let tls = tls.then(|| Identity::load(&Tls::default(), folder.path()).unwrap());
    let local = Some(bind_local(&folder.path().join("api.sock")).unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let listeners = Listeners { tcp, tls, local, places: 300, changes: None };
    let task = tokio::spawn(weir_api::serve(listeners, world.app.clone(), async move {
        let _ = stopped.await;
    }));
    Running { address, folder, stop: Some(stop), task }
}

impl Running {
    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("api.sock")
    }

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

async fn get(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_local_socket_knows_who_asks() {
    let world = world();
    let running = serve(&world, false).await;
    let answer = get(&running.socket(), "/api/v1/me").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"via\":\"socket\"") && answer.contains("\"role\":\"owner\""));
    // A second weir does not take the socket of one that runs; what a killed one left is replaced.
    assert!(bind_local(&running.socket()).is_err());
    let socket = running.socket();
    let folder = running.folder.path().to_owned();
    assert!(folder.exists());
    running.stop().await;
    assert!(!socket.exists() || bind_local(&socket).is_ok());
}

#[tokio::test]
async fn a_certificate_is_made_once_and_kept() {
    let world = world();
    let running = serve(&world, true).await;
    let folder = running.folder.path();
    let kept = Identity::load(&Tls::default(), folder).unwrap();
    assert!(!kept.is_new());
    assert_eq!(kept.fingerprint().len(), 32 * 3 - 1);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(folder.join("api-key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Plain HTTP gets no answer there.
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    let half = Tls { cert: Some("x".into()), ..Tls::default() };
    assert!(Identity::load(&half, folder).is_err());
    running.stop().await;
}

#[tokio::test]
async fn many_silent_clients_keep_nobody_out() {
    let world = world();
    let running = serve(&world, false).await;
    let mut silent = Vec::new();
    for n in 0..400_u32 {
        // A quarter of all places is one address's; the others are closed at once.
        let Ok(mut stream) = TcpStream::connect(running.address).await else { continue };
        let part: &[u8] = if n % 2 == 0 {
            b"GET / HT"
        } else {
            b"POST /api/v1/login HTTP/1.1\r\ncontent-length: 50\r\n\r\n{"
        };
        let _ = stream.write_all(part).await;
        silent.push(stream);
    }
    let answer =
        tokio::time::timeout(Duration::from_secs(20), get(&running.socket(), "/healthz")).await;
    assert!(answer.unwrap().contains("\"ok\""));
    running.stop().await;
}

#[tokio::test]
async fn the_stream_begins_with_what_is_and_says_where_it_stands() {
    let world = world();
    let running = serve(&world, false).await;
    let mut stream = UnixStream::connect(running.socket()).await.unwrap();
    let request = "GET /api/v1/live HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut buffer = vec![0; 65536];
    let whole = |text: &str| text.contains("event: incident") && text.contains("event: status");
    tokio::time::timeout(Duration::from_secs(30), async {
        while !whole(&text) {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    })
    .await
    .unwrap();
    assert!(text.contains("text/event-stream"), "{text}");
    assert!(text.contains(&format!("id: {}-", common::START)), "{text}");
    assert!(text.contains("203.0.113.7/32"), "{text}");
    drop(stream);
    running.stop().await;
}
