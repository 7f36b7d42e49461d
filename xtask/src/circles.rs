//! The rule that the modules of a crate import one another in no circle.
//!
//! A module and its ancestors count as one, as a parent and its child are expected to know each other. All others are
//! compared where their paths part: an import in `a::b` from `c::d` is an edge from `a` to `c`. Unit tests are left
//! out.
//!
//! `xtask/circles.txt` lists the circles that are known. It only shrinks: a circle that is not on it breaks the rule,
//! and so does a line whose circle is gone.

mod attributes;
mod graph;
mod imports;
mod resolve;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use anyhow::Context as _;

use self::tree::{Read, Tree};

const KNOWN: &str = include_str!("../circles.txt");

/// Prints all circles in the form of `xtask/circles.txt`, and counts them by target.
///
/// # Errors
/// A source file that cannot be read or parsed.
pub(crate) fn print(files: &[&str]) -> anyhow::Result<()> {
    for root in files.iter().filter(|file| is_root(file)) {
        let circles = circles(root, &read)?;
        if !circles.is_empty() {
            let modules: usize = circles.iter().map(|circle| circle.members.len()).sum();
            println!("# {root}: modules in circles: {modules}");
            circles.iter().for_each(|circle| println!("{circle}"));
        }
    }
    Ok(())
}

/// Says what breaks the rule among these files, which are all source files of the workspace.
///
/// # Errors
/// A source file that cannot be read or parsed.
pub(crate) fn rules_broken(files: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for root in files.iter().filter(|file| is_root(file)) {
        found.extend(circles(root, &read)?);
    }
    Ok(judge(&found, KNOWN))
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).context("opening the file")
}

/// Tells whether a file is the root module of a target: of a library, a program, a test or an example.
fn is_root(file: &str) -> bool {
    let mut parts = file.rsplit('/');
    let (name, folder, above) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    matches!(name, "lib.rs" | "main.rs")
        || (above == "src" && folder == "bin")
        || (!file.contains("/src/") && matches!(folder, "tests" | "examples" | "benches"))
}

/// Modules with one parent that import one another in a circle.
#[derive(Debug)]
struct Circle {
    /// The file of the target's root module.
    root: String,
    parent: Vec<String>,
    /// The names of the modules, sorted.
    members: Vec<String>,
    /// A shortest circle of imports.
    shortest: Vec<Edge>,
}

/// The first import by which one module depends on another.
#[derive(Debug, Clone)]
struct Edge {
    from: Vec<String>,
    to: Vec<String>,
    path: Vec<String>,
    file: String,
    line: usize,
}

/// The edges between modules with one parent, by their names.
type Edges = BTreeMap<(String, String), Edge>;

fn circles(root: &str, read: Read<'_>) -> anyhow::Result<Vec<Circle>> {
    let tree = Tree::read(Path::new(root), read)?;
    let mut found = Vec::new();
    for (parent, edges) in edges_by_parent(&tree) {
        for component in graph::components(edges.keys().map(|(from, to)| (from.as_str(), to.as_str()))) {
            let around = component.shortest.iter().zip(component.shortest.iter().cycle().skip(1));
            found.push(Circle {
                root: root.to_owned(),
                parent: parent.clone(),
                members: component.members.into_iter().map(str::to_owned).collect(),
                shortest: around.map(|(from, to)| edges[&((*from).to_owned(), (*to).to_owned())].clone()).collect(),
            });
        }
    }
    Ok(found)
}

fn edges_by_parent(tree: &Tree) -> BTreeMap<Vec<String>, Edges> {
    let mut edges: BTreeMap<Vec<String>, Edges> = BTreeMap::new();
    for (index, module) in tree.modules.iter().enumerate() {
        for import in imports::imports(&module.items) {
            for target in resolve::resolve(tree, index, &import.path) {
                let (from, to) = (&module.path, &tree.modules[target].path);
                let shared = from.iter().zip(to).take_while(|(one, other)| one == other).count();
                if let (Some(one), Some(other)) = (from.get(shared), to.get(shared)) {
                    let edges = edges.entry(from[..shared].to_vec()).or_default();
                    edges.entry((one.clone(), other.clone())).or_insert_with(|| Edge {
                        from: from.clone(),
                        to: to.clone(),
                        path: import.path.clone(),
                        file: module.file.display().to_string(),
                        line: import.line,
                    });
                }
            }
        }
    }
    edges
}

/// Compares the circles with the text of `xtask/circles.txt`.
fn judge(found: &[Circle], known: &str) -> Vec<String> {
    let known: BTreeSet<&str> =
        known.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let found: BTreeMap<String, &Circle> = found.iter().map(|circle| (circle.to_string(), circle)).collect();
    let gone = known.iter().filter(|line| !found.contains_key(**line)).map(|line| {
        format!(
            "xtask/circles.txt: there is no such circle any more; remove this line, or replace the line by what is \
            left of the circle: {line}"
        )
    });
    let new = found.iter().filter(|(line, _)| !known.contains(line.as_str())).map(|(line, circle)| {
        let edges: String = circle.shortest.iter().map(|edge| format!("\n    {edge}")).collect();
        format!(
            "{line}: these modules import one another in a circle:{edges}\n    Move what they share to the module \
            where it belongs, or to a new one. Only if this is what is left of a larger circle in xtask/circles.txt, \
            replace the line of that one."
        )
    });
    new.chain(gone).collect()
}

// === impl Circle ===

impl fmt::Display for Circle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}: {}", self.root, absolute(&self.parent), self.members.join(", "))
    }
}

// === impl Edge ===

impl fmt::Display for Edge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, path, file, line } = self;
        let (from, to, path) = (absolute(from), absolute(to), path.join("::"));
        write!(formatter, "{from} imports {to}: `{path}` at {file}:{line}")
    }
}

fn absolute(path: &[String]) -> String {
    ["crate"].into_iter().chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join("::")
}

#[cfg(test)]
mod tests;
