//! The tree's Rust files, parsed, with what the checks ask again and again: which of it is test code, and which paths it
//! names. Reads only.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// One file.
pub(crate) struct File {
    /// Path from the root, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
    /// Only compiled for tests.
    pub(crate) test: bool,
}

impl File {
    /// Line `number`, from 1; empty beyond the end.
    pub(crate) fn line(&self, number: usize) -> &str {
        self.text.lines().nth(number.wrapping_sub(1)).unwrap_or("")
    }

    /// Its syntax, parsed anew: syntax trees belong to one thread.
    pub(crate) fn ast(&self) -> syn::File {
        syn::parse_file(&self.text).unwrap_or_else(|e| panic!("{}: {e}", self.path))
    }

    /// Whether any of these words stands in it: spares parsing it for nothing.
    pub(crate) fn says(&self, words: &[&str]) -> bool {
        words.iter().any(|w| self.text.contains(w))
    }
}

/// Every file under src, bmid/src, bmictl/src and tests.
pub(crate) fn all() -> &'static [File] {
    static ALL: OnceLock<Vec<File>> = OnceLock::new();
    ALL.get_or_init(|| {
        let root = crate::kept::root();
        let mut paths = Vec::new();
        for folder in ["src", "bmid/src", "bmictl/src", "tests"] {
            walk(&root.join(folder), &mut paths);
        }
        paths.sort();
        let mut files: Vec<File> = paths.iter().map(|p| read(&root, p)).collect();
        let only_tests = test_modules(&files);
        for file in &mut files {
            let under = |m: &String| file.path == format!("{m}.rs") || file.path.starts_with(&format!("{m}/"));
            file.test = file.path.starts_with("tests/") || only_tests.iter().any(under);
        }
        files
    })
}

/// The files whose path begins with `prefix`.
pub(crate) fn under(prefix: &str) -> impl Iterator<Item = &'static File> {
    all().iter().filter(move |f| f.path.starts_with(prefix))
}

fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("an entry of the tree").path();
        if path.is_dir() && !path.ends_with("target") {
            walk(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn read(root: &Path, path: &Path) -> File {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let path = path.strip_prefix(root).expect("beneath the root").to_str().expect("UTF-8 paths").to_owned();
    File { path, text, test: false }
}

/// Paths, without `.rs`, of modules that `#[cfg(test)]` stands over.
fn test_modules(files: &[File]) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for file in files.iter().filter(|f| f.says(&["cfg(test)"])) {
        let folder = folder_of(&file.path);
        for item in file.ast().items {
            if let syn::Item::Mod(m) = item
                && m.content.is_none()
                && only_for_tests(&m.attrs)
            {
                out.insert(format!("{folder}/{}", m.ident));
            }
        }
    }
    out
}

/// Where the children of the module in `path` lie.
fn folder_of(path: &str) -> String {
    let stem = path.trim_end_matches(".rs");
    for own in ["/mod", "/lib", "/main"] {
        if let Some(folder) = stem.strip_suffix(own) {
            return folder.to_owned();
        }
    }
    stem.to_owned()
}

/// Whether an item is compiled for tests alone: `#[cfg(test)]`, `#[test]` and its like.
pub(crate) fn only_for_tests(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|a| {
        let is_test = a.path().segments.last().is_some_and(|s| s.ident == "test");
        let cfg = match &a.meta {
            syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string(),
            _ => String::new(),
        };
        is_test || cfg == "test" || cfg.starts_with("all (test") || cfg.starts_with("any (test")
    })
}

/// The module a file is, as a path from its crate: `run::drive`; empty for lib.rs and main.rs.
pub(crate) fn module_of(path: &str) -> Vec<String> {
    let inner = path.split_once("src/").map_or(path, |(_, inner)| inner);
    let mut parts: Vec<String> = inner.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// A path that a file names, with where.
#[derive(Debug)]
pub(crate) struct Named {
    /// From the crate's root if it began with `crate`, `self` or `super`, else as written: `["std", "fs", "File"]`.
    pub(crate) path: Vec<String>,
    /// It is one of the own crate.
    pub(crate) own: bool,
    /// The line.
    pub(crate) line: usize,
}

/// Every path that a file names, in `use` lines and in its code; those inside macro calls too.
pub(crate) fn paths(file: &File) -> Vec<Named> {
    let mut visitor = Paths { module: module_of(&file.path), out: Vec::new() };
    visitor.visit_file(&file.ast());
    visitor.out
}

struct Paths {
    module: Vec<String>,
    out: Vec<Named>,
}

impl Paths {
    fn push(&mut self, written: &[String], line: usize) {
        let Some(first) = written.first() else { return };
        let mut base: Vec<String> = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => self.module[..self.module.len().saturating_sub(1)].to_vec(),
            _ => {
                self.out.push(Named { path: written.to_vec(), own: false, line });
                return;
            }
        };
        for part in &written[1..] {
            match part.as_str() {
                "super" => drop(base.pop()),
                part => base.push(part.to_owned()),
            }
        }
        self.out.push(Named { path: base, own: true, line });
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(p) => {
                before.push(p.ident.to_string());
                self.tree(&p.tree, before);
                before.pop();
            }
            syn::UseTree::Group(g) => g.items.iter().for_each(|t| self.tree(t, before)),
            syn::UseTree::Name(n) => self.leaf(before, Some(n.ident.to_string()), n.span().start().line),
            syn::UseTree::Rename(r) => self.leaf(before, Some(r.ident.to_string()), r.span().start().line),
            syn::UseTree::Glob(g) => self.leaf(before, None, g.span().start().line),
        }
    }

    fn leaf(&mut self, before: &[String], last: Option<String>, line: usize) {
        let mut whole = before.to_vec();
        whole.extend(last.filter(|l| l != "self"));
        self.push(&whole, line);
    }

    /// `a::b::c` in the tokens of a macro call, which are no syntax yet.
    fn tokens(&mut self, tokens: proc_macro2::TokenStream) {
        use proc_macro2::TokenTree::{Group, Ident, Punct};
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match token {
                Ident(i) => {
                    if colons != 2 {
                        self.flush(&mut path, line);
                    }
                    line = i.span().start().line;
                    path.push(i.to_string());
                    colons = 0;
                }
                Punct(p) if p.as_char() == ':' => colons += 1,
                Group(g) => {
                    self.flush(&mut path, line);
                    self.tokens(g.stream());
                    colons = 0;
                }
                _ => {
                    self.flush(&mut path, line);
                    colons = 0;
                }
            }
        }
        self.flush(&mut path, line);
    }

    fn flush(&mut self, path: &mut Vec<String>, line: usize) {
        if path.len() > 1 {
            self.push(path, line);
        }
        path.clear();
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.tree(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let whole: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.push(&whole, path.span().start().line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, m: &'a syn::Macro) {
        self.tokens(m.tokens.clone());
        visit::visit_macro(self, m);
    }

    fn visit_item_mod(&mut self, m: &'a syn::ItemMod) {
        self.module.push(m.ident.to_string());
        visit::visit_item_mod(self, m);
        self.module.pop();
    }
}

#[test]
fn paths_are_read_from_uses_code_and_macros() {
    let text = "use super::b::{self, C as D, e::*};\nfn f() { crate::x::y(); m!(self::z::Z, std::fs::read()) }\nmod t { use super::super::q::R; }";
    let file = File { path: "src/a/own.rs".to_owned(), text: text.to_owned(), test: false };
    let found: Vec<String> = paths(&file).iter().map(|n| n.path.join("::")).collect();
    for wanted in ["a::b", "a::b::C", "a::b::e", "x::y", "a::own::z::Z", "std::fs::read", "a::q::R"] {
        assert!(found.iter().any(|f| f == wanted), "{wanted} is not in {found:?}");
    }
}
