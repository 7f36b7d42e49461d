//! The ids of sandboxes.

emergent_types::uuid_newtype!(
    /// The id of a sandbox, in every path, URL and record. A workspace's sandbox has the workspace's id.
    SandboxId
);
