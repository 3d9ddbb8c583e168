//! What an allocation is for, and how sure weir is.
//!
//! The panel says neither: a node publishes every allocation for both protocols. So a role is
//! concluded from the operator's rules, the egg's variables, the game's family and the distance
//! from the main port, in that order. Only a good reason narrows the protocols; an unknown
//! game, or a role guessed by a usual number, keeps both.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::RoleRule;
use crate::games::{Family, Games};
use crate::listing::{Allocation, Egg, Node, Server};

/// From this confidence on a conclusion narrows the protocols.
const NARROWING_CONFIDENCE: u8 = 70;

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Players' connections.
    Game,
    /// Server lists and pings.
    Query,
    /// Remote console.
    Rcon,
    /// Voice.
    Voice,
    /// File transfer.
    File,
    /// A web page or a web interface of the game.
    Web,
    /// Administration.
    Admin,
    /// A companion application.
    App,
    /// Spectators.
    Tv,
    /// Registration with a platform.
    Steam,
    /// Measurements.
    Metrics,
    /// The panel's daemon on a node.
    System,
    /// Not known.
    Unknown,
}

impl Role {
    const ALL: [(Self, &'static str); 13] = [
        (Self::Game, "game"),
        (Self::Query, "query"),
        (Self::Rcon, "rcon"),
        (Self::Voice, "voice"),
        (Self::File, "file"),
        (Self::Web, "web"),
        (Self::Admin, "admin"),
        (Self::App, "app"),
        (Self::Tv, "tv"),
        (Self::Steam, "steam"),
        (Self::Metrics, "metrics"),
        (Self::System, "system"),
        (Self::Unknown, "unknown"),
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(role, _)| *role == self).map_or("unknown", |(_, name)| name)
    }

    /// What such a port speaks when the family's table is silent.
    const fn usual_protocols(self) -> Protocols {
        match self {
            Self::Query | Self::Voice | Self::Tv | Self::Steam => Protocols::UDP,
            Self::Rcon
            | Self::File
            | Self::Web
            | Self::Admin
            | Self::App
            | Self::Metrics
            | Self::System => Protocols::TCP,
            Self::Game | Self::Unknown => Protocols::BOTH,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(role, _)| *role).ok_or(())
    }
}

/// TCP, UDP, both, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Protocols {
    tcp: bool,
    udp: bool,
}

impl Protocols {
    /// Neither.
    pub const NONE: Self = Self { tcp: false, udp: false };
    /// TCP.
    pub const TCP: Self = Self { tcp: true, udp: false };
    /// UDP.
    pub const UDP: Self = Self { tcp: false, udp: true };
    /// TCP and UDP.
    pub const BOTH: Self = Self { tcp: true, udp: true };

    /// Everything of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self { tcp: self.tcp || other.tcp, udp: self.udp || other.udp }
    }

    /// IP protocol numbers, ascending.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        [(self.tcp, 6), (self.udp, 17)].into_iter().filter(|(on, _)| *on).map(|(_, n)| n)
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.tcp, self.udp) {
            (true, true) => "both",
            (true, false) => "tcp",
            (false, true) => "udp",
            (false, false) => "none",
        })
    }
}

impl std::str::FromStr for Protocols {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "tcp" => Ok(Self::TCP),
            "udp" => Ok(Self::UDP),
            "both" | "tcp+udp" => Ok(Self::BOTH),
            _ => Err(()),
        }
    }
}

impl TryFrom<String> for Protocols {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|()| format!("{text:?} is none of \"tcp\", \"udp\", \"both\""))
    }
}

impl From<Protocols> for String {
    fn from(protocols: Protocols) -> Self {
        protocols.to_string()
    }
}

/// What a conclusion rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A rule of the operator.
    Operator,
    /// A variable of the egg holds the port's number.
    Variable,
    /// The game binds it at a fixed distance from its main port.
    Offset,
    /// It is the server's primary allocation, and the game is known.
    Primary,
    /// The usual number of one of the game's ports.
    UsualNumber,
    /// Nothing.
    Nothing,
}

/// What an allocation is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclusion {
    /// Role.
    pub role: Role,
    /// What it speaks.
    pub protocols: Protocols,
    /// 0-100.
    pub confidence: u8,
    /// What it rests on.
    pub source: Source,
    /// In words, for people.
    pub why: String,
}

/// The game a server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Game<'a> {
    pub(crate) family: Option<&'a Family>,
    pub(crate) confidence: u8,
    pub(crate) why: String,
}

impl Game<'_> {
    /// What people call it: the family, or the egg when the game is unknown.
    pub(crate) fn title(&self, egg: Option<&Egg>) -> String {
        self.family.map_or_else(
            || egg.map_or_else(|| "unknown".to_owned(), |e| e.name.clone()),
            |f| f.name.clone(),
        )
    }
}

/// Everything the roles of one server's allocations are concluded from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) server: &'a Server,
    pub(crate) egg: Option<&'a Egg>,
    pub(crate) node: Option<&'a Node>,
    pub(crate) rules: &'a [RoleRule],
    pub(crate) games: &'a Games,
}

impl<'a> Context<'a> {
    /// Which game the server runs: operator, egg name, program, image, features, tags, nest.
    pub(crate) fn game(&self) -> Game<'a> {
        let ruled = self
            .rules
            .iter()
            .filter(|r| r.selects(self, None))
            .find_map(|r| self.games.by_id(r.game.as_deref()?));
        if let Some(family) = ruled {
            return Game { family: Some(family), confidence: 100, why: "a rule names it".into() };
        }
        let found = |family, confidence, why| Game { family: Some(family), confidence, why };
        if let Some(egg) = self.egg
            && let Some(family) = self.games.by_name(&egg.name)
        {
            return found(family, 90, format!("egg {:?}", egg.name));
        }
        let programs = [Some(self.server.program.as_str()), Some(self.server.image_tag.as_str())]
            .into_iter()
            .chain([self.egg.map(|e| e.program.as_str()), self.egg.map(|e| e.image_tag.as_str())]);
        for program in programs.flatten().filter(|p| !p.is_empty()) {
            if let Some(family) = self.games.by_program(program) {
                return found(family, 85, format!("program or image {program:?}"));
            }
        }
        self.game_of_egg_marks().unwrap_or_else(|| Game {
            family: None,
            confidence: 0,
            why: "no rule, egg name, program, image, feature, tag or nest is known".into(),
        })
    }

    fn game_of_egg_marks(&self) -> Option<Game<'a>> {
        let egg = self.egg?;
        let game = |family, confidence, why| Game { family: Some(family), confidence, why };
        // These three features together mark the Minecraft Java eggs of Pelican.
        let java = ["eula", "java_version", "pid_limit"];
        if java.iter().all(|f| egg.features.iter().any(|own| own == f))
            && let Some(family) = self.games.by_id("minecraft-java")
        {
            return Some(game(family, 80, "features of the egg".to_owned()));
        }
        for tag in &egg.tags {
            if let Some(family) = self.games.by_name(tag) {
                return Some(game(family, 60, format!("tag {tag:?} of the egg")));
            }
        }
        let nest = egg.nest.as_ref()?;
        self.games.by_name(nest).map(|f| game(f, 50, format!("nest {nest:?}")))
    }

    /// What one allocation is for.
    pub(crate) fn conclude(&self, allocation: &Allocation, game: &Game<'_>) -> Conclusion {
        let concluded = self
            .by_operator(allocation, game)
            .or_else(|| self.by_variable(allocation, game))
            .or_else(|| self.by_family(allocation, game));
        let mut concluded = concluded.unwrap_or_else(|| Conclusion {
            role: Role::Unknown,
            protocols: Protocols::BOTH,
            confidence: 0,
            source: Source::Nothing,
            why: format!("unknown: {}", game.why),
        });
        if concluded.confidence < NARROWING_CONFIDENCE {
            concluded.protocols = Protocols::BOTH;
        }
        concluded
    }

    fn is_primary(&self, allocation: &Allocation) -> bool {
        self.server.primary == Some(allocation.id)
    }

    fn by_operator(&self, allocation: &Allocation, game: &Game<'_>) -> Option<Conclusion> {
        let rule = self.rules.iter().find(|r| {
            r.selects(self, Some(allocation)) && (r.role.is_some() || r.protocols.is_some())
        })?;
        let role = rule.role.unwrap_or_else(|| {
            if self.is_primary(allocation) {
                game.family.map_or(Role::Game, Family::main_role)
            } else {
                Role::Unknown
            }
        });
        let protocols = rule.protocols.unwrap_or_else(|| protocols_for(role, game));
        let why = format!("rule {:?}", rule.name);
        Some(Conclusion { role, protocols, confidence: 100, source: Source::Operator, why })
    }

    fn by_variable(&self, allocation: &Allocation, game: &Game<'_>) -> Option<Conclusion> {
        let mut names: Vec<&str> = self
            .server
            .port_variables
            .iter()
            .filter(|(_, port)| *port == allocation.port)
            .map(|(name, _)| name.as_str())
            .collect();
        names.sort_unstable();
        let roles: Vec<Role> = names.iter().filter_map(|n| role_of_variable(n)).collect();
        let first = *roles.first()?;
        let mut protocols =
            roles.iter().fold(Protocols::NONE, |all, r| all.union(protocols_for(*r, game)));
        let why = format!("variable {}", names.join(", "));
        let source = Source::Variable;
        if self.is_primary(allocation) {
            // A query or console on the main port shares it with the players.
            let main = game.family.map_or(Protocols::BOTH, Family::main_protocols);
            protocols = protocols.union(main);
            let role = game.family.map_or(Role::Game, Family::main_role);
            let confidence = game.confidence;
            return Some(Conclusion { role, protocols, confidence, source, why });
        }
        // Without a known game the name of a variable says the role, not what it speaks: the console
        // of one engine is TCP, of another UDP.
        let confidence = if game.family.is_some() { 90 } else { 60 };
        Some(Conclusion { role: first, protocols, confidence, source, why })
    }

    fn by_family(&self, allocation: &Allocation, game: &Game<'_>) -> Option<Conclusion> {
        let family = game.family?;
        if self.is_primary(allocation) {
            return Some(Conclusion {
                role: family.main_role(),
                protocols: family.main_protocols(),
                confidence: game.confidence,
                source: Source::Primary,
                why: format!("primary port, {} by {}", family.name, game.why),
            });
        }
        let primary = self.server.allocations.iter().find(|a| self.is_primary(a));
        if let Some(primary) = primary {
            let offset = i32::from(allocation.port) - i32::from(primary.port);
            // A second address with the main port's number is the same game, seen on both families
            // of addresses or by another door.
            if offset == 0 {
                return Some(Conclusion {
                    role: family.main_role(),
                    protocols: family.main_protocols(),
                    confidence: game.confidence.saturating_sub(5),
                    source: Source::Offset,
                    why: format!("the primary port's number, {}", family.name),
                });
            }
            if let Some(spec) = family.at_offset(offset) {
                return Some(Conclusion {
                    role: spec.role,
                    protocols: spec.protocols,
                    confidence: game.confidence.saturating_sub(5),
                    source: Source::Offset,
                    why: format!("{} binds {} at primary port {offset:+}", family.name, spec.role),
                });
            }
        }
        let spec = family.at_usual(allocation.port)?;
        Some(Conclusion {
            role: spec.role,
            protocols: Protocols::BOTH,
            confidence: 40,
            source: Source::UsualNumber,
            why: format!("usual {} port of {}; both protocols kept", spec.role, family.name),
        })
    }
}

fn protocols_for(role: Role, game: &Game<'_>) -> Protocols {
    game.family
        .filter(|_| game.confidence >= NARROWING_CONFIDENCE)
        .and_then(|f| f.protocols_of(role))
        .unwrap_or_else(|| role.usual_protocols())
}

/// The role a variable's name speaks of: `VR_QUERY_PORT`, `RCON_PORT`, `TXHOST_TXA_PORT`.
fn role_of_variable(name: &str) -> Option<Role> {
    let words: Vec<&str> = name.split('_').collect();
    let has = |list: &[&str]| words.iter().any(|w| list.contains(w));
    if has(&["RCON", "RCPORT", "RCON2"]) {
        Some(Role::Rcon)
    } else if has(&["QUERY", "QPORT", "BEACON", "ASE"]) {
        // "Server query" of TeamSpeak is a console, but its table says tcp for that role.
        Some(Role::Query)
    } else if has(&["METRICS", "PROMETHEUS"]) {
        Some(Role::Metrics)
    } else if has(&["TXA", "ADMIN", "TELNET", "SSH", "XMLRPC", "SHUTDOWN", "ECHO"]) {
        Some(Role::Admin)
    } else if has(&["HTTP", "HTTPS", "WEB", "REST", "API", "WEBSOCKET"]) {
        Some(Role::Web)
    } else if has(&["APP"]) {
        Some(Role::App)
    } else if has(&["TV", "HLTV", "SOURCETV"]) {
        Some(Role::Tv)
    } else if has(&["STEAM", "VAC", "AUTH"]) {
        Some(Role::Steam)
    } else if has(&["FILE", "FTP", "SFTP"]) {
        Some(Role::File)
    } else if has(&["VOICE"]) {
        Some(Role::Voice)
    } else if has(&["GAME", "SERVER", "RELIABLE", "PEER", "RAW", "BLOBSYNC", "MASTER", "BEDROCK"]) {
        Some(Role::Game)
    } else {
        None
    }
}
