//! Game panels (Pterodactyl, Pelican): which port is whose and what belongs on it.
//!
//! A panel is polled over its Application API, read only; webhooks only make the next poll come
//! sooner, because neither panel sends an event for most changes of ports. Everything that decides
//! is pure: [`parse`] reduces bodies to a [`Listing`] without secrets, [`Sync`] says what to ask
//! next and when a listing may be used, [`PanelSnapshot::build`] maps allocations to addresses on
//! the wire and concludes roles. Only [`client`] speaks HTTP. It never changes anything in a panel.
//! Read [`Sync`] and [`PanelSnapshot`] first.

pub mod client;
pub mod config;
pub mod games;
pub mod keycheck;
mod listing;
mod mapping;
pub mod owner;
pub mod parse;
mod role;
pub mod runner;
mod snapshot;
mod sync;

pub use config::{Config, PanelConfig};
pub use games::Games;
pub use listing::{Allocation, Egg, Flavour, Listing, Node, Server, ServerState, User};
pub use mapping::{Names, Unmapped, Via, names_of};
pub use role::{Conclusion, Protocols, Role, Source};
pub use snapshot::{
    AllocationView, Endpoint, NodeView, Observation, PanelSnapshot, ServerView, Suggestion,
};
pub use sync::{Action, Connection, Event, Failure, Reply, Status, Sync};
