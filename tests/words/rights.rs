//! Who may do what, as a table that a reviewer can read: every operation against every kind of caller.

use std::fmt::Write as _;

use bmi::model::{Caller, Owner};
use bmi::ops::OPS;
use bmi::rules::rights;

use crate::kept;

const MATRIX: &str = "docs/rights.md";

const HEAD: &str = "# Who may do what

Written by a test out of the table of operations and the one function that judges (`src/rules/rights.rs`):
`BMI_REWRITE=1 cargo test --test words`. An admin is root or a member of the group `bmi-admin`; anybody else who can open the
socket (members of `bmi`) is a user. `acts for` is `--project` with another project than the caller's own.

| operation | right | root | admin | user | admin acts for | user acts for |
|---|---|---|---|---|---|---|
";

fn caller(uid: u32, name: &str, admin: bool) -> Caller {
    Caller { uid: Some(uid), name: name.to_owned(), admin, project: Owner::default_project() }
}

#[test]
fn the_rights_matrix_is_what_is_judged() {
    let other: Owner = "other".parse().expect("a name");
    let callers = [
        (caller(0, "root", true), None),
        (caller(1000, "admin", true), None),
        (caller(1001, "user", false), None),
        (caller(1000, "admin", true), Some(other.clone())),
        (caller(1001, "user", false), Some(other)),
    ];
    let mut page = HEAD.to_owned();
    for entry in OPS {
        let sheet = entry.sheet;
        let _ = write!(page, "| `{}` | {} |", sheet.command(), format!("{:?}", sheet.right).to_lowercase());
        for (caller, project) in &callers {
            let judged = rights::acting(caller.clone(), project.clone())
                .and_then(|c| rights::judge(&c, sheet.right, &sheet.command()));
            let _ = write!(page, " {} |", if judged.is_ok() { "yes" } else { "-" });
        }
        page.push('\n');
    }
    kept::must_be(MATRIX, &page, "A right that changes must be seen by whoever reviews the change.");
}
