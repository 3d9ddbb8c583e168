//! The configuration reference, made from the code: every setting with the words that stand over it there,
//! its default as a dump has it, and whether it changes while weir runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use toml::Value;
use weir_config::Config;

/// One of everything that there is none of by default, with what has no default.
const EXAMPLE: &str = r#"
[protect]
prefixes = ["203.0.113.0/24"]
[[protect.group]]
name = "acme"
prefixes = ["203.0.113.0/26"]
[protect.group.inbound]
[protect.group.outbound]
[protect.group.total]
[[protect.allow]]
name = "cdn"
prefixes = ["198.51.100.0/24"]
[[protect.service]]
address = "203.0.113.7"
port = 25565
protocol = "tcp"
[[collector.exporters]]
address = "192.0.2.1/32"
[[detector.metric]]
name = "sip"
match = "udp dst port 5060"
packets_per_sec = 5000
[[uplink]]
name = "transit-a"
exporter = "192.0.2.1"
interfaces = [512]
capacity_bits_per_sec = 10000000000
[collector.tls]
cert = "/etc/weir/cert.pem"
key = "/etc/weir/key.pem"
[[mitigator.webhook]]
name = "ops"
url = "https://example.net"
[[mitigator.scrubber]]
name = "transit"
url = "https://example.net"
[notify]
services = "/etc/weir/services"
[[notify.channel]]
name = "noc"
service = "ntfy"
[bgp]
local_as = 65010
router_id = "192.0.2.10"
[bgp.rpki]
cache = "192.0.2.20:323"
[[bgp.peer]]
name = "edge1"
address = "192.0.2.1"
remote_as = 65010
[bgp.peer.divert]
next_hop4 = "192.0.2.66"
[[bgp.adapter]]
name = "bird"
kind = "bird"
local_as = 65010
include = "/etc/bird/weir.conf"
[agents]
[[panel]]
name = "main"
url = "https://panel.example.net"
key_file = "/etc/weir/panel.key"
[owners]
listen = "127.0.0.1:8081"
public_url = "https://shield.example.net"
"#;

/// Sections in the order of the reference: key, crate, file, type.
const ROOT: (&str, &str, &str) = ("config", "config/src/lib.rs", "Config");

#[derive(Clone, Debug)]
struct Field {
    key: String,
    kind: String,
    doc: String,
    has_default: bool,
}

#[derive(Clone, Debug)]
enum Shape {
    Struct(Vec<Field>),
    Enum(Vec<String>),
}

/// A type by crate, file and name.
#[derive(Debug, Default)]
struct Types(BTreeMap<(String, PathBuf, String), (String, Shape)>);

/// The reference, as Markdown.
///
/// # Panics
/// When the sources have a form that this does not read: the reference would lack something.
pub fn reference(root: &Path) -> String {
    let types = Types::read(root);
    let (example, _) = weir_config::parse(EXAMPLE).expect("the example is good");
    let mut example = toml::Table::try_from(&example).expect("it has a TOML form");
    let defaults = toml::Table::try_from(Config::default()).expect("it has a TOML form");
    overlay(&mut example, &defaults);
    // A metric needs one of two thresholds; neither is a default.
    for metric in example["detector"]["metric"].as_array_mut().into_iter().flatten() {
        metric.as_table_mut().and_then(|metric| metric.remove("packets_per_sec"));
    }
    let mut out = String::from(
        "# Configuration reference\n\nMade from the code by `WEIR_BLESS=1 cargo test -p weir-tests --test reference`; not \
         edited by hand. What the sections are for: [configuration.md](../configuration.md).\n\n\
         *Default* is what holds when the setting is absent; *required* has none. *Reload*: `yes` is put in force by \
         `weir reload`, SIGHUP and `systemctl reload weir` while weir runs; the rest waits for a restart, for the reason given.\n",
    );
    let (krate, file, name) = ROOT;
    types.section(
        &mut out,
        "",
        &types.at(krate, Path::new(file), name),
        Some(&Value::Table(example)),
    );
    out
}

/// A setting as the reference has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Its dotted key.
    pub key: String,
    /// Its type, in words.
    pub kind: String,
    /// What holds when it is absent, if anything does and it is shown whole.
    pub default: Option<Value>,
    /// Whether a reload puts it in force.
    pub live: bool,
}

/// Every setting of the reference as it stands in the documentation.
///
/// # Panics
/// When the reference cannot be read.
pub fn settings(root: &Path) -> Vec<Setting> {
    let path = root.join("docs/reference/configuration.md");
    let text = std::fs::read_to_string(path).expect("the reference");
    let (mut found, mut section) = (Vec::new(), String::new());
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## `") {
            section = heading.trim_end_matches('`').to_owned();
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        let mut cells = row.splitn(5, " | ");
        let mut cell = || cells.next().expect("a cell").to_owned();
        let (name, kind, default, reload) = (cell(), cell(), cell(), cell());
        let default = default.trim_matches('`').replace("\\|", "|");
        let default = format!("value = {default}").parse::<toml::Table>();
        found.push(Setting {
            key: format!("{section}.{}", name.trim_end_matches('`')),
            kind,
            default: default.ok().and_then(|table| table.get("value").cloned()),
            live: reload == "yes",
        });
    }
    found
}

impl Types {
    fn read(root: &Path) -> Self {
        let mut types = Self::default();
        for krate in [
            "model",
            "collector",
            "detector",
            "mitigator",
            "notify",
            "bgp",
            "agent",
            "api",
            "panel",
            "config",
        ] {
            let mut files = Vec::new();
            walk(&root.join(krate).join("src"), &mut files);
            for path in files {
                let text = std::fs::read_to_string(&path).expect("a source");
                let file = path.strip_prefix(root).expect("below the root").to_owned();
                for (name, doc, shape) in shapes(&text) {
                    types.0.insert((krate.to_owned(), file.clone(), name), (doc, shape));
                }
            }
        }
        types
    }

    fn at(&self, krate: &str, file: &Path, name: &str) -> (String, PathBuf, String) {
        let key = (krate.to_owned(), file.to_owned(), name.to_owned());
        assert!(self.0.contains_key(&key), "no type {key:?}");
        key
    }

    /// The type that a field of another type names, if it is one of weir's with fields or variants.
    fn find(
        &self,
        of: &(String, PathBuf, String),
        kind: &str,
    ) -> Option<(String, PathBuf, String)> {
        let path: Vec<&str> = inner(kind).split("::").collect();
        let name = *path.last()?;
        let krate = path[0].strip_prefix("weir_").unwrap_or(&of.0);
        let module = (path.len() > 1).then(|| path[path.len() - 2]);
        let named = |krate: &str| -> Vec<&(String, PathBuf, String)> {
            self.0.keys().filter(|key| key.0 == krate && key.2 == name).collect()
        };
        let mut found = named(krate);
        if found.is_empty() {
            // An import, as a rule of the model's.
            let mut crates = ["model", "bgp", "mitigator", "panel"].iter();
            found = crates
                .find_map(|krate| Some(named(krate)).filter(|all| !all.is_empty()))
                .unwrap_or_default();
        }
        let own = found.iter().find(|key| key.1 == of.1 && module.is_none());
        let of_module = found.iter().find(|key| {
            module.is_some_and(|module| {
                key.1.iter().any(|part| part.to_string_lossy().trim_end_matches(".rs") == module)
            })
        });
        let of_config = found.iter().find(|key| key.1.ends_with("config.rs"));
        own.or(of_module).or(of_config).or_else(|| found.first()).map(|key| (*key).clone())
    }

    fn section(
        &self,
        out: &mut String,
        prefix: &str,
        of: &(String, PathBuf, String),
        example: Option<&Value>,
    ) {
        let (doc, Shape::Struct(fields)) = &self.0[of] else { panic!("{of:?} has no fields") };
        let (mut rows, mut inside) = (String::new(), Vec::new());
        for field in fields {
            let key = if prefix.is_empty() {
                field.key.clone()
            } else {
                format!("{prefix}.{}", field.key)
            };
            let value = example.and_then(|table| table.get(&field.key));
            let element = match value {
                Some(Value::Array(list)) => list.first(),
                other => other,
            };
            // These are written in several ways, and have no variants to name.
            let plainly = matches!(inner(&field.kind), "Threshold" | "Least");
            let found = self.find(of, &field.kind).filter(|_| !plainly);
            if let Some(found) = &found
                && matches!(self.0[found].1, Shape::Struct(_))
                && inner(&field.kind) != "PrefixSet"
                && element.is_none_or(Value::is_table)
            {
                inside.push((key, found.clone(), element.cloned(), field.doc.clone()));
                continue;
            }
            let kind = match found.as_ref().map(|found| &self.0[found].1) {
                Some(Shape::Enum(variants)) if !variants.is_empty() => {
                    let words = variants.iter().map(|v| format!("`\"{v}\"`")).collect::<Vec<_>>();
                    let words = words.join(", ");
                    if field.kind.contains("Vec<") { format!("list of {words}") } else { words }
                }
                _ => plain(&field.kind),
            };
            let default = match value {
                _ if !field.has_default => "required".to_owned(),
                Some(value) => format!("`{}`", short(value)),
                None => "none".to_owned(),
            };
            let reload = weir_config::needs_restart(&key)
                .map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"));
            let _ = writeln!(
                rows,
                "| `{}` | {kind} | {default} | {reload} | {} |",
                field.key, field.doc
            );
        }
        if !rows.is_empty() {
            let _ = write!(
                out,
                "\n## `{}`\n\n{doc}\n\n| setting | type | default | reload | |\n|---|---|---|---|---|\n{rows}",
                prefix
            );
        }
        for (key, found, value, doc) in inside {
            let before = out.len();
            self.section(out, &key, &found, value.as_ref());
            // The words over the field say more than those over its type.
            if !doc.is_empty() && out.len() > before {
                let own = &self.0[&found].0;
                let section = out.split_off(before);
                out.push_str(&section.replacen(
                    &format!("\n\n{own}\n\n"),
                    &format!("\n\n{doc}\n\n"),
                    1,
                ));
            }
        }
    }
}

/// Puts defaults in the place of what the example has, but for lists of tables: there one stands for all.
fn overlay(example: &mut toml::Table, defaults: &toml::Table) {
    for (key, default) in defaults {
        match (example.get_mut(key), default) {
            (Some(Value::Table(own)), Value::Table(default)) => overlay(own, default),
            (Some(Value::Array(own)), _) if own.iter().any(Value::is_table) => {}
            (Some(own), default) => own.clone_from(default),
            (None, default) => drop(example.insert(key.clone(), default.clone())),
        }
    }
}

/// Every key of a configuration, dotted.
///
/// # Panics
/// When it has no TOML form.
pub fn keys(config: &Config) -> Vec<String> {
    fn walk(prefix: &str, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Table(table) => {
                for (key, value) in table {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    walk(&format!("{prefix}{dot}{key}"), value, found);
                }
            }
            Value::Array(list) if list.iter().any(Value::is_table) => {
                list.iter().for_each(|value| walk(prefix, value, found));
            }
            _ => found.push(prefix.to_owned()),
        }
    }
    let mut found = Vec::new();
    let table = toml::Table::try_from(config).expect("it has a TOML form");
    walk("", &Value::Table(table), &mut found);
    found.sort();
    found.dedup();
    found
}

/// The example with one of everything.
///
/// # Panics
/// Never: it is good.
pub fn example() -> Config {
    weir_config::parse(EXAMPLE).expect("the example is good").0
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// What a field's type holds: `Option<Vec<X>>` holds X.
fn inner(kind: &str) -> &str {
    let mut kind = kind.trim();
    while let Some((outer, rest)) = kind.split_once('<') {
        if !matches!(outer, "Option" | "Vec" | "Box") {
            break;
        }
        kind = rest.strip_suffix('>').unwrap_or(rest);
    }
    kind
}

/// A Rust type in words.
fn plain(kind: &str) -> String {
    let list = kind.contains("Vec<") || kind.starts_with("PrefixSet");
    let word = match inner(kind).rsplit("::").next().unwrap_or_default() {
        "bool" => "true or false",
        "u8" | "u16" | "u32" | "u64" | "usize" | "NonZeroU16" => "whole number",
        "f64" => "number",
        "Threshold" => {
            "`\"auto\"`, `\"off\"`, a number, or a table of `multiplier`, `floor`, `ceiling`"
        }
        "Least" => "`\"auto\"`, `\"off\"` or a number",
        "String" => "text",
        "Address" => "text, shown without its path",
        "Hidden" => "table, values never shown",
        "Secret" => "text, never shown",
        "PathBuf" => "path",
        "SocketAddr" => "address and port",
        "IpAddr" | "Ipv4Addr" | "Ipv6Addr" => "address",
        "IpNet" | "PrefixSet" => "prefix",
        "Duration" => "time with its unit",
        "Community" => "community",
        other if other.starts_with("BTreeMap") => "table",
        other => other,
    };
    if list { format!("list: {word}") } else { word.to_owned() }
}

fn short(value: &Value) -> String {
    let text = value.to_string().replace('\n', " ").replace('|', "\\|");
    if text.chars().count() > 80 {
        format!("{}...", text.chars().take(77).collect::<String>())
    } else {
        text
    }
}

/// Structs and enums of a source with what is written over them.
fn shapes(text: &str) -> Vec<(String, String, Shape)> {
    let mut found = Vec::new();
    let (mut doc, mut attributes) = (String::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if let Some(words) = trimmed.strip_prefix("///") {
            add(&mut doc, words);
        } else if trimmed.starts_with("#[") {
            attributes.push_str(trimmed);
        } else if let Some(rest) =
            line.strip_prefix("pub struct ").filter(|rest| rest.ends_with('{'))
        {
            let name = rest.trim_end_matches(['{', ' ']).to_owned();
            let all = attributes.contains("serde(") && has_word(&attributes, "default");
            found.push((name, std::mem::take(&mut doc), Shape::Struct(fields(&mut lines, all))));
            attributes.clear();
        } else if let Some(rest) = line.strip_prefix("pub enum ").filter(|rest| rest.ends_with('{'))
        {
            let name = rest.trim_end_matches(['{', ' ']).to_owned();
            let kebab = attributes.contains("kebab-case");
            let variants = variants(&mut lines, kebab);
            found.push((name, std::mem::take(&mut doc), Shape::Enum(variants)));
            attributes.clear();
        } else {
            doc.clear();
            attributes.clear();
        }
    }
    found
}

fn has_word(attributes: &str, word: &str) -> bool {
    attributes.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|part| part == word)
}

fn add(doc: &mut String, words: &str) {
    if !doc.is_empty() {
        doc.push(' ');
    }
    doc.push_str(&words.trim().replace('|', "\\|"));
}

fn fields(lines: &mut std::str::Lines<'_>, all: bool) -> Vec<Field> {
    let mut found = Vec::new();
    let (mut doc, mut attributes) = (String::new(), String::new());
    for line in lines.by_ref() {
        let trimmed = line.trim();
        if line.starts_with('}') {
            break;
        }
        if let Some(words) = trimmed.strip_prefix("///") {
            add(&mut doc, words);
        } else if trimmed.starts_with("#[") {
            attributes.push_str(trimmed);
        } else if let Some((name, kind)) =
            trimmed.strip_prefix("pub ").and_then(|rest| rest.split_once(": "))
        {
            let renamed =
                attributes.split_once("rename = \"").and_then(|(_, rest)| rest.split_once('"'));
            let kind = kind.trim_end_matches(',').to_owned();
            if has_word(&attributes, "skip") {
                // Made of other settings, and none itself.
                (doc, attributes) = Default::default();
                continue;
            }
            found.push(Field {
                key: renamed.map_or(name, |(name, _)| name).to_owned(),
                has_default: all || kind.starts_with("Option<") || has_word(&attributes, "default"),
                kind,
                doc: std::mem::take(&mut doc),
            });
            attributes.clear();
        }
    }
    found
}

fn variants(lines: &mut std::str::Lines<'_>, kebab: bool) -> Vec<String> {
    let mut found = Vec::new();
    for line in lines.by_ref() {
        if line.starts_with('}') {
            break;
        }
        let name = line.trim().trim_end_matches(',');
        if !name.is_empty() && name.chars().all(char::is_alphanumeric) && kebab {
            let mut word = String::new();
            for (at, c) in name.char_indices() {
                if c.is_uppercase() && at > 0 {
                    word.push('-');
                }
                word.extend(c.to_lowercase());
            }
            found.push(word);
        }
    }
    found
}
