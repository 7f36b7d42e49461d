//! The refusal of bytes, or of a call.

/// The reason for which bytes cannot be held, or a call cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// The project's share is used up by its other requests.
    #[error(
        "the project's other requests hold all of the {0} bytes that it may hold at once; try again when some have ended"
    )]
    Project(usize),
    /// The server's budget is used up.
    #[error("other requests hold all of the {0} bytes that the server may hold at once; try again in a moment")]
    Server(usize),
    /// The project has as many calls under way as it may have.
    #[error(
        "the project has {0} calls under way, and may have no more at once; try again when some have ended, or ask the \
         operator to raise EMERGENT_MAX_CONNECTIONS, of which a project's calls may be a quarter"
    )]
    Calls(usize),
}
