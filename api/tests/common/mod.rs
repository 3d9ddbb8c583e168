//! A router over a stub core, called without sockets.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;
use tower::ServiceExt as _;
use weir_api::panels::{Desk, Refusal};
use weir_api::server::{Local, Peer};
use weir_api::{App, Ask as Question, Clock, Config, Deliveries, Handles, Metrics, Records};
use weir_model::{
    Command, CommandError, Direction, DryRun, Family, Incident, IncidentId, IncidentState, Metric,
    Millis, MitigationId, PanelOrder, PanelServer, PanelStatus, PeerProbe, Phase, ProbeStage, Rate,
    Reason, Role, Snapshot, Verdict,
};

/// Milliseconds since 1970 at which tests begin.
pub const START: u64 = 1_795_168_965_000;

pub const PASSWORD: &str = "correct horse battery";

/// A router, its clock and what the core was asked.
pub struct World {
    pub router: Router,
    pub app: App,
    pub clock: Arc<AtomicU64>,
    pub code: String,
    pub asked: Arc<std::sync::Mutex<Vec<Command>>>,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub settings: Arc<Settings>,
}

/// A panel's synchronisation that only notes what it is told.
#[derive(Debug, Default)]
pub struct Panels(std::sync::Mutex<Vec<String>>);

impl Desk for Panels {
    fn panels(&self) -> Vec<PanelStatus> {
        vec![PanelStatus { name: "main".to_owned(), held: 3, ..PanelStatus::default() }]
    }

    fn servers(&self, panel: &str) -> Option<Vec<PanelServer>> {
        let server = |n: u32| PanelServer {
            uuid: format!("00000000-0000-4000-8000-{n:012}"),
            name: format!("lobby {n}"),
            state: "running".to_owned(),
            node: "fra1".to_owned(),
            customer: None,
            game: "Minecraft".to_owned(),
            game_why: String::new(),
            ports: Vec::new(),
        };
        (panel == "main").then(|| (0..600).map(server).collect())
    }

    fn order(&self, panel: &str, order: PanelOrder) -> Result<(), Refusal> {
        if panel != "main" {
            return Err(Refusal::Unknown);
        }
        self.0.lock().unwrap().push(format!("{order:?}"));
        Ok(())
    }

    fn share(&self, panel: &str, server: &str, _by: &str) -> Result<String, Refusal> {
        let known = panel == "main" && server.starts_with("00000000");
        known.then(|| "https://shield.example/share/x".to_owned()).ok_or(Refusal::Unknown)
    }

    fn unshare(&self, _panel: &str, _server: &str) -> Result<usize, Refusal> {
        Ok(1)
    }
}

/// One allow list, of which a change waits until it is approved or rejected.
#[derive(Debug, Default)]
pub struct Allow(std::sync::Mutex<Vec<String>>);

impl weir_api::allow::Desk for Allow {
    fn lists(&self) -> Vec<weir_api::allow::AllowStatus> {
        let first = vec!["198.51.100.0/24".to_owned()];
        let list = weir_api::allow::AllowStatus {
            name: "web".to_owned(),
            prefixes: 1,
            first,
            ..Default::default()
        };
        vec![list]
    }

    fn approve(&self, name: &str) -> Result<(), weir_api::allow::Refusal> {
        let mut done = self.0.lock().unwrap();
        if name != "web" {
            return Err(weir_api::allow::Refusal::Unknown);
        }
        if !done.is_empty() {
            return Err(weir_api::allow::Refusal::NothingWaits);
        }
        done.push(name.to_owned());
        Ok(())
    }

    fn reject(&self, name: &str) -> Result<(), weir_api::allow::Refusal> {
        self.approve(name)
    }

    fn refresh(&self, _name: &str) -> Result<(), weir_api::allow::Refusal> {
        Err(weir_api::allow::Refusal::NoSource)
    }
}

/// Settings that only lists of at most nine entries are good for.
#[derive(Debug, Default)]
pub struct Settings {
    /// What was put in force, in order.
    pub applied: std::sync::Mutex<Vec<Option<Value>>>,
    /// Until its other end is gone, the next change waits where it would be written: it takes a thread that
    /// may block, which must be the only one.
    pub gate: std::sync::Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    /// Whether the configuration file cannot be used.
    pub broken: std::sync::Mutex<bool>,
}

impl weir_api::settings::Desk for Settings {
    fn names(&self) -> &'static [&'static str] {
        &["channels", "exclusions", "groups", "ladder", "prefixes"]
    }

    fn check(&self, _name: &str, value: Option<&Value>) -> Result<Vec<String>, String> {
        let len = value.and_then(Value::as_array).map_or(0, Vec::len);
        match len {
            0..9 => Ok(Vec::new()),
            9 => Ok(vec!["nearly too long".to_owned()]),
            _ => Err("too long".to_owned()),
        }
    }

    fn in_force(&self) -> Result<String, String> {
        Ok("[protect]".to_owned())
    }

    fn complete(&self, name: &str, before: Option<&Value>, given: Value) -> Result<Value, String> {
        match (name, before) {
            // One that is sent empty stays as it was.
            ("channels", Some(before)) if given == Value::Array(Vec::new()) => Ok(before.clone()),
            _ => Ok(given),
        }
    }

    fn shown(&self, name: &str, value: &Value) -> Value {
        if name == "channels" { value.as_array().map_or(0, Vec::len).into() } else { value.clone() }
    }

    fn told(&self, name: &str, _before: Option<&Value>, value: &Value) -> Value {
        if let Some(gate) = self.gate.lock().unwrap().take() {
            tokio::task::spawn_blocking(move || gate.recv().is_ok());
        }
        self.shown(name, value)
    }

    fn hidden(&self, name: &str) -> Vec<String> {
        if name == "prefixes" { vec!["198.51.100.0/24".to_owned()] } else { Vec::new() }
    }

    fn reload(&self, check: bool) -> Result<weir_api::settings::Reload, String> {
        if *self.broken.lock().unwrap() {
            return Err("/etc/weir/weir.toml:3:1: unknown field `lisen`".to_owned());
        }
        Ok(weir_api::settings::Reload { check, ..weir_api::settings::Reload::default() })
    }

    fn of_file(&self, _name: &str) -> Value {
        Value::Array(Vec::new())
    }

    fn apply(&self, _name: &str, value: Option<&Value>) {
        self.applied.lock().unwrap().push(value.cloned());
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The session cookie that was set, as a browser sends it back.
    pub fn cookie(&self) -> String {
        let set = self.headers.get("set-cookie").expect("a cookie").to_str().unwrap();
        set.split(';').next().unwrap().to_owned()
    }
}

/// A request being put together.
pub struct Ask {
    request: axum::http::request::Builder,
    peer: Peer,
    body: Vec<u8>,
    page: bool,
    host: &'static str,
}

pub fn ask(method: &str, path: &str) -> Ask {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    Ask {
        request: Request::builder().method(method).uri(path),
        peer: Peer {
            address: Some("192.0.2.9".parse().unwrap()),
            tls: true,
            local: None,
            seat: None,
        },
        body: Vec::new(),
        page: true,
        host: "weir.example",
    }
}

impl Ask {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self.header("content-type", "application/json")
    }

    pub fn raw(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self.header("content-type", "application/json")
    }

    pub fn cookie(self, cookie: &str) -> Self {
        self.header("cookie", cookie)
    }

    pub fn token(self, secret: &str) -> Self {
        self.header("authorization", &format!("Bearer {secret}"))
    }

    pub fn from(mut self, address: &str) -> Self {
        self.peer.address = Some(address.parse::<IpAddr>().unwrap());
        self
    }

    pub fn plain(mut self) -> Self {
        self.peer.tls = false;
        self
    }

    pub fn local(mut self, trusted: bool) -> Self {
        let local = Local { uid: 1000, user: "eve".to_owned(), trusted };
        self.peer = Peer { address: None, tls: false, local: Some(local), seat: None };
        self
    }

    pub fn host(mut self, host: &'static str) -> Self {
        self.host = host;
        self
    }

    /// Without the header that weir's own page sends.
    pub fn not_from_the_page(mut self) -> Self {
        self.page = false;
        self
    }

    pub async fn send(mut self, world: &World) -> Answer {
        self.request = self.request.header("host", self.host);
        if self.page {
            self.request = self.request.header("x-weir-request", "1");
        }
        let mut request = self.request.body(Body::from(self.body)).unwrap();
        request.extensions_mut().insert(self.peer);
        let response = world.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 64 * 1024 * 1024).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }
}

pub fn world() -> World {
    world_with(Config::default())
}

pub fn world_with(config: Config) -> World {
    world_on(config, Records::in_memory().unwrap())
}

pub fn world_on(config: Config, records: Records) -> World {
    let world = world_again(config, records);
    assert!(!world.code.is_empty(), "there is no owner yet");
    world
}

/// On what another one has left: there may be an owner.
pub fn world_again(config: Config, records: Records) -> World {
    let clock = Arc::new(AtomicU64::new(START));
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot {
        at: Millis(START),
        incidents: vec![
            Arc::new(incident(2, "203.0.113.7/32")),
            Arc::new(incident(1, "198.51.100.1/32")),
        ],
        ..Snapshot::default()
    }));
    let (commands, mut requests) = mpsc::channel::<weir_api::Request>(8);
    let asked: Arc<std::sync::Mutex<Vec<Command>>> = Arc::default();
    let heard = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let answer = match &request.command {
                Command::Withdraw { mitigation: MitigationId(404), .. } => {
                    Err(CommandError::NotFound)
                }
                Command::Withdraw { mitigation, .. } | Command::Approve { mitigation, .. } => {
                    Ok(Some(*mitigation))
                }
                _ => Ok(None),
            };
            heard.lock().unwrap().push(request.command);
            let _ = request.reply.send(answer);
        }
    });
    let settings = Arc::new(Settings::default());
    let handles = Handles {
        snapshot: Arc::clone(&snapshot),
        commands,
        metrics: Arc::new(Metrics::new()),
        ready: Arc::new(AtomicBool::new(true)),
        health: Arc::default(),
        questions: None,
        facts: Arc::default(),
        agents: None,
        panels: Some(Arc::new(Panels::default())),
        allow: Arc::new(Allow::default()),
        settings: Arc::clone(&settings) as _,
        asks: Some(asks()),
        flows: std::path::PathBuf::from("/nonexistent/flows.sock"),
    };
    let time = Arc::clone(&clock);
    let clock_of = Clock::new(move || Millis(time.load(Ordering::Relaxed)));
    let app = App::new(config, handles, records, clock_of);
    let code = app.setup_code().unwrap().unwrap_or_default();
    World { router: weir_api::router(app.clone()), app, clock, code, asked, snapshot, settings }
}

/// Answers questions as a weir without webhooks but one would.
fn asks() -> mpsc::Sender<Question> {
    let (asks, mut questions) = mpsc::channel::<Question>(8);
    tokio::spawn(async move {
        while let Some(question) = questions.recv().await {
            match question {
                Question::DryRun { command, reply } => {
                    let _ = reply.send(match *command {
                        Command::Add { measure, .. } => {
                            Ok(DryRun { adds: vec![measure], ..DryRun::default() })
                        }
                        Command::Skip { .. } => {
                            Err(CommandError::Conflict("there is no further step".into()))
                        }
                        _ => Err(CommandError::NotFound),
                    });
                }
                Question::ProbePeer { name, reply } => {
                    let _ = reply.send((name == "edge").then(probe));
                }
                Question::ShowPeer { reply, .. } => drop(reply.send(None)),
                Question::LiftPeer { name, route, reply } => {
                    let known = route.is_none_or(|route| route == "00c0ffee");
                    let _ = reply.send((name == "edge").then_some(known));
                }
                Question::ForgetExporter { reply, .. } => drop(reply.send(())),
                Question::Deliveries { reply } => drop(reply.send(Deliveries::default())),
                Question::Channels { reply } => drop(reply.send(weir_api::Channels::default())),
                Question::Resend { delivery, reply } => drop(reply.send(delivery == 7)),
                Question::Mute { mute, reply } => {
                    let _ = reply.send(mute.channel.is_none_or(|name| name == "ops"));
                }
                Question::TestHook { name, reply } => {
                    let _ = reply.send((name == "ops").then_some(7));
                }
            }
        }
    });
    asks
}

/// A peer that answers but offers no FlowSpec.
fn probe() -> PeerProbe {
    PeerProbe {
        name: "edge".to_owned(),
        to: "192.0.2.1:179".parse().unwrap(),
        from: Some("192.0.2.9".parse().unwrap()),
        stage: ProbeStage::Accepted,
        good: false,
        connect_ms: Some(3),
        open: None,
        families: vec!["ipv4-unicast".to_owned()],
        missing: vec!["ipv4-flowspec".to_owned()],
        findings: vec!["it does not offer ipv4-flowspec".to_owned()],
    }
}

impl World {
    pub fn pass(&self, secs: u64) {
        self.clock.fetch_add(secs * 1000, Ordering::Relaxed);
    }

    /// Sets the owner up; returns their cookie.
    pub async fn owner(&self) -> String {
        let body = serde_json::json!({"code": self.code, "name": "root", "password": PASSWORD});
        let answer = ask("POST", "/api/v1/setup").json(&body).send(self).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.cookie()
    }

    /// A token of this role, made on the local socket.
    pub async fn token(&self, role: Role) -> String {
        let prefixes: &[&str] = if role == Role::Tenant { &["203.0.113.0/24"] } else { &[] };
        let body = serde_json::json!({"name": role.id(), "role": role, "prefixes": prefixes});
        let answer = ask("POST", "/api/v1/tokens").local(true).json(&body).send(self).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()["secret"].as_str().unwrap().to_owned()
    }

    pub async fn login(&self, name: &str, password: &str) -> Answer {
        let body = serde_json::json!({"name": name, "password": password});
        ask("POST", "/api/v1/login").json(&body).send(self).await
    }
}

pub fn incident(id: u64, target: &str) -> Incident {
    let at = Millis(START - 60_000);
    Incident {
        id: IncidentId(id),
        state: IncidentState::Open,
        group: None,
        opened: at,
        closed: None,
        verdict: Verdict {
            served: 0.0,
            incident: IncidentId(id),
            phase: Phase::Ongoing,
            at,
            target: target.parse().unwrap(),
            direction: Direction::Inbound,
            family: Family::UdpFlood,
            vectors: vec![],
            confidence: 90,
            evidence_groups: 2,
            separable: true,
            rate: Rate::default(),
            peak: Rate::default(),
            excess: Rate::default(),
            discarded: Rate::default(),
            legitimate: None,
            sources: 10.0,
            reason: Reason {
                metric: Metric::PacketsPerSec,
                value: 1.0,
                baseline: 0.5,
                multiplier: 3.0,
                threshold: 0.9,
                window_ms: 1000,
                samples: 100.0,
                sampling: 1.0,
                exporters: vec!["edge1".into()],
                service: None,
                own: None,
            },
            candidates: vec![],
            top_sources: vec![],
            summary: format!("a flood towards {target}"),
        },
        rung: None,
        reached: None,
        held: false,
        mitigations: vec![],
        timeline: vec![],
    }
}
