//! The executions that the guest knows, within bounds.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use emergent_guest_proto::{ErrorCode, ExecutionId, GuestError};

use super::execution::Run;

/// At most so many run at once.
const MAX_RUNNING: usize = 1_000;

/// So many that have ended are remembered.
const MAX_FINISHED: usize = 1_000;

/// The executions by id.
#[derive(Debug, Default)]
pub(super) struct Table {
    runs: HashMap<ExecutionId, Arc<Run>>,
    /// Those that have ended, in the order of their end.
    finished: VecDeque<ExecutionId>,
    /// The ids of those whose files are being removed.
    leaving: HashSet<ExecutionId>,
}

impl Table {
    /// A table of executions that have ended, oldest first.
    pub(super) fn of(runs: Vec<Run>) -> Self {
        let mut table = Self::default();
        for run in runs {
            table.finished.push_back(run.id.clone());
            table.runs.insert(run.id.clone(), Arc::new(run));
        }
        table
    }

    /// Adds one that starts.
    ///
    /// # Errors
    /// `execution_exists` or `resource_limit`.
    pub(super) fn insert(&mut self, run: Arc<Run>) -> Result<(), GuestError> {
        if self.runs.contains_key(&run.id) || self.leaving.contains(&run.id) {
            let message = format!("an execution with the id {} exists; wait for it, or choose another id", run.id);
            return Err(GuestError::new(ErrorCode::ExecutionExists, message).with_field("execution_id"));
        }
        if self.runs.len() - self.finished.len() >= MAX_RUNNING {
            let message = format!("{MAX_RUNNING} executions are running; wait for some to end, or cancel some");
            return Err(GuestError::new(ErrorCode::ResourceLimit, message));
        }
        self.runs.insert(run.id.clone(), run);
        Ok(())
    }

    /// Takes out one that could not start.
    pub(super) fn remove(&mut self, id: &ExecutionId) {
        self.runs.remove(id);
    }

    /// Notes that one has ended; returns those to forget, whose ids are taken until they are [free](Self::free).
    pub(super) fn finished(&mut self, id: &ExecutionId) -> Vec<ExecutionId> {
        self.finished.push_back(id.clone());
        let excess = self.finished.len().saturating_sub(MAX_FINISHED);
        let forgotten: Vec<_> = self.finished.drain(..excess).collect();
        for id in &forgotten {
            self.runs.remove(id);
        }
        self.leaving.extend(forgotten.iter().cloned());
        forgotten
    }

    /// Gives the id of a forgotten one away.
    pub(super) fn free(&mut self, id: &ExecutionId) {
        self.leaving.remove(id);
    }

    /// The execution of this id.
    pub(super) fn get(&self, id: &ExecutionId) -> Option<Arc<Run>> {
        self.runs.get(id).cloned()
    }

    /// All, by their start.
    pub(super) fn newest_first(&self) -> Vec<Arc<Run>> {
        let mut runs: Vec<_> = self.runs.values().cloned().collect();
        runs.sort_by(|one, other| other.started_at_ms.cmp(&one.started_at_ms).then_with(|| other.id.cmp(&one.id)));
        runs
    }
}
