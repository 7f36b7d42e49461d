//! Circles among the edges between sibling modules.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Modules each of which leads to each other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Component<'a> {
    /// All members, sorted.
    pub(super) members: Vec<&'a str>,
    /// A shortest circle: each of these modules leads to the next one, and the last one to the first.
    pub(super) shortest: Vec<&'a str>,
}

/// Finds all strongly connected components of more than one module.
pub(super) fn components<'a>(edges: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Component<'a>> {
    let mut graph: Graph<'a> = BTreeMap::new();
    for (from, to) in edges {
        graph.entry(from).or_default().push(to);
    }
    let paths: BTreeMap<&str, _> = graph.keys().map(|module| (*module, paths_from(&graph, module))).collect();
    let mut assigned = BTreeSet::new();
    let mut found = Vec::new();
    for (module, there) in &paths {
        let is_member = |other: &&str| there.contains_key(other) && paths[other].contains_key(module);
        let members: Vec<&str> = paths.keys().copied().filter(is_member).collect();
        if members.len() > 1 && assigned.insert(members.clone()) {
            let circles = members.iter().filter_map(|member| paths[member].get(member));
            let shortest = circles.min_by_key(|circle| circle.len()).cloned().unwrap_or_default();
            found.push(Component { members, shortest });
        }
    }
    found
}

type Graph<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// For each module to which `start` leads, a shortest path: from `start` on, without the module at its end.
fn paths_from<'a>(graph: &Graph<'a>, start: &'a str) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut paths: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut queue = VecDeque::from([vec![start]]);
    while let Some(path) = queue.pop_front() {
        let nexts = path.last().and_then(|module| graph.get(module)).into_iter().flatten();
        for next in nexts {
            if !paths.contains_key(next) {
                paths.insert(next, path.clone());
                queue.push_back([path.as_slice(), &[*next]].concat());
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_has_no_circle() {
        assert_eq!(components([("a", "b"), ("b", "c"), ("a", "c")]), []);
    }

    #[test]
    fn circles_that_share_a_module_are_one_and_its_shortest_circle_is_shown() {
        let edges = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "c"), ("d", "out"), ("in", "a")];
        let whole = Component { members: vec!["a", "b", "c", "d"], shortest: vec!["c", "d"] };
        assert_eq!(components(edges), [whole]);
    }

    #[test]
    fn circles_without_a_way_back_are_two() {
        let edges = [("a", "b"), ("b", "a"), ("b", "c"), ("c", "d"), ("d", "c")];
        let members: Vec<_> = components(edges).into_iter().map(|component| component.members).collect();
        assert_eq!(members, [["a", "b"], ["c", "d"]]);
    }
}
