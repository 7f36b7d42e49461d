//! The paths that a module writes: in `use` trees, expressions, types, macros and attributes.

use proc_macro2::{Literal, TokenStream, TokenTree};
use syn::{
    ImplItemFn, Item, ItemUse, Path, UseTree, Visibility,
    ext::IdentExt as _,
    visit::{self, Visit},
};

use super::attributes::is_test_only;

/// One path, and the line that it is on.
pub(super) struct Import {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
}

/// One path of a `use` tree.
pub(super) struct Leaf {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    pub(super) binding: Binding,
}

/// The name that a path of a `use` tree brings into its module.
pub(super) enum Binding {
    Name(String),
    Glob,
    /// `as _` names nothing.
    Nothing,
}

/// The paths of a `use` tree; none if the tree begins with `::`, which leads to another crate.
pub(super) fn leaves(import: &ItemUse) -> Vec<Leaf> {
    let mut found = Vec::new();
    if import.leading_colon.is_none() {
        add_leaves(&import.tree, &[], &mut found);
    }
    found
}

fn add_leaves(tree: &UseTree, before: &[String], found: &mut Vec<Leaf>) {
    let (ident, binding) = match tree {
        UseTree::Path(path) => {
            let before = [before, &[path.ident.unraw().to_string()]].concat();
            return add_leaves(&path.tree, &before, found);
        }
        UseTree::Group(group) => return group.items.iter().for_each(|tree| add_leaves(tree, before, found)),
        UseTree::Glob(glob) => {
            let line = glob.star_token.span.start().line;
            return found.push(Leaf { path: before.to_vec(), line, binding: Binding::Glob });
        }
        UseTree::Name(name) => (&name.ident, None),
        UseTree::Rename(rename) if rename.rename == "_" => (&rename.ident, Some(Binding::Nothing)),
        UseTree::Rename(rename) => (&rename.ident, Some(Binding::Name(rename.rename.unraw().to_string()))),
    };
    let mut path = before.to_vec();
    // `a::{self}` names `a`.
    if ident != "self" || path.is_empty() {
        path.push(ident.unraw().to_string());
    }
    let binding = binding.or_else(|| path.last().cloned().map(Binding::Name)).unwrap_or(Binding::Nothing);
    found.push(Leaf { path, line: ident.span().start().line, binding });
}

/// All paths in the items of a module.
pub(super) fn imports(items: &[Item]) -> Vec<Import> {
    let mut visitor = Visitor { found: Vec::new() };
    for item in items {
        visitor.visit_item(item);
    }
    visitor.found
}

struct Visitor {
    found: Vec<Import>,
}

// === impl Visitor ===

impl<'ast> Visit<'ast> for Visitor {
    fn visit_item_use(&mut self, import: &'ast ItemUse) {
        self.found.extend(leaves(import).into_iter().map(|Leaf { path, line, .. }| Import { path, line }));
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_test_only(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if let (None, Some(first)) = (&path.leading_colon, path.segments.first()) {
            let line = first.ident.span().start().line;
            let path = path.segments.iter().map(|segment| segment.ident.unraw().to_string()).collect();
            self.found.push(Import { path, line });
        }
        visit::visit_path(self, path);
    }

    // `pub(in a::b)` opens an item; nothing is imported.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    // The arguments of macros and attributes have no syntax of their own, but their paths can be recognized.
    fn visit_token_stream(&mut self, tokens: &'ast TokenStream) {
        self.add_paths_of(tokens.clone());
    }
}

impl Visitor {
    fn add_paths_of(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut rest = tokens.as_slice();
        while let [token, after @ ..] = rest {
            rest = after;
            match token {
                TokenTree::Ident(first) => {
                    let mut path = vec![first.unraw().to_string()];
                    while let [TokenTree::Punct(one), TokenTree::Punct(two), TokenTree::Ident(next), after @ ..] = rest
                        && (one.as_char(), two.as_char()) == (':', ':')
                    {
                        path.push(next.unraw().to_string());
                        rest = after;
                    }
                    // A single name is a variable, or was imported and counted where it was.
                    if path.len() > 1 {
                        self.found.push(Import { path, line: first.span().start().line });
                    }
                }
                TokenTree::Group(group) => self.add_paths_of(group.stream()),
                TokenTree::Literal(literal) => self.add_path_in_text(literal),
                TokenTree::Punct(_) => {}
            }
        }
    }

    /// Adds the path in a text such as `"crate::whole::option"`, by which an attribute names a function.
    fn add_path_in_text(&mut self, literal: &Literal) {
        let text = literal.to_string();
        let text = text.trim_matches('"');
        if ["crate::", "super::", "self::"].iter().any(|start| text.starts_with(start))
            && let Ok(path) = syn::parse_str::<Path>(text)
        {
            let path = path.segments.iter().map(|segment| segment.ident.unraw().to_string()).collect();
            self.found.push(Import { path, line: literal.span().start().line });
        }
    }
}
