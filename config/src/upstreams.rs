//! What networks and exchanges have published of their black holes: data, so that one more needs no new weir.

use std::path::Path;

use serde::Deserialize;
use weir_bgp::config::Upstream;

use crate::Config;

/// What is built in.
const BUILT_IN: &str = include_str!("../../profiles/upstreams.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "upstream")]
    upstreams: Vec<Upstream>,
}

/// Completes the peers that name an upstream; what is wrong, each beginning with its key.
pub(crate) fn take(
    config: &mut Config,
    read: impl Fn(&Path) -> Result<String, String>,
) -> Vec<String> {
    let Some(bgp) = &mut config.bgp else { return Vec::new() };
    let own = match bgp.upstreams.as_deref().map(|path| read(path).and_then(|text| entries(&text)))
    {
        Some(Ok(entries)) => entries,
        // Of names that may stand in it nothing can be said.
        Some(Err(why)) => return vec![format!("bgp.upstreams: {why}")],
        None => Vec::new(),
    };
    let built_in = match entries(BUILT_IN) {
        Ok(entries) => entries,
        Err(why) => return vec![format!("profiles/upstreams.toml: {why}")],
    };
    let known: Vec<&Upstream> = own.iter().chain(&built_in).collect();
    let mut errors = Vec::new();
    for peer in &mut bgp.peers {
        let Some(name) = &peer.upstream else { continue };
        match known.iter().find(|entry| entry.name == *name) {
            Some(entry) if entry.is_another(peer) => errors.push(format!(
                "bgp.peer \"{}\": upstream: {name} is AS {}, and the peer is AS {}",
                peer.name, entry.asn, peer.remote_as
            )),
            Some(entry) => peer.take(entry),
            None => {
                let names: Vec<&str> = known.iter().map(|entry| entry.name.as_str()).collect();
                let names = names.join(", ");
                errors.push(format!(
                    "bgp.peer \"{}\": upstream: {name:?} is none of {names}",
                    peer.name
                ));
            }
        }
    }
    errors
}

/// Entries of a file. One without a source, or without the day on which it was read, is none.
fn entries(text: &str) -> Result<Vec<Upstream>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.message().replace('\n', " "))?;
    for entry in &file.upstreams {
        let url = entry.source.starts_with("https://") || entry.source.starts_with("http://");
        let parts: Vec<&str> = entry.read.split('-').collect();
        let number = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
        let day = matches!(parts[..], [year, month, day]
            if year.len() == 4 && month.len() == 2 && day.len() == 2)
            && parts.iter().all(number);
        if !url || !day || entry.communities.is_empty() {
            let name = &entry.name;
            return Err(format!(
                "{name:?} needs a source (https://...), read (YYYY-MM-DD) and communities"
            ));
        }
    }
    Ok(file.upstreams)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[protect]\nprefixes = [\"203.0.113.0/24\"]\n[bgp]\nlocal_as = 65010\n\
        router_id = \"10.0.0.1\"\nupstreams = \"/etc/weir/upstreams.toml\"\n\
        [[bgp.peer]]\nname = \"up\"\naddress = \"192.0.2.1\"\nremote_as = 6939\n";

    fn peer(more: &str, file: &str) -> Result<weir_bgp::config::PeerConfig, String> {
        let (config, _) = crate::parse_with(&format!("{FILE}{more}"), |_| Ok(file.to_owned()))
            .map_err(|error| error.to_string())?;
        Ok(config.bgp.unwrap().peers[0].clone())
    }

    #[test]
    fn what_is_built_in_is_read_with_its_sources() {
        let known = entries(BUILT_IN).unwrap();
        assert!(known.len() >= 8);
        let mut names: Vec<&str> = known.iter().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), known.len(), "each once");
        for entry in &known {
            // The own AS number of an exchange's route servers is not that of the exchange.
            let named = format!("role = \"ixp\"\nupstream = \"{}\"", entry.name);
            let peer = peer(&named, "").unwrap();
            assert_eq!(peer.communities, entry.communities, "{}", entry.name);
        }
    }

    #[test]
    fn an_upstream_says_what_the_peer_does_not() {
        let he = peer("upstream = \"hurricane-electric\"", "").unwrap();
        let shown: Vec<String> = he.communities.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["6939:666"]);
        assert_eq!((he.blackhole_min_len4, he.blackhole_max_len4), (Some(24), Some(32)));
        let more = "upstream = \"hurricane-electric\"\nblackhole_min_len4 = 30\n\
            communities = [\"65000:1\"]";
        let own = peer(more, "").unwrap();
        assert_eq!(own.communities[0].to_string(), "65000:1");
        assert_eq!((own.blackhole_min_len4, own.blackhole_max_len4), (Some(30), Some(32)));
    }

    #[test]
    fn an_upstream_is_the_peer_s_own_network() {
        let ntt = peer("upstream = \"ntt\"", "").unwrap_err();
        assert!(ntt.contains("ntt is AS 2914, and the peer is AS 6939"), "{ntt}");
    }

    #[test]
    fn an_operators_entry_goes_first_and_needs_a_source_too() {
        let entry = "[[upstream]]\nname = \"hurricane-electric\"\nasn = 6939\nread = \"2026-12-01\"\n\
            source = \"https://example.net/\"\ncommunities = [\"6939:1\"]\n";
        let named = "upstream = \"hurricane-electric\"";
        assert_eq!(peer(named, entry).unwrap().communities[0].to_string(), "6939:1");
        for wrong in ["source = \"https://example.net/\"", "read = \"2026-12-01\""] {
            assert!(peer(named, &entry.replace(wrong, "")).is_err(), "{wrong}");
        }
        let hearsay = entry.replace("https://example.net/", "a colleague");
        assert!(peer(named, &hearsay).unwrap_err().contains("needs a source"));
        let nobody = peer("upstream = \"nobody\"", "").unwrap_err();
        assert!(nobody.contains("\"nobody\" is none of"), "{nobody}");
    }
}
