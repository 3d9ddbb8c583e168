//! FastNetMon's community edition as Debian packages it: a configuration in a folder of its own, and
//! what its notify script wrote down as events of the scorer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::Permissions;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use weir_detector::Floors;
use weir_model::{Direction, Family, Measure, Millis};
use weir_traffic::score::{Event, What, at};

/// The program.
pub const PROGRAM: &str = "/usr/sbin/fastnetmon";

/// The configuration that comes with the package, every setting at its default.
const SHIPPED: &str = "/etc/fastnetmon.conf";

/// The package names no confidence: a ban is all or nothing.
const CONFIDENCE: u8 = 100;

/// Seconds that the tuned setting bans for: twice as long as weir waits, and as often as
/// FastNetMon looks whether it may unban.
const TUNED_BAN_SECS: u32 = 60;

/// A way to set FastNetMon.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Name of its rows in a table of scores.
    pub name: &'static str,
    /// What differs from the configuration that is shipped.
    pub lines: Vec<(&'static str, String)>,
}

impl Setting {
    /// As shipped: 20,000 packets a second or 1 Gbit/s, averaged over 5 s; a ban of 1,900 s.
    pub const fn shipped() -> Self {
        Self { name: "fastnetmon", lines: Vec::new() }
    }

    /// weir's floors as far as there are settings for them, averaged over `averaging_secs`, which
    /// for flow caches should be their longest timeout; a ban of a minute.
    pub fn tuned(floors: &Floors, averaging_secs: u32) -> Self {
        let lines = vec![
            ("threshold_pps", format!("{:.0}", floors.packets_per_sec)),
            ("threshold_mbps", format!("{:.0}", floors.bits_per_sec / 1e6)),
            ("ban_for_icmp_pps", "on".to_owned()),
            ("threshold_icmp_pps", format!("{:.0}", floors.icmp_per_sec)),
            ("average_calculation_time", averaging_secs.to_string()),
            ("ban_time", TUNED_BAN_SECS.to_string()),
        ];
        Self { name: "fastnetmon-tuned", lines }
    }
}

/// A FastNetMon's folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Puts a configuration into `folder`: the one shipped, `settings` in place of its own, files and
    /// sockets in the folder, nothing sent to its makers.
    ///
    /// # Errors
    /// When the package's configuration is not there or the folder cannot be written.
    pub fn new(
        folder: &Path,
        networks: impl IntoIterator<Item = IpNet>,
        settings: &[(&str, String)],
    ) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let this = Self(folder.to_owned());
        let path = |name: &str| this.path(name).display().to_string();
        let mut text = std::fs::read_to_string(SHIPPED)
            .map_err(|error| io::Error::new(error.kind(), format!("{SHIPPED}: {error}")))?;
        let own = [
            ("disable_usage_report", "on".to_owned()),
            ("monitor_local_ip_addresses", "off".to_owned()),
            ("enable_api", "off".to_owned()),
            ("prometheus", "off".to_owned()),
            ("networks_list_path", path("networks")),
            ("white_list_path", path("white")),
            ("notify_script_path", path("notify")),
            ("cli_stats_file_path", path("cli.dat")),
            ("cli_stats_ipv6_file_path", path("cli6.dat")),
            ("pid_path", path("pid")),
            ("netflow_host", "127.0.0.1".to_owned()),
            ("sflow_host", "127.0.0.1".to_owned()),
        ];
        for (key, value) in own.iter().chain(settings) {
            let is_it = |line: &&str| line.split('=').next().map(str::trim) == Some(*key);
            let kept: Vec<&str> = text.lines().filter(|line| !is_it(line)).collect();
            text = kept.join("\n");
            let _ = write!(text, "\n{key} = {value}\n");
        }
        std::fs::write(this.path("fastnetmon.conf"), text)?;
        let networks: Vec<String> = networks.into_iter().map(|net| net.to_string()).collect();
        std::fs::write(this.path("networks"), networks.join("\n") + "\n")?;
        std::fs::write(this.path("white"), "")?;
        std::fs::write(this.path("notes"), "")?;
        std::fs::write(this.path("notify"), this.script())?;
        std::fs::set_permissions(this.path("notify"), Permissions::from_mode(0o755))?;
        Ok(this)
    }

    /// One of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The command that runs it.
    pub fn command(&self) -> Vec<String> {
        [
            PROGRAM.to_owned(),
            "--configuration_file".to_owned(),
            self.path("fastnetmon.conf").display().to_string(),
            "--log_file".to_owned(),
            self.path("fastnetmon.log").display().to_string(),
            "--disable_pid_logic".to_owned(),
        ]
        .to_vec()
    }

    /// What its notify script has written down.
    pub fn notes(&self) -> String {
        std::fs::read_to_string(self.path("notes")).unwrap_or_default()
    }

    /// Called with address, direction, packets a second and what happens; details of a ban come on
    /// standard input. The instant first, before anything that takes time.
    fn script(&self) -> String {
        format!(
            "#!/bin/sh\nnow=$(date +%s%N)\nkind=$(sed -n 's/^Attack type: *//p')\n\
             echo \"$now $1 $2 $3 $4 ${{kind:--}}\" >> '{}'\n",
            self.path("notes").display()
        )
    }
}

/// What it says as weir would: each ban is an incident and a null-route of its host, from the
/// notify script's instant on. `when` tells the case's time of a nanosecond since the Unix epoch.
pub fn events(notes: &str, when: impl Fn(u64) -> Millis) -> Vec<Event> {
    let mut banned: BTreeMap<IpAddr, u64> = BTreeMap::new();
    let mut events = Vec::new();
    let mut incident = 0;
    for line in notes.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[nanos, address, way, _, action, kind] = words.as_slice() else { continue };
        let address = address.split('/').next().unwrap_or(address);
        let (Ok(nanos), Ok(address)) = (nanos.parse(), address.parse::<IpAddr>()) else { continue };
        let (now, target) = (when(nanos), IpNet::from(address));
        let measure = Measure::Blackhole(target);
        match action {
            "ban" if !banned.contains_key(&address) => {
                incident += 1;
                banned.insert(address, incident);
                let direction =
                    if way == "outgoing" { Direction::Outbound } else { Direction::Inbound };
                let what = What::Detect {
                    incident,
                    target,
                    direction,
                    family: family(kind),
                    subtypes: Vec::new(),
                    confidence: CONFIDENCE,
                };
                events.push(at(now, what));
                events.push(at(now, What::Announce { measure }));
            }
            "unban" => {
                if let Some(incident) = banned.remove(&address) {
                    events.push(at(now, What::Withdraw { measure }));
                    events.push(at(now, What::End { incident }));
                }
            }
            _ => {}
        }
    }
    events
}

/// Its names of attacks.
fn family(kind: &str) -> Family {
    match kind {
        "syn_flood" => Family::SynFlood,
        "icmp_flood" => Family::IcmpFlood,
        "udp_flood" => Family::UdpFlood,
        "ip_fragmentation" => Family::FragmentFlood,
        _ => Family::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bans_become_incidents_and_null_routes() {
        let notes = "5000000000 203.0.113.7 incoming 51234 ban udp_flood\n\
                     5100000000 203.0.113.7 incoming 51234 attack_details -\n\
                     6000000000 203.0.113.8 outgoing 30000 ban unknown\n\
                     65000000000 203.0.113.7 incoming 51234 unban -\nnonsense\n";
        let events = events(notes, |nanos| Millis(nanos / 1_000_000));
        let times: Vec<u64> = events.iter().map(|e| e.t_ms).collect();
        assert_eq!(times, [5000, 5000, 6000, 6000, 65_000, 65_000]);
        assert!(matches!(
            events[0].what,
            What::Detect { incident: 1, family: Family::UdpFlood, .. }
        ));
        assert!(matches!(
            events[2].what,
            What::Detect { incident: 2, direction: Direction::Outbound, .. }
        ));
        assert_eq!(events[5].what, What::End { incident: 1 });
    }

    #[test]
    fn settings_take_the_place_of_those_shipped() {
        if !Path::new(SHIPPED).exists() {
            return crate::skip(
                "settings_take_the_place_of_those_shipped",
                "not installed: fastnetmon",
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let tuned = Setting::tuned(&Floors::default(), 60);
        let net: IpNet = "203.0.113.0/24".parse().unwrap();
        let made = Folder::new(folder.path(), [net], &tuned.lines).unwrap();
        let text = std::fs::read_to_string(made.path("fastnetmon.conf")).unwrap();
        let values = |key: &str| -> Vec<String> {
            let of = |line: &str| Some(line.split_once('=')?.1.trim().to_owned());
            let own = |line: &&str| line.split('=').next().map(str::trim) == Some(key);
            text.lines().filter(own).filter_map(of).collect()
        };
        assert_eq!(values("threshold_mbps"), ["200"]);
        assert_eq!(values("average_calculation_time"), ["60"]);
        assert_eq!(values("ban_details_records_count"), ["20"], "as shipped");
        assert_eq!(values("disable_usage_report"), ["on"]);
    }
}
