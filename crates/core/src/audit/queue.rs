//! Rows that wait to be written: bounded in all, and shared fairly.
//!
//! A row that finds the queue full takes the place of one of the project that has the most rows in it. So whoever
//! floods the queue loses rows of its own, and nobody else's.

use std::collections::{HashMap, VecDeque};

use emergent_store::{AuditRow, ProjectId};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// The most rows that wait to be written. They take a few megabytes.
const MOST: usize = 8_192;

/// Rows that wait.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    projects: HashMap<ProjectId, VecDeque<AuditRow>>,
    rows: usize,
    closed: bool,
}

// === impl Queue ===

impl Queue {
    /// Puts a row in; answers of which project a row was lost, if one was.
    pub(super) fn push(&self, row: AuditRow) -> Option<ProjectId> {
        let lost = self.lock().push(row);
        self.changed.notify_one();
        lost
    }

    /// Takes so many rows at most, of all projects in turn, the oldest of each first.
    pub(super) fn take(&self, most: usize) -> Vec<AuditRow> {
        self.lock().take(most)
    }

    /// Waits until there are rows, or there will be none: then false.
    pub(super) async fn filled(&self) -> bool {
        loop {
            {
                let waiting = self.lock();
                if waiting.rows > 0 || waiting.closed {
                    return waiting.rows > 0;
                }
            }
            // One notice is kept for whoever comes to wait after it.
            self.changed.notified().await;
        }
    }

    /// Takes no more rows.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Returns the number of rows that wait.
    pub(super) fn len(&self) -> usize {
        self.lock().rows
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }
}

// === impl Waiting ===

impl Waiting {
    fn push(&mut self, row: AuditRow) -> Option<ProjectId> {
        let project = row.project;
        if self.closed {
            return Some(project);
        }
        let lost = if self.rows < MOST { None } else { Some(self.make_room(project)) };
        if lost != Some(project) {
            self.projects.entry(project).or_default().push_back(row);
            self.rows += 1;
        }
        lost
    }

    /// Drops the newest row of the project that has the most, unless none has more than the one that asks.
    fn make_room(&mut self, asking: ProjectId) -> ProjectId {
        let own = self.projects.get(&asking).map_or(0, VecDeque::len);
        let largest = self.projects.iter_mut().max_by_key(|(_, rows)| rows.len());
        match largest {
            Some((project, rows)) if rows.len() > own => {
                rows.pop_back();
                self.rows -= 1;
                *project
            }
            Some(_) | None => asking,
        }
    }

    fn take(&mut self, most: usize) -> Vec<AuditRow> {
        let mut taken = Vec::new();
        while taken.len() < most && self.rows > 0 {
            let room = most - taken.len();
            let before = taken.len();
            taken.extend(self.projects.values_mut().filter_map(VecDeque::pop_front).take(room));
            self.rows -= taken.len() - before;
            self.projects.retain(|_, rows| !rows.is_empty());
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::{super::writer::lost_row, *};

    #[test]
    fn a_flood_of_one_project_costs_no_other_project_a_row() {
        let queue = Queue::default();
        let (quiet, loud) = (ProjectId::generate(), ProjectId::generate());
        assert_eq!(queue.push(lost_row(quiet, 0)), None);
        let lost: Vec<_> = (0..MOST + 10).filter_map(|_| queue.push(lost_row(loud, 1))).collect();
        assert_eq!(lost, vec![loud; 11]);
        for _ in 0..100 {
            assert_eq!(queue.push(lost_row(quiet, 0)), Some(loud), "the one who floods makes room");
        }
        let rows = queue.take(usize::MAX);
        assert_eq!((rows.len(), queue.len()), (MOST, 0));
        assert_eq!(rows.iter().filter(|row| row.project == quiet).count(), 101);
    }

    #[test]
    fn rows_are_taken_of_all_projects_in_turn() {
        let queue = Queue::default();
        let (quiet, loud) = (ProjectId::generate(), ProjectId::generate());
        assert!((0..500).all(|_| queue.push(lost_row(loud, 1)).is_none()));
        queue.push(lost_row(quiet, 0));
        assert!(queue.take(2).iter().any(|row| row.project == quiet));
        assert_eq!(queue.len(), 499);
    }

    #[tokio::test]
    async fn whoever_waits_learns_that_there_will_be_no_more() {
        let queue = Queue::default();
        queue.push(lost_row(ProjectId::generate(), 0));
        queue.close();
        assert!(queue.filled().await);
        queue.take(1);
        assert!(!queue.filled().await);
        let late = ProjectId::generate();
        assert_eq!(queue.push(lost_row(late, 0)), Some(late));
    }
}
