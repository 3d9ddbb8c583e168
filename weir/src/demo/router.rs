//! The border router's stand-in: a BGP receiver on loopback that says what it decoded.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam_channel::{Receiver, bounded};
use tokio::sync::mpsc;
use weir_bgp::receiver::{self, Event};

/// AS of the router, as `demo.toml` has it.
pub const ASN: u32 = 65020;

/// Events that may wait to be shown.
const EVENTS_MAX: usize = 256;

/// A running router.
#[derive(Debug)]
pub struct Router {
    /// Its BGP port on 127.0.0.1.
    pub port: u16,
    seen: Receiver<Event>,
}

impl Router {
    /// Listens on a free port; the thread ends with the process.
    ///
    /// # Errors
    /// When no socket or thread can be had.
    pub fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .context("the router's runtime")?;
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .context("the router's socket")?;
        let port = listener.local_addr()?.port();
        let (tx, seen) = bounded(EVENTS_MAX);
        let (events, mut stream) = mpsc::channel(EVENTS_MAX);
        std::thread::Builder::new().name("router".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let serve = receiver::serve(listener, ASN, Ipv4Addr::new(10, 0, 0, 2), events);
                let show = async {
                    while let Some(event) = stream.recv().await {
                        if tx.send(event).is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    _ = serve => {}
                    () = show => {}
                }
            });
        })?;
        Ok(Self { port, seen })
    }

    /// The next thing the router saw, waiting at most so long.
    pub fn next(&self, wait: Duration) -> Option<Event> {
        self.seen.recv_timeout(wait).ok()
    }
}
