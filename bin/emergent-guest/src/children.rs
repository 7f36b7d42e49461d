//! Children: long-lived processes whose standard input and output outlive the clients attached to them.
//!
//! Each child has three tasks: one reads its output into memory, one its standard error, one waits for its end. Readers
//! and writers come and go with the streams of [`attach`]; a new one takes the place of the previous one.

pub mod attach;
pub mod child;
pub mod ring;
pub mod tunnel;
pub mod unread;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use emergent_guest_proto::{
    ChildId, ErrorCode, GuestError,
    child::{MAX_BUFFER, MAX_CHILDREN, NOTE_LIMIT, SpawnChild},
    execution::Program,
};
use parking_lot::{Mutex, MutexGuard};

use self::child::Child;
use crate::{credentials, executions::Executions, failure::invalid, process::launch};

/// The time that a child has between SIGTERM and SIGKILL when the guest itself ends.
const LAST_GRACE: Duration = Duration::from_secs(3);

/// All children of the sandbox.
#[derive(Debug, Default)]
pub struct Children {
    table: Mutex<BTreeMap<ChildId, Slot>>,
}

/// A place in the table. It is reserved before the process is made, so that two calls never make two processes.
#[derive(Debug)]
enum Slot {
    Starting,
    Made(Arc<Child>),
}

/// A child to start, whose program, variables, note and buffer have been checked.
#[derive(Debug)]
pub struct ChildOrder {
    program: Program,
    request: SpawnChild,
}

// === impl Children ===

impl Children {
    /// Starts a child in a directory; returns when its program runs. The caller has checked that the order's user is
    /// permitted.
    ///
    /// # Errors
    /// `execution_exists`, `resource_limit`, or the reason why no process could be made.
    pub async fn spawn(
        self: &Arc<Self>,
        executions: Arc<Executions>,
        workdir: PathBuf,
        order: ChildOrder,
    ) -> Result<Arc<Child>, GuestError> {
        self.take_place(&order.request.child_id)?;
        // A task of its own, so that a caller that vanishes leaves nothing half made.
        let children = Arc::clone(self);
        let made = tokio::spawn(async move {
            let id = order.request.child_id.clone();
            let made = make(executions, workdir, order).await;
            let mut table = children.table();
            match &made {
                Ok(child) => table.insert(id, Slot::Made(Arc::clone(child))),
                Err(_) => table.remove(&id),
            };
            made
        });
        made.await.map_err(|error| GuestError::new(ErrorCode::Internal, error.to_string()))?
    }

    /// Returns the child of this id.
    ///
    /// # Errors
    /// `unknown_execution`.
    pub fn get(&self, id: &ChildId) -> Result<Arc<Child>, GuestError> {
        match self.table().get(id) {
            Some(Slot::Made(child)) => Ok(Arc::clone(child)),
            Some(Slot::Starting) | None => Err(unknown(id)),
        }
    }

    /// Returns all children, the oldest first.
    pub fn list(&self) -> Vec<Arc<Child>> {
        let mut children: Vec<_> = self.table().values().filter_map(Slot::child).collect();
        children.sort_by_key(|child| child.started_at_ms);
        children
    }

    /// Forgets a child that has ended.
    ///
    /// # Errors
    /// `unknown_execution`, or `execution_exists` while it runs.
    pub fn forget(&self, id: &ChildId) -> Result<(), GuestError> {
        let mut table = self.table();
        match table.get(id) {
            None | Some(Slot::Starting) => Err(unknown(id)),
            Some(Slot::Made(child)) if child.exit().is_none() => {
                let message = format!("the child {id} runs; end it first");
                Err(GuestError::new(ErrorCode::ExecutionExists, message))
            }
            Some(Slot::Made(_)) => {
                table.remove(id);
                Ok(())
            }
        }
    }

    /// Ends every child and waits for the ends.
    pub async fn shut_down(&self) {
        let ends = self.list().into_iter().map(|child| async move { child.end(Duration::ZERO, LAST_GRACE).await });
        futures::future::join_all(ends).await;
    }

    fn take_place(&self, id: &ChildId) -> Result<(), GuestError> {
        let mut table = self.table();
        if table.contains_key(id) {
            let message = format!("there is a child {id} already");
            return Err(GuestError::new(ErrorCode::ExecutionExists, message).with_field("child_id"));
        }
        if table.len() >= MAX_CHILDREN {
            let message = format!("there are {MAX_CHILDREN} children; end or forget some");
            return Err(GuestError::new(ErrorCode::ResourceLimit, message));
        }
        table.insert(id.clone(), Slot::Starting);
        Ok(())
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<ChildId, Slot>> {
        self.table.lock()
    }
}

// === impl ChildOrder ===

impl ChildOrder {
    /// Checks a request.
    ///
    /// # Errors
    /// An error for the part of the request that is invalid.
    pub fn check(request: SpawnChild) -> Result<Self, GuestError> {
        let program = Program::Argv(request.argv.clone());
        launch::check(&program, &request.env)?;
        check_note(&request.note)?;
        if !(1..=MAX_BUFFER).contains(&request.buffer) {
            return Err(invalid("buffer", format!("the buffer must be from 1 to {MAX_BUFFER} bytes")));
        }
        Ok(Self { program, request })
    }

    /// The request.
    pub fn request(&self) -> &SpawnChild {
        &self.request
    }
}

// === impl Slot ===

impl Slot {
    fn child(&self) -> Option<Arc<Child>> {
        if let Self::Made(child) = self { Some(Arc::clone(child)) } else { None }
    }
}

async fn make(executions: Arc<Executions>, workdir: PathBuf, order: ChildOrder) -> Result<Arc<Child>, GuestError> {
    let ChildOrder { program, request } = order;
    // The descriptors belong to this runtime, so they are registered here; only the launch blocks.
    let (plan, inner) = child::Pipes::make().map_err(child::setup_failed)?;
    let made = credentials::blocking(move || inner.launch(executions.launcher(), &program, &workdir, request)).await?;
    Ok(Child::begin(made, plan))
}

/// Checks a note.
///
/// # Errors
/// `too_large`.
pub fn check_note(note: &str) -> Result<(), GuestError> {
    if note.len() > NOTE_LIMIT {
        let message = format!("a note has at most {NOTE_LIMIT} bytes");
        return Err(GuestError::new(ErrorCode::TooLarge, message).with_field("note"));
    }
    Ok(())
}

fn unknown(id: &ChildId) -> GuestError {
    GuestError::new(ErrorCode::UnknownExecution, format!("there is no child {id}"))
}
