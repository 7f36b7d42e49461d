//! The rules by which a search leaves files out: those of `.ignore`, `.gitignore` and `.git/info/exclude`, as ripgrep
//! and git interpret them.

use std::{
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::Arc,
};

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};
use rustix::fs::{Mode, OFlags};

/// The most bytes of a file with rules that are read.
const LONGEST: u64 = 1 << 20;

/// The rules of a directory, before those of the directories above it.
#[derive(Debug, Default)]
pub struct Rules {
    above: Option<Arc<Rules>>,
    /// The rules of `.ignore`, `.gitignore` and `.git/info/exclude`, in the order of their precedence.
    own: [Option<Gitignore>; 3],
    /// Whether a repository begins here: git's rules above it do not apply to it.
    has_git: bool,
}

const FILES: [&str; 3] = [".ignore", ".gitignore", ".git/info/exclude"];

impl Rules {
    /// Returns the rules that directories above `root` have for its contents. Rules that leave out the root itself are
    /// ignored: the caller named it.
    pub fn above(root: &Path) -> Arc<Self> {
        let mut rules = Arc::new(Self::default());
        let mut above: Vec<_> = root.ancestors().collect();
        above.reverse();
        for directory in above {
            if rules.matched(directory, true).is_ignore() {
                return Arc::default();
            }
            if directory != root
                && let Ok(open) = open_directory(directory)
            {
                let has = |name: &str| rustix::fs::statat(&open, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok();
                rules = rules.with_those_of(open.as_fd(), directory, has);
            }
        }
        rules
    }

    /// Adds a directory's own rules before these. `has` tells whether the directory has an entry of a name.
    pub fn with_those_of(self: Arc<Self>, open: BorrowedFd<'_>, path: &Path, has: impl Fn(&str) -> bool) -> Arc<Self> {
        let has_git = has(".git");
        let own = FILES.map(|name| {
            let there = if name.starts_with(".git/") { has_git } else { has(name) };
            there.then(|| read(open, path, name)).flatten()
        });
        if !has_git && own.iter().all(Option::is_none) {
            return self;
        }
        Arc::new(Self { above: Some(self), own, has_git })
    }

    /// Whether the rules leave a path out.
    pub fn matched(&self, path: &Path, is_directory: bool) -> Match<()> {
        let mut found = [Match::None, Match::None, Match::None];
        let mut in_repository = true;
        for rules in std::iter::successors(Some(self), |rules| rules.above.as_deref()) {
            for (index, (found, own)) in found.iter_mut().zip(&rules.own).enumerate() {
                if let (true, Some(own)) = (found.is_none() && (index == 0 || in_repository), own) {
                    *found = own.matched(path, is_directory).map(drop);
                }
            }
            in_repository &= !rules.has_git;
        }
        let [ignore, git, excluded] = found;
        ignore.or(git).or(excluded)
    }
}

fn read(open: BorrowedFd<'_>, path: &Path, name: &str) -> Option<Gitignore> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(open, name, flags, Mode::empty()).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut builder = GitignoreBuilder::new(path);
    for line in text.trim_start_matches('\u{feff}').lines() {
        // A line that is no rule counts for nothing, as for git.
        drop(builder.add_line(None, line));
    }
    builder.build().ok().filter(|rules| !rules.is_empty())
}

fn open_directory(path: &Path) -> rustix::io::Result<std::os::fd::OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
