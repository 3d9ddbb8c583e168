//! The BGP thread: one current-thread runtime for all sessions.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::{mpsc, watch};
use tracing::error;
use weir_bgp::guard::Admitted;
use weir_bgp::speaker::{self, Stop};
use weir_model::Observed;

use super::channels::Control;
use super::spawn as spawn_thread;

/// Reports that may wait for the core before a session is held up.
const REPORTS_MAX: usize = 1024;

pub(crate) fn spawn(
    config: Option<weir_bgp::config::Config>,
    desired: watch::Receiver<Admitted>,
    control: Sender<Control>,
    stopping: watch::Receiver<Stop>,
    failed: &Sender<String>,
) -> anyhow::Result<JoinHandle<()>> {
    let Some(config) = config else {
        // Nobody to speak to: the thread is there all the same, so that a stop is one path.
        return spawn_thread("bgp", failed, || {});
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("bgp runtime")?;
    let failed_too = failed.clone();
    spawn_thread("bgp", failed, move || {
        let (observed, reports) = mpsc::channel(REPORTS_MAX);
        let mut stopped = stopping.clone();
        let outcome = runtime.block_on(async move {
            let forward = tokio::spawn(forward(reports, control));
            let farewell = async move {
                let asked = stopped.wait_for(|stop| *stop != Stop::Run).await.is_ok();
                if asked {
                    tokio::time::sleep(speaker::FAREWELL).await;
                }
            };
            let outcome = tokio::select! {
                outcome = speaker::run(config, desired, observed, stopping) => outcome,
                () = farewell => Ok(()),
            };
            forward.abort();
            outcome
        });
        if let Err(error) = outcome {
            error!(%error, "the BGP speaker stopped");
            let _ = failed_too.try_send("bgp".to_owned());
        }
    })
}

/// Carries reports to the core, waiting while it is busy without holding up keepalives.
async fn forward(mut reports: mpsc::Receiver<Observed>, control: Sender<Control>) {
    while let Some(observed) = reports.recv().await {
        let mut message = Control::Observed(Box::new(observed));
        loop {
            match control.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) => message = back,
                Err(TrySendError::Disconnected(_)) => return,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
