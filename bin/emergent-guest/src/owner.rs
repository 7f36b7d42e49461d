//! The owner of the state directory.
//!
//! A workspace that is made from a snapshot begins with another's root file system, and so with the executions of
//! that one: their ids would be taken and their output shown as its own. The directory says whose it is: what an
//! earlier owner has executed is forgotten; what was handed over to it counts no more, but its environment is
//! inherited.

use std::{fs, io, path::Path};

use crate::{configuration, executions, own_files};

/// Makes the state directory, which is there already, this workspace's.
///
/// # Errors
/// When something cannot be read, written or removed.
pub fn take_over(state_dir: &Path, workspace: &str) -> io::Result<()> {
    let note = state_dir.join("workspace-id");
    let owner = own_files::read(&note)?;
    if owner.as_deref() == Some(workspace.as_bytes()) {
        return Ok(());
    }
    // Something else in the note's place is an owner's doing, too.
    if owner.is_some() || fs::symlink_metadata(&note).is_ok() {
        for name in executions::STATE {
            own_files::clear(&state_dir.join(name))?;
        }
        configuration::bequeath(state_dir)?;
    }
    // Last, so that a start that is cut short is done again.
    own_files::replace(&note, 0o644, &[workspace.as_bytes()])
}

#[cfg(test)]
mod tests {
    use emergent_guest_proto::Configuration;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::configuration::KeptConfiguration;

    #[test]
    fn what_another_has_executed_is_forgotten_and_its_environment_inherited() {
        let folder = tempfile::tempdir().unwrap();
        let [journal, output] = executions::STATE.map(|name| folder.path().join(name));
        fs::write(&journal, "from before there were owners").unwrap();
        for owner in ["one", "one"] {
            take_over(folder.path(), owner).unwrap();
            assert!(journal.exists());
        }
        let environment = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let given = Configuration {
            environment: environment(&[("A", "1"), ("B", "1")]),
            allow_root: true,
            ..Configuration::default()
        };
        KeptConfiguration::load(folder.path()).unwrap().take(given).unwrap();
        fs::create_dir_all(output.join("deep")).unwrap();
        take_over(folder.path(), "two").unwrap();
        assert!(!journal.exists() && !output.exists());

        let configuration = KeptConfiguration::load(folder.path()).unwrap();
        assert!(!configuration.is_complete() && !configuration.allows_root() && configuration.environment().is_empty());
        let given =
            Configuration { environment: environment(&[("B", "2")]), allow_root: false, ..Configuration::default() };
        configuration.take(given).unwrap();
        for configuration in [configuration, KeptConfiguration::load(folder.path()).unwrap()] {
            assert!(!configuration.allows_root());
            assert_eq!(configuration.environment(), [("A".into(), "1".into()), ("B".into(), "2".into())]);
        }
    }

    #[test]
    fn what_root_inside_puts_in_the_place_of_a_note_holds_up_no_copy() {
        let folder = tempfile::tempdir().unwrap();
        take_over(folder.path(), "one").unwrap();
        KeptConfiguration::load(folder.path())
            .unwrap()
            .take(Configuration { allow_root: true, ..Configuration::default() })
            .unwrap();
        let [journal, output] = executions::STATE.map(|name| folder.path().join(name));
        let private = folder.path().join("private");
        let planted = ["workspace-id", "hand-over.json", "inherited.json", "executions.jsonl", "output"];
        for path in planted.map(|name| folder.path().join(name)).into_iter().chain([private.join("hand-over.json")]) {
            own_files::clear(&path).unwrap();
            mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        }
        take_over(folder.path(), "two").unwrap();
        assert!(!journal.exists() && !output.exists());
        let configuration = KeptConfiguration::load(folder.path()).unwrap();
        assert!(!configuration.is_complete() && !configuration.allows_root());
        configuration.take(Configuration { allow_root: true, ..Configuration::default() }).unwrap();
        take_over(folder.path(), "two").unwrap();
        assert!(KeptConfiguration::load(folder.path()).unwrap().allows_root());
        own_files::clear(&private).unwrap();
        std::os::unix::fs::symlink("/nowhere", &private).unwrap();
        assert!(!KeptConfiguration::load(folder.path()).unwrap().is_complete());
    }

    #[test]
    fn what_a_guest_of_before_was_handed_is_inherited_and_no_file_with_it_is_left_beside() {
        let folder = tempfile::tempdir().unwrap();
        take_over(folder.path(), "one").unwrap();
        let former = folder.path().join("hand-over.json");
        fs::write(&former, r#"{"environment":{"A":"1"},"allow_root":true}"#).unwrap();
        // A machine that boots with another guest is the same workspace.
        take_over(folder.path(), "one").unwrap();
        assert!(KeptConfiguration::load(folder.path()).unwrap().allows_root() && !former.exists());
        take_over(folder.path(), "two").unwrap();
        let configuration = KeptConfiguration::load(folder.path()).unwrap();
        assert!(!configuration.is_complete());
        configuration.take(Configuration::default()).unwrap();
        assert_eq!(configuration.environment(), [("A".into(), "1".into())]);
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<std::collections::BTreeSet<_>>(), ["private".into(), "workspace-id".into()].into());
    }
}
