//! Names of sandboxes.

emergent_provider::uuid_newtype!(
    /// Names a sandbox, in every path, URL and record. A workspace's sandbox has the workspace's id.
    SandboxId
);
