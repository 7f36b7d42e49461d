//! The signals that stop the server.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// Called at the first signal.
    at_first: Option<Box<dyn FnOnce() + Send>>,
}

impl StopSignals {
    /// Handles the signals from now on.
    pub(crate) fn listen() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, at_first: None })
    }

    /// The same signals; the first one also calls this, before whoever waits for it goes on.
    pub(crate) fn calling(self, at_first: impl FnOnce() + Send + 'static) -> Self {
        Self { at_first: Some(Box::new(at_first)), ..self }
    }

    /// Waits for the next signal; returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        let signal = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        if let Some(at_first) = self.at_first.take() {
            at_first();
        }
        signal
    }
}
