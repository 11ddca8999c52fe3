//! What is printed where, and which exit code follows.

use bmi::model::{Fault, Format, Kind};
use bmi::ops::image::list::FormatView;
use bmi::ops::node::script::ScriptView;
use bmi::ops::{Gone, Reply, Request};
use bmi::protocol::{Ended, Progress, ServerFrame};

use super::fake::{Fake, OP, bmictl, last_json};

fn format(format: Format) -> Reply {
    Reply::ImageFormats(FormatView { format, import: "staged".to_owned(), export: true })
}

fn gone() -> Reply {
    Reply::TagRm(Gone { id: Some(OP), name: "installed".to_owned() })
}

#[test]
fn a_list_is_a_table_on_standard_output_and_nothing_else_is_said() {
    let fake = Fake::new(|mut peer| {
        let (envelope, request, fds) = peer.submitted();
        assert!(matches!(request, Request::ImageFormats(_)));
        assert!(fds.is_empty() && envelope.op_id.is_none() && !envelope.check && !envelope.progress);
        peer.item(format(Format::Raw));
        peer.item(format(Format::Qcow2));
        peer.end(false);
    });
    let ran = fake.run(&["image", "formats"]);
    assert_eq!(ran.out, "FORMAT  IMPORT  EXPORT\nraw     staged  yes\nqcow2   staged  yes\n");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn an_empty_table_says_so_in_words_and_other_formats_say_nothing() {
    for (form, out, said) in
        [("table", "FORMAT  IMPORT  EXPORT\n", "none\n"), ("csv", "format,import,export\n", ""), ("json", "[]\n", "")]
    {
        let fake = Fake::new(|mut peer| {
            peer.submitted();
            peer.end(false);
        });
        let ran = fake.run(&["image", "formats", "-f", form]);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), out, said));
    }
}

#[test]
fn the_format_comes_from_the_environment_and_an_option_overrides_it() {
    for (args, expected) in [
        (&["image", "formats", "-o", "format"][..], "[\n  {\n    \"format\": \"raw\"\n  }\n]\n"),
        (&["image", "formats", "-o", "format", "-f", "csv", "-H"], "raw\n"),
    ] {
        let fake = Fake::new(|mut peer| {
            peer.submitted();
            peer.item(format(Format::Raw));
            peer.end(false);
        });
        let child = fake.command(args).env("BMI_FORMAT", "json").spawn().unwrap();
        assert_eq!(fake.finish(child).out, expected);
    }
}

#[test]
fn a_script_is_printed_as_it_is() {
    let fake = Fake::new(|mut peer| {
        peer.submitted();
        peer.item(Reply::NodeBootScript(ScriptView { name: "web1".to_owned(), script: "#!ipxe\nexit\n".to_owned() }));
        peer.end(false);
    });
    assert_eq!(fake.run(&["node", "boot-script", "web1"]).out, "#!ipxe\nexit\n");
}

#[test]
fn a_change_says_whether_it_changed_anything_and_quiet_says_nothing() {
    for (changed, extra, said) in [(true, "-y", "changed\n"), (false, "-y", "unchanged\n"), (true, "-yq", "")] {
        let fake = Fake::new(move |mut peer| {
            let (envelope, ..) = peer.submitted();
            assert!(envelope.op_id.is_some(), "a change has an id from the start");
            peer.item(gone());
            peer.end(changed);
        });
        let ran = fake.run(&["tag", "rm", "web1", "installed", extra]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), said));
        assert!(ran.out.contains("name  installed\n"), "{}", ran.out);
    }
}

#[test]
fn check_asks_for_nothing_ends_with_10_if_something_would_change_and_0_if_not() {
    for (changed, code, said) in [(true, 10, "would change\n"), (false, 0, "would not change\n")] {
        let fake = Fake::new(move |mut peer| {
            let (envelope, ..) = peer.submitted();
            assert!(envelope.check);
            peer.end(changed);
        });
        let ran = fake.run(&["tag", "rm", "web1", "installed", "--check"]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(code), said));
    }
}

#[test]
fn the_envelope_carries_project_id_and_timeout() {
    let fake = Fake::new(|mut peer| {
        let (envelope, ..) = peer.submitted();
        assert_eq!(envelope.project.unwrap().as_str(), "physics");
        assert_eq!(envelope.op_id, Some(OP));
        assert_eq!(envelope.timeout_ms, Some(2500));
        peer.end(true);
    });
    let id = OP.to_string();
    let child = fake
        .command(&["tag", "create", "web1", "installed", "--op-id", &id])
        .envs([("BMI_PROJECT", "physics"), ("BMI_TIMEOUT", "2.5")])
        .spawn()
        .unwrap();
    assert_eq!(fake.finish(child).code, Some(0));
}

#[test]
fn no_wait_prints_the_operations_id() {
    for (form, expected) in
        [("table", format!("{OP}\n")), ("json", format!("{{\"op_id\":\"{OP}\",\"running\":true}}\n"))]
    {
        let fake = Fake::new(|mut peer| {
            let (envelope, ..) = peer.submitted();
            assert!(envelope.no_wait);
            peer.send(&ServerFrame::End { id: 1, end: Ok(Ended { op_id: Some(OP), changed: true, running: true }) });
        });
        let ran = fake.run(&["tag", "create", "web1", "installed", "--no-wait", "-f", form]);
        assert_eq!((ran.code, ran.out, ran.err.as_str()), (Some(0), expected, ""));
    }
}

#[test]
fn every_kind_of_failure_has_its_exit_code_and_tells_what_why_and_what_to_do() {
    let kinds = [
        (Kind::Outside, 1),
        (Kind::Internal, 1),
        (Kind::Full, 1),
        (Kind::Invalid, 2),
        (Kind::NotFound, 3),
        (Kind::Conflict, 4),
        (Kind::Busy, 4),
        (Kind::Duplicate, 4),
        (Kind::Forbidden, 5),
        (Kind::Quota, 6),
        (Kind::Timeout, 7),
    ];
    for (kind, code) in kinds {
        let fake = Fake::new(move |mut peer| {
            peer.submitted();
            peer.fail(Fault::new(kind, "the reason").trying("tag web1").fix("the way out"));
        });
        let ran = fake.run(&["tag", "create", "web1", "installed", "-f", "json"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{kind:?}");
        assert!(ran.err.starts_with("bmictl: cannot tag web1: the reason; the way out\n"), "{}", ran.err);
        let error = last_json(&ran.err);
        assert_eq!(error["data"]["kind"], kind.as_str());
        assert_eq!(error["code"], code);
    }
}

#[test]
fn a_failure_after_some_items_leaves_a_whole_array() {
    let fake = Fake::new(|mut peer| {
        peer.submitted();
        peer.item(format(Format::Raw));
        peer.fail(Fault::new(Kind::Unavailable, "it broke"));
    });
    let ran = fake.run(&["image", "formats", "-f", "json"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ran.out).unwrap().as_array().unwrap().len(), 1);
}

#[test]
fn for_machines_every_line_of_standard_error_is_json_and_the_last_says_how_it_ended() {
    let fake = Fake::new(|mut peer| {
        let (envelope, ..) = peer.submitted();
        assert!(envelope.progress);
        let progress = Progress { op_id: OP, what: "copy".to_owned(), done: 1, total: Some(2), bytes: true };
        peer.send(&ServerFrame::Progress { id: 1, progress });
        peer.item(gone());
        peer.end(true);
    });
    let ran = fake.run(&["tag", "rm", "web1", "installed", "--yes", "--progress=jsonl", "-f", "json"]);
    let lines: Vec<serde_json::Value> = ran.err.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{}", ran.err);
    assert_eq!((&lines[0]["event"], &lines[0]["done"]), (&"progress".into(), &1.into()));
    assert_eq!((&lines[1]["event"], &lines[1]["changed"]), (&"end".into(), &true.into()));
    assert_eq!(lines[1]["op_id"], OP.to_string());
}

#[test]
fn a_gap_in_a_watch_is_said() {
    let fake = Fake::new(|mut peer| {
        peer.submitted();
        peer.send(&ServerFrame::Gap { id: 1, missed: 7 });
        peer.end(false);
    });
    let ran = fake.run(&["event", "watch", "-f", "jsonl"]);
    assert!(ran.err.contains("7 items were missed"), "{}", ran.err);
}

#[test]
fn what_destroys_is_refused_without_yes_where_nobody_can_be_asked_and_the_daemon_is_not_even_called() {
    let ran =
        super::fake::Ran::of(bmictl(&["node", "deprovision", "web1", "--socket", "/nonexistent"]).output().unwrap());
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("destroys the node's disk") && ran.err.contains("add --yes"), "{}", ran.err);
}

#[test]
fn what_keeps_the_disk_is_not_asked_about() {
    let fake = Fake::new(|mut peer| {
        peer.submitted();
        peer.end(true);
    });
    assert_eq!(fake.run(&["node", "deprovision", "web1", "--keep-volume"]).code, Some(0));
}

#[test]
fn unknown_columns_are_refused_before_the_daemon_is_called() {
    let ran = super::fake::Ran::of(
        bmictl(&["tag", "create", "a", "b", "-o", "nmae", "--socket", "/nonexistent"]).output().unwrap(),
    );
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("no field \"nmae\""), "{}", ran.err);
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let fake = Fake::new(|mut peer| {
        peer.submitted();
        // Until the client, whose reader is gone, is gone too.
        let bytes = super::fake::framed(&ServerFrame::Item { id: 1, item: format(Format::Raw) });
        while peer.try_raw(&bytes) {}
    });
    let mut child = fake.command(&["image", "formats", "-f", "jsonl"]).spawn().unwrap();
    drop(child.stdout.take());
    let ran = fake.finish(child);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn a_full_disk_under_standard_output_is_a_failure() {
    let fake = Fake::new(|mut peer| {
        peer.submitted();
        peer.item(format(Format::Raw));
        peer.end(false);
    });
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = fake.command(&["image", "formats"]).stdout(full).spawn().unwrap();
    let ran = fake.finish(child);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("write the answer to standard output"), "{}", ran.err);
}
