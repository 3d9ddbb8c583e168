//! Allow lists that are read from a file or a URL: what is in force, and what waits for approval.
//!
//! A list changes by itself as long as it changes by no more than a fifth. What else its source says waits for
//! a person, and until then the list stays as it was; a source that cannot be read, or that says something
//! else than a list, changes nothing. Pure: [`Shelf`] is told what was read and when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_api::allow::{AllowChange, AllowStatus, Refusal};
use weir_config::allow::{check_prefixes, in_force};
use weir_config::{AllowConfig, AllowSource};
use weir_model::{
    ALLOW_PREFIXES_MAX, AllowLists, AllowName, IpNet, Millis, PrefixSet, changed_share, origin,
};

/// Share of a list by which it may change without anybody's approval.
pub const FREELY_MAX: f64 = 0.2;

/// Longest time until a source that could not be read is tried again, milliseconds.
const RETRY_MS: u64 = 300_000;

/// The same of what the RPKI cache has not told yet: nobody is asked for it.
const RETRY_ORIGINS_MS: u64 = 10_000;

/// Times its interval after which a list that was not read is old.
const STALE_TIMES: u64 = 3;

/// Prefixes that are shown of a list or a change.
const SHOWN_MAX: usize = 10;

/// What outlives a restart of one list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// File or URL that it was read from.
    pub source: String,
    /// What was read and is in force.
    pub prefixes: PrefixSet,
    /// When it was last read.
    pub read: Option<Millis>,
    /// What waits, and since when.
    pub pending: Option<(PrefixSet, Millis)>,
    /// What was rejected last.
    pub rejected: Option<PrefixSet>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    kept: Kept,
    error: String,
    failures: u64,
    due: Millis,
}

/// What came of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It says what it said.
    Same,
    /// What it says now is in force.
    Taken,
    /// What it says now waits for approval.
    Waits,
    /// It could not be read, or says no list.
    Failed,
}

/// All lists with a source.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    lists: Vec<AllowConfig>,
    entries: BTreeMap<AllowName, Entry>,
    since: Millis,
}

impl Shelf {
    /// Lists of a configuration, with what was kept of them.
    pub fn new(lists: &[AllowConfig], kept: BTreeMap<AllowName, Kept>, now: Millis) -> Self {
        let entry = |(name, kept)| (name, Entry { kept, ..Entry::default() });
        let entries = kept.into_iter().map(entry).collect();
        let mut shelf = Self { lists: Vec::new(), entries, since: now };
        shelf.configure(lists);
        shelf
    }

    /// Takes the lists of another configuration; those that stay keep what was read.
    pub fn configure(&mut self, lists: &[AllowConfig]) {
        let of = |name: &AllowName| lists.iter().find(|list| list.name == *name);
        self.entries.retain(|name, _| of(name).and_then(AllowConfig::source).is_some());
        for list in lists.iter().filter(|list| list.source().is_some()) {
            let entry = self.entries.entry(list.name).or_default();
            if self.lists.iter().find(|old| old.name == list.name) != Some(list) {
                // Read at once: somewhere else, or more often.
                entry.due = Millis(0);
            }
        }
        self.lists = lists.to_vec();
    }

    /// The lists in force when the configuration has these.
    pub fn in_force(&self, lists: &[AllowConfig]) -> AllowLists {
        let read = |(name, entry): (&AllowName, &Entry)| (*name, entry.kept.prefixes.clone());
        let mut all = in_force(lists, &self.entries.iter().map(read).collect());
        for (name, entry) in &self.entries {
            all.wait(*name, entry.kept.pending.as_ref().map(|(_, since)| *since));
        }
        all
    }

    /// What is to be read now.
    pub fn due(&self, now: Millis) -> Vec<(AllowName, AllowSource)> {
        let due = |list: &&AllowConfig| self.entries.get(&list.name).is_some_and(|e| e.due <= now);
        let all = self.lists.iter().filter(due);
        all.filter_map(|list| Some((list.name, list.source()?))).collect()
    }

    /// A source was read: what it says, or why nothing was learned of it.
    pub fn read(
        &mut self,
        name: AllowName,
        source: &AllowSource,
        said: Result<PrefixSet, String>,
        now: Millis,
    ) -> Outcome {
        let config = self.lists.iter().find(|list| list.name == name);
        // Another configuration came meanwhile.
        let Some(config) = config.filter(|list| list.source().as_ref() == Some(source)) else {
            return Outcome::Same;
        };
        let inline: usize = self.lists.iter().map(|list| list.prefixes.len()).sum();
        let others = self.entries.iter().filter(|(other, _)| **other != name);
        let others: usize = others.map(|(_, entry)| entry.kept.prefixes.len()).sum();
        let said =
            said.and_then(|set| fits(set, ALLOW_PREFIXES_MAX.saturating_sub(inline + others)));
        let refresh = config.refresh_secs * 1000;
        let Some(entry) = self.entries.get_mut(&name) else { return Outcome::Same };
        let set = match said {
            Ok(set) => set,
            Err(why) => {
                entry.error = why;
                entry.failures += 1;
                let retry = match source {
                    AllowSource::Origins(_) => RETRY_ORIGINS_MS,
                    _ => RETRY_MS,
                };
                entry.due = now + refresh.min(retry);
                return Outcome::Failed;
            }
        };
        entry.error = String::new();
        entry.due = now + refresh;
        let kept = &mut entry.kept;
        // The first word of a source that an operator has just named is taken as it is.
        let first = kept.read.is_none() || kept.source != source.to_string();
        kept.source = source.to_string();
        kept.read = Some(now);
        if set == kept.prefixes {
            (kept.pending, kept.rejected) = (None, None);
            return Outcome::Same;
        }
        if first || changed_share(&kept.prefixes, &set) <= FREELY_MAX {
            kept.prefixes = set;
            (kept.pending, kept.rejected) = (None, None);
            return Outcome::Taken;
        }
        if kept.rejected.as_ref() == Some(&set) {
            kept.pending = None;
            return Outcome::Same;
        }
        if kept.pending.as_ref().is_some_and(|(pending, _)| *pending == set) {
            return Outcome::Same;
        }
        kept.pending = Some((set, now));
        Outcome::Waits
    }

    fn entry(&mut self, name: &str) -> Result<&mut Entry, Refusal> {
        let name: AllowName = name.parse().map_err(|_| Refusal::Unknown)?;
        if !self.lists.iter().any(|list| list.name == name) {
            return Err(Refusal::Unknown);
        }
        self.entries.get_mut(&name).ok_or(Refusal::NoSource)
    }

    /// Puts the change that waits in force.
    ///
    /// # Errors
    /// When there is no such list, or no change of it waits.
    pub fn approve(&mut self, name: &str) -> Result<(), Refusal> {
        let kept = &mut self.entry(name)?.kept;
        let (set, _) = kept.pending.take().ok_or(Refusal::NothingWaits)?;
        (kept.prefixes, kept.rejected) = (set, None);
        Ok(())
    }

    /// Leaves the list as it is until its source says something else.
    ///
    /// # Errors
    /// As [`Self::approve`].
    pub fn reject(&mut self, name: &str) -> Result<(), Refusal> {
        let kept = &mut self.entry(name)?.kept;
        let (set, _) = kept.pending.take().ok_or(Refusal::NothingWaits)?;
        kept.rejected = Some(set);
        Ok(())
    }

    /// Has a source read with the next look.
    ///
    /// # Errors
    /// When there is no such list, or nothing is read for it.
    pub fn refresh(&mut self, name: &str) -> Result<(), Refusal> {
        self.entry(name)?.due = Millis(0);
        Ok(())
    }

    /// What is kept of a list over a restart.
    pub fn kept(&self, name: AllowName) -> Option<&Kept> {
        self.entries.get(&name).map(|entry| &entry.kept)
    }

    /// How it stands with each list.
    pub fn status(&self, now: Millis) -> Vec<AllowStatus> {
        let lists = self.in_force(&self.lists);
        let both = self.lists.iter().zip(lists.lists());
        both.map(|(config, list)| {
            let entry = self.entries.get(&config.name);
            let kept = entry.map(|entry| &entry.kept);
            let read = kept.and_then(|kept| kept.read);
            let late = STALE_TIMES * config.refresh_secs * 1000;
            AllowStatus {
                name: config.name.to_string(),
                prefixes: list.prefixes.len(),
                first: shown(list.prefixes.iter()),
                what: config.what(),
                source: match config.source() {
                    // A path may hold a key.
                    Some(AllowSource::Urls(urls)) if config.set.is_none() => {
                        urls.iter().map(|url| origin(url)).collect::<Vec<_>>().join(" ")
                    }
                    source => source.map(|source| source.to_string()).unwrap_or_default(),
                },
                read,
                stale: entry.is_some() && now.since(read.unwrap_or(self.since)) > late,
                error: entry.map(|entry| entry.error.clone()).unwrap_or_default(),
                failures: entry.map(|entry| entry.failures).unwrap_or_default(),
                pending: kept.and_then(|kept| {
                    let (set, since) = kept.pending.as_ref()?;
                    Some(change(&kept.prefixes, set, *since))
                }),
            }
        })
        .collect()
    }
}

fn shown(nets: impl Iterator<Item = IpNet>) -> Vec<String> {
    nets.take(SHOWN_MAX).map(|net| net.to_string()).collect()
}

fn change(before: &PrefixSet, after: &PrefixSet, since: Millis) -> AllowChange {
    let (old, new): (Vec<IpNet>, Vec<IpNet>) = (before.iter().collect(), after.iter().collect());
    let without = |all: &[IpNet], other: &[IpNet]| -> Vec<IpNet> {
        all.iter().filter(|net| other.binary_search(net).is_err()).copied().collect()
    };
    let (added, removed) = (without(&new, &old), without(&old, &new));
    AllowChange {
        prefixes: new.len(),
        added_count: added.len(),
        removed_count: removed.len(),
        added: shown(added.into_iter()),
        removed: shown(removed.into_iter()),
        since,
    }
}

fn fits(set: PrefixSet, room: usize) -> Result<PrefixSet, String> {
    if set.is_empty() {
        return Err("it has no prefix".to_owned());
    }
    if set.len() > room {
        return Err(format!(
            "it has {} prefixes, and all lists together may have {ALLOW_PREFIXES_MAX}",
            set.len()
        ));
    }
    check_prefixes(&set).map(|()| set)
}

/// Reads a list: one prefix or address a line, blank lines and comments (`#`, `;`) aside; or, of JSON, every text in
/// it that is a prefix, and every address that stands in a list: alone it may be the number of a version.
///
/// # Errors
/// In words, when anything else stands in it: half a list is none.
pub fn parse(text: &str) -> Result<PrefixSet, String> {
    if text.trim_start().starts_with(['{', '[']) {
        let value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
        let mut nets = Vec::new();
        collect(&value, &mut nets);
        return Ok(nets.into());
    }
    let mut nets = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let word = line.split(['#', ';']).next().unwrap_or_default().trim();
        if word.is_empty() {
            continue;
        }
        let shown: String = word.chars().take(40).collect();
        nets.push(net(word).ok_or_else(|| format!("line {}: {shown:?} is no prefix", at + 1))?);
    }
    Ok(nets.into())
}

fn net(word: &str) -> Option<IpNet> {
    word.parse().ok().or_else(|| word.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

fn collect(value: &serde_json::Value, nets: &mut Vec<IpNet>) {
    match value {
        serde_json::Value::String(text) => nets.extend(text.parse::<IpNet>().ok()),
        serde_json::Value::Array(list) => {
            for value in list {
                match value.as_str() {
                    Some(text) => nets.extend(net(text)),
                    None => collect(value, nets),
                }
            }
        }
        serde_json::Value::Object(map) => map.values().for_each(|value| collect(value, nets)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(url: &str) -> Vec<AllowConfig> {
        let text = format!(
            "[protect]\nprefixes = [\"203.0.113.0/24\"]\n[[protect.allow]]\nname = \"web\"\nurl = \"{url}\"\n\
             refresh_secs = 600\n[[protect.allow]]\nname = \"own\"\nprefixes = [\"192.0.2.0/24\"]\n"
        );
        weir_config::parse(&text).unwrap().0.protect.allow
    }

    fn nets(from: u32, to: u32) -> PrefixSet {
        (from..to).map(|n| format!("10.0.{n}.0/24").parse::<IpNet>().unwrap()).collect()
    }

    struct World {
        shelf: Shelf,
        now: Millis,
    }

    impl World {
        fn new(kept: BTreeMap<AllowName, Kept>) -> Self {
            let now = Millis::from_secs(1_000_000);
            Self { shelf: Shelf::new(&lists("https://lists.example/v4"), kept, now), now }
        }

        /// The source says this at its next turn.
        fn says(&mut self, said: Result<PrefixSet, String>) -> Outcome {
            let due = self.shelf.due(self.now);
            assert_eq!(due.len(), 1, "{due:?}");
            let outcome = self.shelf.read(due[0].0, &due[0].1, said, self.now);
            assert_eq!(self.shelf.due(self.now), []);
            self.now = self.now + 600_000;
            outcome
        }

        fn in_force(&self) -> usize {
            self.status().prefixes
        }

        fn status(&self) -> AllowStatus {
            self.shelf.status(self.now).into_iter().next().unwrap()
        }
    }

    #[test]
    fn a_list_changes_by_a_fifth_and_no_more_without_a_person() {
        let mut world = World::new(BTreeMap::new());
        assert_eq!(world.says(Ok(nets(0, 20))), Outcome::Taken);
        assert_eq!(world.says(Ok(nets(0, 24))), Outcome::Taken);
        assert_eq!(world.says(Ok(nets(0, 24))), Outcome::Same);
        assert_eq!(world.says(Ok(nets(0, 18))), Outcome::Waits);
        assert_eq!(world.in_force(), 24);
        let pending = world.status().pending.unwrap();
        assert_eq!((pending.prefixes, pending.removed_count, pending.added_count), (18, 6, 0));
        // It waits since the first time, and goes when the source says again what it said.
        assert_eq!(world.says(Ok(nets(0, 18))), Outcome::Same);
        assert_eq!(world.status().pending.unwrap().since, pending.since);
        assert_eq!(world.says(Ok(nets(0, 24))), Outcome::Same);
        assert_eq!(world.status().pending, None);

        assert_eq!(world.says(Ok(nets(0, 18))), Outcome::Waits);
        world.shelf.approve("web").unwrap();
        assert_eq!((world.in_force(), world.status().pending), (18, None));
        assert_eq!(world.shelf.approve("web"), Err(Refusal::NothingWaits));

        assert_eq!(world.says(Ok(nets(0, 60))), Outcome::Waits);
        world.shelf.reject("web").unwrap();
        assert_eq!(world.says(Ok(nets(0, 60))), Outcome::Same);
        assert_eq!((world.in_force(), world.status().pending), (18, None));
        assert_eq!(world.says(Ok(nets(0, 61))), Outcome::Waits);
        assert_eq!(world.shelf.reject("own"), Err(Refusal::NoSource));
        assert_eq!(world.shelf.refresh("nobody"), Err(Refusal::Unknown));
    }

    #[test]
    fn what_is_no_list_changes_nothing() {
        let mut world = World::new(BTreeMap::new());
        world.says(Ok(nets(0, 20)));
        let many = (0..70_000_u32).map(|n| IpNet::from(std::net::IpAddr::from(n.to_be_bytes())));
        let wide = || FromIterator::from_iter(["128.0.0.0/1".parse().unwrap()]);
        for (said, part) in [
            (Err("no answer in time".to_owned()), "no answer"),
            (parse("<html>"), "line 1"),
            (parse("# nothing\n"), "no prefix"),
            (Ok(many.collect()), "70000 prefixes"),
            (Ok(wide()), "wider than"),
        ] {
            assert_eq!(world.says(said), Outcome::Failed);
            let status = world.status();
            assert!(status.error.contains(part), "{}", status.error);
            assert_eq!((status.prefixes, status.pending), (20, None));
        }
        assert_eq!((world.status().failures, world.status().stale), (5, true));
        assert_eq!(world.says(Ok(nets(0, 21))), Outcome::Taken);
        assert_eq!((world.status().error.as_str(), world.status().stale), ("", false));
    }

    #[test]
    fn what_was_in_force_and_what_waits_outlives_a_restart() {
        let mut world = World::new(BTreeMap::new());
        world.says(Ok(nets(0, 20)));
        world.says(Ok(nets(0, 40)));
        let name = "web".parse().unwrap();
        let text = serde_json::to_string(world.shelf.kept(name).unwrap()).unwrap();
        let kept = || BTreeMap::from([(name, serde_json::from_str(&text).unwrap())]);
        let mut again = World::new(kept());
        assert_eq!((again.in_force(), again.status().pending.is_some()), (20, true));
        assert_eq!(again.says(Err("the network is down".to_owned())), Outcome::Failed);
        assert_eq!(again.in_force(), 20);
        again.shelf.approve("web").unwrap();
        assert_eq!(again.in_force(), 40);
        // Another source is a person's word: what it says is taken, and until then the old list holds.
        let moved = lists("https://lists.example/other");
        let mut shelf = Shelf::new(&moved, kept(), again.now);
        let (name, source) = shelf.due(again.now).remove(0);
        assert_eq!(shelf.status(again.now)[0].prefixes, 20);
        assert_eq!(shelf.read(name, &source, Ok(nets(90, 99)), again.now), Outcome::Taken);
        // A list that is gone is forgotten.
        shelf.configure(&moved[1..]);
        assert_eq!(shelf.kept(name), None);
    }

    #[test]
    fn lists_are_read_as_lines_and_as_json() {
        let text = "# proxies\n198.51.100.0/24\n\n2001:db8::/32 ; v6\n192.0.2.7 # one\n";
        let set = parse(text).unwrap();
        let found: Vec<String> = set.iter().map(|net| net.to_string()).collect();
        assert_eq!(found, ["192.0.2.7/32", "198.51.100.0/24", "2001:db8::/32"]);
        let json =
            r#"{"addresses": ["198.51.100.0/24"], "more": [{"v6": "2001:db8::/32", "at": "x"}]}"#;
        assert_eq!(parse(json).unwrap().len(), 2);
        let addresses = r#"["192.0.2.7", "2001:db8::7", {"version": "4.3.2.1"}]"#;
        assert_eq!(parse(addresses).unwrap().len(), 2);
        for wrong in ["198.51.100.0/33", "10.0.0.0/24\nmoved", "{\"a\": "] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
