//! The settings of a soak: environment variables and one flag.

use std::{str::FromStr, time::Duration};

use anyhow::{Context as _, ensure};

use super::leak::Leak;

/// Seeds when `SOAK_SEED` names none: two, so that one lucky order of events proves nothing.
const SEEDS: [u64; 2] = [1, 2];
const MINUTES: f64 = 10.0;

/// The settings of a soak.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The seeds: one run for each, one after the other (`SOAK_SEED`, separated by commas).
    pub seeds: Vec<u64>,
    /// The time for which each run is under load (`SOAK_MINUTES`).
    pub length: Duration,
    /// The leak that the harness itself makes on purpose (`SOAK_LEAK`): the run must then fail and name it.
    pub leak: Option<Leak>,
    /// After a run without findings, plant every kind of leak and see each named (`--prove`).
    pub prove: bool,
}

impl Settings {
    /// Reads the settings.
    ///
    /// # Errors
    /// When a variable cannot be used; the message names it, and says what it takes.
    pub fn read(arguments: &[String]) -> anyhow::Result<Self> {
        let seeds = match text("SOAK_SEED") {
            Some(list) => {
                list.split(',').map(|seed| number(seed, "SOAK_SEED", "numbers separated by commas")).collect()
            }
            None => Ok(SEEDS.to_vec()),
        };
        let minutes =
            text("SOAK_MINUTES").map(|minutes| number::<f64>(&minutes, "SOAK_MINUTES", "a number of minutes"));
        let minutes = minutes.transpose()?.unwrap_or(MINUTES);
        ensure!((0.1..=1440.0).contains(&minutes), "SOAK_MINUTES takes 0.1 to 1440, not {minutes}");
        let leak = text("SOAK_LEAK").map(|name| name.parse()).transpose()?;
        let prove = arguments.iter().any(|argument| argument == "--prove");
        Ok(Self { seeds: seeds?, length: Duration::from_secs_f64(minutes * 60.0), leak, prove })
    }
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    text: &str,
    name: &str,
    takes: &str,
) -> anyhow::Result<T> {
    text.trim().parse().with_context(|| format!("{name} takes {takes}, not {text:?}"))
}
