//! Settings as texts, gathered from flags, the environment and a file, in this order of precedence. Only names are
//! checked here: an unknown name is refused, so that a typo does not go unnoticed.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use super::{
    env_vars::{self, Reader, Variable},
    error::Fault,
    source::Source,
};

/// Prefixes that only our variables have: an unknown variable with one of them is a mistake.
const OUR_PREFIXES: [&str; 2] = ["EMERGENT_", "WORKSPACE_"];

/// The settings that were given.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, (String, Source)>,
}

// === impl Settings ===

impl Settings {
    /// Adds the flags.
    pub(crate) fn add_flags(&mut self, flags: impl IntoIterator<Item = (&'static Variable, Option<String>)>) {
        for (variable, value) in flags {
            if let Some(value) = value {
                self.add(variable, value, Source::Flag);
            }
        }
    }

    /// Adds the environment.
    pub(crate) fn add_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        faults: &mut Vec<Fault>,
    ) {
        for (name, value) in environment {
            let Some(name) = name.to_str() else { continue };
            match (find(name), value.into_string()) {
                (Some(variable), Ok(value)) => self.add(variable, value, Source::Environment),
                (Some(variable), Err(_)) => {
                    faults.push(Fault::malformed(variable, None, "it is not UTF-8", &Source::Environment))
                }
                (None, _) if OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) => {
                    faults.push(unknown(name, Source::Environment));
                }
                (None, _) => {}
            }
        }
    }

    /// Adds a settings file: TOML, with the names of variables as keys, in either case.
    pub(crate) fn add_file(&mut self, path: &Path, faults: &mut Vec<Fault>) {
        let source = Source::File(path.to_owned());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return faults.push(Fault::File { path: path.to_owned(), reason: error.to_string() }),
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => return faults.push(Fault::File { path: path.to_owned(), reason: error.to_string() }),
        };
        for (key, value) in table {
            let name = key.to_ascii_uppercase();
            match (find(&name), plain(&value)) {
                (Some(variable), Some(value)) => self.add(variable, value, source.clone()),
                (Some(variable), None) => {
                    let reason = "a text, a number, true, false or a list of texts is taken";
                    faults.push(Fault::malformed(variable, None, reason, &source));
                }
                (None, _) => faults.push(unknown(&key, source.clone())),
            }
        }
    }

    /// Adds a setting unless an earlier source has set it.
    fn add(&mut self, variable: &'static Variable, value: String, source: Source) {
        self.values.entry(variable.name).or_insert((value, source));
    }

    /// Returns the text and the source of a setting; `None` when it is not set.
    pub(crate) fn given(&self, variable: &Variable) -> Option<(&str, &Source)> {
        self.values.get(variable.name).map(|(value, source)| (value.as_str(), source))
    }
}

fn find(name: &str) -> Option<&'static Variable> {
    env_vars::ALL.iter().copied().find(|variable| variable.name == name)
}

fn unknown(name: &str, source: Source) -> Fault {
    let upper = name.to_ascii_uppercase();
    let nearest = env_vars::ALL
        .iter()
        .filter(|variable| variable.reader == Reader::Server)
        .map(|variable| (strsim::damerau_levenshtein(variable.name, &upper), variable.name))
        .min();
    let suggestion = nearest.filter(|(distance, _)| *distance <= 3).map(|(_, name)| name);
    Fault::Unknown { name: name.to_owned(), suggestion, source }
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(word) => Some(word.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(toml::Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}
