//! What weir itself depends on, as far as the configuration names it: to cut one of these hosts off would
//! cost weir its sight or its hands.

use std::net::IpAddr;

use weir_model::{Infrastructure, Part};

use crate::{Config, listeners};

impl Config {
    /// Hosts that the configuration names: weir's own addresses, exporters, BGP peers and where they divert to,
    /// the RPKI cache. An exporter that is a prefix names no host.
    pub fn infrastructure(&self) -> Vec<Infrastructure> {
        let mut all = Vec::new();
        let mut add = |address: IpAddr, part, name: &str| {
            if !address.is_unspecified() {
                all.push(Infrastructure { address, part, name: name.to_owned() });
            }
        };
        for (key, at) in listeners::all(self) {
            add(at.ip(), Part::Weir, key);
        }
        for exporter in &self.collector.exporters {
            if exporter.address.prefix_len() == exporter.address.max_prefix_len() {
                let address = exporter.address.addr();
                let name = exporter.name.clone().unwrap_or_else(|| address.to_string());
                add(address, Part::Exporter, &name);
            }
        }
        let Some(bgp) = &self.bgp else { return all };
        add(bgp.router_id.into(), Part::Weir, "bgp.router_id");
        if let Some(rpki) = &bgp.rpki {
            add(rpki.cache.ip(), Part::RpkiCache, "bgp.rpki.cache");
        }
        for peer in &bgp.peers {
            add(peer.address, Part::Peer, &peer.name);
            if let Some(own) = peer.local_address {
                add(own, Part::Weir, "bgp.peer.local_address");
            }
            if let Some(divert) = &peer.divert {
                let hops = divert.next_hop4.map(IpAddr::from).into_iter();
                for hop in hops.chain(divert.next_hop6.map(IpAddr::from)) {
                    add(hop, Part::NextHop, &peer.name);
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use crate::Settings;
    use weir_model::Millis;

    #[test]
    fn what_weir_depends_on_is_spared_unless_an_operator_says_otherwise() {
        let file = |more: &str| {
            crate::parse(&format!(
                "[protect]\nprefixes = [\"203.0.113.0/24\"]\nnever_touch = [\"203.0.113.9/32\"]\n{more}\n\
                 [collector]\nlisten = [\"203.0.113.2:2055\"]\n\
                 [[collector.exporters]]\naddress = \"203.0.113.3/32\"\nname = \"core\"\n\
                 [[collector.exporters]]\naddress = \"203.0.113.64/26\"\n\
                 [bgp]\nlocal_as = 65010\nrouter_id = \"203.0.113.2\"\n\
                 [bgp.rpki]\ncache = \"203.0.113.4:323\"\n\
                 [[bgp.peer]]\nname = \"edge\"\naddress = \"203.0.113.5\"\nremote_as = 65010\n\
                 divert = {{ next_hop4 = \"203.0.113.6\" }}\n\
                 [[bgp.peer]]\nname = \"far\"\naddress = \"192.0.2.5\"\nremote_as = 65010\n\
                 [[bgp.peer]]\nname = \"named\"\naddress = \"203.0.113.9\"\nremote_as = 65010\n"
            ))
            .unwrap()
            .0
        };
        let spared = |more: &str| {
            let config = file(more);
            let inventory = Settings::default().inventory(&config.protect, Millis(0));
            let inventory = inventory.sparing(config.infrastructure(), &config.protect.touchable);
            for own in &inventory.infrastructure {
                assert!(inventory.never_touch.contains(own.address));
            }
            let list = inventory.infrastructure.iter();
            list.map(|own| format!("{} {}", own.address, own.part.title())).collect::<Vec<_>>()
        };
        assert_eq!(
            spared(""),
            [
                "203.0.113.2 weir itself",
                "203.0.113.3 an exporter",
                "203.0.113.4 the RPKI cache",
                "203.0.113.5 a BGP peer",
                "203.0.113.6 a next hop of diversions",
            ]
        );
        let left = spared("touchable = [\"203.0.113.4/31\", \"203.0.113.2/32\"]");
        assert_eq!(left, ["203.0.113.3 an exporter", "203.0.113.6 a next hop of diversions"]);
    }
}
