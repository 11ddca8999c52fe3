//! Golden answers: what stands here is what scripts and people read.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;

const NODES: &str = r#"[
 {"name":"web1","id":"0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b","state":"ready","size_bytes":10737418240,"tags":["installed","base"],
  "sessions":[{"sid":1,"initiator":"iqn.a","address":"10.9.0.5"},{"sid":2,"initiator":"iqn.b","address":"10.9.0.6"}],
  "chap":null,"created_at":"2026-11-22T10:20:30.123456Z"},
 {"name":"a-much-longer-name","id":"1f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b","state":"error","size_bytes":3,"tags":[],
  "sessions":[],"chap":"in-script","created_at":"2026-11-22T10:20:31.000000Z"}]"#;

fn look(format: Format, many: bool) -> Look<'static> {
    Look {
        format,
        many,
        text: false,
        live: false,
        header: true,
        bytes: false,
        color: false,
        only: None,
        columns: &["name", "state", "size_bytes", "tags", "sessions", "chap", "created_at"],
    }
}

fn shown(look: Look<'_>, json: &str) -> String {
    let Value::List(items) = serde_json::from_str(json).unwrap() else { panic!("a list") };
    let mut out = Vec::new();
    let mut show = Show::new(Box::new(&mut out), look);
    items.into_iter().for_each(|item| show.item(item).unwrap());
    show.end().unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_table_has_the_usual_columns_with_sizes_times_and_lists_in_few_characters() {
    assert_eq!(
        shown(look(Format::Table, true), NODES),
        "NAME                STATE  SIZE_BYTES  TAGS             SESSIONS  CHAP       CREATED_AT\n\
         web1                ready  10.0 GiB    installed, base  2         -          2026-11-22T10:20:30Z\n\
         a-much-longer-name  error  3 B         -                -         in-script  2026-11-22T10:20:31Z\n"
    );
}

#[test]
fn a_table_without_header_with_exact_sizes_and_chosen_columns() {
    let only = ["size_bytes".to_owned(), "name".to_owned()];
    let look = Look { header: false, bytes: true, only: Some(&only), ..look(Format::Table, true) };
    assert_eq!(shown(look, NODES), "10737418240  web1\n3            a-much-longer-name\n");
}

#[test]
fn an_empty_table_is_its_header_and_an_empty_answer_is_whole_in_every_format() {
    let columns: &[&str] = &["name", "state"];
    let empty = |format| shown(Look { columns, ..look(format, true) }, "[]");
    assert_eq!(empty(Format::Table), "NAME  STATE\n");
    assert_eq!(empty(Format::Csv), "name,state\n");
    assert_eq!(empty(Format::Json), "[]\n");
    assert_eq!(empty(Format::Jsonl), "");
    assert_eq!(empty(Format::Yaml), "[]\n");
}

#[test]
fn one_item_is_a_list_of_names_and_values_and_what_is_nested_has_lines_of_its_own() {
    let status = r#"[{"engine":"e1","healthy":false,"problems":["datastore default: gone away","node web1: in error"],
        "usage":{"nodes":1,"gigabytes":10},"free":1024,"datastores":[{"name":"default","available":true,"free":2048,"problem":null},
        {"name":"nas","available":false,"free":0,"problem":"no mount"}],"networks":[],"operation":null}]"#;
    assert_eq!(
        shown(Look { columns: &[], ..look(Format::Table, false) }, status),
        "engine      e1\n\
         healthy     no\n\
         problems    datastore default: gone away\n\
         \x20           node web1: in error\n\
         usage       nodes=1 gigabytes=10\n\
         free        1.0 KiB\n\
         datastores  name=default available=yes free=2.0 KiB\n\
         \x20           name=nas available=no free=0 B problem=no mount\n\
         networks    -\n\
         operation   -\n"
    );
}

#[test]
fn one_item_of_an_operation_with_columns_shows_only_these() {
    let one = r#"[{"name":"web1","id":"x","state":"ready"}]"#;
    assert_eq!(
        shown(Look { columns: &["name", "state"], ..look(Format::Table, false) }, one),
        "name   web1\nstate  ready\n"
    );
}

#[test]
fn json_is_the_bare_object_or_an_array_with_fields_in_the_order_of_the_record() {
    let one = r#"[{"name":"web1","id":"x","size_bytes":18446744073709551615,"tags":["a"],"none":null}]"#;
    assert_eq!(
        shown(look(Format::Json, false), one),
        "{\n  \"name\": \"web1\",\n  \"id\": \"x\",\n  \"size_bytes\": 18446744073709551615,\n  \"tags\": [\n    \"a\"\n  ],\n  \"none\": null\n}\n"
    );
    let many = shown(look(Format::Json, true), NODES);
    assert!(many.starts_with("[\n  {\n    \"name\": \"web1\",\n    \"id\""), "{many}");
    let (back, given): (Value, Value) = (serde_json::from_str(&many).unwrap(), serde_json::from_str(NODES).unwrap());
    assert_eq!(back, given);
}

#[test]
fn jsonl_is_an_object_a_line() {
    let lines = shown(look(Format::Jsonl, true), NODES);
    assert_eq!(lines.lines().count(), 2);
    assert!(lines.lines().all(|l| serde_json::from_str::<Value>(l).is_ok()));
}

#[test]
fn csv_has_the_columns_of_the_table_exact_and_quoted_where_needed() {
    let odd = r#"[{"name":"a,b","state":"say \"hi\"","size_bytes":10737418240,"tags":["x","y"],"sessions":null,"chap":null,
        "created_at":"2026-11-22T10:20:30.123456Z"}]"#;
    assert_eq!(
        shown(look(Format::Csv, true), odd),
        "name,state,size_bytes,tags,sessions,chap,created_at\n\
         \"a,b\",\"say \"\"hi\"\"\",10737418240,\"[\"\"x\"\",\"\"y\"\"]\",,,2026-11-22T10:20:30.123456Z\n"
    );
}

#[test]
fn yaml_is_a_mapping_or_a_sequence_of_them() {
    let two = r#"[{"name":"a","n":1,"tags":["x"]},{"name":"b","n":null,"tags":[]}]"#;
    assert_eq!(
        shown(look(Format::Yaml, true), two),
        "- name: a\n  n: 1\n  tags:\n  - x\n- name: b\n  n: null\n  tags: []\n"
    );
    assert_eq!(shown(look(Format::Yaml, false), r#"[{"name":"a"}]"#), "name: a\n");
}

#[test]
fn a_text_is_printed_as_it_is_and_as_an_object_where_json_is_asked_for() {
    let script = "[{\"name\":\"web1\",\"script\":\"#!ipxe\\nsanboot x\\n\"}]";
    let text = |format| shown(Look { text: true, columns: &[], ..look(format, false) }, script);
    assert_eq!(text(Format::Table), "#!ipxe\nsanboot x\n");
    assert!(text(Format::Json).starts_with("{\n  \"name\": \"web1\""));
}

#[test]
fn a_watch_shows_each_row_as_it_comes_in_columns_that_only_grow() {
    let look = Look { live: true, columns: &["at", "what"], ..look(Format::Table, true) };
    let rows = r#"[{"at":"1","what":"b"},{"at":"12345","what":"b"},{"at":"1","what":"b"}]"#;
    assert_eq!(shown(look, rows), "AT  WHAT\n1   b\n12345  b\n1      b\n");
}

#[test]
fn foreign_control_characters_never_reach_a_terminal_through_a_table() {
    let evil = r#"[{"name":"a\u001b[2Jb","state":"x\ny","tags":["\u0007"]}]"#;
    let text = shown(Look { columns: &[], ..look(Format::Table, true) }, evil);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn the_header_is_bold_only_where_colour_is_wanted() {
    let colored = shown(Look { color: true, columns: &["name"], ..look(Format::Table, true) }, r#"[{"name":"a"}]"#);
    assert_eq!(colored, "\x1b[1mNAME\x1b[0m\na\n");
}

#[test]
fn unknown_columns_are_refused_by_name_with_those_there_are() {
    let only = ["nmae".to_owned()];
    let fault = Show::check(Some(&only), &["name", "state"]).unwrap_err();
    assert!(fault.to_string().contains("nmae") && fault.to_string().contains("it has name, state"), "{fault}");
    assert!(Show::check(Some(&["state".to_owned()]), &["name", "state"]).is_ok());
}

#[test]
fn a_broken_off_array_is_closed_and_nothing_is_printed_where_nothing_came() {
    for (items, expected) in [(0, ""), (1, "[\n  1\n]\n")] {
        let mut out = Vec::new();
        let mut show = Show::new(Box::new(&mut out), look(Format::Json, true));
        (0..items).for_each(|_| show.item(Value::Number(1.into())).unwrap());
        show.broken_off();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
