//! Finds the modules that a path leads to.

use std::collections::{BTreeSet, HashSet};

use super::tree::{Name, Tree};

/// Finds the modules on which a path in the module `from` depends: the one that defines the item, and those whose
/// re-exports lead there. A path into another crate depends on none.
pub(super) fn resolve(tree: &Tree, from: usize, path: &[String]) -> BTreeSet<usize> {
    let mut search = Search::new(tree);
    search.path(from, path);
    search.modules
}

struct Search<'a> {
    tree: &'a Tree,
    /// All modules on which the path depends.
    modules: BTreeSet<usize>,
    /// The modules that the path itself names, of which a glob takes the names.
    ends: BTreeSet<usize>,
    /// The imports and globs that were followed, each once: they may lead back to themselves.
    followed: HashSet<(usize, String)>,
}

// === impl Search ===

impl<'a> Search<'a> {
    fn new(tree: &'a Tree) -> Self {
        Self { tree, modules: BTreeSet::new(), ends: BTreeSet::new(), followed: HashSet::new() }
    }

    fn path(&mut self, from: usize, path: &[String]) {
        let (mut module, mut rest) = (from, path);
        while let [first, after @ ..] = rest {
            module = match first.as_str() {
                "crate" => 0,
                "self" => module,
                "super" => match self.tree.modules[module].parent {
                    Some(parent) => parent,
                    None => return,
                },
                _ => break,
            };
            rest = after;
        }
        let qualified = rest.len() < path.len();
        if !self.name(module, rest) && qualified {
            self.modules.insert(module);
        }
    }

    /// Looks `path` up among the names of a module; tells whether its first name is there.
    fn name(&mut self, module: usize, path: &[String]) -> bool {
        let [first, rest @ ..] = path else {
            self.modules.insert(module);
            self.ends.insert(module);
            return true;
        };
        let declared = &self.tree.modules[module];
        let Some(names) = declared.names.get(first) else {
            return declared.globs.iter().any(|glob| self.glob(module, glob, path));
        };
        let is_item = names.iter().any(|name| matches!(name, Name::Item));
        for name in names {
            match name {
                Name::Item => {
                    self.modules.insert(module);
                }
                // Of an item and a module of one name, a path that ends here means the item.
                Name::Module(_) if is_item && rest.is_empty() => {}
                Name::Module(child) => {
                    if !self.name(*child, rest) {
                        self.modules.insert(*child);
                    }
                }
                Name::Import(target) => {
                    self.modules.insert(module);
                    if self.followed.insert((module, first.clone())) {
                        self.path(module, &[target, rest].concat());
                    }
                }
            }
        }
        true
    }

    fn glob(&mut self, module: usize, glob: &[String], path: &[String]) -> bool {
        if !self.followed.insert((module, glob.join("::"))) {
            return false;
        }
        let mut named = Self { followed: std::mem::take(&mut self.followed), ..Self::new(self.tree) };
        named.path(module, glob);
        self.followed = named.followed;
        let found = named.ends.into_iter().any(|end| self.name(end, path));
        if found {
            self.modules.insert(module);
        }
        found
    }
}
