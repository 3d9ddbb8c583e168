//! Game families: which egg is which game, and which ports a game opens at which distance.
//!
//! The table is data (`games.table`); the configuration adds families in the same notation, which
//! are tried first. Words are compared whole: a substring rule takes a chat bot called `parkertron`
//! for the game Ark, and `CS2D` for Counter-Strike 2.

use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::role::{Protocols, Role};

const TABLE: &str = include_str!("games.table");

/// Most families the configuration may add.
pub const CUSTOM_FAMILIES_MAX: usize = 1000;

/// Where a port of a family lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this distance from the main port: the game binds it by itself. 0 is the main port.
    Offset(i32),
    /// Set on its own; this is only the usual number.
    Usual(u16),
}

/// One port of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// What it is for.
    pub role: Role,
    /// Where it lies.
    pub place: Place,
    /// What it speaks.
    pub protocols: Protocols,
    /// Whether it is off unless the operator of the game server switches it on.
    pub optional: bool,
}

/// A game, or several that share ports and protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Identifier, such as `minecraft-java`.
    pub id: String,
    /// For people.
    pub name: String,
    words: Vec<Phrase>,
    programs: Vec<Phrase>,
    ports: Vec<PortSpec>,
}

/// A line of the table that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Not five fields.
    #[error("{0:?}: a family has five fields between bars")]
    Fields(String),
    /// A port that does not read `role +n/udp` or `role =n/tcp`.
    #[error("{0:?}: a port reads `role +n/udp`, `role =n/tcp` or the like")]
    Port(String),
    /// A family that nothing can ever match.
    #[error("family {0:?} has neither words nor programs")]
    Unmatchable(String),
    /// More than [`CUSTOM_FAMILIES_MAX`] families.
    #[error("more than {CUSTOM_FAMILIES_MAX} families")]
    TooMany,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Phrase {
    words: Vec<String>,
    at_start: bool,
    at_end: bool,
    last_is_prefix: bool,
    excludes: bool,
}

/// The built-in families, in order of precedence.
pub fn builtin() -> &'static [Family] {
    static FAMILIES: OnceLock<Vec<Family>> = OnceLock::new();
    FAMILIES
        .get_or_init(|| parse(TABLE).expect("the built-in table is read by a test of this module"))
}

/// Reads families in the notation of `games.table`.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Family>, TableError> {
    let mut families = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if families.len() == CUSTOM_FAMILIES_MAX {
            return Err(TableError::TooMany);
        }
        families.push(line.parse()?);
    }
    Ok(families)
}

/// The families of the configuration, then the built-in ones.
#[derive(Clone, Debug, Default)]
pub struct Games {
    custom: Vec<Family>,
}

impl Games {
    /// Families that go before the built-in ones.
    pub fn new(custom: Vec<Family>) -> Self {
        Self { custom }
    }

    fn all(&self) -> impl Iterator<Item = &Family> {
        self.custom.iter().chain(builtin())
    }

    /// The family with this identifier.
    pub fn by_id(&self, id: &str) -> Option<&Family> {
        self.all().find(|f| f.id == id)
    }

    /// The family whose words fit the name of an egg, a nest or a tag.
    pub fn by_name(&self, name: &str) -> Option<&Family> {
        let words = words(name);
        self.all().find(|f| fits(&f.words, &words))
    }

    /// The family whose programs fit the program of a start command, or the tag of an image.
    pub fn by_program(&self, program: &str) -> Option<&Family> {
        let words = program_words(program);
        self.all().find(|f| fits(&f.programs, &words))
    }
}

impl Family {
    /// Its ports.
    pub fn ports(&self) -> &[PortSpec] {
        &self.ports
    }

    /// What the main port is for: game, voice, web or application.
    pub fn main_role(&self) -> Role {
        self.main().map_or(Role::Game, |p| p.role)
    }

    /// What the main port speaks, with everything that shares it and is on by default.
    pub fn main_protocols(&self) -> Protocols {
        self.ports
            .iter()
            .filter(|p| p.place == Place::Offset(0) && !p.optional)
            .fold(Protocols::NONE, |all, p| all.union(p.protocols))
    }

    /// The port at a distance from the main one, other than the main port itself.
    pub fn at_offset(&self, offset: i32) -> Option<&PortSpec> {
        self.ports.iter().find(|p| offset != 0 && p.place == Place::Offset(offset))
    }

    /// The port whose usual number is `port`.
    pub fn at_usual(&self, port: u16) -> Option<&PortSpec> {
        self.ports.iter().find(|p| p.place == Place::Usual(port))
    }

    /// What the family's port of a role speaks, when the table says so.
    pub fn protocols_of(&self, role: Role) -> Option<Protocols> {
        let all = self
            .ports
            .iter()
            .filter(|p| p.role == role)
            .fold(Protocols::NONE, |all, p| all.union(p.protocols));
        (all != Protocols::NONE).then_some(all)
    }

    fn main(&self) -> Option<&PortSpec> {
        self.ports.iter().find(|p| p.place == Place::Offset(0))
    }
}

impl std::str::FromStr for Family {
    type Err = TableError;

    fn from_str(line: &str) -> Result<Self, TableError> {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [id, name, names, programs, ports] = fields[..] else {
            return Err(TableError::Fields(line.to_owned()));
        };
        let family = Self {
            id: id.to_owned(),
            name: name.to_owned(),
            words: phrases(names, words),
            programs: phrases(programs, program_words),
            ports: list(ports, ';').map(port).collect::<Result<_, _>>()?,
        };
        let matchable = |list: &[Phrase]| list.iter().any(|p| !p.excludes && !p.words.is_empty());
        if matchable(&family.words) || matchable(&family.programs) {
            Ok(family)
        } else {
            Err(TableError::Unmatchable(family.id))
        }
    }
}

impl fmt::Display for PortSpec {
    /// In the notation of the table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Offset(n) => write!(f, "{} {n:+}/{}", self.role, self.protocols)?,
            Place::Usual(n) => write!(f, "{} ={n}/{}", self.role, self.protocols)?,
        }
        if self.optional { f.write_str("?") } else { Ok(()) }
    }
}

fn port(text: &str) -> Result<PortSpec, TableError> {
    let wrong = || TableError::Port(text.to_owned());
    let (body, optional) = match text.strip_suffix('?') {
        Some(body) => (body, true),
        None => (text, false),
    };
    let (role, rest) = body.split_once(' ').ok_or_else(wrong)?;
    let (place, protocols) = rest.trim().split_once('/').ok_or_else(wrong)?;
    let place = match place.strip_prefix('=') {
        Some(number) => Place::Usual(number.parse().map_err(|_| wrong())?),
        None if place.starts_with(['+', '-']) => {
            let offset: i32 = place.parse().map_err(|_| wrong())?;
            if offset.unsigned_abs() > 65_535 {
                return Err(wrong());
            }
            Place::Offset(offset)
        }
        None => return Err(wrong()),
    };
    Ok(PortSpec {
        role: role.parse().map_err(|()| wrong())?,
        place,
        protocols: protocols.parse().map_err(|()| wrong())?,
        optional,
    })
}

fn list(text: &str, separator: char) -> impl Iterator<Item = &str> {
    text.split(separator).map(str::trim).filter(|t| !t.is_empty())
}

fn phrases(text: &str, split: fn(&str) -> Vec<String>) -> Vec<Phrase> {
    list(text, ',')
        .map(|t| {
            let (t, excludes) = strip(t, t.strip_prefix('!'));
            let (t, at_start) = strip(t, t.strip_prefix('^'));
            let (t, at_end) = strip(t, t.strip_suffix('$'));
            let (t, last_is_prefix) = strip(t, t.strip_suffix('*'));
            Phrase { words: split(t), at_start, at_end, last_is_prefix, excludes }
        })
        .collect()
}

fn strip<'a>(whole: &'a str, rest: Option<&'a str>) -> (&'a str, bool) {
    rest.map_or((whole, false), |rest| (rest, true))
}

/// Lower-case words without apostrophes: `Garry's Mod` is `garrys`, `mod`.
fn words(text: &str) -> Vec<String> {
    let text: String =
        text.chars().filter(|c| !matches!(c, '\'' | '’')).flat_map(char::to_lowercase).collect();
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A program is one word: `srcds_run` is not `srcds`, `run`.
fn program_words(text: &str) -> Vec<String> {
    vec![text.trim().to_lowercase()]
}

fn fits(phrases: &[Phrase], words: &[String]) -> bool {
    let hit = |p: &Phrase| p.fits(words);
    !phrases.iter().filter(|p| p.excludes).any(hit)
        && phrases.iter().filter(|p| !p.excludes).any(hit)
}

impl Phrase {
    fn fits(&self, words: &[String]) -> bool {
        let len = self.words.len();
        if len == 0 || len > words.len() {
            return false;
        }
        let last_start = words.len() - len;
        (0..=last_start)
            .filter(|start| {
                (!self.at_start || *start == 0) && (!self.at_end || *start == last_start)
            })
            .any(|start| {
                self.words.iter().zip(&words[start..]).enumerate().all(|(i, (own, word))| {
                    if self.last_is_prefix && i + 1 == len {
                        word.starts_with(own.as_str())
                    } else {
                        own == word
                    }
                })
            })
    }
}

/// A family that the configuration adds: the fields of a line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GameConfig {
    /// Identifier.
    pub id: String,
    /// For people.
    pub name: String,
    /// Phrases of egg names, as in `games.table`.
    #[serde(default)]
    pub words: Vec<String>,
    /// Programs of start commands or tags of images, as in `games.table`.
    #[serde(default)]
    pub programs: Vec<String>,
    /// Ports, as in `games.table`: `["game +0/udp", "query +1/udp", "rcon =25575/tcp"]`.
    pub ports: Vec<String>,
}

impl GameConfig {
    /// The family it describes.
    ///
    /// # Errors
    /// When a port cannot be read, or nothing could match.
    pub fn family(&self) -> Result<Family, TableError> {
        let family = Family {
            id: self.id.clone(),
            name: self.name.clone(),
            words: phrases(&self.words.join(","), words),
            programs: phrases(&self.programs.join(","), program_words),
            ports: self.ports.iter().map(|t| port(t.trim())).collect::<Result<_, _>>()?,
        };
        if family.words.iter().chain(&family.programs).all(|p| p.excludes || p.words.is_empty()) {
            return Err(TableError::Unmatchable(family.id));
        }
        Ok(family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Option<String> {
        Games::default().by_name(name).map(|f| f.id.clone())
    }

    #[test]
    fn the_built_in_table_reads_and_says_what_each_game_speaks() {
        let families = parse(TABLE).unwrap();
        assert!(families.len() >= 97, "{}", families.len());
        let mut ids: Vec<&str> = families.iter().map(|f| f.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), families.len(), "identifiers are unique");
        for family in &families {
            assert_ne!(family.main_protocols(), Protocols::NONE, "{}", family.id);
            for spec in family.ports() {
                assert_eq!(port(&spec.to_string()), Ok(*spec), "{}", family.id);
            }
        }
    }

    #[test]
    fn every_family_is_found_by_its_own_name_or_its_words() {
        let games = Games::default();
        for family in builtin() {
            for phrase in family.words.iter().filter(|p| !p.excludes) {
                let name = phrase.words.join(" ");
                let found = games.by_name(&name).unwrap();
                assert_eq!(found.id, family.id, "{name:?} is taken by an earlier line");
            }
            for phrase in family.programs.iter().filter(|p| !p.excludes) {
                let found = games.by_program(&phrase.words[0]).unwrap();
                assert_eq!(found.id, family.id, "{:?}", phrase.words);
            }
        }
    }

    #[test]
    fn names_of_public_eggs_find_their_game() {
        let check =
            |name: &str, family: &str| assert_eq!(id(name).as_deref(), Some(family), "{name}");
        check("Paper", "minecraft-java");
        check("Forge Minecraft", "minecraft-java");
        check("Vanilla Minecraft", "minecraft-java");
        check("Sponge (SpongeVanilla)", "minecraft-java");
        check("Vanilla Bedrock", "minecraft-bedrock");
        check("Minecraft Bedrock", "minecraft-bedrock");
        check("PocketmineMP", "minecraft-bedrock");
        check("Bungeecord", "minecraft-proxy");
        check("Velocity", "minecraft-proxy");
        check("Rust", "rust");
        check("Rust Autowipe", "rust");
        check("Rust Generic", "generic-app");
        check("Garry's Mod", "gmod");
        check("Don't Starve Together", "dst");
        check("Counter-Strike 2", "cs2");
        check("Counter-Strike: Source", "css");
        check("Counter-Strike: Global Offensive", "csgo");
        check("Insurgency: Sandstorm", "sandstorm");
        check("Insurgency", "source");
        check("Ark: Survival Evolved", "ark-se");
        check("Teamspeak3 Server", "teamspeak3");
        check("MTA:SA", "mta");
        check("7 Days To Die", "7dtd");
        check("Valheim BepInEx", "valheim");
        check("Squad 44", "postscriptum");
        check("node.js generic", "generic-app");
    }

    #[test]
    fn names_that_only_contain_a_game_are_not_that_game() {
        for name in ["Stay In Tarkov", "parkertron", "CS2D", "Trusty", "Marketplace", "MariaDB", ""]
        {
            assert_eq!(id(name), None, "{name}");
        }
    }

    #[test]
    fn the_main_port_carries_what_is_on_by_default() {
        let check = |id: &str, protocols: Protocols| {
            let games = Games::default();
            assert_eq!(games.by_id(id).unwrap().main_protocols(), protocols, "{id}");
        };
        check("minecraft-java", Protocols::TCP);
        check("minecraft-bedrock", Protocols::UDP);
        check("rust", Protocols::UDP);
        check("cs2", Protocols::BOTH);
        check("goldsrc", Protocols::UDP);
        check("fivem", Protocols::BOTH);
    }

    #[test]
    fn the_configuration_adds_families_before_the_built_in_ones() {
        let own = GameConfig {
            id: "mini".into(),
            name: "Mini Rust".into(),
            words: vec!["^rust mini".into()],
            programs: vec![],
            ports: vec!["game +0/udp".into(), "query +7/udp?".into()],
        };
        let games = Games::new(vec![own.family().unwrap()]);
        assert_eq!(games.by_name("Rust Mini").map(|f| f.id.as_str()), Some("mini"));
        assert_eq!(games.by_name("Rust").map(|f| f.id.as_str()), Some("rust"));
        let broken = GameConfig { ports: vec!["game 27015/udp".into()], ..own.clone() };
        assert!(matches!(broken.family(), Err(TableError::Port(_))));
        let nothing = GameConfig { words: vec!["!x".into()], ..own };
        assert_eq!(nothing.family(), Err(TableError::Unmatchable("mini".into())));
    }
}
