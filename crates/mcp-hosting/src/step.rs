//! The steps of hosting, named so that a crash can be tested at each. What is done to the sandbox as a whole passes the
//! provider's own steps as well.

emergent_provider::steps! {
    /// What has been done when a server passes a point on its way to running, or is brought down for a restart or a
    /// change. Which of them an operation passes follows from what there was before it.
    HostStep, "host" {
        /// The row says what the server is to be from now on.
        ChangeRecorded = "change_recorded",
        /// Its processes have ended.
        ProcessesEnded = "processes_ended",
        /// Its sandbox does not run.
        SandboxStopped = "sandbox_stopped",
        /// The sandbox, which is no longer what the row says, is gone; its volumes are not.
        SandboxDiscarded = "sandbox_discarded",
        /// The sandbox that there was runs again.
        SandboxStarted = "sandbox_started",
        /// Its package is in its volume.
        PackageInstalled = "package_installed",
        /// There is something that answers for it.
        EndpointOpened = "endpoint_opened",
        /// The row says running.
        RunningRecorded = "running_recorded",
    }
}
