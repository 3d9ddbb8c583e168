//! Sockets: TCP with or without TLS, and a unix socket whose peers the kernel names. Every connection is
//! bounded in number, in the size of its head and in the time that it may keep silent.

mod local;
mod tls;

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

pub use local::{Local, bind_local};
pub use tls::{Identity, TlsError};

/// Connections at the same time; one more is closed at once.
pub const CONNECTIONS_MAX: usize = 1024;

/// Connections of one address at the same time.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 256;

/// How long a client may take to send a request's head, or to say nothing between two.
const HEAD_TIME: Duration = Duration::from_secs(15);

/// How long a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// How long what was sent may stay unacknowledged: a reader that is gone, or reads nothing.
const UNREAD_TIME: Duration = Duration::from_secs(30);

/// How long open requests may go on once weir stops.
const FAREWELL: Duration = Duration::from_millis(500);

/// Largest head of a request, octets.
const HEAD_MAX: usize = 32 * 1024;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its address; none on the unix socket.
    pub address: Option<IpAddr>,
    /// Whether it speaks TLS to weir.
    pub tls: bool,
    /// The local user, on the unix socket.
    pub local: Option<Local>,
}

impl Peer {
    /// The peer of a request.
    pub(crate) fn of(parts: &Parts) -> Self {
        parts.extensions.get::<Self>().cloned().unwrap_or_default()
    }
}

/// Where requests come from.
#[derive(Debug)]
pub struct Listeners {
    /// TCP.
    pub tcp: TcpListener,
    /// What the TCP socket shows, if it speaks TLS.
    pub tls: Option<Identity>,
    /// Unix.
    pub local: Option<UnixListener>,
}

/// Connections being served.
#[derive(Clone)]
struct Places {
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One of them.
struct Place {
    _one: OwnedSemaphorePermit,
    address: Option<IpAddr>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Places {
    fn take(&self, address: Option<IpAddr>) -> Option<Place> {
        let one = Arc::clone(&self.all).try_acquire_owned().ok()?;
        if let Some(address) = address {
            let mut count = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            let own = count.entry(address).or_default();
            if *own >= CONNECTIONS_PER_ADDRESS_MAX {
                return None;
            }
            *own += 1;
        }
        Some(Place { _one: one, address, by_address: Arc::clone(&self.by_address) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut count = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = count.get_mut(&address) {
            *own -= 1;
            if *own == 0 {
                count.remove(&address);
            }
        }
    }
}

/// Serves until `stop` resolves, then lets open requests end for a moment.
pub(crate) async fn run(
    listeners: Listeners,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let places =
        Places { all: Arc::new(Semaphore::new(CONNECTIONS_MAX)), by_address: Arc::default() };
    let owner = listeners.local.as_ref().map(local::owner).transpose()?;
    let acceptor = listeners.tls.map(Identity::into_acceptor);
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listeners.tcp.accept() => match accepted {
                Ok((stream, from)) => {
                    let address = from.ip().to_canonical();
                    let Some(place) = places.take(Some(address)) else { continue };
                    let (router, stopped) = (router.clone(), stopped.clone());
                    let acceptor = acceptor.clone();
                    connections.spawn(async move {
                        tcp(stream, address, acceptor, router, stopped).await;
                        drop(place);
                    });
                }
                Err(error) => pause(&error).await,
            },
            accepted = local::accept(listeners.local.as_ref()) => match accepted {
                Ok(stream) => {
                    let Some(place) = places.take(None) else { continue };
                    let (router, stopped) = (router.clone(), stopped.clone());
                    let local = Local::of(&stream, owner.unwrap_or(0));
                    connections.spawn(async move {
                        let peer = Peer { local: Some(local), ..Peer::default() };
                        http(stream, peer, router, stopped).await;
                        drop(place);
                    });
                }
                Err(error) => pause(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    // Fails only when no connection is left to hear it.
    let _ = stopping.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(FAREWELL, all).await;
    Ok(())
}

/// Out of descriptors, as a rule: waiting lets some close, where trying again at once would spin.
async fn pause(error: &std::io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn tcp(
    stream: TcpStream,
    address: IpAddr,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    stopped: watch::Receiver<bool>,
) {
    // Where it cannot be set, a dead reader is noticed by keep-alive alone.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIME));
    let _ = stream.set_nodelay(true);
    let mut peer = Peer { address: Some(address), ..Peer::default() };
    match acceptor {
        None => http(stream, peer, router, stopped).await,
        Some(acceptor) => {
            peer.tls = true;
            match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => http(stream, peer, router, stopped).await,
                Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake"),
                Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
            }
        }
    }
}

async fn http<S>(stream: S, peer: Peer, router: Router, mut stopped: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        router.clone().call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Errors here are the client's: it hung up, or spoke no HTTP.
    let stopping = async { stopped.wait_for(|stop| *stop).await.map(drop) };
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}
