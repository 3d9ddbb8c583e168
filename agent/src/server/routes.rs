//! What nodes ask.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::{info, warn};
use weir_model::{IncidentId, Millis, Seat};

use super::{Server, secret};
use crate::controller::{Caller, JoinError, RENEW_MS, Stranger};
use crate::daemon::now;
use crate::protocol::{Block, Envelope, Join, Report};

/// Largest body of a request: a report of a thousand rules and 200 events.
const BODY_MAX: usize = 1024 * 1024;

/// Largest body of who is not known yet: a join with as many addresses as count.
const JOIN_MAX: usize = 256 * 1024;

/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Where captures go; an incident's identifier follows, then offset and total of a piece.
const CAPTURE: &str = "/v1/agents/capture/";

type Body = Either<Full<Bytes>, Channel<Bytes, Infallible>>;
type Answer = Response<Body>;

pub(super) async fn answer(
    server: Arc<Server>,
    stop: watch::Receiver<bool>,
    from: IpAddr,
    seat: Seat,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let answer = match (request.method(), path.as_str()) {
        (&Method::POST, "/v1/agents/join") => join(&server, from, request).await,
        (&Method::GET, "/v1/decisions/stream") => decisions(&server, &seat, &request),
        (method, path) => {
            let method = method.clone();
            let caller = match authenticate(&server, &request) {
                Ok(caller) => caller,
                Err(why @ Stranger::Unknown) => {
                    return Ok(text(StatusCode::UNAUTHORIZED, &why.to_string()));
                }
                Err(why @ Stranger::Replaced) => {
                    return Ok(text(StatusCode::GONE, &why.to_string()));
                }
            };
            seat.keep();
            let node = caller.node.clone();
            match (method, path) {
                (Method::GET, "/v1/agents/stream") => stream(server, stop, caller),
                (Method::GET, "/v1/agents/state") => state(&server, &node, &request),
                (Method::POST, "/v1/agents/report") => report(&server, &node, request).await,
                (Method::POST, "/v1/agents/leave") => leave(&server, &node),
                (method @ (Method::GET | Method::PUT), path) if path.starts_with(CAPTURE) => {
                    capture(&server, &node, method == Method::PUT, request).await
                }
                _ => text(StatusCode::NOT_FOUND, "no such resource"),
            }
        }
    };
    Ok(answer)
}

fn authenticate(server: &Server, request: &Request<Incoming>) -> Result<Caller, Stranger> {
    let header = request.headers().get(AUTHORIZATION).and_then(|h| h.to_str().ok());
    let bearer = header.and_then(|h| h.strip_prefix("Bearer ")).ok_or(Stranger::Unknown)?;
    server.controller().authenticate(bearer)
}

fn text(status: StatusCode, text: &str) -> Answer {
    let mut response = Response::new(Either::Left(Full::from(text.to_owned())));
    *response.status_mut() = status;
    response
}

fn json<T: serde::Serialize>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(octets) => {
            let mut response = Response::new(Either::Left(Full::from(octets)));
            let kind = hyper::header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>, max: usize) -> Result<T, Answer> {
    let collected = Limited::new(request.into_body(), max).collect();
    let Ok(collected) = tokio::time::timeout(BODY_TIME, collected).await else {
        return Err(text(StatusCode::REQUEST_TIMEOUT, "too slow"));
    };
    let Ok(collected) = collected else {
        return Err(text(StatusCode::PAYLOAD_TOO_LARGE, "too large, or cut off"));
    };
    serde_json::from_slice(&collected.to_bytes())
        .map_err(|e| text(StatusCode::BAD_REQUEST, &e.to_string()))
}

async fn join(server: &Server, from: IpAddr, request: Request<Incoming>) -> Answer {
    if let Some(secs) = server.guesses.wait_secs(from, now()) {
        let mut response = text(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens; try later");
        response.headers_mut().insert(RETRY_AFTER, secs.into());
        return response;
    }
    let join: Join = match body(request, JOIN_MAX).await {
        Ok(join) => join,
        Err(answer) => return answer,
    };
    let Ok(bearer) = secret() else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "no randomness");
    };
    server.take_offer(&join.token, now());
    let joined = server.controller().join(&join, &bearer, now());
    match joined {
        Ok(joined) => {
            server.guesses.right(from);
            info!(node = joined.node, "a node has joined");
            publish(server);
            json(&joined)
        }
        Err(error @ JoinError::Token) => {
            server.guesses.wrong(from, now());
            text(StatusCode::FORBIDDEN, &error.to_string())
        }
        Err(error) => text(StatusCode::CONFLICT, &error.to_string()),
    }
}

fn leave(server: &Server, node: &str) -> Answer {
    server.controller().leave(node);
    info!(node, "a node has left");
    publish(server);
    text(StatusCode::OK, "")
}

fn publish(server: &Server) {
    if let Err(error) = server.publish() {
        warn!(%error, "cannot keep the state of nodes");
    }
}

fn state(server: &Server, node: &str, request: &Request<Incoming>) -> Answer {
    let controller = server.controller();
    let Some(etag) = controller.etag(node) else {
        return text(StatusCode::NOT_FOUND, "no such node");
    };
    let known = request.headers().get(IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    if known == Some(etag.as_str()) {
        let mut response = text(StatusCode::NOT_MODIFIED, "");
        let lease = controller.lease(node, now()).ok();
        let lease = lease.and_then(|l| serde_json::to_string(&l).ok());
        if let Some(Ok(lease)) = lease.map(|l| l.parse()) {
            response.headers_mut().insert("weir-lease", lease);
        }
        return response;
    }
    match controller.snapshot(node, now()) {
        Ok(envelope) => {
            let mut response = json(&envelope);
            if let Ok(etag) = etag.parse() {
                response.headers_mut().insert(ETAG, etag);
            }
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn report(server: &Server, node: &str, request: Request<Incoming>) -> Answer {
    let report: Report = match body(request, BODY_MAX).await {
        Ok(report) => report,
        Err(answer) => return answer,
    };
    let new = server.controller().report(node, report, now());
    server.reported.send_modify(|n| *n = n.wrapping_add(1));
    if new {
        publish(server);
    }
    text(StatusCode::OK, "")
}

/// How much of a capture is here, and more of it: `<incident>` and `<incident>/<offset>/<total>`.
async fn capture(server: &Server, node: &str, more: bool, request: Request<Incoming>) -> Answer {
    let mut words = request.uri().path().trim_start_matches(CAPTURE).split('/');
    let incident = words.next().and_then(|word| word.parse::<IncidentId>().ok());
    let incident = incident.filter(|id| server.controller().was_told(node, *id));
    let Some(incident) = incident else {
        return text(StatusCode::FORBIDDEN, "this node was told of no such incident");
    };
    if !more {
        return json(&server.captures().have(node, incident));
    }
    let mut number = || words.next()?.parse::<u64>().ok();
    let (Some(offset), Some(total)) = (number(), number()) else {
        return text(StatusCode::BAD_REQUEST, "no offset and total");
    };
    let collected = Limited::new(request.into_body(), BODY_MAX).collect();
    let Ok(Ok(piece)) = tokio::time::timeout(BODY_TIME, collected).await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "too large, too slow, or cut off");
    };
    match server.captures().take((node, incident), (offset, total), &piece.to_bytes()) {
        Ok(have) => json(&have),
        Err(error) => text(StatusCode::INSUFFICIENT_STORAGE, &error.to_string()),
    }
}

fn stream(server: Arc<Server>, stop: watch::Receiver<bool>, caller: Caller) -> Answer {
    let (sender, body) = Channel::new(4);
    tokio::spawn(feed(server, stop, caller, sender));
    let mut response = Response::new(Either::Right(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

/// Sends a snapshot at first and whenever it is new, a lease in between. Ends when the bearer that opened it
/// is the node's no longer: what the name now gets is another machine's.
async fn feed(
    server: Arc<Server>,
    mut stop: watch::Receiver<bool>,
    caller: Caller,
    mut sender: Sender<Bytes, Infallible>,
) {
    let mut changed = server.changed.subscribe();
    let mut sent: Option<String> = None;
    loop {
        changed.borrow_and_update();
        let (etag, envelope) = {
            let controller = server.controller();
            let node = &caller.node;
            let Some(etag) = controller.etag(node).filter(|_| controller.holds(&caller)) else {
                return;
            };
            let new = sent.as_ref() != Some(&etag);
            let envelope =
                if new { controller.snapshot(node, now()) } else { controller.lease(node, now()) };
            (etag, envelope)
        };
        let Ok(envelope) = envelope else { return };
        if sender.send_data(event(&envelope)).await.is_err() {
            return;
        }
        sent = Some(etag);
        let renew = tokio::time::sleep(Duration::from_millis(RENEW_MS));
        tokio::pin!(renew);
        loop {
            tokio::select! {
                () = &mut renew => break,
                _ = stop.wait_for(|stop| *stop) => return,
                outcome = changed.changed() => {
                    if outcome.is_err() {
                        return;
                    }
                    let controller = server.controller();
                    if controller.etag(&caller.node) != sent || !controller.holds(&caller) {
                        break;
                    }
                }
            }
        }
    }
}

fn event(envelope: &Envelope) -> Bytes {
    let data = serde_json::to_string(envelope).unwrap_or_default();
    Bytes::from(format!("event: state\ndata: {data}\n\n"))
}

/// Blocked sources in the form that CrowdSec's bouncers read (LAPI v1). Each answer is the whole list, which
/// the protocol allows at any time: a bouncer that lost track heals by itself, and what it holds ends with the
/// duration all the same.
fn decisions(server: &Server, seat: &Seat, request: &Request<Incoming>) -> Answer {
    let key = request.headers().get("x-api-key").and_then(|v| v.to_str().ok());
    if !key.is_some_and(|k| server.is_bouncer(k)) {
        return text(StatusCode::FORBIDDEN, "{\"message\":\"access forbidden\"}");
    }
    seat.keep();
    let now = now();
    let controller = server.controller();
    let (new, deleted) = controller.decisions(now);
    let list = |blocks: &[Block]| -> Vec<serde_json::Value> {
        blocks.iter().enumerate().map(|(id, b)| decision(id, b, now)).collect()
    };
    json(&serde_json::json!({ "new": list(&new), "deleted": list(&deleted) }))
}

fn decision(id: usize, block: &Block, now: Millis) -> serde_json::Value {
    let host = block.source.prefix_len() == block.source.max_prefix_len();
    let value = if host { block.source.addr().to_string() } else { block.source.to_string() };
    serde_json::json!({
        "id": id + 1,
        "origin": "weir",
        "type": "ban",
        "scope": if host { "Ip" } else { "Range" },
        "value": value,
        "duration": format!("{}s", block.until.since(now).div_ceil(1000)),
        "scenario": "weir/blocked",
    })
}
