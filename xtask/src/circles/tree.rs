//! The modules of one crate target: read from its files, with the names that each declares.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use syn::{
    Item, ItemConst, ItemEnum, ItemMacro, ItemMod, ItemStatic, ItemStruct, ItemTrait, ItemTraitAlias, ItemType,
    ItemUnion, ext::IdentExt as _,
};

use super::{
    attributes::{is_test_only, of_item, path_attribute},
    imports::{self, Binding},
};

/// Reads the text of a source file.
pub(super) type Read<'a> = &'a dyn Fn(&Path) -> anyhow::Result<String>;

/// All modules of one target, without those that are only compiled for unit tests. The first one is the root.
pub(super) struct Tree {
    pub(super) modules: Vec<Module>,
}

/// One module, in a file of its own or inline.
pub(super) struct Module {
    /// The names that lead from the root to the module.
    pub(super) path: Vec<String>,
    pub(super) parent: Option<usize>,
    pub(super) file: PathBuf,
    /// The items of the module; none is only compiled for unit tests.
    pub(super) items: Vec<Item>,
    /// The declared names. A module, an item and an import may share one.
    pub(super) names: HashMap<String, Vec<Name>>,
    /// The paths of the glob imports.
    pub(super) globs: Vec<Vec<String>>,
    /// The folder with the files of the child modules.
    folder: PathBuf,
}

/// The meaning of one name in a module.
pub(super) enum Name {
    /// A child module, by its place in [`Tree::modules`].
    Module(usize),
    /// Anything else that the module defines.
    Item,
    /// An import or re-export of this path.
    Import(Vec<String>),
}

// === impl Tree ===

impl Tree {
    /// Reads the target whose root module is `root`.
    ///
    /// # Errors
    /// A file that cannot be read or parsed.
    pub(super) fn read(root: &Path, read: Read<'_>) -> anyhow::Result<Self> {
        let mut tree = Self { modules: Vec::new() };
        let folder = root.parent().unwrap_or(Path::new("")).to_owned();
        tree.add_file(None, Vec::new(), root.to_owned(), folder, read)?;
        Ok(tree)
    }

    fn add_file(
        &mut self,
        parent: Option<usize>,
        path: Vec<String>,
        file: PathBuf,
        folder: PathBuf,
        read: Read<'_>,
    ) -> anyhow::Result<usize> {
        let text = read(&file).with_context(|| format!("reading {}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("parsing {}", file.display()))?;
        let module = Module { path, parent, file, items: Vec::new(), names: HashMap::new(), globs: Vec::new(), folder };
        self.add(module, parsed.items, read)
    }

    fn add(&mut self, module: Module, items: Vec<Item>, read: Read<'_>) -> anyhow::Result<usize> {
        let index = self.modules.len();
        self.modules.push(module);
        for item in items.into_iter().filter(|item| !is_test_only(of_item(item))) {
            if let Item::Mod(child) = item {
                self.add_child(index, child, read)?;
            } else {
                self.modules[index].declare(&item);
                self.modules[index].items.push(item);
            }
        }
        Ok(index)
    }

    fn add_child(&mut self, parent: usize, child: ItemMod, read: Read<'_>) -> anyhow::Result<()> {
        let name = child.ident.unraw().to_string();
        let Module { path, file, folder, .. } = &self.modules[parent];
        let path = [path.as_slice(), std::slice::from_ref(&name)].concat();
        let (file, folder) = (file.clone(), folder.join(&name));
        let index = if let Some((_, items)) = child.content {
            let names = HashMap::new();
            let module =
                Module { path, parent: Some(parent), file, items: Vec::new(), names, globs: Vec::new(), folder };
            self.add(module, items, read)?
        } else if let Some(written) = path_attribute(&child.attrs) {
            let file = file.parent().unwrap_or(Path::new("")).join(written);
            let folder = file.parent().unwrap_or(Path::new("")).to_owned();
            self.add_file(Some(parent), path, file, folder, read)?
        } else {
            self.add_file(Some(parent), path, folder.with_extension("rs"), folder, read)?
        };
        self.modules[parent].names.entry(name).or_default().push(Name::Module(index));
        Ok(())
    }
}

// === impl Module ===

impl Module {
    fn declare(&mut self, item: &Item) {
        let ident = match item {
            Item::Const(ItemConst { ident, .. })
            | Item::Enum(ItemEnum { ident, .. })
            | Item::Macro(ItemMacro { ident: Some(ident), .. })
            | Item::Static(ItemStatic { ident, .. })
            | Item::Struct(ItemStruct { ident, .. })
            | Item::Trait(ItemTrait { ident, .. })
            | Item::TraitAlias(ItemTraitAlias { ident, .. })
            | Item::Type(ItemType { ident, .. })
            | Item::Union(ItemUnion { ident, .. }) => ident,
            Item::Fn(function) => &function.sig.ident,
            Item::Use(import) => {
                for leaf in imports::leaves(import) {
                    match leaf.binding {
                        Binding::Name(name) => {
                            self.names.entry(name).or_default().push(Name::Import(leaf.path));
                        }
                        Binding::Glob => self.globs.push(leaf.path),
                        Binding::Nothing => {}
                    }
                }
                return;
            }
            _ => return,
        };
        self.names.entry(ident.unraw().to_string()).or_default().push(Name::Item);
    }
}
