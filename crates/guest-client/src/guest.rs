//! The client of one guest, and the calls that are a question and an answer.

use std::sync::Arc;

use emergent_guest_proto::{
    CallId, Configuration, Hello, LastEnd, Route, Usage,
    machine::Restored,
    tools::{
        EditRequest, EditResult, GitRequest, GitResult, GlobRequest, GlobResult, GrepRequest, GrepResult, ReadRequest,
        ReadResult, WriteRequest, WriteResult,
    },
};
use emergent_provider::ByteStream;

use crate::{
    GuestCallError, Open,
    call::{Call, QUICK, THOROUGH},
    connection::Purpose,
    limits,
    reconnector::Reconnector,
};

/// The client of one guest. Clones share its connections.
#[derive(Clone)]
pub struct Guest {
    pub(crate) calls: Arc<Reconnector>,
    pub(crate) bulk: Arc<Reconnector>,
}

// === impl Guest ===

impl Guest {
    /// A client that opens its connections through `opener`, the first on `first` if there is one. Does nothing until
    /// it is called.
    pub fn new(opener: Arc<dyn Open>, first: Option<ByteStream>) -> Self {
        let calls = Reconnector::new(Arc::clone(&opener), Purpose::Calls, first);
        let bulk = Reconnector::new(opener, Purpose::Bulk, None);
        Self { calls: Arc::new(calls), bulk: Arc::new(bulk) }
    }

    /// Closes all connections, so that no PING fails while the workspace is paused. Later calls open them again.
    pub fn suspend(&self) {
        self.calls.reset(None);
        self.bulk.reset(None);
    }

    /// Forgets all connections and uses `stream` for the next: after a start, which made a new one.
    pub fn set_first_channel(&self, stream: ByteStream) {
        self.calls.reset(Some(stream));
        self.bulk.reset(None);
    }

    /// Closes all connections for good. Calls fail from now on.
    pub fn close(&self) {
        self.calls.close();
        self.bulk.close();
    }

    /// The guest's greeting on the newest connection to it. Its `boot_id` changes when the guest restarts.
    pub fn last_hello(&self) -> Option<Arc<Hello>> {
        self.calls.last_hello()
    }

    /// Asks whether the guest is there, and what it is.
    ///
    /// # Errors
    /// As for every call here: see [`GuestCallError`].
    pub async fn hello(&self) -> Result<Hello, GuestCallError> {
        Call::to(Route::Hello).within(QUICK).for_json(&self.calls).await
    }

    /// Returns the workspace's present usage.
    pub async fn usage(&self) -> Result<Usage, GuestCallError> {
        Call::to(Route::Usage).within(QUICK).for_json(&self.calls).await
    }

    /// Makes the sandbox somebody's workspace. Repeating it changes nothing.
    ///
    /// # Errors
    /// As for every call here; the sandbox must not be given away then.
    pub async fn configure(&self, configuration: &Configuration) -> Result<(), GuestCallError> {
        Call::to(Route::Configure).json(configuration)?.repeatable().within(QUICK).for_nothing(&self.calls).await
    }

    /// Tells a guest that was started again why its workspace had ended. Repeating it changes nothing.
    pub async fn last_end(&self, last_end: &LastEnd) -> Result<(), GuestCallError> {
        Call::to(Route::LastEnd).json(last_end)?.repeatable().within(QUICK).for_nothing(&self.calls).await
    }

    /// Tells the guest of a machine that was restored, before anything else is asked of it. Its `boot_id` is another
    /// one afterwards if the machine is a copy.
    ///
    /// # Errors
    /// As for every call here; the machine must not be used then.
    pub async fn restored(&self, restored: &Restored) -> Result<Hello, GuestCallError> {
        Call::to(Route::Restored).json(restored)?.repeatable().within(QUICK).for_json(&self.calls).await
    }

    /// Ends all processes in order and then the guest itself.
    pub async fn shutdown(&self) -> Result<(), GuestCallError> {
        Call::to(Route::Shutdown).for_nothing(&self.calls).await
    }

    /// Shows a file or a directory.
    pub async fn read(&self, request: &ReadRequest) -> Result<ReadResult, GuestCallError> {
        Call::to(Route::Read).json(request)?.repeatable().answers(limits::READ).for_json(&self.calls).await
    }

    /// Writes a whole file, atomically.
    pub async fn write(&self, id: &CallId, request: &WriteRequest) -> Result<WriteResult, GuestCallError> {
        self.change(id, Call::to(Route::Write).json(request)?).await
    }

    /// Replaces text in a file.
    pub async fn edit(&self, id: &CallId, request: &EditRequest) -> Result<EditResult, GuestCallError> {
        self.change(id, Call::to(Route::Edit).json(request)?).await
    }

    /// Finds files by name.
    pub async fn glob(&self, request: &GlobRequest) -> Result<GlobResult, GuestCallError> {
        Call::to(Route::Glob)
            .json(request)?
            .repeatable()
            .within(THOROUGH)
            .answers(limits::GLOB)
            .for_json(&self.calls)
            .await
    }

    /// Searches the contents of files.
    pub async fn grep(&self, request: &GrepRequest) -> Result<GrepResult, GuestCallError> {
        Call::to(Route::Grep)
            .json(request)?
            .repeatable()
            .within(THOROUGH)
            .answers(limits::GREP)
            .for_json(&self.calls)
            .await
    }

    /// Works with a git repository.
    pub async fn git(&self, id: &CallId, request: &GitRequest) -> Result<GitResult, GuestCallError> {
        let call = Call::to(Route::Git).json(request)?.within(THOROUGH).answers(limits::GIT);
        match request.action.changes_something() {
            true => self.change(id, call).await,
            false => call.repeatable().for_json(&self.calls).await,
        }
    }
}
