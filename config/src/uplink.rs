//! Section `[[uplink]]`: links out of the network and the exporters that tell of them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_collector::ExporterConfig;
use weir_mitigator::{UPLINKS_MAX, UplinkConfig};

use crate::Config;

/// Whether an exporter is the one that an uplink names: by its name, or by its address where it has none.
pub(crate) fn is_of(uplink: &UplinkConfig, exporter: &ExporterConfig) -> bool {
    match &exporter.name {
        Some(name) => *name == uplink.exporter,
        None => {
            let address: Result<IpAddr, _> = uplink.exporter.parse();
            address.is_ok_and(|address| exporter.address.contains(&address))
        }
    }
}

pub(crate) fn check(config: &Config, errors: &mut Vec<String>) {
    if config.uplinks.len() > UPLINKS_MAX {
        errors.push(format!("uplink: at most {UPLINKS_MAX}"));
    }
    let (mut names, mut interfaces) = (BTreeSet::new(), BTreeSet::new());
    for uplink in &config.uplinks {
        let mut wrong = |why: String| errors.push(format!("uplink {:?}: {why}", uplink.name));
        if let Err(why) = uplink.check() {
            wrong(why);
        }
        if !names.insert(&uplink.name) {
            wrong("the name is taken".to_owned());
        }
        let mut exporters =
            config.collector.exporters.iter().filter(|exporter| is_of(uplink, exporter)).peekable();
        if exporters.peek().is_none() {
            wrong(format!(
                "exporter {:?} is neither a name in collector.exporters nor an address of one without a name",
                uplink.exporter
            ));
        }
        for index in &uplink.interfaces {
            if !interfaces.insert((&uplink.exporter, index)) {
                wrong(format!("interfaces: {index} stands twice"));
            }
            if exporters.clone().any(|exporter| {
                !exporter.external_interfaces.is_empty()
                    && !exporter.external_interfaces.contains(index)
            }) {
                wrong(format!(
                    "interfaces: {index} is none of the exporter's external_interfaces, of which alone records count"
                ));
            }
        }
    }
}
