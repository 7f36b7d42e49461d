//! The tools and the raw files: every result is compared with the expected one.

use std::{collections::BTreeSet, path::Path, time::Instant};

use futures::future::join_all;
use rand::RngExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Judged, Worker, changes::is_known_since, life::text};
use crate::soak::{
    answer::Answer,
    files::{File, sum},
    phase::Op,
    workspace::{Commits, DoubtfulCommit, KnownWorkspace},
};

/// The folder of most of a worker's files.
const FOLDER: &str = "files";
/// The folder of the others: not on the workspace's volume, so that a snapshot keeps them in its other half.
const OUTSIDE: &str = "/var/tmp";
/// The number of calls that go out at once in a burst.
const BURST: usize = 8;

// === impl Worker ===

impl Worker {
    /// Some path of a few.
    fn some_path(&mut self) -> String {
        let (folder, name) = (self.random.random_range(0..4), self.random.random_range(0..4));
        if folder == 3 { format!("{OUTSIDE}/f{name}.txt") } else { format!("{FOLDER}/d{folder}/f{name}.txt") }
    }

    /// A text whose first line occurs in no other text.
    fn some_text(&mut self, known: &mut KnownWorkspace) -> String {
        let first = known.fresh("line");
        let rest = self.random.random_range(0..60);
        let lines = (0..rest).map(|_| format!("{:016x}\n", self.random.random::<u64>()));
        [format!("{first}\n")].into_iter().chain(lines).collect()
    }

    fn some_certain_text(&mut self, known: &KnownWorkspace) -> Option<(String, String)> {
        let texts: Vec<_> = known.contents.files.certain_texts().collect();
        let index = self.random.random_range(0..texts.len().max(1));
        texts.get(index).map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
    }

    pub(super) async fn write(&mut self, known: &mut KnownWorkspace) {
        let (path, content) = (self.some_path(), self.some_text(known));
        self.write_at(known, &path, content).await;
    }

    async fn write_at(&mut self, known: &mut KnownWorkspace, path: &str, content: String) {
        let file = Some(File::text(content.clone()));
        let request = self.post(known, "/write", &json!({ "file_path": path, "content": content }));
        let Some(result) = self.change(known, "write", request, (path, file)).await else { return };
        let written = &result["bytes_written"];
        if *written != content.len() {
            self.finding(known, "write", &format!("{} bytes, and {written} are said to be", content.len()));
        }
    }

    /// Reports a guest's refusal, unless a full disk explains it; nothing has changed then.
    pub(super) fn refused_by_guest(&self, known: &KnownWorkspace, name: &str, answer: &Answer) {
        let explained = self.testbed.fault_log.since(self.server, known.looked - std::time::Duration::from_secs(5));
        if answer.problem() != Some("disk-full") || !explained.iter().any(|fault| fault.excuses(answer)) {
            self.finding(known, name, &format!("it should succeed; got {}", answer.shown()));
        }
    }

    pub(super) async fn read_one(&mut self, known: &mut KnownWorkspace) {
        let Some((path, _)) = self.some_certain_text(known) else { return };
        let asked = self.call(known, "read", json!({ "file_path": path })).await;
        self.compare_read(known, &path, asked);
    }

    fn compare_read(&self, known: &mut KnownWorkspace, path: &str, asked: Judged) {
        let Judged::Done(answer) = asked else { return };
        let seen = match answer.problem() {
            Some("file-not-found") => None,
            Some(_) => return self.refused_by_guest(known, "read", &answer),
            None => Some(File::text(without_numbers(text(&answer.json(), "content")))),
        };
        if let Err(wrong) = known.contents.files.saw(path, seen) {
            self.finding(known, "read", &wrong);
        }
    }

    pub(super) async fn edit(&mut self, known: &mut KnownWorkspace) {
        let Some((path, old)) = self.some_certain_text(known) else { return };
        let Some(first) = old.lines().next().map(str::to_owned) else { return };
        let fresh = known.fresh("edited");
        let edited = Some(File::text(old.replacen(&first, &fresh, 1)));
        let body = json!({ "file_path": path, "old_string": format!("{first}\n"), "new_string": format!("{fresh}\n") });
        let request = self.post(known, "/edit", &body);
        self.change(known, "edit", request, (&path, edited)).await;
    }

    pub(super) async fn glob(&mut self, known: &mut KnownWorkspace) {
        let asked = self.call(known, "glob", json!({ "pattern": format!("{FOLDER}/**/*.txt") })).await;
        let Judged::Done(answer) = asked else { return };
        let result = answer.json();
        let Some(found) = result["files"].as_array() else {
            return self.refused_by_guest(known, "glob", &answer);
        };
        let found = found.iter().filter_map(|path| path.as_str()?.strip_prefix("/workspace/"));
        self.compare_paths(known, "glob", found.map(str::to_owned).collect());
    }

    /// Checks that all certain paths were found, and none but possible ones.
    fn compare_paths(&self, known: &KnownWorkspace, name: &str, found: BTreeSet<String>) {
        let mut certain = known.contents.files.certain().filter(|(path, _)| path.starts_with(FOLDER));
        if let Some((missing, _)) = certain.find(|(path, _)| !found.contains(*path)) {
            self.finding(known, name, &format!("{missing} was not found"));
        }
        if let Some(stranger) = found.iter().find(|path| !known.contents.files.may_be(path)) {
            self.finding(known, name, &format!("{stranger} was found, and should not be there"));
        }
    }

    pub(super) async fn grep(&mut self, known: &mut KnownWorkspace) {
        let Some((path, text)) = self.some_certain_text(known) else { return };
        let Some(first) = text.lines().next() else { return };
        let folder = if path.starts_with(FOLDER) { FOLDER } else { OUTSIDE };
        let asked = self.call(known, "grep", json!({ "pattern": format!("^{first}$"), "path": folder })).await;
        let Judged::Done(answer) = asked else { return };
        let result = answer.json();
        let matches = result["matches"].as_array().map(Vec::as_slice).unwrap_or_default();
        let full = Path::new("/workspace").join(&path);
        let is_it = |found: &Value| found["file_path"] == *full.to_string_lossy() && found["line_number"] == 1;
        if !matches.iter().any(is_it) {
            self.finding(known, "grep", &format!("{first} is line 1 of {path}; got {}", answer.shown()));
        }
    }

    pub(super) async fn remove(&mut self, known: &mut KnownWorkspace) {
        let Some((path, _)) = self.some_certain_text(known) else { return };
        let request = self.post(known, "/files/remove", &json!({ "path": path }));
        self.change(known, "remove", request, (&path, None)).await;
    }

    /// Runs a command that prints a word and its user, and sums a file.
    pub(super) async fn bash(&mut self, known: &mut KnownWorkspace) {
        let code = self.random.random_range(0..5);
        let word = format!("{:08x}", self.random.random::<u32>());
        let certain = known.contents.files.certain().next().map(|(path, file)| (path.to_owned(), file.sha256.clone()));
        let look = certain.as_ref().map_or_else(String::new, |(path, _)| format!("sha256sum < {path} | cut -c1-64;"));
        let command = format!("echo $WORD; id -u; {look} echo oops >&2; exit {code}");
        let asked = self.call(known, "bash", json!({ "command": command, "env": { "WORD": word } })).await;
        let Judged::Done(answer) = asked else { return };
        let result = answer.json();
        let sum = certain.map_or_else(String::new, |(_, sum)| format!("{sum}\n"));
        let expected = format!("{word}\n1000\n{sum}");
        let said = text(&result, "stdout") == expected && text(&result, "stderr") == "oops\n";
        if !(said && result["exit_code"] == code || self.lost_with_reason(known, &result)) {
            self.finding(
                known,
                "bash",
                &format!("{command:?} should exit {code} with {expected:?}; got {}", answer.shown()),
            );
        }
    }

    /// Whether a result shows an execution whose sandbox ended during it, and a fault explains that.
    fn lost_with_reason(&self, known: &KnownWorkspace, result: &Value) -> bool {
        let struck = known.struck.is_some() || known.lingering().is_some() || known.has_expired();
        let stormy = !self.testbed.fault_log.since(self.server, known.looked).is_empty();
        stormy || struck && result["outcome"] == "lost"
    }

    pub(super) async fn bash_timeout(&mut self, known: &mut KnownWorkspace) {
        let from = Instant::now();
        let asked = self.call(known, "bash", json!({ "command": "echo up; sleep 60", "timeout_ms": 800 })).await;
        let Judged::Done(answer) = asked else { return };
        let (result, took) = (answer.json(), from.elapsed());
        let as_expected = result["timed_out"] == true && text(&result, "stdout") == "up\n";
        if !as_expected && !self.lost_with_reason(known, &result) {
            self.finding(known, "bash", &format!("a timeout of 0.8 s; after {took:?} got {}", answer.shown()));
        }
    }

    pub(super) async fn upload(&mut self, known: &mut KnownWorkspace) {
        let len = self.random.random_range(0..600_000);
        let mut bytes = vec![0_u8; len];
        self.random.fill(&mut bytes[..]);
        let path = self.some_path();
        let file = Some(File::blob(&bytes));
        let request = self.request(Method::PUT, known, &format!("/files/content?path={path}")).body(bytes);
        self.change(known, "upload", request, (&path, file)).await;
    }

    pub(super) async fn download_one(&mut self, known: &mut KnownWorkspace) {
        let paths: Vec<_> = known.contents.files.paths().map(str::to_owned).collect();
        let index = self.random.random_range(0..paths.len().max(1));
        let Some(path) = paths.get(index) else { return };
        self.download(known, path).await;
    }

    /// Downloads the file at a path, if there is one, and compares.
    pub(super) async fn download(&mut self, known: &mut KnownWorkspace, path: &str) {
        let request = self.request(Method::GET, known, &format!("/files/content?path={path}"));
        let Judged::Done(answer) = self.ask(known, Op::Call, "download", request).await else { return };
        let seen = match answer.problem() {
            Some("file-not-found") => None,
            Some(_) => return self.refused_by_guest(known, "download", &answer),
            None => Some(File::blob(answer.body())),
        };
        if let Err(wrong) = known.contents.files.saw(path, seen) {
            self.finding(known, "download", &wrong);
        }
    }

    pub(super) async fn burst(&mut self, known: &mut KnownWorkspace) {
        let Some((path, expected)) = self.some_certain_text(known) else { return };
        let from = Instant::now();
        let expected = sum(expected.as_bytes());
        let requests = (0..BURST).map(|_| self.post(known, "/read", &json!({ "file_path": path })));
        self.subject().census.set(&known.id, true);
        let answers = join_all(requests.map(Answer::to)).await;
        for answer in answers {
            let Judged::Done(answer) = self.judge(known, Op::Call, "read in a burst", from, answer).await else {
                continue;
            };
            let content = without_numbers(text(&answer.json(), "content"));
            if sum(content.as_bytes()) != expected {
                self.finding(known, "burst", &format!("{path} has other contents: {}", answer.shown()));
            }
        }
    }

    pub(super) async fn commit(&mut self, known: &mut KnownWorkspace) {
        if known.contents.commits.is_none() && !self.make_repository(known).await {
            return;
        }
        let message = known.fresh("commit");
        let write = json!({ "file_path": format!("repository/{message}"), "content": message });
        let Judged::Done(written) = self.call(known, "write", write).await else { return };
        if !written.is_success() {
            return self.refused_by_guest(known, "write", &written);
        }
        let body = json!({ "action": "commit", "path": "repository", "message": message });
        let doubtful = DoubtfulCommit { message, call: Uuid::new_v4().to_string(), sent: Instant::now() };
        let request = self.post(known, "/git", &body);
        let asked = self.ask_under_name(known, "git", request, &doubtful.call).await;
        let Some(commits) = &mut known.contents.commits else { return };
        match asked {
            Judged::Done(answer) if answer.is_success() => {
                // What was in doubt is known to be there or not: it was staged with this one otherwise.
                commits.certain.push(doubtful.message);
            }
            Judged::Done(answer) => {
                commits.doubtful = Some(doubtful);
                self.git_refused(known, &answer);
            }
            Judged::Open | Judged::Wrong => commits.doubtful = Some(doubtful),
            Judged::Refused => {}
        }
        if known.contents.commits.as_ref().is_some_and(|commits| commits.doubtful.is_some()) {
            // What a commit that broke off has left behind is for its owner to mend.
            let mend = json!({ "command": "rm -f .git/*.lock .git/refs/heads/*.lock", "workdir": "repository" });
            self.call(known, "bash", mend).await;
            self.log(known).await;
        }
    }

    fn git_refused(&self, known: &KnownWorkspace, answer: &Answer) {
        let stormy =
            !self.testbed.fault_log.since(self.server, known.looked - std::time::Duration::from_secs(10)).is_empty();
        if !stormy {
            self.finding(known, "git", &format!("it should succeed; got {}", answer.shown()));
        }
    }

    async fn make_repository(&mut self, known: &mut KnownWorkspace) -> bool {
        let command = "rm -rf repository && git init -q -b main repository && sync -f repository";
        let Judged::Done(answer) = self.call(known, "bash", json!({ "command": command })).await else { return false };
        let made = answer.json()["exit_code"] == 0;
        if made {
            known.contents.commits = Some(Commits::default());
        }
        made
    }

    /// The history must have every commit that was acknowledged, in order, and no other.
    pub(super) async fn log(&mut self, known: &mut KnownWorkspace) {
        if known.contents.commits.as_ref().is_none_or(|commits| commits.certain.is_empty()) {
            return;
        }
        if !self.ask_for_doubtful_commit(known).await {
            return;
        }
        let body = json!({ "action": "log", "path": "repository", "limit": 1000 });
        let Judged::Done(answer) = self.call(known, "git", body).await else { return };
        let result = answer.json();
        let Some(shown) = result["commits"].as_array() else { return self.git_refused(known, &answer) };
        let shown: Vec<String> = shown.iter().rev().map(|commit| text(commit, "subject").to_owned()).collect();
        let Some(commits) = &mut known.contents.commits else { return };
        let mut with_doubtful = commits.certain.clone();
        with_doubtful.extend(commits.doubtful.take().map(|doubtful| doubtful.message));
        if shown != commits.certain && shown != with_doubtful {
            let expected = commits.certain.clone();
            commits.certain = shown.clone();
            self.finding(known, "git", &format!("the history should be {expected:?}, and is {shown:?}"));
        } else {
            commits.certain = shown;
        }
    }

    /// Asks what came of a commit whose answer was lost. False when that is not known yet: the history may still
    /// change.
    async fn ask_for_doubtful_commit(&mut self, known: &mut KnownWorkspace) -> bool {
        let Some(doubtful) = known.contents.commits.as_ref().and_then(|commits| commits.doubtful.clone()) else {
            return true;
        };
        let Some(outcome) = self.ask_outcome(known, &doubtful.call).await else { return false };
        let Some(commits) = &mut known.contents.commits else { return true };
        match outcome["state"].as_str() {
            Some("running") => return false,
            Some("done") => {
                commits.certain.push(doubtful.message);
                commits.doubtful = None;
            }
            Some("not_begun") if is_known_since(&outcome, doubtful.sent) => commits.doubtful = None,
            // The workspace was started anew since, or git was ended: it is there or not, and that does not change.
            Some("not_begun" | "refused") => {}
            _ => self.finding(known, "outcome", &format!("it should have a state; got {outcome}")),
        }
        true
    }
}

/// The text of lines as `read` shows them, `N: text`.
fn without_numbers(content: &str) -> String {
    content.lines().map(|line| format!("{}\n", line.split_once(": ").map_or(line, |(_, text)| text))).collect()
}
