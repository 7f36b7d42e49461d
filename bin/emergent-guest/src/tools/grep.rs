//! The grep tool: ripgrep's own parts.
//!
//! As with ripgrep, ignored, hidden and binary files are left out; `.gitignore` counts outside a git repository too.
//! One thread walks, others search: `ignore`'s own parallel walk cannot cope with a thread that cannot be made, which
//! is what happens at a workspace's limit on processes.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, TrySendError, sync_channel},
    },
    thread,
};

use emergent_guest_proto::{
    GuestError, GuestPath,
    tools::{GrepMatch, GrepRequest, GrepResult},
};
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkMatch};
use ignore::{WalkBuilder, overrides::OverrideBuilder};

use super::open::{Opened, open};
use crate::{failure::invalid, guest::Guest};

const DEFAULT_LIMIT: u64 = 1_000;
const MAX_LIMIT: u64 = 10_000;

/// Characters of a line that are shown.
const LINE_LIMIT: usize = 2_000;

/// The longest line that is searched, in bytes; a file with a longer one is left out.
const HEAP_LIMIT: usize = 64 << 20;

/// Files that are handed over at once, and how many such batches may wait: handing over costs as much as searching a
/// small file.
const BATCH: usize = 32;
const QUEUE: usize = 64;

const MAX_THREADS: usize = 8;

/// Where the searching threads put what they find.
struct Found {
    matches: Mutex<Vec<Hit>>,
    count: AtomicUsize,
    limit: usize,
}

/// A match before it becomes an answer; sorts by path as bytes, then by line.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    path: PathBuf,
    line_number: u64,
    line: String,
}

/// Searches the contents of files.
///
/// # Errors
/// `invalid_request` for a malformed pattern, or that of the file system for `path` itself.
pub async fn grep(guest: &Guest, request: GrepRequest) -> Result<GrepResult, GuestError> {
    let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(invalid("limit", format!("the limit must be from 1 to {MAX_LIMIT}")));
    }
    let matcher = RegexMatcherBuilder::new()
        .case_insensitive(request.ignore_case)
        .line_terminator(Some(b'\n'))
        .build(&request.pattern)
        .map_err(|error| invalid("pattern", format!("the pattern is malformed: {error}")))?;
    let root = guest.resolve_or_workspace(request.path.as_ref());
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    guest.as_agent(move || search(&root, &request, &matcher, limit)).await
}

fn search(root: &Path, request: &GrepRequest, matcher: &RegexMatcher, limit: usize) -> Result<GrepResult, GuestError> {
    // Also tells what is wrong with the root, which the walk would pass over.
    let _ = open(root)?;
    let walk = walk(root, request)?;
    let found = Found { matches: Mutex::default(), count: AtomicUsize::new(0), limit };
    let (paths, queue) = sync_channel::<Vec<PathBuf>>(QUEUE);
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        // This thread walks, and then searches too.
        let helpers = thread::available_parallelism().map_or(1, usize::from).clamp(2, MAX_THREADS) - 1;
        for _ in 0..helpers {
            // New threads have the rights of this one. Without any, this one searches too.
            let helper = thread::Builder::new().spawn_scoped(scope, || help(&queue, matcher, &found));
            if helper.is_err() {
                break;
            }
        }
        let mut searcher = searcher();
        let mut walk = walk.peekable();
        while walk.peek().is_some() && !found.is_full() {
            let batch = walk.by_ref().take(BATCH).collect();
            if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = paths.try_send(batch) {
                search_files(&mut searcher, matcher, &batch, &found);
            }
        }
        // Tells the helpers that no more come, and searches what they leave, which is everything if there are none.
        drop(paths);
        help(&queue, matcher, &found);
    });
    Ok(found.into_result())
}

fn walk(root: &Path, request: &GrepRequest) -> Result<impl Iterator<Item = PathBuf>, GuestError> {
    let mut overrides = OverrideBuilder::new(root);
    if let Some(include) = &request.include {
        let malformed = |error| invalid("include", format!("the glob is malformed: {error}"));
        overrides.add(include).map_err(malformed)?;
    }
    let overrides = overrides.build().map_err(|error| invalid("include", error.to_string()))?;
    let walk = WalkBuilder::new(root)
        .standard_filters(!request.no_ignore)
        .git_global(false)
        .require_git(false)
        .overrides(overrides)
        .filter_entry(|entry| entry.file_name() != ".git" || entry.depth() == 0)
        .build();
    // What cannot be read is not the agent's to search. A root that is a link to a file has no type of a file.
    let searchable =
        |entry: &ignore::DirEntry| entry.depth() == 0 || entry.file_type().is_some_and(|kind| kind.is_file());
    Ok(walk.filter_map(Result::ok).filter(searchable).map(ignore::DirEntry::into_path))
}

fn help(queue: &Mutex<Receiver<Vec<PathBuf>>>, matcher: &RegexMatcher, found: &Found) {
    let mut searcher = searcher();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(batch) => search_files(&mut searcher, matcher, &batch, found),
            Err(_) => return,
        }
    }
}

fn searcher() -> Searcher {
    SearcherBuilder::new()
        .line_number(true)
        .binary_detection(BinaryDetection::quit(0))
        .heap_limit(Some(HEAP_LIMIT))
        .build()
}

fn search_files(searcher: &mut Searcher, matcher: &RegexMatcher, paths: &[PathBuf], found: &Found) {
    for path in paths {
        if found.is_full() {
            return;
        }
        search_file(searcher, matcher, path, found);
    }
}

fn search_file(searcher: &mut Searcher, matcher: &RegexMatcher, path: &Path, found: &Found) {
    let Ok(Opened::File(file, _)) = open(path) else { return };
    let mut sink = FileSink { path, found, hits: Vec::new(), binary: false };
    let searched: io::Result<()> = searcher.search_file(matcher, &file as &File, &mut sink);
    // A file that cannot be read to its end counts as far as it went, a binary one not at all.
    drop(searched);
    if !sink.binary && !sink.hits.is_empty() {
        found.add(sink.hits);
    }
}

struct FileSink<'a> {
    path: &'a Path,
    found: &'a Found,
    hits: Vec<Hit>,
    binary: bool,
}

// === impl FileSink ===

impl Sink for FileSink<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, matched: &SinkMatch<'_>) -> io::Result<bool> {
        // One line, unless the pattern could match across lines, which the matcher forbids.
        let line = matched.bytes().strip_suffix(b"\n").unwrap_or(matched.bytes());
        let kept = &line[..line.len().min(LINE_LIMIT * 4)];
        let line = String::from_utf8_lossy(kept).chars().take(LINE_LIMIT).collect();
        let line_number = matched.line_number().unwrap_or_default();
        self.hits.push(Hit { path: self.path.to_owned(), line_number, line });
        Ok(self.hits.len() <= self.found.limit && !self.found.is_full())
    }

    fn binary_data(&mut self, _: &Searcher, _: u64) -> io::Result<bool> {
        self.binary = true;
        Ok(false)
    }
}

// === impl Found ===

impl Found {
    fn add(&self, hits: Vec<Hit>) {
        self.count.fetch_add(hits.len(), Ordering::Relaxed);
        self.matches.lock().unwrap_or_else(PoisonError::into_inner).extend(hits);
    }

    /// Whether one more than asked for is there, which says that there are more.
    fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) > self.limit
    }

    fn into_result(self) -> GrepResult {
        let mut hits = self.matches.into_inner().unwrap_or_else(PoisonError::into_inner);
        hits.sort_unstable();
        let truncated = hits.len() > self.limit;
        hits.truncate(self.limit);
        let answer = |Hit { path, line_number, line }| GrepMatch {
            file_path: GuestPath::from(path.as_path()),
            line_number,
            line,
        };
        GrepResult { matches: hits.into_iter().map(answer).collect(), truncated }
    }
}
