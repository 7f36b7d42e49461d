//! The refusals of the guest, as problems.

use emergent_guest_proto::{ErrorCode, GuestError};

use super::{FieldError, ProblemKind, Refusal};

impl From<GuestError> for Refusal {
    fn from(error: GuestError) -> Self {
        let GuestError { code, message, field, path } = error;
        let kind = kind_of(code);
        let mut refusal = Self::new(kind, message.clone()).with_path(path);
        if let Some(field) = field {
            refusal.problem.errors.push(FieldError { field, message });
        }
        if kind == ProblemKind::ResourceLimit { refusal.retry_after(1) } else { refusal }
    }
}

fn kind_of(code: ErrorCode) -> ProblemKind {
    match code {
        ErrorCode::InvalidRequest => ProblemKind::InvalidRequest,
        ErrorCode::NotFound => ProblemKind::FileNotFound,
        ErrorCode::UnknownExecution => ProblemKind::UnknownExecution,
        ErrorCode::ExecutionExists => ProblemKind::ExecutionExists,
        ErrorCode::CallExists => ProblemKind::CallExists,
        ErrorCode::NotRunning => ProblemKind::NotRunning,
        ErrorCode::IsDirectory => ProblemKind::IsDirectory,
        ErrorCode::NotADirectory => ProblemKind::NotADirectory,
        ErrorCode::AlreadyExists => ProblemKind::AlreadyExists,
        ErrorCode::PermissionDenied => ProblemKind::PermissionDenied,
        ErrorCode::StringNotFound => ProblemKind::StringNotFound,
        ErrorCode::SeveralMatches => ProblemKind::SeveralMatches,
        ErrorCode::ContentChanged => ProblemKind::ContentChanged,
        ErrorCode::BinaryFile => ProblemKind::BinaryFile,
        ErrorCode::TooLarge => ProblemKind::TooLarge,
        ErrorCode::ArgumentsTooLong => ProblemKind::ArgumentsTooLong,
        ErrorCode::DiskFull => ProblemKind::DiskFull,
        ErrorCode::ResourceLimit => ProblemKind::ResourceLimit,
        ErrorCode::MissingProgram => ProblemKind::MissingProgram,
        ErrorCode::GitFailed => ProblemKind::GitFailed,
        ErrorCode::Unsupported => ProblemKind::GuestOutdated,
        ErrorCode::Internal | ErrorCode::Unknown => ProblemKind::GuestFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_guest_error_has_the_status_that_the_protocol_names() {
        let words = [
            "invalid_request",
            "not_found",
            "unknown_execution",
            "execution_exists",
            "call_exists",
            "not_running",
            "is_directory",
            "not_a_directory",
            "already_exists",
            "permission_denied",
            "string_not_found",
            "several_matches",
            "binary_file",
            "too_large",
            "disk_full",
            "resource_limit",
            "missing_program",
            "git_failed",
            "unsupported",
            "internal",
            "a_word_of_a_newer_guest",
        ];
        for word in words {
            let code: ErrorCode = serde_json::from_value(word.into()).unwrap();
            assert_eq!(kind_of(code).status().as_u16(), code.status(), "{word}");
        }
    }
}
