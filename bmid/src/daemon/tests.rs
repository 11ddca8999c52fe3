//! Configuration: its layers, its mistakes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bmi::model::{Bytes, Fault, Kind};
use clap::Parser;

use super::args::Args;
use super::config::{Config, KEYS, Workers};

fn load(file: Option<&str>, env: &[(&str, &str)], args: &[&str]) -> Result<Config, Fault> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("bmid.toml");
    if let Some(text) = file {
        fs::write(&path, text).expect("written");
    }
    let env: HashMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let args = Args::try_parse_from(std::iter::once(&"bmid").chain(args)).expect("flags");
    Config::load(&args, &|name| env.get(name).cloned(), &path)
}

fn refused(file: &str) -> Fault {
    let fault = load(Some(file), &[], &[]).expect_err(file);
    assert_eq!(fault.kind, Kind::Invalid);
    assert!(!fault.fix.is_empty() && fault.tried.contains("bmid.toml"), "{fault}");
    fault
}

#[test]
fn without_any_configuration_it_is_the_systems_folders() {
    let config = load(None, &[], &[]).expect("good");
    assert_eq!(config.state_dir, Path::new("/var/lib/bmid"));
    assert_eq!(config.run_dir, Path::new("/run/bmid"));
    assert_eq!(config.socket, Path::new("/run/bmid/bmid.sock"));
    assert_eq!(config.default_datastore, Some(PathBuf::from("/var/lib/bmid/datastore")));
    assert_eq!((config.port, config.max_image, config.workers), (3260, Bytes(2 << 40), Workers::Auto));
    assert_eq!((config.reconcile_every, config.cache_mib), (Duration::from_secs(300), 32));
    assert_eq!(config.iqn_prefix, "iqn.2026-11.internal.bmi");
}

#[test]
fn a_state_folder_alone_moves_everything_with_it() {
    let config = load(None, &[], &["--state-dir", "/tmp/x"]).expect("good");
    assert_eq!(config.run_dir, Path::new("/tmp/x/run"));
    assert_eq!(config.socket, Path::new("/tmp/x/run/bmid.sock"));
    assert_eq!(config.default_datastore, Some(PathBuf::from("/tmp/x/datastore")));
    let config = load(None, &[], &["--state-dir", "/var/lib/bmid"]).expect("good");
    assert_eq!(config.run_dir, Path::new("/run/bmid"));
}

#[test]
fn flags_go_over_the_environment_and_that_over_the_file() {
    let file = "state_dir = \"/file\"\nport = 1\nlog = \"warn\"\nsocket = \"/file/s\"";
    let env = [("BMID_STATE_DIR", "/env"), ("BMID_PORT", "2"), ("BMID_SOCKET", "/env/s")];
    let config = load(Some(file), &env, &["--state-dir", "/flag"]).expect("good");
    assert_eq!((config.state_dir.as_path(), config.port), (Path::new("/flag"), 2));
    assert_eq!((config.log.as_str(), config.socket.as_path()), ("warn", Path::new("/env/s")));
    let shown = config.shown();
    for origin in ["(flag --state-dir)\nstate_dir = \"/flag\"", "BMID_PORT)\nport = 2", "(default)\nworkers = \"auto\""]
    {
        assert!(shown.contains(origin), "{origin}: {shown}");
    }
}

#[test]
fn what_is_shown_can_be_read_again_and_means_the_same() {
    let config = load(None, &[("BMID_CACHE_MIB", "16")], &["--state-dir", "/tmp/y"]).expect("good");
    let again = load(Some(&config.shown()), &[], &[]).expect("good");
    assert_eq!(config.needs_restart(&again), [""; 0]);
    assert_eq!((again.cache_mib, again.state_dir), (16, config.state_dir));
}

#[test]
fn an_unknown_key_names_itself_its_file_and_its_neighbour() {
    let fault = refused("stat_dir = \"/x\"");
    assert!(fault.why.contains("stat_dir") && fault.fix.contains("state_dir"), "{fault}");
    let fault = refused("quantum = 1");
    assert!(KEYS.iter().all(|(key, _)| fault.fix.contains(key)), "{fault}");
    refused("[section]\nport = 1");
}

#[test]
fn what_is_no_toml_names_its_line() {
    let fault = refused("port = 1\nlog = \n");
    assert!(fault.why.contains("line 2"), "{fault}");
}

#[test]
fn each_bad_value_names_its_key_and_what_is_allowed() {
    for (key, bad) in [
        ("port", "0"),
        ("port", "65536"),
        ("port", "\"x\""),
        ("port", "-1"),
        ("port", "true"),
        ("cache_mib", "15"),
        ("cache_mib", "65"),
        ("reconcile_every", "0"),
        ("workers", "\"docker\""),
        ("max_image", "\"2X\""),
        ("log", "\"bmid=loud\""),
        ("engine_name", "\"a b\""),
        ("state_dir", "\"\""),
        ("iqn_prefix", "\"iqn.26-11.internal\""),
        ("iqn_prefix", "\"iqn.2026-11.\""),
        ("iqn_prefix", "\"iqn.2026-11.Internal\""),
        ("iqn_prefix", "\"iqn.2026-11.a b\""),
    ] {
        let fault = refused(&format!("{key} = {bad}"));
        assert!(format!("{fault}").contains(key), "{key} = {bad}: {fault}");
    }
}

#[test]
fn a_run_folder_too_long_for_sockets_is_refused_and_says_which_setting() {
    let long = format!("/tmp/{}", "x".repeat(60));
    let fault = load(None, &[], &["--state-dir", &long]).expect_err("too long");
    assert!(fault.tried.contains("run_dir") && fault.why.contains("50"), "{fault}");
    load(None, &[], &["--state-dir", &long, "--run-dir", "/run/x"]).expect("good");
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let fault = load(None, &[], &["--config", "/nowhere/bmid.toml"]).expect_err("missing");
    assert!(fault.tried.contains("/nowhere/bmid.toml"), "{fault}");
    assert!(load(None, &[("BMID_CONFIG", "/nowhere/2")], &[]).is_err());
}

#[test]
fn a_reload_knows_what_it_cannot_take_over() {
    let old = load(None, &[], &[]).expect("good");
    let new = load(Some("port = 9\nlog = \"debug\"\nreconcile_every = 9"), &[], &[]).expect("good");
    assert_eq!(old.needs_restart(&new), ["port"]);
}

#[test]
fn relative_folders_are_made_absolute() {
    let config = load(None, &[], &["--state-dir", "here"]).expect("good");
    assert!(config.state_dir.is_absolute() && config.state_dir.ends_with("here"));
}
