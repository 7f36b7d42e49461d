//! Gates at the steps of the engine and of its guests: whoever comes to a closed one waits there until it is opened for
//! all, or for one workspace.

use std::collections::{BTreeMap, BTreeSet};

use emergent_types::WorkspaceId;
use tokio::sync::watch;

/// The gates; clones are the same ones.
#[derive(Clone, Default)]
pub(crate) struct Gates(watch::Sender<State>);

#[derive(Default)]
struct State {
    closed: BTreeSet<&'static str>,
    /// Closed gates that are open for a workspace.
    passes: BTreeSet<(WorkspaceId, &'static str)>,
    /// The number of calls that wait at a gate for a workspace.
    waiting: BTreeMap<(WorkspaceId, &'static str), usize>,
}

/// Somebody who waits, until this is dropped.
struct Waiting<'a>(&'a Gates, (WorkspaceId, &'static str));

// === impl Gates ===

impl Gates {
    /// Closes the gate before a step.
    pub(crate) fn close(&self, step: &'static str) {
        self.0.send_modify(|state| {
            state.closed.insert(step);
        });
    }

    /// Opens the gate before a step.
    pub(crate) fn open(&self, step: &'static str) {
        self.0.send_modify(|state| {
            state.closed.remove(step);
        });
    }

    /// Opens the gate before a step for one workspace, for good.
    pub(crate) fn open_for(&self, workspace: WorkspaceId, step: &'static str) {
        self.0.send_modify(|state| {
            state.passes.insert((workspace, step));
        });
    }

    /// Returns the closed gates at which somebody waits for a workspace.
    pub(crate) fn waiting(&self, workspace: WorkspaceId) -> BTreeSet<&'static str> {
        let state = self.0.borrow();
        let here = state.waiting.keys().filter(|(of, step)| *of == workspace && !state.is_open(workspace, step));
        here.map(|(_, step)| *step).collect()
    }

    /// Passes the gate before a step, once it is open.
    pub(crate) async fn pass(&self, workspace: WorkspaceId, step: &'static str) {
        let mut state = self.0.subscribe();
        let waiting = Waiting::new(self, (workspace, step));
        // The sender is this one's own.
        drop(state.wait_for(|state| state.is_open(workspace, step)).await);
        drop(waiting);
    }
}

// === impl State ===

impl State {
    fn is_open(&self, workspace: WorkspaceId, step: &'static str) -> bool {
        !self.closed.contains(step) || self.passes.contains(&(workspace, step))
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn new(gates: &'a Gates, at: (WorkspaceId, &'static str)) -> Self {
        gates.0.send_modify(|state| *state.waiting.entry(at).or_default() += 1);
        Self(gates, at)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| {
            if let Some(count) = state.waiting.get_mut(&self.1) {
                *count -= 1;
                if *count == 0 {
                    state.waiting.remove(&self.1);
                }
            }
        });
    }
}
