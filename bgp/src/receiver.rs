//! A border router's stand-in: accepts one BGP session at a time and tells what it was announced.
//!
//! For `weir demo` and for tests. It installs nothing and announces nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use weir_model::{Filter, IpNet, Match, Measure};

use crate::flowspec::{self, Afi, Nlri, TrafficAction};
use crate::rib::RouteKey;
use crate::wire::{self, Families, Family, Framer, Message, Open, OpenSettings, ReceivedUpdate};

/// Hold time offered, seconds.
const HOLD_SECS: u16 = 90;

/// Routes held at most; further ones are reported and forgotten.
const ROUTES_MAX: usize = 100_000;

/// What the receiver saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A session is up.
    Up {
        /// The peer's AS number.
        asn: u32,
        /// Families both speak.
        families: Families,
    },
    /// A route was announced, or announced anew.
    Announced(Received),
    /// A route was withdrawn.
    Withdrawn(Received),
    /// Everything of a family has been announced.
    EndOfRib(Family),
    /// An UPDATE, or a rule in it, that cannot be read; why.
    Unreadable(String),
    /// The session is gone, and every route with it; why.
    Down(String),
}

/// A route as received.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// In a line, as it was on the wire: `flowspec dst 203.0.113.7/32 proto 17 drop`.
    pub text: String,
    /// The same in weir's words, if it has them.
    pub measure: Option<Measure>,
    /// Standard communities.
    pub communities: Vec<u32>,
}

/// Accepts sessions, one after the other, until `out` is closed or the listener fails.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    asn: u32,
    router_id: Ipv4Addr,
    out: mpsc::Sender<Event>,
) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let mut session = Session { asn, router_id, routes: BTreeMap::new(), out: &out };
        let why = match session.run(stream).await {
            Ok(why) => why,
            Err(error) => error.to_string(),
        };
        if out.send(Event::Down(why)).await.is_err() {
            return Ok(());
        }
    }
}

struct Session<'a> {
    asn: u32,
    router_id: Ipv4Addr,
    routes: BTreeMap<RouteKey, Received>,
    out: &'a mpsc::Sender<Event>,
}

impl Session<'_> {
    async fn run(&mut self, mut stream: TcpStream) -> std::io::Result<String> {
        stream.set_nodelay(true)?;
        let open = OpenSettings {
            asn: self.asn,
            hold_secs: HOLD_SECS,
            id: self.router_id,
            families: Families::ALL,
            restart_secs: None,
            restarting: false,
            long_lived_secs: None,
        };
        stream.write_all(&open.write().map_err(std::io::Error::other)?).await?;
        let mut framer = Framer::default();
        let mut octets = vec![0; wire::MAX_MESSAGE];
        let mut peer: Option<Open> = None;
        let mut hold = Duration::from_secs(240);
        let mut heard = Instant::now();
        let mut keepalive = tokio::time::interval(Duration::from_secs(u64::from(HOLD_SECS / 3)));
        keepalive.tick().await;
        loop {
            while let Some(message) = match framer.next_message() {
                Ok(message) => message,
                Err(error) => {
                    stream.write_all(&error.write()).await?;
                    return Ok(format!("sent NOTIFICATION {error}"));
                }
            } {
                heard = Instant::now();
                match message {
                    Message::Open(open) => {
                        stream.write_all(&wire::keepalive()).await?;
                        let secs = u64::from(open.hold_secs.min(HOLD_SECS));
                        // Without a hold time the connection itself has to tell.
                        hold = Duration::from_secs(if secs == 0 { 86_400 } else { secs });
                        keepalive = tokio::time::interval(Duration::from_secs((secs / 3).max(1)));
                        let up = Event::Up { asn: open.asn, families: open.families };
                        peer = Some(open);
                        if self.out.send(up).await.is_err() {
                            return Ok("nobody listens".into());
                        }
                    }
                    Message::Notification(notification) => {
                        return Ok(format!("peer sent NOTIFICATION {notification}"));
                    }
                    Message::Update(body) if peer.is_some() => {
                        for event in self.update(&body) {
                            if self.out.send(event).await.is_err() {
                                return Ok("nobody listens".into());
                            }
                        }
                    }
                    Message::Update(_) | Message::Keepalive | Message::RouteRefresh(_) => {}
                }
            }
            tokio::select! {
                read = stream.read(&mut octets) => match read? {
                    0 => return Ok("the peer closed the connection".into()),
                    n => framer.push(&octets[..n]),
                },
                _ = keepalive.tick() => stream.write_all(&wire::keepalive()).await?,
                () = tokio::time::sleep_until(heard + hold) => {
                    let error = wire::Notification::new(wire::codes::HOLD_TIMER, 0);
                    stream.write_all(&error.write()).await?;
                    return Ok(format!("sent NOTIFICATION {error}"));
                }
            }
        }
    }

    fn update(&mut self, body: &[u8]) -> Vec<Event> {
        let update = match ReceivedUpdate::read(body) {
            Ok(update) => update,
            Err(error) => return vec![Event::Unreadable(error.to_string())],
        };
        if let Some((afi, safi)) = update.end_of_rib() {
            return Family::of(afi, safi).map(Event::EndOfRib).into_iter().collect();
        }
        let mut events = Vec::new();
        for net in &update.withdrawn {
            events.extend(self.withdraw(RouteKey::Unicast(IpNet::V4(*net))));
        }
        if let Some(mp) = &update.unreach {
            match (mp.afi, mp.safi) {
                (2, 1) => match mp.nets6() {
                    Ok(nets) => events.extend(
                        nets.iter().filter_map(|n| self.withdraw(RouteKey::Unicast((*n).into()))),
                    ),
                    Err(error) => events.push(Event::Unreadable(error.to_string())),
                },
                (afi, 133) => {
                    let afi = if afi == 1 { Afi::Ipv4 } else { Afi::Ipv6 };
                    for (octets, _) in flowspec::decode_all(afi, mp.nlri) {
                        events.extend(self.withdraw(RouteKey::Flow(afi, octets.to_vec())));
                    }
                }
                _ => {}
            }
        }
        for net in &update.announced {
            events.push(self.black_hole(IpNet::V4(*net), &update));
        }
        if let Some(mp) = &update.reach {
            match (mp.afi, mp.safi) {
                (2, 1) => match mp.nets6() {
                    Ok(nets) => {
                        events.extend(nets.iter().map(|n| self.black_hole((*n).into(), &update)));
                    }
                    Err(error) => events.push(Event::Unreadable(error.to_string())),
                },
                (afi, 133) => {
                    let afi = if afi == 1 { Afi::Ipv4 } else { Afi::Ipv6 };
                    for (octets, rule) in flowspec::decode_all(afi, mp.nlri) {
                        events.push(match rule {
                            Ok(rule) => self.flow(afi, octets, &rule, &update),
                            Err(error) => Event::Unreadable(error.to_string()),
                        });
                    }
                }
                _ => {}
            }
        }
        events
    }

    fn announce(&mut self, key: RouteKey, received: Received) -> Event {
        if self.routes.len() < ROUTES_MAX || self.routes.contains_key(&key) {
            self.routes.insert(key, received.clone());
        }
        Event::Announced(received)
    }

    fn withdraw(&mut self, key: RouteKey) -> Option<Event> {
        self.routes.remove(&key).map(Event::Withdrawn)
    }

    fn black_hole(&mut self, net: IpNet, update: &ReceivedUpdate<'_>) -> Event {
        let measure = Measure::Blackhole(net);
        let received = Received {
            text: measure.to_string(),
            measure: Some(measure),
            communities: update.communities.clone(),
        };
        self.announce(RouteKey::Unicast(net), received)
    }

    fn flow(&mut self, afi: Afi, octets: &[u8], rule: &Nlri, update: &ReceivedUpdate<'_>) -> Event {
        let actions: Vec<TrafficAction> =
            update.extended.iter().filter_map(|c| TrafficAction::decode(*c).ok()).collect();
        let packets = Match::try_from(rule).ok();
        let action = match actions[..] {
            [action] => action.to_action(),
            _ => None,
        };
        let measure = packets
            .clone()
            .zip(action)
            .map(|(packets, action)| Measure::FlowSpec(Filter { packets, action }));
        let text = measure.as_ref().map(ToString::to_string).unwrap_or_else(|| {
            let packets = packets.map_or_else(|| rule.to_string(), |p| p.to_string());
            format!("flowspec {packets} {actions:?}")
        });
        let received = Received { text, measure, communities: update.communities.clone() };
        self.announce(RouteKey::Flow(afi, octets.to_vec()), received)
    }
}
