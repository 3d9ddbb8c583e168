//! `/api/v1/live`: server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::Instant;
use utoipa::IntoParams;
use weir_model::Role;

use crate::access::Principal;
use crate::access::permission::{Allowed, needs};
use crate::app::App;
use crate::live::{Event, Topic};
use crate::problem::{Params, Problem};

/// A stream ends after so long, and the browser comes back with its last event's id: whoever has signed
/// out, or lost a permission, hears nothing more after that.
const STREAM_TIME: Duration = Duration::from_secs(120);

/// Which events.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// `status`, `incident`, `mitigation`, `exporters`, `peers`, `traffic`, joined by commas; all when absent.
    topics: Option<String>,
    /// The last event seen, for readers that cannot send `Last-Event-ID`.
    after: Option<String>,
}

/// One reader.
struct Reader {
    app: App,
    who: Principal,
    topics: Vec<Topic>,
    ready: VecDeque<sse::Event>,
    events: Receiver<Arc<Event>>,
    until: Instant,
}

impl Reader {
    fn wants(&self, event: &Event) -> bool {
        let sees = match event.target {
            Some(target) => self.who.sees(target),
            None => self.who.role != Role::Tenant,
        };
        sees && self.topics.contains(&event.topic)
    }

    fn form(&self, event: &Event) -> sse::Event {
        sse::Event::default()
            .id(self.app.inner.live.id(event.seq))
            .event(event.topic.id())
            .data(&event.data)
    }

    /// The next event; none when the stream has lasted long enough.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            match tokio::time::timeout_at(self.until, self.events.recv()).await {
                Err(_) | Ok(Err(RecvError::Closed)) => return None,
                Ok(Err(RecvError::Lagged(events))) => return Some(lost(Some(events))),
                Ok(Ok(event)) if self.wants(&event) => return Some(self.form(&event)),
                Ok(Ok(_)) => {}
            }
        }
    }
}

/// Tells a reader that it must look again at what it shows.
fn lost(events: Option<u64>) -> sse::Event {
    let count = events.map_or_else(|| "null".to_owned(), |events| events.to_string());
    sse::Event::default().event("lost").data(format!("{{\"events\":{count}}}"))
}

/// Follows what happens, as server-sent events. Each has the topic as its name and JSON as its data; `lost`
/// says that events are missing and that what is shown must be fetched again.
#[utoipa::path(get, path = "/api/v1/live", tag = "live", params(Wanted,
        ("Last-Event-ID" = Option<String>, Header, description = "Go on after this event")),
    responses((status = 200, description = "Events", body = String,
        content_type = "text/event-stream")))]
pub(crate) async fn live(
    who: Allowed<needs::ReadLive>,
    State(app): State<App>,
    Params(wanted): Params<Wanted>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let topics = match &wanted.topics {
        None => Topic::ALL.to_vec(),
        Some(list) => list
            .split(',')
            .map(|id| {
                Topic::of_id(id.trim()).ok_or_else(|| Problem::bad(format!("no topic {id:?}")))
            })
            .collect::<Result<_, _>>()?,
    };
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let start = app.inner.live.start(last.or(wanted.after.as_deref()));
    let mut reader = Reader {
        who: who.principal,
        topics,
        ready: VecDeque::new(),
        events: start.events,
        until: Instant::now() + STREAM_TIME,
        app,
    };
    reader.ready.push_back(sse::Event::default().retry(Duration::from_millis(500)).comment("weir"));
    if start.lost {
        reader.ready.push_back(lost(None));
    }
    for event in &start.backlog {
        if reader.wants(event) {
            let event = reader.form(event);
            reader.ready.push_back(event);
        }
    }
    let events = stream::unfold(reader, |mut reader| async move {
        reader.next().await.map(|event| (Ok(event), reader))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}
