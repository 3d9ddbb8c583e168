//! What a key may do, and what it should not.
//!
//! No endpoint tells a key's rights. Reading is seen from the lists themselves. Writing is seen from
//! the order in which both panels judge a request: first the right, then the content. An empty
//! object is answered with 403 when the key may not write, and with 422 when it may but the object
//! lacks everything; nothing can come of it.

use crate::client::Client;
use crate::sync::{Failure, Reply};

/// Resources whose creation is asked for with an empty object.
const PROBES: [(&str, &str); 3] = [
    ("servers", "/api/application/servers"),
    ("nodes", "/api/application/nodes"),
    ("users", "/api/application/users"),
];

/// Which resources a key could change.
pub fn writes(client: &Client) -> Vec<String> {
    PROBES
        .iter()
        .filter(|(_, path)| could_write(&client.post_nothing(path)))
        .map(|(what, _)| (*what).to_owned())
        .collect()
}

/// Only the refusal of the content proves the right; anything else proves nothing.
fn could_write(answer: &Result<Reply, Failure>) -> bool {
    answer.as_ref().is_ok_and(|reply| matches!(reply.status, 200 | 201 | 422))
}
