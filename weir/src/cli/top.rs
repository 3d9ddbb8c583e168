//! `weir top`: what is attacked and who carries most, in the whole of a terminal, anew every second.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use console::{Key, Term};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde_json::Value;

use super::client::Client;
use super::output::{Column, say, table};
use super::overview::{HOSTS, INCIDENTS, summary, troubles};

/// How often it is asked anew.
const EVERY: Duration = Duration::from_secs(1);

/// What the last line says.
const KEYS: &str = "q quit   b sort by bits   p sort by packets   c show closed   space pause";

/// What a person has chosen.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    by_packets: bool,
    closed: bool,
    stopped: bool,
}

/// What weir said.
#[derive(Clone, Debug, Default)]
struct Seen {
    status: Value,
    incidents: Vec<Value>,
    hosts: Vec<Value>,
    /// Why it said nothing new, if so.
    problem: Option<String>,
}

/// Shows until a person ends it; so many `rounds` as text, one after the other. Where nobody watches, once
/// is enough.
pub(super) fn top(client: &Client, rounds: Option<u64>) -> anyhow::Result<()> {
    let watched = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if rounds.is_some() || !watched {
        return plain(client, rounds.unwrap_or(1));
    }
    let term = Term::stdout();
    let screen = Screen::open(&term)?;
    let (keys, next) = keys(&term);
    let (mut view, mut seen) = (View::default(), Seen::default());
    loop {
        if !view.stopped {
            match ask(client, view) {
                Ok(new) => seen = new,
                // A restart of weir is nothing to leave for.
                Err(error) => seen.problem = Some(format!("{error:#}")),
            }
        }
        let (rows, columns) = term.size();
        screen.show(&frame(&seen, view, (rows.into(), columns.into())))?;
        match keys.recv_timeout(EVERY) {
            Ok(Key::Char('q' | 'Q') | Key::Escape | Key::CtrlC) => return Ok(()),
            Ok(Key::Char('b')) => view.by_packets = false,
            Ok(Key::Char('p')) => view.by_packets = true,
            Ok(Key::Char('c')) => view.closed = !view.closed,
            Ok(Key::Char(' ')) => view.stopped = !view.stopped,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => continue,
            // The terminal is gone.
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        // Fails only when the reader has ended, which the next look at the keys shows.
        let _ = next.try_send(());
    }
}

fn plain(client: &Client, rounds: u64) -> anyhow::Result<()> {
    // A channel that nothing is ever sent on: waiting on it is a pause.
    let (_keep, pause) = bounded::<()>(0);
    for round in 0..rounds {
        if round > 0 {
            let _ = pause.recv_timeout(EVERY);
        }
        let seen = ask(client, View::default())?;
        let (incidents, hosts) = (table(&seen.incidents, INCIDENTS), table(&seen.hosts, HOSTS));
        say(&format!("{}\n{incidents}\n{hosts}", summary(&seen.status)))?;
    }
    Ok(())
}

fn ask(client: &Client, view: View) -> anyhow::Result<Seen> {
    let rows = |list: &Value, name: &str| list[name].as_array().cloned().unwrap_or_default();
    let state = if view.closed { "" } else { "state=open&" };
    let by = if view.by_packets { "packets" } else { "bits" };
    Ok(Seen {
        status: client.get("/api/v1/status")?,
        incidents: rows(&client.get(&format!("/api/v1/incidents?{state}limit=50"))?, "incidents"),
        hosts: rows(&client.get(&format!("/api/v1/hosts?by={by}&limit=100"))?, "hosts"),
        problem: None,
    })
}

/// Keys as they are pressed, each after the one before was heeded: while a key is awaited the terminal
/// echoes nothing, and it must not be left like that at the end.
fn keys(term: &Term) -> (Receiver<Key>, Sender<()>) {
    let (out, keys) = bounded(1);
    let (next, heeded) = bounded(1);
    let term = term.clone();
    std::thread::spawn(move || {
        while let Ok(key) = term.read_key_raw() {
            if out.send(key).is_err() || heeded.recv().is_err() {
                return;
            }
        }
    });
    (keys, next)
}

/// The terminal's other screen; what stood there before comes back at the end.
struct Screen<'a>(&'a Term);

impl<'a> Screen<'a> {
    fn open(term: &'a Term) -> anyhow::Result<Self> {
        let mut out: &Term = term;
        out.write_all(b"\x1b[?1049h\x1b[?25l")?;
        Ok(Self(term))
    }

    fn show(&self, lines: &[String]) -> anyhow::Result<()> {
        // Written over what stood there: a screen that is cleared first flickers.
        let mut text = "\x1b[H".to_owned();
        for (n, line) in lines.iter().enumerate() {
            let end = if n + 1 == lines.len() { "\x1b[K\x1b[J" } else { "\x1b[K\r\n" };
            text.push_str(line);
            text.push_str(end);
        }
        let mut out: &Term = self.0;
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        let mut out: &Term = self.0;
        // A terminal that is gone needs nothing back.
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l");
    }
}

/// The whole screen: never more lines or longer ones than it has room for.
fn frame(seen: &Seen, view: View, (rows, columns): (usize, usize)) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    if let Some(problem) = &seen.problem {
        lines.push(format!("! {problem}"));
    }
    if !seen.status.is_null() {
        // Trouble is part of the summary.
        lines.extend(summary(&seen.status).lines().map(str::to_owned));
    }
    if view.stopped {
        lines.push("paused".to_owned());
    }
    let troubled = seen.problem.is_some() || !troubles(&seen.status).is_empty();
    let incidents = section(
        if view.closed { "incidents" } else { "open incidents" },
        &seen.incidents,
        INCIDENTS,
    );
    let by = if view.by_packets { "packets" } else { "bits" };
    let hosts = section(&format!("busiest hosts by {by}"), &seen.hosts, HOSTS);
    // Incidents come first, but hosts keep a third.
    let room = rows.saturating_sub(lines.len() + 1);
    let kept = hosts.len().min(room / 3);
    lines.extend(incidents.into_iter().take(room - kept));
    let rest = rows.saturating_sub(lines.len() + 1);
    lines.extend(hosts.into_iter().take(rest));
    lines.truncate(rows.saturating_sub(1));
    while lines.len() + 1 < rows {
        lines.push(String::new());
    }
    lines.push(KEYS.to_owned());
    let colour = std::env::var_os("NO_COLOR").is_none();
    let cut = |line: String| {
        let short: String = line.chars().take(columns).collect();
        let loud = colour && short.starts_with('!') && troubled;
        if loud { format!("\x1b[31m{short}\x1b[0m") } else { short }
    };
    lines.into_iter().map(cut).collect()
}

/// A heading, and a table or a word.
fn section(title: &str, rows: &[Value], columns: &[Column]) -> Vec<String> {
    let mut lines = vec![String::new(), format!("{} ({})", title.to_uppercase(), rows.len())];
    if rows.is_empty() {
        lines.push("none".to_owned());
    } else {
        lines.extend(table(rows, columns).lines().map(str::to_owned));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen(incidents: usize, hosts: usize) -> Seen {
        let status = json!({"at": 0, "mode": "auto", "incidents_open": incidents, "mitigations_active": 0,
            "mitigations_proposed": 0, "exporters_ok": 1, "exporters_silent": 1, "peers_up": 1, "peers": 1,
            "exporters_without_sampling": 0});
        let host = |n| json!({"host": format!("203.0.113.{n}"), "now": {}, "peak": {}});
        let incident =
            |n| json!({"id": format!("{n}"), "verdict": {"target": format!("198.51.100.{n}/32")}});
        Seen {
            status,
            incidents: (0..incidents).map(incident).collect(),
            hosts: (0..hosts).map(host).collect(),
            problem: None,
        }
    }

    #[test]
    fn it_fits_every_terminal_and_uses_the_whole_of_it() {
        let seen = seen(50, 100);
        for size in [(1, 1), (2, 10), (5, 20), (24, 80), (60, 200), (200, 300)] {
            let frame = frame(&seen, View::default(), size);
            assert_eq!(frame.len(), size.0, "{size:?}");
            let plain =
                |line: &String| line.replace("\x1b[31m", "").replace("\x1b[0m", "").chars().count();
            assert!(frame.iter().all(|line| plain(line) <= size.1), "{size:?}");
        }
    }

    #[test]
    fn incidents_come_first_and_hosts_keep_a_third() {
        let text = frame(&seen(50, 100), View::default(), (30, 120)).join("\n");
        let (attacks, hosts) =
            (text.matches("198.51.100.").count(), text.matches("203.0.113.").count());
        assert!(attacks >= 8 && hosts >= 4, "{attacks} {hosts}\n{text}");
        assert!(text.contains("1 exporters are silent"), "{text}");
        let quiet = frame(&seen(0, 100), View { by_packets: true, ..View::default() }, (30, 120))
            .join("\n");
        assert!(
            quiet.contains("BUSIEST HOSTS BY PACKETS") && quiet.matches("203.0.113.").count() >= 12,
            "{quiet}"
        );
        let gone = Seen { problem: Some("no weir answers here".into()), ..Seen::default() };
        assert!(frame(&gone, View::default(), (10, 60))[0].contains("no weir answers here"));
    }
}
