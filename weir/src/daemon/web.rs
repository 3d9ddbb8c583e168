//! The web thread: its own runtime with two workers, so that a busy API delays neither BGP nor the
//! core.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::{mpsc, watch};
use tracing::error;
use weir_api::{COMMANDS_WAITING, Handles, Metrics, Request};
use weir_model::Snapshot;

use super::channels::Control;
use super::spawn as spawn_thread;

/// What the API is given.
pub(crate) struct Parts {
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) control: Sender<Control>,
}

/// The running API.
pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    pub(crate) thread: JoinHandle<()>,
}

pub(crate) fn spawn(
    listen: SocketAddr,
    parts: Parts,
    mut stopping: watch::Receiver<bool>,
    failed: &Sender<String>,
) -> anyhow::Result<Web> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("web")
        .enable_io()
        .enable_time()
        .build()
        .context("web runtime")?;
    let listener = runtime.block_on(weir_api::bind(listen))?;
    let address = listener.local_addr().context("api socket")?;
    let (commands, requests) = mpsc::channel(COMMANDS_WAITING);
    let handles =
        Handles { snapshot: parts.snapshot, commands, metrics: parts.metrics, ready: parts.ready };
    let thread = spawn_thread("web", failed, move || {
        runtime.block_on(async move {
            let forward = tokio::spawn(forward(requests, parts.control));
            let stop = async move {
                // An error means that the daemon is gone: stop as well.
                let _ = stopping.wait_for(|stop| *stop).await;
            };
            if let Err(error) = weir_api::serve(listener, handles, stop).await {
                error!(%error, "the API stopped");
            }
            forward.abort();
        });
        // A client that holds its connection open does not hold up the stop.
        runtime.shutdown_background();
    })?;
    Ok(Web { address, thread })
}

/// Carries commands to the core. A full queue drops the request, which its asker sees as 503.
async fn forward(mut requests: mpsc::Receiver<Request>, control: Sender<Control>) {
    while let Some(request) = requests.recv().await {
        if let Err(TrySendError::Disconnected(_)) =
            control.try_send(Control::Request(Box::new(request)))
        {
            return;
        }
    }
}
