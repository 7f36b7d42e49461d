//! Circles in small trees of modules.

use anyhow::Context as _;

use super::*;

/// The circles of a crate with these files, each in the form of `xtask/circles.txt` without the root.
fn circles_in(files: &[(&str, &str)]) -> Vec<String> {
    found_in(files).iter().map(|circle| circle.to_string().replacen("src/lib.rs ", "", 1)).collect()
}

fn found_in(files: &[(&str, &str)]) -> Vec<Circle> {
    let files: BTreeMap<&Path, &str> = files.iter().map(|(file, text)| (Path::new(*file), *text)).collect();
    let read = |file: &Path| files.get(file).map(|text| (*text).to_owned()).context("no such file");
    circles("src/lib.rs", &read).unwrap()
}

const LIB: (&str, &str) = ("src/lib.rs", "mod a; mod b; mod c;");

#[test]
fn imports_in_one_direction_are_no_circle() {
    let a = ("src/a.rs", "use crate::b::B; use super::c::C;");
    let b = ("src/b.rs", "use crate::c; pub struct B(c::C);");
    assert_eq!(circles_in(&[LIB, a, b, ("src/c.rs", "pub struct C;")]), [""; 0]);
}

#[test]
fn a_circle_of_use_trees_is_found() {
    let a = ("src/a.rs", "use crate::{b::{self, B}, c::*}; pub struct A;");
    let b = ("src/b.rs", "pub struct B;");
    let c = ("src/c.rs", "use super::a::{A as Renamed};");
    assert_eq!(circles_in(&[LIB, a, b, c]), ["crate: a, c"]);
}

#[test]
fn paths_in_types_expressions_macros_and_attributes_count() {
    let b = ("src/b.rs", "pub struct B; pub fn call() { crate::a::call(); }");
    let c = ("src/c.rs", "");
    let ways = [
        "fn take(_: Vec<crate::b::B>) {}",
        "fn call() { super::b::call() }",
        "fn call() { use crate::b::B; }",
        "fn call() { println!(\"{}\", format!(\"{}\", crate::b::call())); }",
        "struct S { #[serde(default, with = \"crate::b::call\")] field: u8 }",
        "impl crate::b::Trait for u8 {}",
    ];
    for way in ways {
        assert_eq!(circles_in(&[LIB, ("src/a.rs", way), b, c]), ["crate: a, b"], "{way}");
    }
}

#[test]
fn a_name_that_an_ancestor_re_exports_leads_to_the_module_that_defines_it() {
    let lib = ("src/lib.rs", "mod a; mod b; mod c; pub use b::B; use c::inner::*;");
    let a = ("src/a.rs", "use crate::B; pub struct A;");
    let b = ("src/b.rs", "pub struct B(crate::a::A);");
    let c = ("src/c.rs", "pub(crate) mod inner { pub struct C; fn call() { super::super::b::call() } }");
    assert_eq!(circles_in(&[lib, a, b, c]), ["crate: a, b"]);

    let b = ("src/b.rs", "pub struct B(super::C);");
    assert_eq!(circles_in(&[lib, a, b, c]), ["crate: b, c"]);
}

#[test]
fn a_module_that_only_re_exports_is_part_of_the_circle_too() {
    let a = ("src/a.rs", "pub use crate::b::B;");
    let b = ("src/b.rs", "pub struct B;");
    assert_eq!(circles_in(&[LIB, a, b, ("src/c.rs", "use crate::a::B;")]), [""; 0]);

    let b = ("src/b.rs", "use crate::c; pub struct B;");
    assert_eq!(circles_in(&[LIB, a, b, ("src/c.rs", "use crate::a::B;")]), ["crate: a, b, c"]);
}

#[test]
fn a_parent_and_its_child_are_no_circle() {
    let lib = ("src/lib.rs", "mod a; use a::A; pub struct Root;");
    let a = ("src/a.rs", "mod inner; use crate::Root; use inner::Inner; pub struct A;");
    let inner = ("src/a/inner.rs", "use super::A; use crate::Root; pub struct Inner;");
    assert_eq!(circles_in(&[lib, a, inner]), [""; 0]);
}

#[test]
fn modules_are_compared_where_their_paths_part() {
    let lib = ("src/lib.rs", "mod a { pub mod b { use crate::c::d::D; } } mod c; ");
    let c = ("src/c.rs", "pub mod d; pub mod e;");
    let d = ("src/c/d.rs", "use super::e::E; pub struct D;");
    let e = ("src/c/e.rs", "use crate::{a, c::d}; pub struct E;");
    assert_eq!(circles_in(&[lib, c, d, e]), ["crate: a, c", "crate::c: d, e"]);
}

#[test]
fn unit_tests_are_left_out() {
    let a = ("src/a.rs", "use crate::b;");
    let b = (
        "src/b.rs",
        "#[cfg(test)] mod tests { use crate::a; } #[cfg(all(test, unix))] use crate::a as other;
        struct S; impl S { #[cfg(test)] fn example() { crate::a::call() } }",
    );
    assert_eq!(circles_in(&[LIB, a, b, ("src/c.rs", "")]), [""; 0]);

    let b = ("src/b.rs", "#[cfg(not(test))] use crate::a;");
    assert_eq!(circles_in(&[LIB, a, b, ("src/c.rs", "")]), ["crate: a, b"]);
}

#[test]
fn a_function_is_told_from_a_module_of_its_name() {
    let lib = ("src/lib.rs", "mod a; mod b; pub fn b() {} use a::a;");
    let a = ("src/a.rs", "use super::b; pub fn a() { b() }");
    assert_eq!(circles_in(&[lib, a, ("src/b.rs", "use crate::a;")]), [""; 0]);

    let a = ("src/a.rs", "use super::b; pub fn a() { b::call() }");
    assert_eq!(circles_in(&[lib, a, ("src/b.rs", "use crate::a;")]), ["crate: a, b"]);
}

#[test]
fn a_path_attribute_is_followed() {
    let lib = ("src/lib.rs", "#[path = \"other/place.rs\"] mod a; mod b;");
    let a = ("src/other/place.rs", "mod child; use crate::b;");
    let child = ("src/other/child.rs", "");
    assert_eq!(circles_in(&[lib, a, child, ("src/b.rs", "use crate::a;")]), ["crate: a, b"]);
}

#[test]
fn a_new_circle_is_told_with_its_imports() {
    let a = ("src/a.rs", "\nuse crate::b::B;");
    let b = ("src/b.rs", "pub struct B(crate::a::A);");
    let broken = judge(&found_in(&[LIB, a, b, ("src/c.rs", "")]), "# Known circles.\n\n");
    assert_eq!(broken.len(), 1);
    assert!(broken[0].starts_with("src/lib.rs crate: a, b: "), "{}", broken[0]);
    for edge in [
        "crate::a imports crate::b: `crate::b::B` at src/a.rs:2",
        "crate::b imports crate::a: `crate::a::A` at src/b.rs:1",
    ] {
        assert!(broken[0].contains(edge), "{}", broken[0]);
    }
}

#[test]
fn a_known_circle_may_stay_but_its_line_may_not_outlive_it() {
    let files = [LIB, ("src/a.rs", "use crate::b;"), ("src/b.rs", "use crate::a;"), ("src/c.rs", "")];
    assert_eq!(judge(&found_in(&files), "src/lib.rs crate: a, b"), [""; 0]);

    let broken = judge(&found_in(&files), "src/lib.rs crate: a, b\nsrc/lib.rs crate: b, c");
    assert_eq!(broken.len(), 1);
    assert!(broken[0].contains("remove this line"), "{}", broken[0]);
    assert!(broken[0].ends_with("src/lib.rs crate: b, c"), "{}", broken[0]);
}

#[test]
fn roots_are_told_from_other_files() {
    for root in ["crates/a/src/lib.rs", "bin/a/src/main.rs", "a/src/bin/b.rs", "a/tests/b.rs", "a/tests/it/main.rs"] {
        assert!(is_root(root), "{root}");
    }
    for other in ["bin/a/src/b.rs", "crates/a/src/tests/b.rs", "a/tests/it/b.rs", "a/build.rs"] {
        assert!(!is_root(other), "{other}");
    }
}
