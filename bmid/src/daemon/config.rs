//! The configuration: file, over it the environment, over it flags. No configuration at all is a good one.
//!
//! Every key stands once, in [`KEYS`]. Reading never changes anything; a mistake names the key, where it stands and what is
//! allowed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bmi::model::{Bytes, Fault, Name};
use bmi::ops::Defaults;

use super::args::Args;
use crate::listen::near;

/// Read if it is there and no other is given.
pub const DEFAULT_FILE: &str = "/etc/bmid/bmid.toml";
/// The system's state folder.
pub const SYSTEM_STATE: &str = "/var/lib/bmid";
/// The system's run folder.
pub const SYSTEM_RUN: &str = "/run/bmid";
/// Socket addresses beneath the run folder must fit 107 bytes.
const LONGEST_RUN: usize = 50;

/// Every key, and what it says. The order is the one they are shown in.
pub const KEYS: &[(&str, &str)] = &[
    ("state_dir", "folder of the state"),
    ("run_dir", "folder of what lives as long as the host is up; at most 50 bytes"),
    ("socket", "where to listen"),
    ("socket_group", "group that may connect; empty: bmi, if there is such a group"),
    ("engine_name", "this engine's name, written down at first start"),
    ("iqn_prefix", "what names of targets begin with"),
    ("port", "TCP port of the targets"),
    ("max_image", "largest disk an import may make"),
    ("workers", "who keeps tgtd and dnsmasq running: auto, systemd or detached"),
    ("reconcile_every", "seconds between looks whether everything outside is as promised"),
    ("default_datastore", "folder of the datastore made at first start; none: no such datastore"),
    ("cache_mib", "memory for the state, in MiB: 16 to 64"),
    ("log", "what is logged: error, warn, info, debug, trace, or a filter by parts like bmid::run=debug,info"),
];

/// Who keeps workers running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// systemd if bmid itself is a system service, else nobody.
    Auto,
    /// systemd's template units.
    Systemd,
    /// Processes of their own.
    Detached,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// The configuration as it takes effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The state's folder.
    pub state_dir: PathBuf,
    /// What lives as long as the host is up.
    pub run_dir: PathBuf,
    /// Where to listen.
    pub socket: PathBuf,
    /// Who may connect; none: `bmi`, if there is such a group.
    pub socket_group: Option<String>,
    /// This engine's name.
    pub engine_name: Name,
    /// What names of targets begin with.
    pub iqn_prefix: String,
    /// TCP port of the targets.
    pub port: u16,
    /// The largest disk an import may make.
    pub max_image: Bytes,
    /// Who keeps workers running.
    pub workers: Workers,
    /// Between two reconciles.
    pub reconcile_every: Duration,
    /// The folder of the datastore made at first start.
    pub default_datastore: Option<PathBuf>,
    /// The store's memory.
    pub cache_mib: u64,
    /// What is logged.
    pub log: String,
    texts: BTreeMap<&'static str, (String, Origin)>,
}

/// What the layers say, as text, later layers over earlier ones.
#[derive(Default)]
struct Given(BTreeMap<&'static str, (String, Origin)>);

impl Config {
    /// Reads all layers. `env` is the environment; `default_file` is read if it is there and no file was given.
    pub fn load(args: &Args, env: &dyn Fn(&str) -> Option<String>, default_file: &Path) -> Result<Config, Fault> {
        let mut given = Given::default();
        let (file, must) = match (&args.config, env("BMID_CONFIG")) {
            (Some(file), _) => (file.clone(), true),
            (None, Some(file)) => (file.into(), true),
            (None, None) => (default_file.to_owned(), false),
        };
        given.file(&file, must)?;
        for (key, _) in KEYS {
            let name = format!("BMID_{}", key.to_ascii_uppercase());
            if let Some(value) = env(&name) {
                given.0.insert(key, (value, Origin::Environment(name)));
            }
        }
        for (key, value) in [("state_dir", &args.state_dir), ("run_dir", &args.run_dir), ("socket", &args.socket)] {
            if let Some(path) = value {
                let flag = Origin::Flag(format!("--{}", key.replace('_', "-")));
                given.0.insert(key, (text_of(path, &flag)?, flag));
            }
        }
        given.effective()
    }

    /// What plans need.
    #[must_use]
    pub fn defaults(&self) -> Defaults {
        Defaults { iqn_prefix: self.iqn_prefix.clone(), port: self.port, max_image: self.max_image }
    }

    /// As a file that says the same, each value with its origin.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut out = String::new();
        for (key, about) in KEYS {
            if let Some((value, from)) = self.texts.get(key) {
                let value = match value.parse::<u64>() {
                    Ok(number) => number.to_string(),
                    Err(_) => toml::Value::String(value.clone()).to_string(),
                };
                out.push_str(&format!("# {about} ({from})\n{key} = {value}\n"));
            }
        }
        out
    }

    /// Keys whose value is another in `new` and that a reload does not take over.
    #[must_use]
    pub fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let differs = |key: &&str| self.texts.get(key).map(|t| &t.0) != new.texts.get(key).map(|t| &t.0);
        KEYS.iter().map(|(key, _)| *key).filter(differs).filter(|k| !matches!(*k, "log" | "reconcile_every")).collect()
    }
}

impl Given {
    fn file(&mut self, path: &Path, must: bool) -> Result<(), Fault> {
        let from = Origin::File(path.to_owned());
        let tried = || format!("read the configuration file {}", path.display());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !must => return Ok(()),
            Err(e) => return Err(Fault::invalid(e.to_string()).trying(tried())),
        };
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            Fault::invalid(e.to_string().trim_end().to_owned())
                .trying(tried())
                .fix("each line is KEY = VALUE; `bmid --check-config` shows one that is right")
        })?;
        for (key, value) in table {
            let Some((key, about)) = KEYS.iter().find(|(k, _)| *k == key) else { return Err(unknown(&key, &from)) };
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                other => {
                    let why = format!("{key} is given as {}", other.type_str());
                    return Err(Fault::invalid(why).trying(tried()).fix(format!("give a text or a number: {about}")));
                }
            };
            self.0.insert(key, (text, from.clone()));
        }
        Ok(())
    }

    /// The text of a key; its default if nobody gave one.
    fn text(&mut self, key: &'static str, default: impl Into<String>) -> String {
        self.0.entry(key).or_insert_with(|| (default.into(), Origin::Default)).0.clone()
    }

    /// The value of a key.
    fn value<T>(
        &mut self,
        key: &'static str,
        default: impl Into<String>,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Fault> {
        let text = self.text(key, default);
        read(&text).map_err(|why| {
            let from = self.0.get(key).map_or(Origin::Default, |(_, from)| from.clone());
            let about = KEYS.iter().find(|(k, _)| *k == key).map_or("", |(_, about)| about);
            Fault::invalid(why).trying(format!("take {key} from {from}")).fix(format!("{key}: {about}"))
        })
    }

    fn effective(mut self) -> Result<Config, Fault> {
        let state_dir = self.value("state_dir", SYSTEM_STATE, absolute)?;
        let run = if state_dir == Path::new(SYSTEM_STATE) { SYSTEM_RUN.into() } else { state_dir.join("run") };
        let run_dir = self.value("run_dir", shown(&run), |text| {
            let path = absolute(text)?;
            if path.as_os_str().len() > LONGEST_RUN {
                return Err(format!("{} is longer than {LONGEST_RUN} bytes", path.display()));
            }
            Ok(path)
        })?;
        let socket = self.value("socket", shown(&run_dir.join("bmid.sock")), absolute)?;
        let store = shown(&state_dir.join("datastore"));
        Ok(Config {
            socket_group: Some(self.text("socket_group", "")).filter(|g| !g.is_empty()),
            engine_name: self.value("engine_name", host_name(), |t| t.parse().map_err(|e| format!("{e}")))?,
            iqn_prefix: self.value("iqn_prefix", "iqn.2026-11.internal.bmi", iqn_prefix)?,
            port: self.value("port", "3260", |t| between(t, 1, 65_535))?,
            max_image: self.value("max_image", "2T", |t| t.parse::<Bytes>())?,
            workers: self.value("workers", "auto", workers)?,
            reconcile_every: self
                .value("reconcile_every", "300", |t| between(t, 1, 86_400).map(Duration::from_secs))?,
            default_datastore: self.value("default_datastore", store, |t| match t {
                "none" => Ok(None),
                path => absolute(path).map(Some),
            })?,
            cache_mib: self.value("cache_mib", "32", |t| between(t, 16, 64))?,
            log: self.value("log", "info", |t| super::log::filter(t).map(|_| t.to_owned()))?,
            state_dir,
            run_dir,
            socket,
            texts: self.0,
        })
    }
}

fn unknown(key: &str, from: &Origin) -> Fault {
    let near = near(key, KEYS.iter().map(|(k, _)| *k));
    let fix = match near.as_slice() {
        [] => format!("the keys are: {}", KEYS.iter().map(|(k, _)| *k).collect::<Vec<_>>().join(", ")),
        some => format!("did you mean {}?", some.join(" or ")),
    };
    Fault::invalid(format!("there is no key {key:?}")).trying(format!("read the configuration {from}")).fix(fix)
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if text.is_empty() || text.contains(['\0', '\n']) {
        return Err("a path must not be empty or hold NUL or newline".to_owned());
    }
    std::path::absolute(path).map_err(|e| format!("{text:?} cannot be made absolute: {e}"))
}

fn text_of(path: &Path, from: &Origin) -> Result<String, Fault> {
    path.to_str().map(str::to_owned).ok_or_else(|| Fault::invalid(format!("the path of {from} is no UTF-8 text")))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn between<T: TryFrom<u64>>(text: &str, least: u64, most: u64) -> Result<T, String> {
    let number = text.parse::<u64>().ok().filter(|n| (least..=most).contains(n)).and_then(|n| T::try_from(n).ok());
    number.ok_or_else(|| format!("{text:?} is no number from {least} to {most}"))
}

fn workers(text: &str) -> Result<Workers, String> {
    match text {
        "auto" => Ok(Workers::Auto),
        "systemd" => Ok(Workers::Systemd),
        "detached" => Ok(Workers::Detached),
        other => Err(format!("{other:?} is none of auto, systemd, detached")),
    }
}

/// `iqn.YYYY-MM.` and a reversed domain, as RFC 3720 wants it; short, because names of targets begin with it.
fn iqn_prefix(text: &str) -> Result<String, String> {
    let bad = || Err(format!("{text:?} is not of the form iqn.2026-11.internal.bmi, at most 100 bytes"));
    let Some((date, domain)) = text.strip_prefix("iqn.").and_then(|t| t.split_once('.')) else { return bad() };
    let digits = |t: &str, n: usize| t.len() == n && t.bytes().all(|b| b.is_ascii_digit());
    let dated = date.split_once('-').is_some_and(|(y, m)| digits(y, 4) && digits(m, 2));
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:".contains(&b);
    if !dated || domain.is_empty() || domain.ends_with(['.', ':']) || text.len() > 100 || !domain.bytes().all(plain) {
        return bad();
    }
    Ok(text.to_owned())
}

/// The host's name up to its first dot, made into one that records take.
fn host_name() -> String {
    let host =
        nix::sys::utsname::uname().ok().and_then(|u| u.nodename().to_str().map(str::to_owned)).unwrap_or_default();
    let plain: String = host.split('.').next().unwrap_or_default().chars().take(63).collect();
    if plain.parse::<Name>().is_ok() { plain } else { "engine".to_owned() }
}
