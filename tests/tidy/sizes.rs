//! How large things may be. What does not fit a screen or two is not read, and what is not read is not right.
//!
//! `over.txt` lists what is larger. It can only shrink: nothing new comes in, nothing in it may grow, and what fits again
//! must leave it.

use std::collections::{BTreeMap, BTreeSet};

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::kept;
use crate::source::{self, File};

/// A file stays below this.
const FILE: usize = 500;
/// Lines of a function, signature and braces included.
const FUNCTION: usize = 60;
/// Methods of a trait: what a second implementation has to write.
const TRAIT: usize = 6;
/// The list.
const OVER: &str = "tests/tidy/over.txt";

struct Sizes<'a> {
    file: &'a File,
    scope: Vec<String>,
    functions: BTreeMap<String, usize>,
    traits: BTreeMap<String, usize>,
}

impl Sizes<'_> {
    fn function(&mut self, name: &syn::Ident, whole: proc_macro2::Span) {
        let lines = whole.end().line - whole.start().line + 1;
        let mut key = format!("{} {}", self.file.path, self.scope.join("::"));
        key.push_str(if self.scope.is_empty() { "" } else { "::" });
        key.push_str(&name.to_string());
        let longest = self.functions.entry(key).or_default();
        *longest = lines.max(*longest);
    }
}

impl<'ast> Visit<'ast> for Sizes<'_> {
    fn visit_item_fn(&mut self, f: &'ast syn::ItemFn) {
        self.function(&f.sig.ident, f.sig.span().join(f.block.span()).unwrap_or_else(|| f.block.span()));
        visit::visit_item_fn(self, f);
    }

    fn visit_impl_item_fn(&mut self, f: &'ast syn::ImplItemFn) {
        self.function(&f.sig.ident, f.sig.span().join(f.block.span()).unwrap_or_else(|| f.block.span()));
        visit::visit_impl_item_fn(self, f);
    }

    fn visit_item_impl(&mut self, i: &'ast syn::ItemImpl) {
        let name = match &*i.self_ty {
            syn::Type::Path(p) => p.path.segments.last().map_or_else(String::new, |s| s.ident.to_string()),
            _ => String::new(),
        };
        self.scope.push(name);
        visit::visit_item_impl(self, i);
        self.scope.pop();
    }

    fn visit_item_trait(&mut self, t: &'ast syn::ItemTrait) {
        let methods = t.items.iter().filter(|i| matches!(i, syn::TraitItem::Fn(_))).count();
        // Methods given in the trait itself, on top of another trait, are functions and not a burden on implementations.
        let extension = !t.supertraits.is_empty()
            && t.items.iter().all(|i| !matches!(i, syn::TraitItem::Fn(f) if f.default.is_none()));
        if !extension {
            self.traits.insert(format!("{} {}", self.file.path, t.ident), methods);
        }
        self.scope.push(t.ident.to_string());
        visit::visit_item_trait(self, t);
        self.scope.pop();
    }

    fn visit_trait_item_fn(&mut self, f: &'ast syn::TraitItemFn) {
        if f.default.is_some() {
            self.function(&f.sig.ident, f.span());
        }
        visit::visit_trait_item_fn(self, f);
    }
}

fn measure() -> (BTreeMap<String, usize>, BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let (mut files, mut functions, mut traits) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for file in source::all() {
        files.insert(file.path.clone(), file.text.lines().count());
        let mut sizes = Sizes { file, scope: Vec::new(), functions: BTreeMap::new(), traits: BTreeMap::new() };
        sizes.visit_file(&file.ast());
        functions.append(&mut sizes.functions);
        traits.append(&mut sizes.traits);
    }
    (files, functions, traits)
}

#[test]
fn files_functions_and_traits_keep_their_sizes() {
    let (files, functions, traits) = measure();
    let list = kept::read(OVER);
    let mut allowed: BTreeMap<&str, usize> = BTreeMap::new();
    for line in list.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let (lines, what) = line.split_once(' ').unwrap_or_else(|| panic!("{OVER}: {line:?} is not LINES WHAT"));
        allowed.insert(what, lines.parse().unwrap_or_else(|_| panic!("{OVER}: {lines:?} is no number")));
    }
    let mut needed = BTreeSet::new();
    let mut problems = Vec::new();
    let limits = [(&files, FILE - 1, "lines"), (&functions, FUNCTION, "lines"), (&traits, TRAIT, "methods")];
    for (found, limit, unit) in limits {
        for (what, size) in found.iter().filter(|(_, size)| **size > limit) {
            needed.insert(what.as_str());
            match allowed.get(what.as_str()) {
                Some(most) if size <= most => {}
                Some(most) => problems.push(format!("{what} has grown to {size} {unit}; the list allows {most}")),
                None => problems.push(format!("{what} has {size} {unit}, {limit} are the most")),
            }
        }
    }
    for what in allowed.keys().filter(|w| !needed.contains(*w)) {
        problems.push(format!("{what} fits: take it out of {OVER}"));
    }
    assert!(
        problems.is_empty(),
        "{}\nSplit it where it does two things. {OVER} is not for new entries.",
        problems.join("\n")
    );
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let bare: Vec<&str> =
        source::all().iter().filter(|f| !f.text.starts_with("//!")).map(|f| f.path.as_str()).collect();
    assert!(
        bare.is_empty(),
        "{}\nA file opens with //! and says what it is for and what it must never do.",
        bare.join("\n")
    );
}
