//! gRPC over HTTP/2 without TLS: a question, and one answer or a stream of them.
//!
//! ```text
//! | compressed (1), always 0 | length (4) | message |
//! ```

use std::future::Future;
use std::io;

use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Method, Request, StatusCode};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::{AdapterError, PATIENCE};

/// Longest answer that is read, octets: some 200,000 routes.
const ANSWER_MAX: usize = 128 * 1024 * 1024;

/// Octets that may be on the way: what a stream of answers needs to run at full speed.
const WINDOW: u32 = 1024 * 1024;

/// Octets before each message.
const PREFIX: usize = 5;

/// gRPC's code for a service or method that is not there.
const UNIMPLEMENTED: &str = "12";

/// Why a call failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// The other side does not have the service.
    Unimplemented,
    /// The other side refuses; what it says.
    Refused(String),
    /// The connection is of no more use.
    Broken(AdapterError),
}

impl From<CallError> for AdapterError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unimplemented => {
                Self::Refused("it speaks neither GoBGP's API version 3 nor 4".to_owned())
            }
            CallError::Refused(text) => Self::Refused(text),
            CallError::Broken(error) => error,
        }
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CallError {
    CallError::Broken(io::Error::other(error).into())
}

/// A connection. Its driver ends with it.
pub(super) struct Channel {
    requests: SendRequest<io::Cursor<Vec<u8>>>,
    _driver: JoinSet<()>,
}

/// A question on its way.
pub(super) struct Call(ResponseFuture);

impl Channel {
    /// Opens HTTP/2 over a connection.
    pub(super) async fn open<T>(stream: T) -> Result<Self, AdapterError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .enable_push(false)
            .handshake(stream);
        let (requests, connection) = patiently(handshake).await?.map_err(io::Error::other)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // What breaks it, breaks the calls too, and is reported by them.
            let _ = connection.await;
        });
        Ok(Self { requests, _driver: driver })
    }

    /// Sends a question; the answer is waited for with [`Call::answer`] or [`Call::answers`].
    pub(super) async fn ask(
        &mut self,
        service: &str,
        method: &str,
        question: &impl Message,
    ) -> Result<Call, CallError> {
        let length = u32::try_from(question.encoded_len()).map_err(broken)?;
        let mut octets = vec![0];
        octets.extend_from_slice(&length.to_be_bytes());
        octets.extend_from_slice(&question.encode_to_vec());
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://gobgp/{service}/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(broken)?;
        let requests = self.requests.clone();
        let mut requests = patiently(requests.ready()).await?.map_err(broken)?;
        let (response, mut body) = requests.send_request(request, false).map_err(broken)?;
        body.send_data(io::Cursor::new(octets), true).map_err(broken)?;
        Ok(Call(response))
    }

    /// A question and its only answer.
    pub(super) async fn call<R: Message + Default>(
        &mut self,
        service: &str,
        method: &str,
        question: &impl Message,
    ) -> Result<R, CallError> {
        self.ask(service, method, question).await?.answer().await
    }
}

impl Call {
    /// The only answer.
    pub(super) async fn answer<R: Message + Default>(self) -> Result<R, CallError> {
        let mut only = None;
        self.answers(|answer| only = Some(answer)).await?;
        only.ok_or_else(|| CallError::Refused("an empty answer".to_owned()))
    }

    /// Hands over every answer of a stream.
    pub(super) async fn answers<R: Message + Default>(
        self,
        mut take: impl FnMut(R),
    ) -> Result<(), CallError> {
        let response = patiently(self.0).await?.map_err(broken)?;
        if response.status() != StatusCode::OK {
            return Err(CallError::Refused(format!("HTTP status {}", response.status())));
        }
        // An answer that is only an error says so in its head.
        if response.headers().contains_key("grpc-status") {
            return check(response.headers());
        }
        let mut body = response.into_body();
        let mut buffer = Vec::new();
        let mut total = 0;
        while let Some(octets) = patiently(body.data()).await? {
            let octets = octets.map_err(broken)?;
            body.flow_control().release_capacity(octets.len()).map_err(broken)?;
            total += octets.len();
            if total > ANSWER_MAX {
                return Err(CallError::Refused("an answer without an end".to_owned()));
            }
            buffer.extend_from_slice(&octets);
            let read = messages(&buffer, &mut take)?;
            buffer.drain(..read);
        }
        trailers(body).await
    }
}

/// Hands over the whole messages at the beginning; how many octets they took.
fn messages<R: Message + Default>(
    octets: &[u8],
    take: &mut impl FnMut(R),
) -> Result<usize, CallError> {
    let mut read = 0;
    while let Some(([compressed, a, b, c, d], rest)) = octets[read..].split_first_chunk::<PREFIX>()
    {
        if *compressed != 0 {
            return Err(CallError::Refused("a compressed message".to_owned()));
        }
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        let Some(message) = rest.get(..length) else { break };
        take(R::decode(message).map_err(broken)?);
        read += PREFIX + length;
    }
    Ok(read)
}

async fn trailers(mut body: RecvStream) -> Result<(), CallError> {
    match patiently(body.trailers()).await?.map_err(broken)? {
        Some(trailers) => check(&trailers),
        None => Err(CallError::Refused("an answer without a status".to_owned())),
    }
}

fn check(headers: &HeaderMap) -> Result<(), CallError> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "0" => Ok(()),
        UNIMPLEMENTED => Err(CallError::Unimplemented),
        code => {
            let said: String = text("grpc-message").chars().take(200).collect();
            Err(CallError::Refused(format!("{said} (gRPC status {code})")))
        }
    }
}

async fn patiently<T>(step: impl Future<Output = T>) -> Result<T, AdapterError> {
    timeout(PATIENCE, step).await.map_err(|_| AdapterError::Timeout)
}

impl From<AdapterError> for CallError {
    fn from(error: AdapterError) -> Self {
        Self::Broken(error)
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::Family;
    use super::*;

    #[test]
    fn messages_are_cut_at_their_lengths() {
        let family = Family { afi: 1, safi: 133 };
        let mut octets = Vec::new();
        for _ in 0..2 {
            octets.extend([0, 0, 0, 0, 5]);
            octets.extend(family.encode_to_vec());
        }
        assert_eq!(octets.len(), 20);
        for cut in 0..=octets.len() {
            let mut taken = Vec::new();
            let read = messages(&octets[..cut], &mut |m: Family| taken.push(m)).unwrap();
            assert_eq!((taken.len(), read), (cut / 10, cut / 10 * 10));
            assert!(taken.iter().all(|m| *m == family));
        }
        let compressed = messages(&[1, 0, 0, 0, 0], &mut |_: Family| {});
        assert!(matches!(compressed, Err(CallError::Refused(_))));
    }
}
