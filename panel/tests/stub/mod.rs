//! A panel in a thread: real HTTP on loopback, the shapes, paging, errors, permissions and limits
//! of Pterodactyl and of Pelican, and the faults that panels have.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use serde_json::{Value, json};

/// Key that may read everything.
pub(crate) const KEY: &str = "ptla_0123456789abcdef0123456789";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Accepts and hangs up.
    Down,
    /// Sends half of the body and then nothing more.
    Slow,
    /// Says one row more than there is.
    LyingTotal,
    Html,
    Login,
    Elsewhere,
    Throttle(u64),
    Status(u16),
    /// A server is created or deleted before each page.
    Restless,
    /// Each page repeats the last row of the one before in place of its first.
    Duplicates,
    /// Allocations come as a null resource.
    DeniedInclude,
    DeniedNodes,
    DeniedEggs,
    WrongAddress,
    HugeBody,
}

#[derive(Clone, Debug)]
pub(crate) struct StubServer {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) node: u64,
    pub(crate) user: u64,
    pub(crate) egg: u64,
    pub(crate) status: Option<String>,
    /// Number, address, alias, port; the first is the primary one.
    pub(crate) allocations: Vec<(u64, String, Option<String>, u16)>,
    pub(crate) environment: Value,
}

impl StubServer {
    pub(crate) fn new(id: u64, name: &str, egg: u64, ip: &str, port: u16) -> Self {
        Self {
            id,
            name: name.to_owned(),
            node: 1,
            user: 11,
            egg,
            status: None,
            allocations: vec![(id * 100, ip.to_owned(), None, port)],
            environment: json!({"RCON_PASS": "not-a-real-secret", "STARTUP": "x"}),
        }
    }

    pub(crate) fn uuid(&self) -> String {
        format!("{:08x}-0000-4000-8000-{:012x}", self.id, self.id)
    }
}

pub(crate) struct World {
    pub(crate) pelican: bool,
    pub(crate) servers: Vec<StubServer>,
    /// Number, name, fqdn.
    pub(crate) nodes: Vec<(u64, String, String)>,
    /// Number, name.
    pub(crate) eggs: Vec<(u64, String)>,
    pub(crate) fault: Fault,
    pub(crate) may_write: bool,
    pub(crate) rate_limit: u32,
    pub(crate) requests: Vec<String>,
    held: Vec<TcpStream>,
    stopping: bool,
}

pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    world: Arc<Mutex<World>>,
    thread: Option<JoinHandle<()>>,
}

impl Stub {
    pub(crate) fn start(pelican: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(World {
            pelican,
            servers: Vec::new(),
            nodes: vec![
                (1, "fra-1".into(), "203.0.113.1".into()),
                (2, "ams-2".into(), "203.0.113.2".into()),
            ],
            eggs: vec![(1, "Paper".into()), (14, "Rust".into()), (21, "Valheim".into())],
            fault: Fault::None,
            may_write: false,
            rate_limit: if pelican { 256 } else { 240 },
            requests: Vec::new(),
            held: Vec::new(),
            stopping: false,
        }));
        let shared = Arc::clone(&world);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.lock().unwrap().stopping {
                    return;
                }
                // A peer that hung up is the test's business, not the stub's.
                let _ = serve(stream, &shared);
            }
        });
        Self { address, world, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.world().stopping = true;
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

struct Request {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    authorized: bool,
    json: bool,
}

fn request(stream: &TcpStream) -> std::io::Result<Option<Request>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
        authorized: false,
        json: false,
    };
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        let (name, value) = header.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorized = value.trim() == format!("Bearer {KEY}"),
            "accept" => request.json = value.contains("json"),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "cookie" | "origin" | "referer" => panic!("{name} turns a panel to cookies"),
            _ => {}
        }
    }
    reader.take(length).read_to_end(&mut Vec::new())?;
    Ok(Some(request))
}

fn serve(stream: TcpStream, shared: &Mutex<World>) -> std::io::Result<()> {
    let Some(request) = request(&stream)? else { return Ok(()) };
    let mut world = shared.lock().unwrap();
    world.requests.push(format!("{} {}", request.method, request.path));
    if world.fault == Fault::Down {
        return Ok(());
    }
    let (status, extra, body) = answer(&mut world, &request);
    let limit = world.rate_limit;
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nX-RateLimit-Limit: {limit}\r\n\
         X-RateLimit-Remaining: {}\r\n{extra}Content-Length: {}\r\nConnection: close\r\n\r\n",
        limit - 1,
        body.len()
    );
    let mut stream = stream;
    stream.write_all(head.as_bytes())?;
    if world.fault == Fault::Slow {
        stream.write_all(&body.as_bytes()[..body.len() / 2])?;
        world.held.push(stream);
        return Ok(());
    }
    drop(world);
    stream.write_all(body.as_bytes())
}

type Answer = (u16, String, String);

fn error(status: u16, code: &str, detail: &str) -> Answer {
    let body = json!({"errors": [{"code": code, "status": status.to_string(), "detail": detail}]});
    (status, String::new(), body.to_string())
}

fn not_found() -> Answer {
    error(404, "NotFoundHttpException", "The requested resource could not be found on the server.")
}

fn unauthorized_action() -> Answer {
    error(403, "AccessDeniedHttpException", "This action is unauthorized.")
}

fn answer(world: &mut World, request: &Request) -> Answer {
    match world.fault.clone() {
        Fault::Html => return (200, String::new(), "<!doctype html><title>Panel</title>".into()),
        Fault::Login => return (302, "Location: /auth/login\r\n".into(), String::new()),
        Fault::Elsewhere => {
            return (301, "Location: http://192.0.2.1/steal\r\n".into(), String::new());
        }
        Fault::Throttle(secs) => {
            let (status, _, body) = error(429, "ThrottleRequestsException", "Too Many Attempts.");
            return (status, format!("Retry-After: {secs}\r\n"), body);
        }
        Fault::Status(status) => return error(status, "QueryException", "An unexpected error"),
        Fault::WrongAddress => {
            return error(
                403,
                "AccessDeniedHttpException",
                "This IP address (198.51.100.9) does not have permission to access the API using these credentials.",
            );
        }
        Fault::HugeBody => return (200, String::new(), " ".repeat(20 << 20)),
        _ => {}
    }
    if !request.json {
        return (302, "Location: /auth/login\r\n".into(), String::new());
    }
    if !request.authorized {
        return error(401, "AuthenticationException", "Unauthenticated.");
    }
    if request.method == "POST" {
        return if world.may_write {
            error(422, "ValidationException", "The name field is required.")
        } else {
            unauthorized_action()
        };
    }
    let list = match request.path.strip_prefix("/api/application/") {
        Some("servers") => servers(world),
        Some("nodes") if world.fault == Fault::DeniedNodes => return unauthorized_action(),
        Some("nodes") => nodes(world),
        Some("eggs") if world.pelican && world.fault != Fault::DeniedEggs => {
            let data: Vec<Value> = world.eggs.iter().map(egg).collect();
            return (200, String::new(), json!({"object": "list", "data": data}).to_string());
        }
        Some("nests") if !world.pelican && world.fault != Fault::DeniedEggs => nests(world),
        Some("eggs") if world.pelican => return unauthorized_action(),
        Some("nests") if !world.pelican => return unauthorized_action(),
        Some("users") => users(world),
        _ => return not_found(),
    };
    let number = |name: &str, default| {
        let found = request.query.iter().find(|(k, _)| k == name);
        found.map_or(default, |(_, v)| v.parse().unwrap())
    };
    (200, String::new(), page(world, list, number("page", 1), number("per_page", 50)).to_string())
}

fn page(world: &World, list: Vec<Value>, page: usize, size: usize) -> Value {
    let total = list.len() + usize::from(world.fault == Fault::LyingTotal);
    let mut rows: Vec<Value> = list.iter().skip((page - 1) * size).take(size).cloned().collect();
    if world.fault == Fault::Duplicates && page > 1 && !rows.is_empty() {
        rows[0] = list[(page - 1) * size - 1].clone();
    }
    let count = rows.len();
    let pages = total.div_ceil(size).max(1);
    json!({"object": "list", "data": rows, "meta": {"pagination": {
        "total": total, "count": count, "per_page": size, "current_page": page, "total_pages": pages,
        "links": {}}}})
}

fn servers(world: &mut World) -> Vec<Value> {
    if world.fault == Fault::Restless {
        let id = world.servers.len() as u64 + 1000;
        world.servers.push(StubServer::new(id, "new", 1, "203.0.113.99", 1024 + (id as u16)));
    }
    let denied = world.fault == Fault::DeniedInclude;
    world.servers.iter().map(|s| server(s, world.pelican, denied)).collect()
}

fn server(s: &StubServer, pelican: bool, denied: bool) -> Value {
    let allocations: Vec<Value> = s
        .allocations
        .iter()
        .map(|(id, ip, alias, port)| {
            json!({"object": "allocation", "attributes": {"id": id, "ip": ip, "alias": alias,
                "port": port, "notes": null, "assigned": true}})
        })
        .collect();
    let allocations = if denied {
        json!({"object": "null_resource", "attributes": null})
    } else {
        json!({"object": "list", "data": allocations})
    };
    let mut attributes = json!({
        "id": s.id, "external_id": null, "uuid": s.uuid(), "identifier": &s.uuid()[..8],
        "name": s.name, "description": "", "status": s.status,
        "suspended": s.status.as_deref() == Some("suspended"),
        "limits": {"memory": 4096, "swap": 0, "disk": 20000, "io": 500, "cpu": 400, "threads": null,
            "oom_disabled": true},
        "feature_limits": {"databases": 0, "allocations": 5, "backups": 0},
        "user": s.user, "node": s.node, "allocation": s.allocations.first().map(|a| a.0),
        "nest": 1, "egg": s.egg,
        "container": {"startup_command": "./run +secret not-a-real-secret",
            "image": "ghcr.io/example/yolks:debian", "installed": 1, "environment": s.environment},
        "updated_at": "2026-03-01T09:00:00+00:00", "created_at": "2026-03-01T09:00:00+00:00",
        "relationships": {"allocations": allocations}});
    if pelican {
        attributes.as_object_mut().unwrap().remove("nest");
    }
    json!({"object": "server", "attributes": attributes})
}

fn nodes(world: &World) -> Vec<Value> {
    let node = |(id, name, fqdn): &(u64, String, String)| {
        json!({"object": "node", "attributes": {"id": id, "uuid": format!("node-{id}"),
            "public": true, "name": name, "description": null, "location_id": 1, "fqdn": fqdn,
            "scheme": "https", "behind_proxy": false, "maintenance_mode": false, "memory": 1,
            "daemon_listen": 8080, "daemon_sftp": 2022, "daemon_base": "/var/lib/x",
            "allocated_resources": {"memory": 1, "disk": 1}}})
    };
    world.nodes.iter().map(node).collect()
}

fn egg((id, name): &(u64, String)) -> Value {
    json!({"object": "egg", "attributes": {"id": id, "uuid": format!("egg-{id}"), "name": name,
        "author": "a@example.net", "features": null, "tags": [], "docker_image": "ghcr.io/x/yolks:debian",
        "config": {"files": [], "startup": {"done": "x"}}, "startup": "./run",
        "script": {"install": "#!/bin/bash\n"}}})
}

fn nests(world: &World) -> Vec<Value> {
    let eggs: Vec<Value> = world.eggs.iter().map(egg).collect();
    vec![json!({"object": "nest", "attributes": {"id": 1, "uuid": "nest-1", "name": "Games",
        "relationships": {"eggs": {"object": "list", "data": eggs}}}})]
}

fn users(world: &World) -> Vec<Value> {
    let mut ids: Vec<u64> = world.servers.iter().map(|s| s.user).collect();
    ids.sort_unstable();
    ids.dedup();
    let user = |id: &u64| {
        json!({"object": "user", "attributes": {"id": id, "username": format!("owner{id}"),
            "email": format!("owner{id}@example.org"), "root_admin": false, "2fa": false}})
    };
    ids.iter().map(user).collect()
}
