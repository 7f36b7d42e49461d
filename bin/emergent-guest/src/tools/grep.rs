//! The grep tool, built from ripgrep's own crates.
//!
//! As with ripgrep, ignored, hidden and binary files are left out; `.gitignore` counts outside a git repository too.
//! One thread walks, others search. They are started as the workspace's limit on processes allows; if none can be
//! started, the walking thread searches too.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, TrySendError, sync_channel},
    },
    thread,
};

use emergent_guest_proto::{
    GuestError, GuestPath,
    tools::{GrepMatch, GrepRequest, GrepResult},
};
use grep_matcher::Matcher as _;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkMatch};
use parking_lot::Mutex;

use super::{
    excerpt::excerpt,
    ignored::Rules,
    pattern::Pattern,
    walk::{Found, Walk, Wanted},
};
use crate::{
    credentials::{self, Caller},
    failure::{self, invalid},
    files::open::{Opened, open},
    guest::Guest,
};

const DEFAULT_LIMIT: u64 = 1_000;
const MAX_LIMIT: u64 = 10_000;

/// The longest line that is searched, in bytes; a file with a longer one is left out.
const HEAP_LIMIT: usize = 64 << 20;

/// The largest file that is read at once.
const SMALL: usize = 64 << 10;

/// The files that are handed over at once, and how many such batches may wait: handing over costs as much as searching
/// a small file.
const BATCH: usize = 32;
const QUEUE: usize = 64;

const MAX_THREADS: usize = 8;

/// A search: its pattern, its limit, and the matches that its threads have found.
struct Search<'a> {
    matcher: &'a RegexMatcher,
    caller: &'a Caller,
    limit: usize,
    count: AtomicUsize,
    hits: Mutex<Vec<Hit>>,
}

/// A match in its final order: by path as bytes, then by line.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    path: PathBuf,
    line_number: u64,
    line: String,
    truncated: bool,
}

/// Searches the contents of files.
///
/// # Errors
/// `invalid_request` for a malformed pattern, or the file system's error for `path` itself.
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
    let include = request.include.as_deref().map(|include| Pattern::parse("include", include)).transpose()?;
    let include = include.unwrap_or_else(Pattern::any);
    let root = guest.resolve_or_workspace(request.path.as_ref());
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let search = move |caller: &Caller| {
        let (count, hits) = (AtomicUsize::new(0), Mutex::default());
        let search = Search { matcher: &matcher, caller, limit, count, hits };
        let left_out = match open(&root)? {
            Opened::File(file, _) => {
                search.file(&mut searcher(), file, || root.clone());
                0
            }
            Opened::Directory => below(&root, &search, include, request.no_ignore)?,
        };
        Ok(search.into_result(left_out))
    };
    credentials::walking(&guest.accounts.agent, search).await
}

/// Searches all wanted files below a directory; returns how many names rules have left out.
fn below(root: &Path, search: &Search<'_>, include: Pattern, no_ignore: bool) -> Result<u64, GuestError> {
    let rules = (!no_ignore).then(|| Rules::above(root));
    let wanted = Wanted { pattern: &include.matcher, named: include.named, rules, only_regular: true };
    let walk = Walk::begin(root, wanted, search.caller);
    let mut walk = walk.map_err(|error| failure::at(root, "look into", &error))?;
    let (files, queue) = sync_channel::<Vec<Found>>(QUEUE);
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        // This thread walks, and then searches too.
        let helpers = thread::available_parallelism().map_or(1, usize::from).clamp(2, MAX_THREADS) - 1;
        for _ in 0..helpers {
            // New threads have the rights of this one. Without any, this one searches too.
            let helper = thread::Builder::new().spawn_scoped(scope, || search.help(&queue));
            if helper.is_err() {
                break;
            }
        }
        let mut searcher = searcher();
        while !search.is_over() {
            let batch: Vec<_> = walk.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = files.try_send(batch) {
                search.batch(&mut searcher, &batch);
            }
        }
        // Tells the helpers that no more come, and searches what they leave, which is everything if there are none.
        drop(files);
        search.help(&queue);
    });
    Ok(walk.left_out())
}

fn searcher() -> Searcher {
    SearcherBuilder::new()
        .line_number(true)
        .binary_detection(BinaryDetection::quit(0))
        .heap_limit(Some(HEAP_LIMIT))
        .build()
}

// === impl Search ===

impl Search<'_> {
    fn help(&self, queue: &Mutex<Receiver<Vec<Found>>>) {
        let mut searcher = searcher();
        loop {
            let next = queue.lock().recv();
            match next {
                Ok(batch) => self.batch(&mut searcher, &batch),
                Err(_) => return,
            }
        }
    }

    fn batch(&self, searcher: &mut Searcher, files: &[Found]) {
        for found in files {
            if self.is_over() {
                return;
            }
            if let Ok(file) = found.open() {
                self.file(searcher, file, || found.path());
            }
        }
    }

    fn file(&self, searcher: &mut Searcher, mut file: impl Read, path: impl Fn() -> PathBuf) {
        let mut start = Vec::with_capacity(SMALL);
        if file.by_ref().take(SMALL as u64).read_to_end(&mut start).is_err() {
            return;
        }
        let mut sink = FileSink { search: self, hits: Vec::new(), binary: false };
        let searched = if start.len() < SMALL {
            searcher.search_slice(self.matcher, &start, &mut sink)
        } else {
            let rest = UntilGone { file, caller: self.caller };
            searcher.search_reader(self.matcher, start.chain(rest), &mut sink)
        };
        // A file that cannot be read to its end counts as far as it went, a binary one not at all.
        drop(searched);
        if !sink.binary && !sink.hits.is_empty() {
            let hits = sink.hits.into_iter();
            let hits = hits.map(|(line_number, line, truncated)| Hit { path: path(), line_number, line, truncated });
            self.add(hits.collect());
        }
    }

    fn add(&self, hits: Vec<Hit>) {
        self.count.fetch_add(hits.len(), Ordering::Relaxed);
        self.hits.lock().extend(hits);
    }

    /// Whether no more matches are needed: one beyond the limit shows that there are more.
    fn is_over(&self) -> bool {
        self.count.load(Ordering::Relaxed) > self.limit || self.caller.is_gone()
    }

    fn into_result(self, left_out: u64) -> GrepResult {
        let mut hits = self.hits.into_inner();
        hits.sort_unstable();
        let more = hits.len() > self.limit;
        hits.truncate(self.limit);
        let truncated = more || hits.iter().any(|hit| hit.truncated);
        let answer = |Hit { path, line_number, line, truncated }| GrepMatch {
            file_path: GuestPath::from(path.as_path()),
            line_number,
            line,
            truncated,
        };
        GrepResult { matches: hits.into_iter().map(answer).collect(), truncated, left_out }
    }
}

/// The rest of a long file, which ends when the caller has gone.
struct UntilGone<'a, R> {
    file: R,
    caller: &'a Caller,
}

impl<R: Read> Read for UntilGone<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.caller.is_gone() { Ok(0) } else { self.file.read(buffer) }
    }
}

struct FileSink<'a> {
    search: &'a Search<'a>,
    /// The number and text of each line, and whether parts of it are missing.
    hits: Vec<(u64, String, bool)>,
    binary: bool,
}

// === impl FileSink ===

impl Sink for FileSink<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, matched: &SinkMatch<'_>) -> io::Result<bool> {
        // One line, unless the pattern could match across lines, which the matcher forbids.
        let line = matched.bytes().strip_suffix(b"\n").unwrap_or(matched.bytes());
        let place = self.search.matcher.find(line).ok().flatten();
        let (line, truncated) = excerpt(line, place.map_or(0..0, |place| place.start()..place.end()));
        self.hits.push((matched.line_number().unwrap_or_default(), line, truncated));
        Ok(self.hits.len() <= self.search.limit && !self.search.is_over())
    }

    fn binary_data(&mut self, _: &Searcher, _: u64) -> io::Result<bool> {
        self.binary = true;
        Ok(false)
    }
}
