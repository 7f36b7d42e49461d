//! The steps of hosting, named so that a crash can be tested at each. Operations on the sandbox as a whole pass the
//! provider's own steps as well.

emergent_types::steps! {
    /// The points that a server passes on its way to running, or when it is brought down for a restart or a change,
    /// each named by what has been done by then. The state before an operation decides which of them it passes.
    HostStep, "host" {
        /// The row has the server's new settings.
        ChangeRecorded = "change_recorded",
        /// The server's processes have ended.
        ProcessesEnded = "processes_ended",
        /// The sandbox does not run.
        SandboxStopped = "sandbox_stopped",
        /// The sandbox, which differs from the row, is gone; its volumes are not.
        SandboxDiscarded = "sandbox_discarded",
        /// The existing sandbox runs again.
        SandboxStarted = "sandbox_started",
        /// The server's package is in its volume.
        PackageInstalled = "package_installed",
        /// The server has an endpoint.
        EndpointOpened = "endpoint_opened",
        /// The row says running.
        RunningRecorded = "running_recorded",
    }
}
