//! The two users of a workspace: the agent, and root.
//!
//! The program is linked statically, so names are looked up in `/etc/passwd` and `/etc/group` by hand.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use emergent_guest_proto::{AGENT_UID, RunAs};

use crate::{configuration::KeptConfiguration, own_files};

/// The search path of a workspace whose image sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variable that tells git the path of the system's configuration.
const GIT_CONFIGURATION: &str = "GIT_CONFIG_SYSTEM";

/// Whom commands and file calls act as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups that the image gives the user.
    pub groups: Vec<u32>,
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// Both accounts, and the environment that their commands start from.
#[derive(Debug)]
pub struct Accounts {
    /// The account that commands run as by default.
    pub agent: Account,
    /// The account that commands run as where root is allowed and asked for.
    pub root: Account,
    /// The container's environment.
    container: Vec<(OsString, OsString)>,
    /// The workspace's, which goes before it.
    configuration: Arc<KeptConfiguration>,
    /// Variables where neither has them.
    defaults: Vec<(OsString, OsString)>,
}

impl Accounts {
    /// Looks the accounts up in the image; an agent that the image does not know lives in the workspace.
    /// `git_config` is what says who commits.
    pub fn of_image(workspace: &Path, configuration: Arc<KeptConfiguration>, git_config: PathBuf) -> Self {
        // Unreadable or absent files (an image from scratch) mean that the image knows no users.
        let [passwd, group] =
            ["/etc/passwd", "/etc/group"].map(|path| own_files::read_of_image(Path::new(path)).unwrap_or_default());
        let (passwd, group) = (String::from_utf8_lossy(&passwd), String::from_utf8_lossy(&group));
        let agent = find(&passwd, &group, AGENT_UID).filter(|account| account.home.is_dir());
        let root = find(&passwd, &group, 0);
        Self {
            agent: agent.unwrap_or_else(|| Account::unknown(AGENT_UID, "agent", workspace)),
            root: root.unwrap_or_else(|| Account::unknown(0, "root", Path::new("/root"))),
            container: std::env::vars_os().collect(),
            configuration,
            defaults: vec![("PATH".into(), DEFAULT_PATH.into()), (GIT_CONFIGURATION.into(), git_config.into())],
        }
    }

    /// The account that a call acts as.
    pub fn get(&self, user: RunAs) -> &Account {
        match user {
            RunAs::Agent => &self.agent,
            RunAs::Root => &self.root,
        }
    }

    /// The environment of a command before its own variables: the container's, the workspace's, and who the user is.
    pub fn environment(&self, user: RunAs) -> Vec<(OsString, OsString)> {
        const OWN: [&str; 4] = ["HOME", "USER", "LOGNAME", "SHELL"];
        let account = self.get(user);
        let configuration = self.configuration.environment();
        let replaced = |key: &OsString| configuration.iter().any(|(new, _)| new == key);
        let mut environment: Vec<_> = self.container.iter().filter(|(key, _)| !replaced(key)).cloned().collect();
        environment.extend(configuration);
        environment.retain(|(key, _)| !OWN.iter().any(|own| key == own));
        for (key, value) in &self.defaults {
            if !environment.iter().any(|(known, _)| known == key) {
                environment.push((key.clone(), value.clone()));
            }
        }
        environment.extend([
            ("HOME".into(), account.home.clone().into()),
            ("USER".into(), account.name.clone().into()),
            ("LOGNAME".into(), account.name.clone().into()),
            ("SHELL".into(), account.shell.clone().into()),
        ]);
        environment
    }
}

impl Account {
    fn unknown(id: u32, name: &str, home: &Path) -> Self {
        let shell = PathBuf::from("/bin/sh");
        Self { uid: id, gid: id, groups: Vec::new(), name: name.into(), home: home.into(), shell }
    }
}

/// The account of `uid` according to the texts of `/etc/passwd` and `/etc/group`. The group id always equals the user
/// id, so that what the agent makes has one owner in every image.
fn find(passwd: &str, group: &str, uid: u32) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, entry_uid, _, _, home, shell] = fields.as_slice() else { return None };
        (entry_uid.parse() == Ok(uid)).then(|| Account {
            uid,
            gid: uid,
            groups: groups_of(group, name),
            name: (*name).to_owned(),
            home: home.into(),
            shell: if shell.is_empty() { "/bin/sh".into() } else { shell.into() },
        })
    })
}

fn groups_of(group: &str, name: &str) -> Vec<u32> {
    let member_of = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields.as_slice() else { return None };
        members.split(',').any(|member| member == name).then(|| gid.parse().ok()).flatten()
    };
    group.lines().filter_map(member_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\nada:x:1000:1000::/home/ada:\n";

    #[test]
    fn the_image_names_the_agent_and_its_groups() {
        let account = find(PASSWD, "docker:x:998:bob,ada\nada:x:1000:\nadm:x:4:adamant\n", 1000).unwrap();
        assert_eq!((account.name.as_str(), account.groups), ("ada", vec![998]));
        assert_eq!((account.home, account.shell), ("/home/ada".into(), "/bin/sh".into()));
    }

    #[test]
    fn an_image_without_the_user_has_no_account() {
        assert_eq!(find(PASSWD, "", 4711), None);
        assert_eq!(find("", "", 1000), None);
    }
}
