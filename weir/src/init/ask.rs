//! The six questions.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Answers, Mode, Options, Peer, Tls, with_identifier};

/// How long `?` listens for exporters: templates and samples of a quiet router come once in half a minute.
const LISTEN: Duration = Duration::from_secs(30);

/// Ports on which weir listens for flow data.
const PORTS: [u16; 3] = [2055, 4739, 6343];

/// Puts those of the six questions that no flag has answered.
pub(super) fn ask(
    options: &Options,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> anyhow::Result<Answers> {
    let mut person = Person { input, out };
    let mut answers = Answers { prefixes: options.prefixes.clone(), ..Answers::default() };
    if answers.prefixes.is_empty() {
        answers.prefixes = person.put("1/6  Prefixes to protect, separated by commas", "", list)?;
    }
    answers.exporters = match &options.exporters {
        Some(given) => given.clone(),
        None => exporters(&mut person)?,
    };
    answers.peer = match options.peer {
        Some(peer) => Some(with_identifier(peer, options.router_id)?),
        None => person.put(
            "3/6  BGP peer: ADDRESS,AS (and weir's own AS if it differs); Enter for none yet",
            "",
            |text| match text {
                "" => Ok(None),
                text => with_identifier(text.parse::<Peer>()?, options.router_id)
                    .map(Some)
                    .map_err(|error| error.to_string()),
            },
        )?,
    };
    answers.mode = match options.mode {
        Some(mode) => mode,
        None => person.put(
            "4/6  Mode: observe (report only), approve (a person approves), auto (weir announces by itself)",
            "observe",
            |text| match text {
                "observe" => Ok(Mode::Observe),
                "approve" => Ok(Mode::Approve),
                "auto" => Ok(Mode::Auto),
                _ => Err("use observe, approve or auto".to_owned()),
            },
        )?,
    };
    answers.owner = match &options.owner {
        Some(name) => name.clone(),
        None => person.put("5/6  Name of the first account (the owner)", "admin", super::plain)?,
    };
    answers.tls = match &options.tls {
        Some(tls) => tls.clone(),
        None => person.put(
            "6/6  Dashboard: local (127.0.0.1 only), self-signed (every address), or CERT,KEY",
            "local",
            str::parse::<Tls>,
        )?,
    };
    Ok(answers)
}

fn exporters(person: &mut Person<'_>) -> anyhow::Result<Vec<super::Exporter>> {
    loop {
        let question = "2/6  Exporters: ADDRESS or NAME=ADDRESS, separated by commas; ? listens for \
                        30 seconds and shows who sends";
        let answer = person.put(question, "", |text| match text {
            "?" => Ok(None),
            "" => Ok(Some(Vec::new())),
            text => list(text).map(Some),
        })?;
        match answer {
            Some(exporters) => return Ok(exporters),
            None => {
                let found = bind().and_then(|sockets| senders(&sockets, LISTEN));
                person.say(&match found {
                    Ok(found) if found.is_empty() => "     nobody sent anything".to_owned(),
                    Ok(found) => {
                        let found: Vec<String> = found.iter().map(IpAddr::to_string).collect();
                        format!("     seen: {}", found.join(", "))
                    }
                    Err(error) => format!("     cannot listen ({error}): is weir running already?"),
                })?;
            }
        }
    }
}

fn bind() -> std::io::Result<Vec<UdpSocket>> {
    PORTS.iter().map(|port| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, *port))).collect()
}

/// Who sends to these sockets within the time.
fn senders(sockets: &[UdpSocket], wait: Duration) -> std::io::Result<BTreeSet<IpAddr>> {
    const SENDERS_MAX: usize = 100;
    let turn = Duration::from_millis(50);
    for socket in sockets {
        socket.set_read_timeout(Some(turn))?;
    }
    let (end, mut found, mut buffer) = (Instant::now() + wait, BTreeSet::new(), [0; 1]);
    while Instant::now() < end && found.len() < SENDERS_MAX {
        for socket in sockets {
            if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                found.insert(from.ip().to_canonical());
            }
        }
    }
    Ok(found)
}

/// A comma-separated list, not empty.
fn list<T: std::str::FromStr>(text: &str) -> Result<Vec<T>, String>
where
    T::Err: std::fmt::Display,
{
    let words = text.split([',', ' ']).filter(|word| !word.is_empty());
    let list = words
        .map(|word| word.parse().map_err(|error| format!("{word}: {error}")))
        .collect::<Result<Vec<T>, String>>()?;
    if list.is_empty() { Err("at least one is needed".to_owned()) } else { Ok(list) }
}

/// Who answers: lines come in, questions go out.
struct Person<'a> {
    input: &'a mut dyn BufRead,
    out: &'a mut dyn Write,
}

impl Person<'_> {
    /// Asks until the answer can be read; Enter alone means `default`.
    fn put<T>(
        &mut self,
        question: &str,
        default: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        loop {
            let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
            write!(self.out, "{question}{shown}: ")?;
            self.out.flush()?;
            let mut line = String::new();
            let octets = self.input.read_line(&mut line).context("cannot read the answer")?;
            anyhow::ensure!(octets > 0, "no answer: nothing was written");
            let answer = match line.trim() {
                "" => default,
                text => text,
            };
            match read(answer) {
                Ok(value) => return Ok(value),
                Err(why) => self.say(&format!("     {why}"))?,
            }
        }
    }

    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.out, "{text}")?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn asked(flags: &[&str], typed: &str) -> anyhow::Result<(Answers, String)> {
        let line = Line::parse_from([&["init"], flags].concat());
        let mut out = Vec::new();
        let answers = ask(&line.options, &mut typed.as_bytes(), &mut out)?;
        Ok((answers, String::from_utf8(out)?))
    }

    #[test]
    fn six_answers_make_a_file_that_check_accepts() {
        let typed = "203.0.113.0/24, 2001:db8::/48\nedge1=192.0.2.1\n127.0.0.1,65010\n\n\n\n";
        let (answers, _) = asked(&[], typed).unwrap();
        let (config, warnings) =
            weir_config::parse(&super::super::text::configuration(&answers)).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(config.protect.prefixes.len(), 2);
        assert_eq!(config.peers()[0].remote_as, 65010);
        assert_eq!(config.mitigator.mode, weir_model::Mode::Observe);
        assert!(config.api.listen.ip().is_loopback());
    }

    #[test]
    fn a_wrong_answer_is_explained_and_asked_again() {
        let (answers, shown) =
            asked(&[], "203.0.113/24\n203.0.113.0/24\n\n\nlive\n\nme\n\n").unwrap();
        assert_eq!((answers.owner.as_str(), answers.mode), ("me", Mode::Observe));
        assert_eq!(shown.matches("1/6").count(), 2, "{shown}");
        assert!(shown.contains("use observe, approve or auto"), "{shown}");
    }

    #[test]
    fn flags_answer_beforehand_and_an_end_of_input_is_no_answer() {
        let flags = ["--prefixes", "203.0.113.0/24", "--exporters", "192.0.2.1", "--mode", "auto"];
        let (answers, shown) = asked(&flags, "\n\n\n").unwrap();
        assert_eq!((answers.mode, answers.owner.as_str()), (Mode::Auto, "admin"));
        assert!(!shown.contains("1/6") && !shown.contains("4/6"), "{shown}");
        assert!(asked(&flags, "\n").unwrap_err().to_string().contains("no answer"));
    }

    #[test]
    fn exporters_that_send_are_seen() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"flows", socket.local_addr().unwrap()).unwrap();
        let found = senders(&[socket], Duration::from_millis(100)).unwrap();
        assert_eq!(Vec::from_iter(found), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    }
}
