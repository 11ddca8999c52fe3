//! What can panic says why it cannot. A daemon that ends on a surprise interrupts everybody for one request's sake.

use syn::visit::{self, Visit};

use crate::source::{self, File};

const METHODS: [&str; 4] = ["unwrap", "expect", "unwrap_err", "expect_err"];
const MACROS: [&str; 4] = ["panic", "unreachable", "todo", "unimplemented"];

#[derive(Default)]
struct Panics {
    lines: Vec<usize>,
}

impl Panics {
    fn tokens(&mut self, tokens: proc_macro2::TokenStream) {
        let mut dot = false;
        for token in tokens {
            match token {
                proc_macro2::TokenTree::Punct(p) => dot = p.as_char() == '.',
                proc_macro2::TokenTree::Ident(i) => {
                    if dot && METHODS.iter().any(|m| i == *m) {
                        self.lines.push(i.span().start().line);
                    }
                    dot = false;
                }
                proc_macro2::TokenTree::Group(g) => {
                    self.tokens(g.stream());
                    dot = false;
                }
                proc_macro2::TokenTree::Literal(_) => dot = false,
            }
        }
    }
}

impl<'a> Visit<'a> for Panics {
    fn visit_item(&mut self, item: &'a syn::Item) {
        let attrs = match item {
            syn::Item::Fn(f) => &f.attrs,
            syn::Item::Mod(m) => &m.attrs,
            syn::Item::Impl(i) => &i.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !source::only_for_tests(attrs) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, f: &'a syn::ImplItemFn) {
        if !source::only_for_tests(&f.attrs) {
            visit::visit_impl_item_fn(self, f);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'a syn::ExprMethodCall) {
        if METHODS.iter().any(|m| call.method == m) {
            self.lines.push(call.method.span().start().line);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, m: &'a syn::Macro) {
        if let Some(last) = m.path.segments.last()
            && MACROS.iter().any(|name| last.ident == name)
        {
            self.lines.push(last.ident.span().start().line);
        }
        self.tokens(m.tokens.clone());
    }
}

/// A comment beside it, or right above the statement it stands in.
fn has_reason(file: &File, line: usize) -> bool {
    if file.line(line).contains("// ") {
        return true;
    }
    let mut above = line.saturating_sub(1);
    loop {
        let text = file.line(above).trim();
        let said_to_lint = text.starts_with("#[") && text.contains("reason =");
        if said_to_lint || (text.starts_with("//") && !text.starts_with("///")) {
            return true;
        }
        // The statement's own earlier lines, and what is said about lints.
        let within = file.line(above + 1).trim_start().starts_with('.') || text.starts_with("#[");
        if !within || above <= 1 {
            return false;
        }
        above -= 1;
    }
}

#[test]
fn what_can_panic_says_why_it_cannot() {
    let mut problems = Vec::new();
    for file in source::all().iter().filter(|f| !f.test && (f.says(&METHODS) || f.says(&MACROS))) {
        let mut found = Panics::default();
        found.visit_file(&file.ast());
        for line in found.lines.into_iter().filter(|l| !has_reason(file, *l)) {
            problems.push(format!("{}:{line} {}", file.path, file.line(line).trim()));
        }
    }
    assert!(problems.is_empty(), "{}\nReturn a Fault, or say beside it why it cannot happen.", problems.join("\n"));
}
