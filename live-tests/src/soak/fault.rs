//! The kinds of faults, and the refusals that each excuses while it lasts.

use super::answer::Answer;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal;)+) => {
        /// A thing that is broken on purpose.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl Fault {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The fault's name in the summary.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }
        }
    };
}

faults! {
    /// `docker kill` of a workspace's container, behind the server's back.
    ContainerKilled = "docker kill";
    /// `docker rm --force` of a workspace's container.
    ContainerRemoved = "docker rm --force";
    /// `docker pause` of a workspace's container.
    PausedBehind = "docker pause";
    /// `docker unpause` of a paused workspace's container.
    UnpausedBehind = "docker unpause";
    /// SIGKILL of the process through which the engine watches over a workspace's container.
    ShimKilled = "shim SIGKILL";
    /// A command in the workspace asks for more memory than its limit.
    OutOfMemory = "guest out of memory";
    /// A client that follows output goes away in the middle.
    StreamCut = "output stream cut";
    /// A client that uploads goes away in the middle.
    UploadCut = "upload cut";
    /// All connections of a server to the engine broken, and with them its channels to guests, while changes are under
    /// way; some times in a row.
    ChannelsCut = "channels cut";
    /// SIGKILL of dockerd, and a new one started.
    EngineKilled = "dockerd SIGKILL";
    /// SIGKILL of a server, and a new one started.
    ServerKilled = "server SIGKILL";
    /// SIGTERM of a server, and a new one started.
    ServerTerminated = "server SIGTERM";
    /// SIGSTOP of a server, and SIGCONT some seconds later.
    ServerFrozen = "server SIGSTOP";
    /// The disk that the engine and the servers share has no space left.
    DiskFull = "disk full";
    /// PostgreSQL stopped, and started again some seconds later.
    DatabaseStopped = "PostgreSQL stopped";
}

/// The refusals that a call may get while its workspace's sandbox is going down.
const SANDBOX_ENDS: &[(u16, &str)] = &[
    (502, "call-interrupted"),
    (502, "engine-refused"),
    (503, "workspace-unreachable"),
    (504, "call-timed-out"),
    (422, "snapshot-failed"),
    (409, "wrong-state"),
    (409, "workspace-ended"),
];

// === impl Fault ===

impl Fault {
    /// Whether rows may be behind the events while the fault lasts: data that the store did not take is recorded later.
    pub fn delays_rows(self) -> bool {
        matches!(self, Self::DiskFull | Self::DatabaseStopped)
    }

    /// Whether a sandbox, with all that runs in it, may end with the fault.
    fn ends_sandboxes(self) -> bool {
        matches!(
            self,
            Self::ContainerKilled | Self::ContainerRemoved | Self::ShimKilled | Self::OutOfMemory | Self::EngineKilled
        )
    }

    /// Whether the fault explains an answer as bad as this one. The operation may then have happened in part.
    pub fn excuses(self, answer: &Answer) -> bool {
        if matches!(answer, Answer::Cut(_)) && (self.ends_sandboxes() || self == Self::ChannelsCut) {
            return true;
        }
        let refusals: &[(u16, &str)] = match self {
            Self::ContainerKilled | Self::ContainerRemoved | Self::ShimKilled | Self::OutOfMemory => SANDBOX_ENDS,
            Self::PausedBehind | Self::UnpausedBehind => &[
                (409, "wrong-state"),
                (409, "workspace-ended"),
                (503, "workspace-unreachable"),
                (504, "call-timed-out"),
                (502, "call-interrupted"),
            ],
            Self::StreamCut | Self::UploadCut => &[],
            // No sandbox ends with it: nobody is told that one has.
            Self::ChannelsCut => &[
                (503, "engine-unavailable"),
                (503, "no-provider"),
                (503, "workspace-unreachable"),
                (502, "call-interrupted"),
                (422, "workspace-failed"),
                (422, "snapshot-failed"),
                (409, "wrong-state"),
            ],
            Self::EngineKilled => &[
                (503, "engine-unavailable"),
                (503, "no-provider"),
                (503, "workspace-unreachable"),
                (502, "call-interrupted"),
                (502, "engine-refused"),
                (504, "call-timed-out"),
                (422, "workspace-failed"),
                (422, "snapshot-failed"),
                (409, "snapshot-unusable"),
                (409, "wrong-state"),
                (409, "workspace-ended"),
            ],
            // A new server takes calls as soon as it has put in order what the old one left.
            Self::ServerKilled | Self::ServerTerminated => {
                if matches!(answer, Answer::Nothing(_) | Answer::Cut(_)) {
                    return true;
                }
                &[
                    (503, "not-ready"),
                    (503, "workspace-unreachable"),
                    (502, "call-interrupted"),
                    (409, "wrong-state"),
                    (409, "workspace-ended"),
                ]
            }
            // It answers late. Its clock went on meanwhile: a wait of a few seconds may be over when it goes on.
            Self::ServerFrozen => &[(503, "store-unavailable")],
            Self::DiskFull => &[
                (507, "disk-full"),
                (507, "host-disk-full"),
                (503, "store-unavailable"),
                (503, "workspace-unreachable"),
                (502, "engine-refused"),
                (502, "call-interrupted"),
                (422, "workspace-failed"),
                (422, "snapshot-failed"),
                (409, "wrong-state"),
                (409, "workspace-ended"),
            ],
            Self::DatabaseStopped => &[
                (503, "store-unavailable"),
                (503, "not-ready"),
                (422, "workspace-failed"),
                (422, "snapshot-failed"),
                (409, "wrong-state"),
            ],
        };
        let Answer::Reply { status, problem: Some(problem), .. } = answer else { return false };
        refusals.iter().any(|(code, slug)| code == status && slug == problem)
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;
    use crate::soak::answer::example;

    #[test]
    fn a_channel_that_is_cut_explains_no_end_of_a_sandbox() {
        let interrupted = example(StatusCode::BAD_GATEWAY, Some("call-interrupted"));
        let ended = example(StatusCode::CONFLICT, Some("workspace-ended"));
        assert!(Fault::ChannelsCut.excuses(&interrupted) && !Fault::ChannelsCut.excuses(&ended));
        assert!(Fault::ShimKilled.excuses(&interrupted) && Fault::ShimKilled.excuses(&ended));
    }
}
