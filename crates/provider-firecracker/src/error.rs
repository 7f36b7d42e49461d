//! The translation of a manager's errors into those of the provider's callers.

use emergent_provider::{ChannelError, CreateError, OperationError};

use crate::manager::{Manager, ManagerError};

/// A failed step of a create.
pub(crate) fn create_error(manager: &dyn Manager, step: &'static str, error: ManagerError) -> CreateError {
    let engine = manager.name();
    match error {
        ManagerError::Down { advice, source } => CreateError::EngineUnavailable { engine, advice, source },
        error => CreateError::Refused { engine, step, source: Box::new(error) },
    }
}

/// A failed operation.
pub(crate) fn operation_error(manager: &dyn Manager, operation: &'static str, error: ManagerError) -> OperationError {
    let engine = manager.name();
    match error {
        ManagerError::Down { advice, source } => OperationError::EngineUnavailable { engine, advice, source },
        ManagerError::NotFound(_) => OperationError::Gone,
        error => OperationError::Refused { engine, operation, source: Box::new(error) },
    }
}

/// A channel that could not be opened.
pub(crate) fn channel_error(manager: &dyn Manager, error: ManagerError) -> ChannelError {
    let engine = manager.name();
    match error {
        ManagerError::Down { advice, source } => ChannelError::EngineUnavailable { engine, advice, source },
        ManagerError::NotFound(_) | ManagerError::WrongState(_) => ChannelError::NotRunning,
        error @ ManagerError::Refused(_) => ChannelError::Refused { engine, source: Box::new(error) },
    }
}
