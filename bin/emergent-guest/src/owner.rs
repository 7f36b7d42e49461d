//! Whose state directory this is.
//!
//! A workspace that is made from a snapshot begins with another's root file system, and so with the executions of
//! that one: their ids would be taken and their output shown as its own. The directory says whose it is: what an
//! earlier owner has executed is forgotten; what was handed over to it counts no more, but its environment is inherited.

use std::{fs, io, path::Path};

use crate::{executions, hand_over};

/// Makes the state directory, which is there already, this workspace's.
///
/// # Errors
/// When something cannot be read, written or removed.
pub fn take_over(state_dir: &Path, workspace: &str) -> io::Result<()> {
    let note = state_dir.join("workspace-id");
    match fs::read_to_string(&note) {
        Ok(owner) if owner == workspace => return Ok(()),
        Ok(_) => {
            for name in executions::STATE {
                remove(&state_dir.join(name))?;
            }
            hand_over::bequeath(state_dir)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Last, so that a start that is cut short is done again.
    fs::write(note, workspace)
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use emergent_guest_proto::HandOver;

    use super::*;
    use crate::hand_over::HandedOver;

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
        let given =
            HandOver { environment: environment(&[("A", "1"), ("B", "1")]), allow_root: true, ..HandOver::default() };
        HandedOver::load(folder.path()).unwrap().take(given).unwrap();
        fs::create_dir_all(output.join("deep")).unwrap();
        take_over(folder.path(), "two").unwrap();
        assert!(!journal.exists() && !output.exists());

        let handed_over = HandedOver::load(folder.path()).unwrap();
        assert!(!handed_over.is_complete() && !handed_over.allows_root() && handed_over.environment().is_empty());
        let given = HandOver { environment: environment(&[("B", "2")]), allow_root: false, ..HandOver::default() };
        handed_over.take(given).unwrap();
        for handed_over in [handed_over, HandedOver::load(folder.path()).unwrap()] {
            assert!(!handed_over.allows_root());
            assert_eq!(handed_over.environment(), [("A".into(), "1".into()), ("B".into(), "2".into())]);
        }
    }
    #[test]
    fn what_a_guest_of_before_was_handed_is_inherited_and_no_file_with_it_is_left_beside() {
        let folder = tempfile::tempdir().unwrap();
        take_over(folder.path(), "one").unwrap();
        let former = folder.path().join("hand-over.json");
        fs::write(&former, r#"{"environment":{"A":"1"},"allow_root":true}"#).unwrap();
        // A machine that boots with another guest is the same workspace.
        take_over(folder.path(), "one").unwrap();
        assert!(HandedOver::load(folder.path()).unwrap().allows_root() && !former.exists());
        take_over(folder.path(), "two").unwrap();
        let handed_over = HandedOver::load(folder.path()).unwrap();
        assert!(!handed_over.is_complete());
        handed_over.take(HandOver::default()).unwrap();
        assert_eq!(handed_over.environment(), [("A".into(), "1".into())]);
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<std::collections::BTreeSet<_>>(), ["private".into(), "workspace-id".into()].into());
    }
}
