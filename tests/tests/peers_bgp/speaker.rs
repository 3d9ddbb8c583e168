//! The speaker on a leash: `speak`, an example of `weir-bgp`, driven through a pipe.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use weir_model::{Measure, Observed, PeerState, PeerStatus};
use weir_tests::lab::{Lab, Pid};

/// Where the example is.
pub(crate) fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let speak = own.parent().unwrap().parent().unwrap().join("examples/speak");
    assert!(speak.is_file(), "cargo build -p weir-bgp --example speak");
    speak
}

/// The speaker in a laboratory.
pub(crate) struct Speaker {
    name: String,
    pub(crate) pid: Pid,
    pipe: File,
}

impl Speaker {
    /// Starts it with one peer for each of `peers`: JSON that is laid over the usual settings.
    pub(crate) fn start(lab: &mut Lab, name: &str, peers: &[Value]) -> Self {
        let peers: Vec<Value> = peers
            .iter()
            .map(|extra| {
                let mut peer = json!({
                    "port": 1790, "remote_as": 65020, "local_address": "127.0.0.1",
                    "hold_time_secs": 30, "connect_retry_secs": 1,
                });
                for (key, value) in extra.as_object().unwrap() {
                    peer[key] = value.clone();
                }
                peer
            })
            .collect();
        Self::with(lab, name, &json!({"listen": "127.0.0.1:1791", "peer": peers}))
    }

    /// Starts it with a daemon to drive.
    pub(crate) fn drive(lab: &mut Lab, name: &str, adapter: &Value) -> Self {
        Self::with(lab, name, &json!({"adapter": [adapter]}))
    }

    /// Starts it with a `[bgp]` section as JSON, AS number and identifier aside.
    pub(crate) fn with(lab: &mut Lab, name: &str, section: &Value) -> Self {
        let speak = program();
        let mut config = json!({"local_as": 65010, "router_id": "10.0.0.10"});
        for (key, value) in section.as_object().unwrap() {
            config[key] = value.clone();
        }
        let config = lab.write(&format!("{name}.json"), &config.to_string());
        let fifo = lab.path(&format!("{name}.fifo"));
        lab.run(&["mkfifo", fifo.to_str().unwrap()]);
        // Opened for both ways, so that neither side waits for the other.
        let pipe = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        let script = format!(
            "exec {} {} 203.0.113.0/24 2001:db8::/32 < {}",
            speak.display(),
            config.display(),
            fifo.display()
        );
        let pid = lab.spawn(name, &["sh", "-c", &script]);
        Self { name: name.to_owned(), pid, pipe }
    }

    pub(crate) fn want(&mut self, measures: &[Measure]) {
        let line = serde_json::to_string(measures).unwrap();
        writeln!(self.pipe, "{line}").unwrap();
    }

    pub(crate) fn say(&mut self, word: &str) {
        writeln!(self.pipe, "{word}").unwrap();
    }

    pub(crate) fn reports(&self, lab: &Lab) -> Vec<Observed> {
        lab.log(&self.name).lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    pub(crate) fn status(&self, lab: &Lab, peer: &str) -> Option<PeerStatus> {
        self.reports(lab).into_iter().rev().find_map(|report| match report {
            Observed::Peer(status) if status.name == peer => Some(status),
            _ => None,
        })
    }

    pub(crate) fn wait_established(&self, lab: &Lab, peer: &str) -> PeerStatus {
        lab.wait_for(&format!("session with {peer}"), 30, |lab| {
            self.status(lab, peer).filter(|s| s.state == PeerState::Established)
        })
    }

    /// The measures refused so far, with the reasons.
    pub(crate) fn refused(&self, lab: &Lab) -> Vec<(Measure, String)> {
        let reports = self.reports(lab).into_iter();
        reports
            .filter_map(|report| match report {
                Observed::Refused { measure, why, .. } => Some((measure, why)),
                _ => None,
            })
            .collect()
    }
}
