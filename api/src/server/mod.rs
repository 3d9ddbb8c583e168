//! Sockets: TCP with or without TLS, and a unix socket whose peers the kernel names. Every connection is
//! bounded in number, in the size of its head and in the time that it may keep silent. Who shows no account,
//! and holds many, makes room for others ([`Places`]).

mod listen;
mod local;
mod tls;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service as _;
use weir_model::{Place, Places, Seat};

pub use listen::{bind, listen};
pub(crate) use local::NOT_YOURS;
pub use local::{Local, bind_local};
pub use tls::{Identity, TlsError};

/// Connections over TCP at the same time, at most. When there is one more, a stranger's is closed.
pub const CONNECTIONS_MAX: usize = 1024;

/// Connections of one IPv4 address or IPv6 /64 at the same time.
pub const CONNECTIONS_PER_CLIENT_MAX: usize = 256;

/// Connections over the local socket at the same time: places that nobody else can take.
pub const LOCAL_MAX: usize = 64;

/// Of these, those kept for root.
const LOCAL_ROOT: usize = 8;

/// Strangers at the local socket who are listened to for a moment after they were turned away.
pub const STRANGERS_MAX: usize = 8;

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
    /// The connection's place, over TCP.
    pub seat: Option<Seat>,
}

impl Peer {
    /// The peer of a request.
    pub(crate) fn of(parts: &Parts) -> Self {
        parts.extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// It has proven who it is: no stranger gets its place.
    pub(crate) fn keeps_its_place(&self) {
        if let Some(seat) = &self.seat {
            seat.keep();
        }
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
    /// Connections over TCP at the same time.
    pub places: usize,
    /// What takes the place of the TCP socket and of its certificate; those connected stay so.
    pub changes: Option<mpsc::Receiver<Next>>,
}

/// What is listened on from now on.
#[derive(Debug)]
pub struct Next {
    /// Another TCP socket; the same if none.
    pub tcp: Option<std::net::TcpListener>,
    /// What it shows, if it speaks TLS.
    pub tls: Option<Identity>,
}

impl Listeners {
    /// What is listened on from now on; for ever the same where nobody can say.
    async fn changed(changes: Option<&mut mpsc::Receiver<Next>>) -> Option<Next> {
        match changes {
            Some(changes) => changes.recv().await,
            None => std::future::pending().await,
        }
    }
}

/// A place of the local socket; the last ones are root's.
fn local_place(places: &Arc<Semaphore>, local: &Local) -> Option<OwnedSemaphorePermit> {
    let free = local.uid == 0 || places.available_permits() > LOCAL_ROOT;
    if free { Arc::clone(places).try_acquire_owned().ok() } else { None }
}

/// Serves until `stop` resolves, then lets open requests end for a moment.
pub(crate) async fn run(
    mut listeners: Listeners,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let each = CONNECTIONS_PER_CLIENT_MAX.min(listeners.places.div_ceil(4));
    let places = Places::new(listeners.places, each);
    let local_places = Arc::new(Semaphore::new(LOCAL_MAX));
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    let owner = listeners.local.as_ref().map(local::owner).transpose()?;
    let mut acceptor = listeners.tls.take().map(Identity::into_acceptor);
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(next) = Listeners::changed(listeners.changes.as_mut()) => {
                acceptor = next.tls.map(Identity::into_acceptor);
                match next.tcp.map(TcpListener::from_std).transpose() {
                    Ok(tcp) => listeners.tcp = tcp.unwrap_or(listeners.tcp),
                    Err(error) => tracing::error!(%error, "the API stays where it was"),
                }
            }
            accepted = listeners.tcp.accept() => match accepted {
                Ok((stream, from)) => {
                    let address = from.ip().to_canonical();
                    let Some(place) = places.take(address) else { continue };
                    let (router, stopped) = (router.clone(), stopped.clone());
                    let acceptor = acceptor.clone();
                    connections.spawn(async move {
                        tokio::select! {
                            () = tcp(stream, address, &place, acceptor, router, stopped) => {}
                            // Hung up on without a word: somebody else is waiting.
                            () = place.lost() => {}
                        }
                    });
                }
                Err(error) => pause(&error).await,
            },
            accepted = local::accept(listeners.local.as_ref()) => match accepted {
                Ok(stream) => {
                    let local = Local::of(&stream, owner.unwrap_or(0));
                    if !local.trusted {
                        match Arc::clone(&strangers).try_acquire_owned() {
                            Ok(place) => drop(connections.spawn(async move {
                                local::see_out(stream).await;
                                drop(place);
                            })),
                            Err(_) => local::turn_away(&stream),
                        }
                        continue;
                    }
                    let Some(place) = local_place(&local_places, &local) else { continue };
                    let (router, stopped) = (router.clone(), stopped.clone());
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
    place: &Place,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    stopped: watch::Receiver<bool>,
) {
    // Where it cannot be set, a dead reader is noticed by keep-alive alone.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIME));
    let _ = stream.set_nodelay(true);
    let seat = Some(place.seat());
    let mut peer = Peer { address: Some(address), seat, ..Peer::default() };
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
        if let Some(seat) = &peer.seat {
            seat.heard();
        }
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
