//! Questions and orders to the task of one peer, from outside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use weir_model::PeerRoutes;

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

/// Asks peers' tasks; knows those that run.
#[derive(Clone, Debug, Default)]
pub struct Desk(Arc<Mutex<BTreeMap<String, mpsc::Sender<Order>>>>);

impl Desk {
    /// What is asked of a peer from now on.
    pub(super) fn open(&self, name: &str) -> mpsc::Receiver<Order> {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.to_owned(), sender);
        receiver
    }

    /// Nobody is there any more to be asked.
    pub(super) fn close(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

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
        let task = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        task?.send(order(reply)).await.ok()?;
        answer.await.ok()
    }
}
