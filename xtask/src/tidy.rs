//! House rules that no lint knows.

use std::{fs, path::Path};

use anyhow::{Context as _, bail, ensure};

use crate::circles;

/// The most lines of a source file; a longer one is taken to be about more than one thing.
const MAX_LINES: usize = 800;
/// Words with which no doc comment opens: a reader would have to ask what they mean.
const VAGUE: [&str; 10] = ["What", "Whose", "Who", "It", "Its", "Whatever", "Whoever", "Which", "Why", "Where"];

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
        (
            !opens_vaguely(text),
            "open each doc comment with the noun that it describes, rather than with What, Whose, Who or It",
        ),
    ];
    rules.into_iter().filter(|(kept, _)| !kept).map(|(_, rule)| rule)
}

/// Whether a doc comment opens with one of the words that say nothing.
fn opens_vaguely(text: &str) -> bool {
    let mut before = None;
    text.lines().any(|line| {
        let comment = line.trim_start().strip_prefix("///").or_else(|| line.trim_start().strip_prefix("//!"));
        let opens = before.replace(comment.is_some()) != Some(true);
        let word = comment.and_then(|comment| comment.split_whitespace().next());
        opens && word.is_some_and(|word| VAGUE.contains(&word))
    })
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
    fn a_comment_that_opens_without_a_noun_is_told_so() {
        let opening = |word: &str| format!("//! Why.\n\n/// {word} is there.\nstruct A;");
        assert!(VAGUE.iter().all(|word| rules_broken_by("a.rs", &opening(word)).count() == 1));
        assert_eq!(rules_broken_by("a.rs", &opening("The file")).count(), 0);
        assert_eq!(rules_broken_by("a.rs", "//! Why.\n\n/// The file.\n/// It is there.\nstruct A;").count(), 0);
    }

    #[test]
    fn a_file_that_is_too_long_is_told_so() {
        let text = format!("//! Why.\n{}", "\n".repeat(MAX_LINES));
        assert_eq!(rules_broken_by("a.rs", &text).count(), 1);
    }
}
