//! Tests of the journal as the next guest reads it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use super::{writer::COMPACT_AFTER, *};

fn id(text: impl ToString) -> ExecutionId {
    ExecutionId::new(text.to_string()).unwrap()
}

fn started(text: impl ToString) -> Line {
    Line::Started(Started { id: id(text), command: "true".into(), pid: 7, started_at_ms: 1 })
}

fn ended(text: impl ToString, code: i32) -> Line {
    let ending = Ending { outcome: Outcome::Exited, exit_code: Some(code), reason: None, ..ending_of_lost() };
    Line::Ended { id: id(text), ending }
}

fn journal_of(directory: &Path, lines: impl IntoIterator<Item = Line>) -> PathBuf {
    let path = directory.join("journal");
    let (journal, _) = Journal::open(&path).unwrap();
    journal.keep(lines.into_iter());
    path
}

/// Ids and exit codes, as the next guest knows them.
fn codes(path: &Path) -> Vec<(String, Option<i32>)> {
    let (journal, remembered) = Journal::open(path).unwrap();
    journal.flush();
    let code = |run: &Run| (run.id.to_string(), run.ending().unwrap().exit_code);
    remembered.runs.iter().map(code).collect()
}

#[test]
fn what_had_not_ended_is_lost_and_what_is_forgotten_stays_so() {
    let directory = tempfile::tempdir().unwrap();
    let forgotten = Line::Forgotten { id: id("a") };
    let path = journal_of(directory.path(), [started("a"), started("b"), started("c"), ended("b", 3), forgotten]);
    for lost in [vec![id("c")], vec![]] {
        let (journal, remembered) = Journal::open(&path).unwrap();
        journal.flush();
        assert_eq!(remembered.lost, lost);
        let endings = remembered.runs.iter().map(|run| (run.id.as_str(), run.ending().unwrap().outcome));
        assert_eq!(endings.collect::<Vec<_>>(), [("b", Outcome::Exited), ("c", Outcome::Lost)]);
    }
}

#[test]
fn an_id_that_is_used_again_stands_where_it_started_last() {
    let directory = tempfile::tempdir().unwrap();
    let lines = [started("a"), ended("a", 1), started("b"), ended("b", 2), Line::Forgotten { id: id("a") }];
    let path = journal_of(directory.path(), lines.into_iter().chain([started("a"), ended("a", 3)]));
    assert_eq!(codes(&path), [("b".to_owned(), Some(2)), ("a".to_owned(), Some(3))]);
}

#[test]
fn a_record_that_is_cut_anywhere_costs_only_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = journal_of(directory.path(), [started("a"), ended("a", 1), started("b"), ended("b", 2)]);
    let whole = fs::read(&path).unwrap();
    let mut last = Vec::new();
    record::add(&mut last, &ended("b", 2)).unwrap();
    for cut in whole.len() - last.len()..whole.len() - 1 {
        fs::write(&path, &whole[..cut]).unwrap();
        let (journal, _) = Journal::open(&path).unwrap();
        journal.keep([started("c"), ended("c", 3)].into_iter());
        let expected = [("a".to_owned(), Some(1)), ("b".to_owned(), None), ("c".to_owned(), Some(3))];
        assert_eq!(codes(&path), expected, "cut after {cut} bytes");
    }
}

#[test]
fn a_byte_that_changed_or_a_block_that_was_never_written_costs_only_the_records_it_is_in() {
    let directory = tempfile::tempdir().unwrap();
    let lines = ["a", "b", "c"].into_iter().flat_map(|name| [started(name), ended(name, 1)]);
    let path = journal_of(directory.path(), lines);
    let whole = fs::read(&path).unwrap();
    let mut first_two = Vec::new();
    for line in [started("a"), ended("a", 1)] {
        record::add(&mut first_two, &line).unwrap();
    }
    // Within the record of the start of b, and so within what would be valid JSON all the same.
    let at = first_two.len() + whole[first_two.len()..].iter().position(|byte| *byte == b'7').unwrap();
    let of_others = [("a".to_owned(), Some(1)), ("c".to_owned(), Some(1))];
    for damage in [b"8".as_slice(), b"\n", b"\0\0\0\0", b"}"] {
        let mut damaged = whole.clone();
        damaged[at..at + damage.len()].copy_from_slice(damage);
        fs::write(&path, damaged).unwrap();
        assert_eq!(codes(&path), of_others, "{damage:?}");
    }
}

#[test]
fn journals_of_guests_of_before_are_read_and_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut file = fs::File::create(&path).unwrap();
    for line in [started("a"), ended("a", 4), started("b")] {
        serde_json::to_writer(&mut file, &line).unwrap();
        file.write_all(b"\n").unwrap();
    }
    file.write_all(b"{\"event\":\"star").unwrap();
    let (journal, remembered) = Journal::open(&path).unwrap();
    assert_eq!(remembered.lost, [id("b")]);
    journal.keep([started("c"), ended("c", 5)].into_iter());
    let expected = [("a".to_owned(), Some(4)), ("b".to_owned(), None), ("c".to_owned(), Some(5))];
    assert_eq!(codes(&path), expected);
}

#[test]
fn the_journal_does_not_grow_without_bound() {
    let directory = tempfile::tempdir().unwrap();
    let kept = [started("kept"), ended("kept", 6)];
    let lines = (0..COMPACT_AFTER).flat_map(|number| [started(number), Line::Forgotten { id: id(number) }]);
    let path = journal_of(directory.path(), kept.into_iter().chain(lines));
    assert!(fs::metadata(&path).unwrap().len() < 150 * COMPACT_AFTER as u64);
    assert_eq!(codes(&path), [("kept".to_owned(), Some(6))]);
}
