//! House rules that no lint knows.

use std::{fs, path::Path};

use anyhow::{Context as _, bail, ensure};

use crate::circles;

/// The most lines of a source file; a longer one is taken to be about more than one thing.
const MAX_LINES: usize = 800;

/// Checks every source file that git knows, or would add.
///
/// # Errors
/// Names every file that breaks a rule, and the rule.
pub(crate) fn check() -> anyhow::Result<()> {
    let listing = listing()?;
    let files = files(&listing);
    let mut broken = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
        broken.extend(rules_broken_by(file, &text).map(|rule| format!("{file}: {rule}")));
    }
    match circles::rules_broken(&files) {
        Ok(circles) => broken.extend(circles),
        Err(error) => broken.push(format!("looking for circles of modules: {error:#}")),
    }
    if broken.is_empty() { Ok(()) } else { bail!("\n{}", broken.join("\n")) }
}

/// Prints the circles of modules, those that are known included.
///
/// # Errors
/// A source file that cannot be read or parsed.
pub(crate) fn print_circles() -> anyhow::Result<()> {
    circles::print(&files(&listing()?))
}

fn listing() -> anyhow::Result<String> {
    let listing = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .output()
        .context("asking git for the files")?;
    ensure!(listing.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&listing.stderr));

    String::from_utf8(listing.stdout).context("reading the list of files")
}

fn files(listing: &str) -> Vec<&str> {
    listing.lines().filter(|file| Path::new(file).exists()).collect()
}

fn rules_broken_by<'a>(file: &'a str, text: &'a str) -> impl Iterator<Item = &'static str> + 'a {
    let rules = [
        (text.starts_with("//!"), "begin with a //! line that says what the file is for"),
        (!file.ends_with("/mod.rs"), "name the file after the module, beside its folder, rather than mod.rs"),
        (text.lines().count() <= MAX_LINES, "split the file; 800 lines are the most"),
    ];
    rules.into_iter().filter(|(kept, _)| !kept).map(|(_, rule)| rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_purpose_is_told_so() {
        assert_eq!(rules_broken_by("a.rs", "fn main() {}").count(), 1);
        assert_eq!(rules_broken_by("a.rs", "//! Why.\nfn main() {}").count(), 0);
    }

    #[test]
    fn a_file_that_is_too_long_is_told_so() {
        let text = format!("//! Why.\n{}", "\n".repeat(MAX_LINES));
        assert_eq!(rules_broken_by("a.rs", &text).count(), 1);
    }
}
