//! Unsafe code stands in files named ffi.rs, each block with the reason why it is sound: what has to be believed is found
//! in one place.

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::source;

#[derive(Default)]
struct Unsafe {
    lines: Vec<usize>,
}

impl<'a> Visit<'a> for Unsafe {
    fn visit_expr_unsafe(&mut self, e: &'a syn::ExprUnsafe) {
        self.lines.push(e.span().start().line);
        visit::visit_expr_unsafe(self, e);
    }

    fn visit_signature(&mut self, s: &'a syn::Signature) {
        self.lines.extend(s.unsafety.as_ref().map(|u| u.span().start().line));
        visit::visit_signature(self, s);
    }

    fn visit_item_impl(&mut self, i: &'a syn::ItemImpl) {
        self.lines.extend(i.unsafety.as_ref().map(|u| u.span().start().line));
        visit::visit_item_impl(self, i);
    }
}

#[test]
fn unsafe_stands_in_ffi_files_alone_and_says_why_it_is_sound() {
    let mut problems = Vec::new();
    for file in source::all().iter().filter(|f| f.says(&["unsafe"])) {
        let mut found = Unsafe::default();
        found.visit_file(&file.ast());
        for line in found.lines {
            if !file.path.ends_with("/ffi.rs") {
                problems.push(format!("{}:{line} is unsafe outside of a file named ffi.rs", file.path));
            } else if !(line.saturating_sub(6)..=line).any(|l| file.line(l).to_uppercase().contains("SAFETY")) {
                problems.push(format!("{}:{line} does not say why it is sound (SAFETY)", file.path));
            }
        }
    }
    assert!(
        problems.is_empty(),
        "{}\nMove the call into the room's ffi.rs behind a safe function.",
        problems.join("\n")
    );
}
