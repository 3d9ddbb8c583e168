//! Channels as they are told of a real attack, on the wire: Discord's shape on a stub, mail on a real SMTP server,
//! syslog on a real rsyslog. No service of the Internet is asked.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir::daemon;
use weir_tests::process::{Weir, text};
use weir_tests::skip;
use weir_traffic::Scene;

/// Requests as they came, beginning with their lines.
type Heard = Arc<Mutex<Vec<(String, Value)>>>;

/// A server that answers as Discord does, says 401 under `/refused`, and sends away under `/moved`.
fn stub() -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Heard::default();
    let own = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, &own);
        }
    });
    (address, heard)
}

fn answer(stream: TcpStream, heard: &Heard) {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).unwrap();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    let (status, said) = if line.contains("/moved") {
        ("302 Found\r\nLocation: /elsewhere", "{}")
    } else if line.contains("/refused") {
        ("401 Unauthorized", r#"{"message":"Invalid Webhook Token","code":50027}"#)
    } else {
        ("200 OK", r#"{"id":"42"}"#)
    };
    heard.lock().unwrap().push((line, serde_json::from_slice(&body).unwrap_or_default()));
    let length = said.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = reader.into_inner().write_all(format!("{head}{said}").as_bytes());
}

fn told(heard: &Heard, line: &str) -> Vec<Value> {
    let list = heard.lock().unwrap();
    list.iter().filter(|(l, _)| l.starts_with(line)).map(|(_, body)| body.clone()).collect()
}

/// A program that ends with the value.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An SMTP server that wants STARTTLS and a password, and writes down what it takes.
const SMTP: &str = r#"
import asyncio, json, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult
class Keep:
    async def handle_DATA(self, server, session, envelope):
        if session.ssl is None: return '530 5.7.0 no TLS'
        if b'Subject' not in envelope.content: return '550 no subject'
        with open(sys.argv[3], 'a') as f:
            f.write(json.dumps([envelope.rcpt_tos, envelope.content.decode()]) + '\n')
        return '250 2.0.0 taken'
def check(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b'weir', b's3cret'))
async def main():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); tls.load_cert_chain(sys.argv[1], sys.argv[2])
    make = lambda: SMTP(Keep(), hostname='localhost', tls_context=tls, require_starttls=True, authenticator=check, auth_required=True)
    server = await asyncio.get_running_loop().create_server(make, '127.0.0.1', 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"#;

/// The server, its port, and where it writes; none when it is not installed.
fn smtp(folder: &Path) -> Option<(Helper, u16, PathBuf)> {
    let python = "/usr/bin/python3";
    let there = Command::new(python).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        skip("channels", "not installed: python3-aiosmtpd");
        return None;
    }
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.join("smtp.pem"), folder.join("smtp.key"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mails = folder.join("mails");
    let child = Command::new(python)
        .args(["-c", SMTP])
        .args([&cert, &key, &mails])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut server = Helper(child);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Some((server, line.trim().parse().unwrap(), mails))
}

/// Lines that an rsyslog on a port of its own writes to a file; none when it is not installed.
fn rsyslog(folder: &Path) -> Option<(Helper, u16, PathBuf)> {
    if !Path::new("/usr/sbin/rsyslogd").exists() {
        skip("channels", "not installed: rsyslog");
        return None;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (config, lines) = (folder.join("rsyslog.conf"), folder.join("lines"));
    let text = format!(
        "module(load=\"imtcp\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
         template(name=\"t\" type=\"string\" string=\"%syslogseverity% %app-name% %msg%\\n\")\n\
         action(type=\"omfile\" file={lines:?} template=\"t\")\n"
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new("/usr/sbin/rsyslogd")
        .args(["-n", "-f"])
        .arg(&config)
        .arg("-i")
        .arg(folder.join("rsyslog.pid"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Some((Helper(child), port, lines))
}

/// Where flows go, whether the attack goes on, and whether anything does.
#[derive(Clone)]
struct Traffic {
    to: Arc<Mutex<SocketAddr>>,
    calm: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

/// Flows of the demonstration's attack, then of the calm before it, until it is stopped.
fn send(Traffic { to, calm, stop }: Traffic) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let (_keep, pause) = std::sync::mpsc::channel::<()>();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        loop {
            let start = Instant::now();
            let was_calm = calm.load(Ordering::Acquire);
            let (from_us, until_us) =
                if was_calm { (0, 8_000_000) } else { (9_000_000, 17_000_000) };
            let scene = Scene::demo(1);
            let wanted = scene
                .stream(daemon::now() - from_us / 1000)
                .skip_while(|d| d.at_us < from_us)
                .take_while(|d| d.at_us < until_us)
                .filter(|d| d.exporter == 0);
            for datagram in wanted {
                let due = start + Duration::from_micros(datagram.at_us - from_us);
                let wait = due.saturating_duration_since(Instant::now());
                if !wait.is_zero() {
                    let _ = pause.recv_timeout(wait);
                }
                if stop.load(Ordering::Acquire) {
                    return;
                }
                if calm.load(Ordering::Acquire) != was_calm {
                    break;
                }
                // Refused while weir is dead.
                let _ = socket.send_to(&datagram.payload, *to.lock().unwrap());
            }
        }
    })
}

fn flows(weir: &Weir) -> SocketAddr {
    weir.wait_for("its address for flows", |weir| {
        let log = weir.log();
        let ready = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ready = ready.into_iter().find(|line| line["message"] == "ready")?;
        ready["flows"].as_str()?.trim_matches(['[', ']']).parse().ok()
    })
}

#[test]
fn an_attack_is_one_conversation_on_every_channel_over_a_kill() {
    let keys = tempfile::tempdir().unwrap();
    let (address, heard) = stub();
    let (smtp, rsyslog) = (smtp(keys.path()), rsyslog(keys.path()));
    let hook = keys.path().join("discord.url");
    std::fs::write(&hook, format!("http://{address}/api/webhooks/1/t0ken\n")).unwrap();
    let mut config = format!(
        r#"
[[collector.exporters]]
address = "127.0.0.0/8"
[log]
format = "json"
[detector]
end_quiet_secs = 3
[mitigator]
probe_secs = 1
[[mitigator.ladder]]
rung = "drop"
above_bits_per_sec = 100000000
hold_secs = 1
[notify]
node = "dc1"
dashboard = "https://weir.example.net"
[[notify.channel]]
name = "chat"
service = "discord"
secrets = {{ url = {{ file = {hook:?} }} }}
update_secs = 1
"#
    );
    if let Some((_, port, _)) = &smtp {
        config.push_str(&format!(
            r#"
[[notify.channel]]
name = "mail"
service = "mail"
values = {{ server = "localhost", port = "{port}", ca_file = {:?}, user = "weir", from = "weir <weir@example.net>", to = "NOC <noc@example.net>, boss@example.net" }}
secrets = {{ password = "s3cret" }}
"#,
            keys.path().join("smtp.pem")
        ));
    }
    if let Some((_, port, _)) = &rsyslog {
        config.push_str(&format!(
            r#"
[[notify.channel]]
name = "siem"
service = "syslog"
values = {{ server = "127.0.0.1:{port}", protocol = "tcp", format = "cef" }}
"#
        ));
    }
    let weir = Weir::start(&config);
    let to = Arc::new(Mutex::new(flows(&weir)));
    let traffic = Traffic { to, calm: Arc::default(), stop: Arc::default() };
    let sender = send(traffic.clone());
    let first = weir.wait_for("the first message", |_| told(&heard, "POST").pop());
    let title = first["embeds"][0]["title"].as_str().unwrap();
    assert!(title.contains("203.0.113."), "{first}");
    assert!(first["embeds"][0]["url"].as_str().unwrap().starts_with("https://weir.example.net/#/"));
    weir.wait_for("that it is written down", |weir| {
        let store = weir_store::Store::open(&weir.folder().join("state.db")).unwrap();
        let body = String::from_utf8(store.blob("notify-1").unwrap()?.1).unwrap();
        assert!(!body.contains("t0ken") && !body.contains("s3cret"), "{body}");
        body.contains("\"refs\":{\"id\":\"42\"}").then_some(())
    });

    // It goes on after a kill, and ends in the message that it began in.
    let weir = Weir::start_in(weir.kill(), &config);
    traffic.calm.store(true, Ordering::Release);
    *traffic.to.lock().unwrap() = flows(&weir);
    weir.wait_for("the end", |_| {
        let edits = told(&heard, "PATCH /api/webhooks/1/t0ken/messages/42");
        edits.into_iter().find(|edit| edit["embeds"][0]["title"].to_string().contains("Over: "))
    });
    traffic.stop.store(true, Ordering::Release);
    sender.join().unwrap();
    assert_eq!(told(&heard, "POST").len(), 1, "one message");

    if let Some((_, _, mails)) = &smtp {
        let mails = weir.wait_for("two mails", |_| {
            let text = std::fs::read_to_string(mails).unwrap_or_default();
            let mails: Vec<Value> =
                text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            (mails.len() >= 2).then_some(mails)
        });
        assert_eq!(mails[0][0], json!(["noc@example.net", "boss@example.net"]));
        let header = |mail: &Value, name: &str| {
            let text = mail[1].as_str().unwrap().replace("\r\n ", " ");
            let found = text.lines().find_map(|l| l.strip_prefix(name).map(str::to_owned));
            found.unwrap_or_default().trim().to_owned()
        };
        let root = header(&mails[0], "Message-ID: ");
        assert!(root.starts_with("<dc1.") && root.ends_with("@example.net>"), "{root}");
        let last = mails.last().unwrap();
        assert_eq!(header(last, "In-Reply-To: "), root);
        assert_ne!(header(last, "Message-ID: "), root);
        assert!(header(last, "Subject: ").contains("Over: "), "{last}");
        assert_eq!(header(last, "Auto-Submitted: "), "auto-generated");
        let text = last[1].as_str().unwrap();
        assert!(text.contains("text/plain") && text.contains("text/html"), "{text}");
    }
    if let Some((_, _, lines)) = &rsyslog {
        let lines = weir.wait_for("lines in the log", |_| {
            let text = std::fs::read_to_string(lines).unwrap_or_default();
            text.contains("act=resolved").then_some(text)
        });
        let first = lines.lines().next().unwrap();
        assert!(first.contains(" weir ") && first.contains("CEF:0|weir|weir|1|"), "{first}");
    }
    for secret in ["t0ken", "s3cret"] {
        assert!(!weir.log().contains(secret), "{}", weir.log());
    }
}

#[test]
fn channels_are_listed_tested_muted_and_reloaded() {
    let (address, heard) = stub();
    let channel = |name: &str, path: &str| {
        format!(
            "[[notify.channel]]\nname = \"{name}\"\nservice = \"discord\"\n\
             secrets = {{ url = \"{path}\" }}\n"
        )
    };
    let good = channel("chat", &format!("http://{address}/ok/t0ken"));
    let config = format!(
        "{good}{}{}{}",
        channel("moved", &format!("http://{address}/moved/t0ken")),
        channel("refused", &format!("http://{address}/refused/t0ken")),
        channel("metadata", "http://169.254.169.254/latest")
    );
    let weir = Weir::start(&config);
    let test = |weir: &Weir, name: &str| {
        let out = weir.ask(&["notify", "test", name]);
        (out.status.success(), format!("{}{}", text(&out), String::from_utf8_lossy(&out.stderr)))
    };
    let (done, said) = test(&weir, "chat");
    assert!(done && said.contains("status 200: {\"id\":\"42\"}"), "{said}");
    assert!(told(&heard, "POST /ok")[0]["embeds"][0]["title"].to_string().contains("Test message"));
    let (done, said) = test(&weir, "refused");
    assert!(
        !done && said.contains("status 401") && said.contains("Invalid Webhook Token"),
        "{said}"
    );
    let (done, said) = test(&weir, "moved");
    assert!(!done && said.contains("status 302"), "{said}");
    assert!(told(&heard, "POST /elsewhere").is_empty() && told(&heard, "GET").is_empty());
    assert!(!test(&weir, "nobody").0);
    // Nobody is sent to where a cloud keeps the machine's credentials.
    let queued = weir.api("POST", "notify/channels/metadata/test", 0, "");
    assert!(queued["delivery"].is_u64(), "{queued}");
    let list = weir.wait_for("the refusal", |weir| {
        let list = weir.json(&["notify", "list"]);
        let metadata = list.as_array()?.iter().find(|c| c["name"] == "metadata")?.clone();
        metadata["trouble"].as_str()?.contains("may not be connected to").then_some(list)
    });
    assert!(!list.to_string().contains("t0ken"), "{list}");

    let mutes = weir.json(&["notify", "mute", "--channel", "chat", "--secs", "600"]);
    assert_eq!((&mutes[0]["channel"], &mutes[0]["group"]), (&"chat".into(), &Value::Null));
    assert!(!weir.ask(&["notify", "mute", "--channel", "nobody"]).status.success());
    let none = weir.json(&["notify", "mute", "--channel", "chat", "--secs", "0"]);
    assert_eq!(none, json!([]));

    // A reload puts other channels in force; one that makes no sense changes nothing.
    let text = std::fs::read_to_string(weir.config()).unwrap();
    let with = |more: &str| std::fs::write(weir.config(), format!("{text}{more}")).unwrap();
    with("[[notify.channel]]\nname = \"bad\"\nservice = \"pigeon\"\n");
    assert!(!weir.ask(&["reload"]).status.success());
    with(&channel("new", &format!("http://{address}/new/t0ken")));
    let reloaded = weir.ask(&["reload"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    assert!(!text_of(&reloaded).contains("t0ken"), "{reloaded:?}");
    assert!(test(&weir, "new").0);
    let shown = text_of(&weir.with_config(&["check", "--dump"]));
    assert!(shown.contains("name = \"new\"") && !shown.contains("t0ken"), "{shown}");
}

fn text_of(out: &std::process::Output) -> String {
    format!("{}{}", text(out), String::from_utf8_lossy(&out.stderr))
}
