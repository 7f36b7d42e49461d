//! Ids that more than one crate speaks of.

/// A newtype over a UUID, with text in both directions. For the ids of other crates too.
#[macro_export]
macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(::uuid::Uuid);

        impl $name {
            /// A new id; ids made later sort later (UUID version 7).
            #[must_use]
            pub fn generate() -> Self {
                Self(::uuid::Uuid::now_v7())
            }

            /// The id as a UUID.
            pub fn as_uuid(self) -> ::uuid::Uuid {
                self.0
            }
        }

        impl ::std::convert::From<::uuid::Uuid> for $name {
            fn from(uuid: ::uuid::Uuid) -> Self {
                Self(uuid)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(self.0.as_hyphenated(), f)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = ::uuid::Error;

            fn from_str(text: &str) -> Result<Self, ::uuid::Error> {
                ::uuid::Uuid::try_parse(text).map(Self)
            }
        }
    };
}

uuid_newtype!(
    /// Names a sandbox, in labels and names of the engine: of a workspace, of a hosted MCP server, or of the warm pool.
    SandboxId
);
/// Names a workspace, in every table and URL. A workspace and its sandbox have the same id.
pub type WorkspaceId = SandboxId;

uuid_newtype!(
    /// Names a snapshot of a workspace.
    SnapshotId
);
uuid_newtype!(
    /// Names an installation of the server: whose containers are whose on a Docker host that several share.
    ServerId
);
