//! Questions and orders to the task of one peer, from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use weir_model::PeerRoutes;

use crate::config::Config;

/// Orders that wait for one peer's task.
const ORDERS_MAX: usize = 4;

/// What is asked of a peer's task.
#[derive(Debug)]
pub(super) enum Order {
    /// What the peer has, and what it has not and why.
    Show(oneshot::Sender<PeerRoutes>),
    /// Forget what was concluded of a route, by its number, or of all; whether there was anything.
    Lift(Option<String>, oneshot::Sender<bool>),
}

/// Asks peers' tasks.
#[derive(Clone, Debug)]
pub struct Desk(Arc<BTreeMap<String, mpsc::Sender<Order>>>);

/// The other end, for the speaker.
#[derive(Debug, Default)]
pub struct Orders(BTreeMap<String, mpsc::Receiver<Order>>);

/// A desk for the peers of a configuration.
pub fn desk(config: &Config) -> (Desk, Orders) {
    let mut senders = BTreeMap::new();
    let mut receivers = BTreeMap::new();
    for peer in &config.peers {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        senders.insert(peer.name.clone(), sender);
        receivers.insert(peer.name.clone(), receiver);
    }
    (Desk(Arc::new(senders)), Orders(receivers))
}

impl Orders {
    /// Those of one peer; none will ever come where there is no desk.
    pub(super) fn of(&mut self, name: &str) -> mpsc::Receiver<Order> {
        self.0.remove(name).unwrap_or_else(|| mpsc::channel(1).1)
    }
}

impl Desk {
    /// What a peer has; `None` when there is no such peer or the speaker has ended.
    pub async fn show(&self, name: &str) -> Option<PeerRoutes> {
        self.ask(name, Order::Show).await
    }

    /// Has a peer sent again what was held against a route, by its number, or all of it. Whether
    /// there was anything; `None` as above.
    pub async fn lift(&self, name: &str, id: Option<String>) -> Option<bool> {
        self.ask(name, |reply| Order::Lift(id, reply)).await
    }

    async fn ask<T>(
        &self,
        name: &str,
        order: impl FnOnce(oneshot::Sender<T>) -> Order,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.0.get(name)?.send(order(reply)).await.ok()?;
        answer.await.ok()
    }
}
