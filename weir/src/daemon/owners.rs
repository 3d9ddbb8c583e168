//! The owners' listener: sockets, chance and mail around [`Portal`], which decides everything.
//!
//! ```text
//!   proxy --HTTP--> owners --LookUp--> owners/mail --> panel (users), sendmail
//!                     +----Hint-----> panels
//! ```
//! Looking an address up and mailing happen on a thread of their own: how long an answer takes tells
//! nobody whether the panel knows an address.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::serve::ListenerExt as _;
use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::watch;
use tracing::{error, info, warn};
use weir_config::Config;
use weir_model::Snapshot;
use weir_panel::client::{Client, Timeouts};
use weir_panel::owner::{Answer, Ask, Door, Effect, Links, Mail, Portal, World, hook};
use weir_panel::runner::{Command, Update};
use weir_panel::{PanelConfig, parse};

use super::descriptors::shares;
use super::limited::Limited;
use super::panels::Panels;
use super::store_thread::Shares;
use super::{now, spawn as spawn_thread};

/// Addresses waiting to be looked up; more are dropped, and their askers told what all are told.
const LOOKUPS_MAX: usize = 32;

/// The listener, if it is configured, and what outlives it.
#[derive(Debug)]
pub(crate) struct Owners {
    pub(crate) portal: Arc<Mutex<Portal>>,
    update: Arc<ArcSwap<Update>>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    commands: Sender<Command>,
    failed: Sender<String>,
    running: Option<Running>,
}

/// A listener that runs.
#[derive(Debug)]
struct Running {
    /// As configured.
    asked: SocketAddr,
    socket: TcpListener,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// Another configuration with what it needs.
pub(crate) struct Ready {
    doors: Vec<Door>,
    public_url: String,
    pages: Option<Pages>,
}

/// What pages need.
struct Pages {
    /// As configured.
    asked: SocketAddr,
    socket: TcpListener,
    /// Who sends mail.
    mailer: Mailer,
    /// Connections at most.
    places: usize,
}

struct Shared {
    portal: Arc<Mutex<Portal>>,
    update: Arc<ArcSwap<Update>>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    commands: Sender<Command>,
    lookups: Sender<String>,
}

impl Owners {
    /// Without a listener so far.
    pub(crate) fn new(
        panels: &Panels,
        snapshot: &Arc<ArcSwap<Snapshot>>,
        shares: Shares,
        failed: &Sender<String>,
    ) -> Self {
        Self {
            portal: Arc::new(Mutex::new(Portal::new(Vec::new(), "", Links::restore(shares)))),
            update: panels.shared(),
            snapshot: Arc::clone(snapshot),
            commands: panels.commands(),
            failed: failed.clone(),
            running: None,
        }
    }

    /// As bound; `None` when it is not configured.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.running.as_ref().and_then(|running| running.socket.local_addr().ok())
    }

    /// Reads keys, and binds another address beside the present one.
    pub(crate) fn prepare(&self, config: &Config, check: bool) -> anyhow::Result<Ready> {
        let door = |panel: &PanelConfig| Door {
            panel: panel.name.clone(),
            url: panel.url.clone(),
            hook_token: panel.hook_token.clone(),
            embed_key: panel.embed_key.clone(),
        };
        let doors = config.panels.iter().map(door).collect();
        let Some(owners) = &config.owners else {
            return Ok(Ready { doors, public_url: String::new(), pages: None });
        };
        let mailer = Mailer::new(config, &self.portal)?;
        let same = self.running.as_ref().filter(|own| own.asked == owners.listen);
        let pages = if check {
            None
        } else {
            let socket = match same {
                Some(own) => own.socket.try_clone(),
                None => {
                    let before = self.running.as_ref().map(|own| &own.socket);
                    weir_api::server::bind(owners.listen, before)
                }
            };
            let socket = socket.with_context(|| format!("owners.listen {}", owners.listen))?;
            let places = shares(config).owners;
            Some(Pages { asked: owners.listen, socket, mailer, places })
        };
        Ok(Ready { doors, public_url: owners.public_url.clone(), pages })
    }

    /// Puts it in force. Links and sessions of owners go on.
    ///
    /// # Errors
    /// When the system gives no thread, runtime or descriptor.
    pub(crate) fn put_in_force(&mut self, ready: Ready) -> anyhow::Result<()> {
        let Ready { doors, public_url, pages } = ready;
        let mut portal = self.portal.lock().unwrap_or_else(PoisonError::into_inner);
        portal.configure(doors, &public_url);
        drop(portal);
        let next = pages.map(|pages| self.start(pages));
        let next = next.transpose()?;
        if let Some(before) = std::mem::replace(&mut self.running, next) {
            before.stop();
        }
        Ok(())
    }

    pub(crate) fn stop(self) {
        if let Some(running) = self.running {
            running.stop();
        }
    }

    fn start(&self, pages: Pages) -> anyhow::Result<Running> {
        let Pages { asked, socket, mailer, places } = pages;
        if let Ok(address) = socket.local_addr() {
            info!(%address, places, "pages for owners");
        }
        let (lookups, waiting) = bounded(LOOKUPS_MAX);
        let shared = Arc::new(Shared {
            portal: Arc::clone(&self.portal),
            update: Arc::clone(&self.update),
            snapshot: Arc::clone(&self.snapshot),
            commands: self.commands.clone(),
            lookups,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .context("owners runtime")?;
        let listener = socket.try_clone().context("owners socket")?;
        let listener = runtime
            .block_on(async { tokio::net::TcpListener::from_std(listener) })
            .context("owners socket")?;
        // It ends with the last handle on `lookups`, and owns nothing that could be lost.
        spawn_thread("owners/mail", &self.failed, move || mailer.run(&waiting))?;
        let (stop, mut stopping) = watch::channel(false);
        let thread = spawn_thread("owners", &self.failed, move || {
            let router = Router::new()
                .fallback(answer)
                .layer(DefaultBodyLimit::max(hook::BODY_MAX))
                .with_state(shared);
            runtime.block_on(async move {
                // Nothing is done to a connection but that axum then knows where it is from.
                let listener = Limited::new(listener, places).tap_io(|_| {});
                let service = router.into_make_service_with_connect_info::<SocketAddr>();
                tokio::select! {
                    outcome = axum::serve(listener, service) => {
                        if let Err(error) = outcome {
                            error!(%error, "the owners' listener stopped");
                        }
                    }
                    // An error means that the daemon is gone: stop as well.
                    _ = stopping.wait_for(|stop| *stop) => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Running { asked, socket, stop, thread })
    }
}

impl Running {
    fn stop(self) {
        self.stop.send_replace(true);
        super::join("owners", [self.thread]);
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(random) = chance() else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let ask = Ask {
        method: method.as_str(),
        path: uri.path(),
        query: uri.query().unwrap_or_default(),
        cookie: text("cookie"),
        authorization: text("authorization"),
        origin: text("origin"),
        from: client(peer.ip(), text("x-forwarded-for")),
        body: &body,
        now: now(),
        random,
    };
    let world = World {
        panels: shared.update.load().panels.iter().filter_map(|p| p.snapshot.clone()).collect(),
        incidents: shared.snapshot.load().incidents.clone(),
    };
    let answer = shared.portal.lock().unwrap_or_else(PoisonError::into_inner).answer(&ask, &world);
    match &answer.effect {
        Some(Effect::Hint(panel)) => hint(&shared, panel),
        Some(Effect::LookUp(email)) => look_up_later(&shared, email),
        None => {}
    }
    respond(answer)
}

fn hint(shared: &Shared, panel: &str) {
    // Full: a poll is about to come anyway.
    let _ = shared.commands.try_send(Command::Hint(Some(panel.to_owned())));
}

fn look_up_later(shared: &Shared, email: &str) {
    if shared.lookups.try_send(email.to_owned()).is_err() {
        warn!("too many owners ask for links at once");
    }
}

/// The listener is bound to loopback, so that the last address was written by the operator's proxy.
fn client(peer: IpAddr, forwarded: Option<&str>) -> IpAddr {
    forwarded
        .filter(|_| peer.is_loopback())
        .and_then(|list| list.rsplit(',').next()?.trim().parse().ok())
        .unwrap_or(peer)
}

fn respond(answer: Answer) -> Response {
    let mut response = axum::http::Response::builder()
        .status(answer.status)
        .header("content-type", answer.content_type);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response
        .body(axum::body::Body::from(answer.body))
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// 256 bits of the system's chance.
pub(crate) fn chance() -> Option<[u8; 32]> {
    let mut random = [0; 32];
    std::fs::File::open("/dev/urandom").ok()?.read_exact(&mut random).ok()?;
    Some(random)
}

struct Mailer {
    panels: Vec<(String, Client)>,
    portal: Arc<Mutex<Portal>>,
    from: String,
    sendmail: Option<PathBuf>,
}

impl Mailer {
    fn new(config: &Config, portal: &Arc<Mutex<Portal>>) -> anyhow::Result<Self> {
        let mut panels = Vec::new();
        for panel in config.panels.iter().filter(|p| p.owners) {
            let key = panel.read_key().map_err(|why| anyhow!("panel {:?}: {why}", panel.name))?;
            let client = Client::new(&panel.url, key, Timeouts::default());
            panels.push((panel.name.clone(), client));
        }
        let owners = config.owners.as_ref();
        Ok(Self {
            panels,
            portal: Arc::clone(portal),
            from: owners.map(|o| o.from.clone()).unwrap_or_default(),
            sendmail: owners.and_then(|o| o.sendmail.clone()),
        })
    }

    fn run(&self, waiting: &Receiver<String>) {
        for email in waiting {
            for (panel, client) in &self.panels {
                if let Some(user) = look_up(client, &email) {
                    self.send(panel, user, &email);
                }
            }
        }
    }

    fn send(&self, panel: &str, user: u64, email: &str) {
        let (Some(random), Some(sendmail)) = (chance(), &self.sendmail) else {
            warn!("an owner asked for a link, but owners.sendmail is not set");
            return;
        };
        let (mail, url) = {
            let mut portal = self.portal.lock().unwrap_or_else(PoisonError::into_inner);
            let mail = portal.links().link(panel, user, email, random, now());
            let url = portal.link_url(mail.token.reveal());
            (mail, url)
        };
        if let Err(error) = hand_over(sendmail, &self.from, &mail, &url) {
            warn!(%error, "an e-mail was not sent");
        }
    }
}

fn look_up(client: &Client, email: &str) -> Option<u64> {
    let path = format!("/api/application/users?filter[email]={}", encode(email));
    match client.get(&path) {
        Ok(reply) if reply.status == 200 => {
            parse::user_with_email(&reply.body, email).ok().flatten()
        }
        Ok(reply) => {
            warn!(status = reply.status, "the panel does not let users be looked up");
            None
        }
        Err(failure) => {
            warn!(%failure, "the panel did not answer");
            None
        }
    }
}

/// RFC 3986 §2.1.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.') {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

fn hand_over(program: &Path, from: &str, mail: &Mail, url: &str) -> anyhow::Result<()> {
    let text = format!(
        "From: {from}\nTo: {}\nSubject: Your link to server protection\nContent-Type: text/plain; charset=utf-8\n\
         Auto-Submitted: auto-generated\n\nThis link shows the protection of your game servers. It works once, \
         for fifteen minutes:\n\n{url}\n\nIf you did not ask for it, ignore this message.\n",
        mail.to
    );
    let mut child = Program::new(program)
        .args(["-t", "-i"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{}", program.display()))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "{} ended with {status}", program.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_proxy_is_believed_about_addresses() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let check = |peer, list, expected| assert_eq!(client(ip(peer), list), ip(expected));
        check("127.0.0.1", Some("198.51.100.1, 203.0.113.5"), "203.0.113.5");
        check("127.0.0.1", Some("nonsense"), "127.0.0.1");
        check("127.0.0.1", None, "127.0.0.1");
        check("192.0.2.1", Some("203.0.113.5"), "192.0.2.1");
        assert_eq!(encode("a+b@x.y"), "a%2Bb%40x.y");
    }
}
