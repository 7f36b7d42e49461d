//! Running cases: as many cuts as are wanted, and a failure that says how to see it again.

use std::{
    path::Path,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Trial};

use crate::{Cut, Disk};

/// The number of cuts that a case makes, where `POWER_CUTS` does not say.
const CUTS: usize = 200;

/// A test by its name.
pub type Case = (&'static str, fn() -> Result<()>);

/// Runs a test program. Where no disk can be mounted the cases are ignored.
pub fn run(cases: &[Case]) -> ExitCode {
    let missing = Disk::why_missing();
    let trial = |(name, case): &Case| {
        let (case, missing) = (*case, missing.clone());
        let trial = Trial::test(*name, move || match missing {
            Some(reason) => Err(format!("no disk can be mounted: {reason}").into()),
            None => case().map_err(|error| format!("{error:#}").into()),
        });
        trial.with_ignored_flag(Disk::why_missing().is_some())
    };
    libtest_mimic::run(&Arguments::from_args(), cases.iter().map(trial).collect()).exit_code()
}

/// Has a check look at what is left after each of many power cuts, each in a directory of its own. `POWER_CUTS` says
/// how many, `POWER_SEED` which; a failure names the seed, and how the cut came about. A check that takes long makes
/// one in so many of them.
///
/// # Errors
/// The first check that fails.
pub fn cuts(disk: &Disk, one_in: usize, check: impl Fn(&Cut, &Path) -> Result<()>) -> Result<()> {
    let count = number("POWER_CUTS")?.map_or(CUTS, |count| usize::try_from(count).unwrap_or(CUTS)) / one_in;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::from(now.subsec_nanos()));
    let seed = number("POWER_SEED")?.unwrap_or(now);
    for (number, cut) in disk.cuts(seed, count).into_iter().enumerate() {
        // What starts after a cut syncs, too, and nobody asks for that to last.
        let found = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let put = cut.put(found.path()).context("what is left cannot be written");
        let checked = put.and_then(|()| check(&cut, found.path()));
        checked.with_context(|| format!("cut {number} of {count} with POWER_SEED={seed}, {}", cut.story))?;
    }
    Ok(())
}

fn number(variable: &str) -> Result<Option<u64>> {
    let text = std::env::var(variable).ok();
    text.map(|text| text.parse().with_context(|| format!("{variable} is a number"))).transpose()
}
