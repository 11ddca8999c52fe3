//! Kinds of failure, their classes and exit codes: scripts branch on them, so the page that tells them must be right.

use std::fmt::Write as _;

use bmi::model::{Class, Kind};

use crate::kept;
use crate::trace::Shapes;

const PAGE: &str = "docs/client.md";
const BEGIN: &str = "<!-- kinds: written by `BMI_REWRITE=1 cargo test --test words` -->\n";
const END: &str = "<!-- /kinds -->\n";

fn all() -> Vec<Kind> {
    let mut shapes = Shapes::default();
    shapes.add::<Kind>();
    let names = shapes.enums["Kind"].iter().map(|(name, _)| name.clone());
    names.map(|n| serde_json::from_value(n.into()).expect("a kind's name reads as the kind")).collect()
}

#[test]
fn kinds_and_classes_show_the_names_they_are_sent_with() {
    for kind in all() {
        assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.as_str());
        assert_eq!(serde_json::to_value(kind.class()).expect("JSON"), kind.class().as_str());
    }
}

#[test]
fn every_class_has_an_exit_code_of_its_own() {
    let mut classes: Vec<Class> = all().into_iter().map(Kind::class).collect();
    classes.sort_by_key(|c| c.exit_code());
    classes.dedup();
    let codes: Vec<u8> = classes.iter().map(|c| c.exit_code()).collect();
    assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7, 8], "0 is done and 10 belongs to --check");
}

#[test]
fn the_page_about_the_client_tells_every_kind() {
    let mut table = "| kind | class | exit code | the same again may help |\n|---|---|---|---|\n".to_owned();
    for kind in all() {
        let (class, again) = (kind.class(), if kind.retry() { "yes" } else { "" });
        let _ = writeln!(table, "| `{}` | `{}` | {} | {again} |", kind.as_str(), class.as_str(), class.exit_code());
    }
    let page = kept::read(PAGE);
    let (before, rest) = page.split_once(BEGIN).unwrap_or_else(|| panic!("{PAGE} has no place for kinds: {BEGIN}"));
    let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("{PAGE} has no end of kinds: {END}"));
    kept::must_be(PAGE, &format!("{before}{BEGIN}\n{table}\n{END}{after}"), "Scripts branch on these.");
}
