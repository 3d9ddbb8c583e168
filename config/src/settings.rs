//! Settings that an operator changes while weir runs: what stands in for parts of the file.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_mitigator::RungConfig;
use weir_model::WebhookConfig;
use weir_model::{Inventory, IpNet, Millis, Policies, PolicyGroup, PrefixSet};

use crate::{Config, Protect, Warning, allow, channels};

/// Exclusions at most.
pub const EXCLUSIONS_MAX: usize = 1000;

/// Protected prefixes at most.
pub const PREFIXES_MAX: usize = 10_000;

/// A part of the protected prefixes for which nothing is announced, for a while or until it is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exclusion {
    /// Which.
    pub prefix: IpNet,
    /// Why, for people.
    #[serde(default)]
    pub why: String,
    /// Until when, milliseconds since 1970; without an end when absent.
    #[serde(default)]
    pub until: Option<Millis>,
}

/// What operators have set; [`Default`] is what the file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Added to `protect.never_touch`.
    pub exclusions: Vec<Exclusion>,
    /// In place of `protect.prefixes`.
    pub prefixes: Option<PrefixSet>,
    /// In place of `protect.group`.
    pub groups: Option<Vec<PolicyGroup>>,
    /// In place of `mitigator.ladder`.
    pub ladder: Option<Vec<RungConfig>>,
    /// Beside `mitigator.webhook`.
    pub channels: Vec<WebhookConfig>,
}

impl Settings {
    /// Names of settings, sorted.
    pub const NAMES: [&str; 5] = ["channels", "exclusions", "groups", "ladder", "prefixes"];

    /// What is kept when `given` takes the place of `before`.
    ///
    /// # Errors
    /// In words, when it has another form, or lacks what cannot be taken from before.
    pub fn complete(name: &str, before: Option<&Value>, given: Value) -> Result<Value, String> {
        if name == "channels" { channels::complete(before, &given) } else { Ok(given) }
    }

    /// What may be shown of a kept value: all but credentials.
    pub fn shown(name: &str, value: &Value) -> Value {
        if name == "channels" { channels::shown_list(value) } else { value.clone() }
    }

    /// What the audit log keeps of a value that takes the place of another.
    pub fn told(name: &str, before: Option<&Value>, value: &Value) -> Value {
        if name == "channels" { channels::told(before, value) } else { value.clone() }
    }

    /// What the configuration file says where a setting stands in for it or beside it.
    pub fn of_file(name: &str, file: &Config) -> Value {
        let value = match name {
            "channels" => {
                Ok(file.mitigator.webhooks.iter().map(channels::shown).collect::<Value>())
            }
            "exclusions" => serde_json::to_value(&file.protect.never_touch),
            "groups" => serde_json::to_value(&file.protect.groups),
            "ladder" => serde_json::to_value(&file.mitigator.ladder),
            "prefixes" => serde_json::to_value(&file.protect.prefixes),
            _ => Ok(Value::Null),
        };
        value.unwrap_or(Value::Null)
    }

    /// Takes one setting; `None` lets the file decide.
    ///
    /// # Errors
    /// In words, when there is no such setting or its value has another form.
    pub fn take(&mut self, name: &str, value: Option<&Value>) -> Result<(), String> {
        match name {
            "exclusions" => self.exclusions = read(value)?.unwrap_or_default(),
            "prefixes" => {
                let list: Option<Vec<IpNet>> = read(value)?;
                self.prefixes = list.map(|list| list.into_iter().collect());
            }
            "groups" => self.groups = read(value)?,
            "ladder" => self.ladder = read(value)?,
            "channels" => {
                self.channels = value.map(channels::read).transpose()?.unwrap_or_default();
            }
            _ => return Err(format!("there is no setting {name:?}")),
        }
        Ok(())
    }

    /// Whether the settings make a configuration that weir would start with, and what is probably not
    /// meant: the answers of `weir check`.
    ///
    /// # Errors
    /// In words, with everything that is wrong.
    pub fn check(&self, file: &Config) -> Result<Vec<Warning>, String> {
        if self.exclusions.len() > EXCLUSIONS_MAX {
            return Err(format!("at most {EXCLUSIONS_MAX} exclusions"));
        }
        if self.prefixes.as_ref().is_some_and(|prefixes| prefixes.len() > PREFIXES_MAX) {
            return Err(format!("at most {PREFIXES_MAX} prefixes"));
        }
        channels::check(&self.channels)?;
        let mut config = file.clone();
        self.stand_in(&mut config);
        config.mitigator.webhooks.extend(self.channels.iter().cloned());
        let excluded = self.exclusions.iter().map(|exclusion| exclusion.prefix);
        config.protect.never_touch = config.protect.never_touch.iter().chain(excluded).collect();
        crate::check::check(&config).map_err(|errors| errors.join("\n"))
    }

    /// Puts what is set in the place of what the file says; exclusions end by themselves and are no part
    /// of it.
    pub fn stand_in(&self, config: &mut Config) {
        if let Some(prefixes) = &self.prefixes {
            config.protect.prefixes = prefixes.clone();
        }
        if let Some(groups) = &self.groups {
            config.protect.groups.clone_from(groups);
        }
        if let Some(ladder) = &self.ladder {
            config.mitigator.ladder.clone_from(ladder);
        }
    }

    /// What is declared at an instant: the file, and what stands in for it.
    pub fn inventory(&self, file: &Protect, now: Millis) -> Inventory {
        let allow = allow::in_force(&file.allow, &BTreeMap::new());
        self.renewed(file, now, &Arc::default()).allowing(Arc::new(allow))
    }

    /// The same, with groups made before where they are still the same, for there may be thousands; and without
    /// allow lists, which are made once.
    pub fn renewed(&self, file: &Protect, now: Millis, known: &Arc<Policies>) -> Inventory {
        let live = self.exclusions.iter().filter(|e| e.until.is_none_or(|until| now < until));
        let excluded = live.map(|exclusion| exclusion.prefix);
        let groups = self.groups.as_ref().unwrap_or(&file.groups);
        let policies = if known.groups() == groups {
            Arc::clone(known)
        } else {
            Arc::new(Policies::from(groups.clone()))
        };
        let protect = Protect {
            prefixes: self.prefixes.as_ref().unwrap_or(&file.prefixes).clone(),
            never_touch: file.never_touch.iter().chain(excluded).collect(),
            touchable: file.touchable.clone(),
            ceiling: file.ceiling.clone(),
            groups: Vec::new(),
            allow: Vec::new(),
            services: file.services.clone(),
        };
        protect.inventory().under(policies)
    }

    /// The configuration in force at an instant, without channels: they stand beside it.
    pub fn in_force(&self, file: &Config, now: Millis) -> Config {
        let mut config = file.clone();
        self.stand_in(&mut config);
        config.protect.never_touch = self.inventory(&file.protect, now).never_touch;
        config
    }
}

fn read<T: for<'a> Deserialize<'a>>(value: Option<&Value>) -> Result<Option<T>, String> {
    value.map(|value| T::deserialize(value).map_err(|error| error.to_string())).transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file() -> Config {
        crate::parse("[protect]\nprefixes = [\"203.0.113.0/24\"]\n").unwrap().0
    }

    #[test]
    fn exclusions_end_by_themselves() {
        let mut settings = Settings::default();
        let value = json!([{"prefix": "203.0.113.9/32", "why": "test", "until": 5000},
            {"prefix": "203.0.113.10/32"}]);
        settings.take("exclusions", Some(&value)).unwrap();
        settings.check(&file()).unwrap();
        let count = |now| settings.inventory(&file().protect, Millis(now)).never_touch.len();
        assert_eq!((count(4999), count(5000)), (2, 1));
    }

    #[test]
    fn what_weir_would_not_start_with_is_refused() {
        let check = |name: &str, value: Value| {
            let mut settings = Settings::default();
            settings.take(name, Some(&value))?;
            settings.check(&file())
        };
        let group = |more: Value| {
            let mut group = json!({"name": "acme", "prefixes": ["203.0.113.0/25"]});
            group.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!([group])
        };
        let warned = |value: Value| {
            let warnings = check("groups", value).unwrap();
            warnings.iter().filter(|warning| warning.0.contains("protect.group")).count()
        };
        assert_eq!(warned(group(json!({"mode": "approve", "never": ["rtbh"]}))), 0);
        assert_eq!(warned(group(json!({"prefixes": ["192.0.2.0/24"]}))), 1);
        for wrong in [
            json!({"name": ""}),
            json!({"name": " acme"}),
            json!({"name": "x".repeat(65)}),
            json!({"name": "a\nb"}),
            json!({"prefixes": []}),
            json!({"prefixes": ["0.0.0.0/0"]}),
            json!({"never": ["rate-limit"]}),
            json!({"never": ["bounce"]}),
            json!({"mode": "panic"}),
            json!({"limit": 3}),
        ] {
            assert!(check("groups", group(wrong.clone())).is_err(), "{wrong}");
        }
        let twice =
            |name: &str, net: &str| json!([group(json!({}))[0], {"name": name, "prefixes": [net]}]);
        assert!(check("groups", twice("acme", "203.0.113.128/25")).is_err(), "one name");
        assert!(check("groups", twice("other", "203.0.113.0/25")).is_err(), "one prefix");
        assert!(check("groups", twice("other", "203.0.113.0/26")).is_ok(), "longer prefixes count");
        assert!(check("prefixes", json!([])).is_err(), "nothing would be watched");
        assert!(check("prefixes", json!(["0.0.0.0/0"])).is_err());
        assert!(check("prefixes", json!(["203.0.113.0/24", "2001:db8::/32"])).is_ok());
        assert!(check("exclusions", json!({"prefix": "203.0.113.9/32"})).is_err());
        assert!(check("ladder", json!([{"rung": "bounce", "above_bits_per_sec": 1}])).is_err());
        assert!(check("walls", json!([])).is_err());
        let hook = |url: &str| json!([{"name": "ops", "url": url}]);
        assert!(check("channels", hook("https://example.net")).is_ok());
        assert!(check("channels", hook("ftp://example.net")).is_err());
        assert!(check("channels", json!([hook("http://a")[0], hook("http://b")[0]])).is_err());
    }

    #[test]
    fn what_is_protected_cannot_be_widened_beyond_the_file_s_ceiling() {
        let set = |file: &str, nets: &[&str]| {
            let file = crate::parse(file).unwrap().0;
            let mut settings = Settings::default();
            settings.take("prefixes", Some(&json!(nets))).unwrap();
            settings.check(&file).map(drop)
        };
        let open = "[protect]\nprefixes = [\"203.0.113.0/24\"]\n";
        for nets in [&["0.0.0.0/1", "128.0.0.0/1"][..], &["64.0.0.0/7"], &["2000::/3"], &["::/0"]] {
            assert!(set(open, nets).is_err(), "{nets:?}");
        }
        set(open, &["198.51.100.0/24", "10.0.0.0/8", "2001:db8::/32"]).unwrap();
        let bounded = format!("{open}ceiling = [\"203.0.112.0/23\", \"2001:db8::/32\"]\n");
        set(&bounded, &["203.0.113.0/24", "203.0.112.0/25", "2001:db8:1::/48"]).unwrap();
        for nets in [&["198.51.100.0/24"][..], &["203.0.112.0/22"], &["2001:db8::/31"]] {
            assert!(set(&bounded, nets).unwrap_err().contains("protect.ceiling"), "{nets:?}");
        }
        let beyond = bounded.replace("203.0.113.0/24", "198.51.100.0/24");
        assert!(crate::parse(&beyond).is_err(), "nor by the file itself");
    }

    #[test]
    fn the_file_decides_again() {
        let mut settings = Settings::default();
        settings.take("prefixes", Some(&json!(["198.51.100.0/24"]))).unwrap();
        let first = |settings: &Settings| {
            settings.inventory(&file().protect, Millis(0)).protected.iter().next().unwrap()
        };
        assert_eq!(first(&settings).to_string(), "198.51.100.0/24");
        settings.take("prefixes", None).unwrap();
        assert_eq!(first(&settings).to_string(), "203.0.113.0/24");
    }
}
