//! The process's file descriptors: their limit, and their number.

use metrics::gauge;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as the system lets everybody, and returns it: the default limit of shells is meant for
/// programs that use `select`.
pub(crate) fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the limit on file descriptors could not be raised");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Sets the metrics of open descriptors, if the system reports their number.
#[expect(clippy::cast_precision_loss, reason = "there are not 2^52 descriptors")]
pub(super) fn report(limit: u64) {
    gauge!("emergent_file_descriptors_limit").set(limit as f64);
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge!("emergent_file_descriptors_open").set(open.count() as f64);
    }
}
