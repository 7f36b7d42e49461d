//! Ids of rows that no engine knows.

emergent_types::uuid_newtype!(
    /// Names a project, which owns rows.
    ProjectId
);
emergent_types::uuid_newtype!(
    /// Names an access token; not a secret.
    TokenId
);
emergent_types::uuid_newtype!(
    /// Names an action in the audit.
    AuditId
);
emergent_types::uuid_newtype!(
    /// Names one attachment of an agent to a workspace; not a secret.
    SessionId
);
