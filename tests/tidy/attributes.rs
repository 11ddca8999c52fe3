//! serde attributes that bincode cannot follow, kept out of everything that is sent or stored.
//!
//! bincode writes fields in order, without names and without saying which are there. What decides by names or by what comes
//! next (flatten, untagged, internal tags, serde_json::Value) fails over it; what leaves a field out makes it misread the rest.

use syn::visit::{self, Visit};

use crate::source::{self, File};

const FORBIDDEN: [&str; 8] =
    ["skip_serializing_if", "skip_serializing", "skip_deserializing", "skip", "flatten", "untagged", "tag", "content"];

struct Attributes<'a> {
    file: &'a File,
    /// Structs that are an operation's arguments.
    arguments: Vec<String>,
    inside: String,
    problems: Vec<String>,
}

impl Attributes<'_> {
    fn judge(&mut self, tokens: proc_macro2::TokenStream, default_allowed: bool) {
        for token in tokens {
            let proc_macro2::TokenTree::Ident(word) = token else { continue };
            let name = word.to_string();
            if FORBIDDEN.contains(&name.as_str()) || (name == "default" && !default_allowed) {
                let line = word.span().start().line;
                self.problems.push(format!("{}:{line} serde({name}) in {}", self.file.path, self.inside));
            }
        }
    }

    /// `serde(...)` groups in the tokens of a macro call.
    fn in_macro(&mut self, tokens: proc_macro2::TokenStream, default_allowed: bool) {
        let mut serde = false;
        for token in tokens {
            match token {
                proc_macro2::TokenTree::Ident(i) => serde = i == "serde",
                proc_macro2::TokenTree::Group(g) if serde => {
                    self.judge(g.stream(), default_allowed);
                    serde = false;
                }
                proc_macro2::TokenTree::Group(g) => self.in_macro(g.stream(), default_allowed),
                _ => serde = false,
            }
        }
    }
}

impl<'ast> Visit<'ast> for Attributes<'_> {
    fn visit_item_struct(&mut self, s: &'ast syn::ItemStruct) {
        self.inside = s.ident.to_string();
        visit::visit_item_struct(self, s);
    }

    fn visit_item_enum(&mut self, e: &'ast syn::ItemEnum) {
        self.inside = e.ident.to_string();
        visit::visit_item_enum(self, e);
    }

    fn visit_attribute(&mut self, a: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &a.meta
            && list.path.is_ident("serde")
        {
            let allowed = self.arguments.contains(&self.inside);
            self.judge(list.tokens.clone(), allowed);
        }
    }

    fn visit_macro(&mut self, m: &'ast syn::Macro) {
        // The macro `control` declares an operation's arguments and nothing else.
        let control = m.path.segments.last().is_some_and(|s| s.ident == "control");
        self.inside = "a macro".to_owned();
        self.in_macro(m.tokens.clone(), control);
    }
}

/// The structs of a file that `impl Op for` names.
fn operations(file: &File) -> Vec<String> {
    let mut out = Vec::new();
    for item in &file.ast().items {
        if let syn::Item::Impl(i) = item
            && i.trait_.as_ref().is_some_and(|(_, path, _)| path.is_ident("Op"))
            && let syn::Type::Path(p) = &*i.self_ty
            && let Some(last) = p.path.segments.last()
        {
            out.push(last.ident.to_string());
        }
    }
    out
}

#[test]
fn nothing_sent_or_stored_has_an_attribute_that_bincode_misreads() {
    let mut problems = Vec::new();
    for file in source::under("src/").chain(source::under("bmid/src/store/")).filter(|f| !f.test) {
        let mut found = Attributes { file, arguments: operations(file), inside: String::new(), problems: Vec::new() };
        found.visit_file(&file.ast());
        problems.append(&mut found.problems);
        for named in source::paths(file) {
            if !named.own && named.path.first().is_some_and(|c| c == "serde_json") && file.path.starts_with("src/") {
                problems.push(format!("{}:{} serde_json in what is sent or stored", file.path, named.line));
            }
        }
    }
    assert!(
        problems.is_empty(),
        "{}\nbincode cannot follow these. `default` may stand on an operation's own arguments, where JSON may leave a field out: docs/decisions/0010-arguments.md.",
        problems.join("\n")
    );
}
