//! The way to the appliance. The node dials; nothing listens here.

mod http;
mod ring;
mod sse;
mod tls;

pub use http::{Client, LinkError, Reply, Url};
pub use ring::EventRing;
pub use sse::Events;
pub use tls::{SERVER_NAME, pinned};
