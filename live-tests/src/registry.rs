//! A private registry of a case's own, which demands a login.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::server::{free_port, program_or};

/// The user who may log in.
pub const USER: &str = "agent";
/// The user's password.
pub const PASSWORD: &str = "registry-password";
/// The bcrypt hash of [`PASSWORD`].
const LOGIN_HASH: &str = "$2y$05$4VRQTAYNS/wPtK4/RfSh/OsfOsqwclhYH281WxKzwB5VsEuk/9bwi";

/// A registry on loopback, gone with its images when it is dropped.
pub struct Registry {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Registry {
    /// Starts a registry; `LIVE_REGISTRY` names its program, `docker-registry` by default.
    ///
    /// # Errors
    /// When it does not answer within 10 s.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("emergent-registry-").tempdir().context("making a folder")?;
        let port = free_port()?;
        let logins = folder.path().join("logins");
        std::fs::write(&logins, format!("{USER}:{LOGIN_HASH}\n"))?;
        let config = folder.path().join("config.yml");
        let settings = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\nauth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            folder.path().join("data").display(),
            logins.display(),
        );
        std::fs::write(&config, settings)?;
        let child = Command::new(program_or("LIVE_REGISTRY", "docker-registry"))
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting docker-registry (the package of that name, or LIVE_REGISTRY)")?;
        let registry = Self { child, folder, port };
        crate::until("the registry answers", Duration::from_secs(10), || async {
            let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            Ok(connected.map(drop).map_err(|error| error.to_string()))
        })
        .await?;
        Ok(registry)
    }

    /// The registry's address, as references name it.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A file of one project's logins.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn login_file_of(&self, project: &str) -> anyhow::Result<PathBuf> {
        let login = std::fs::read(self.login_file(PASSWORD)?)?;
        let login: serde_json::Value = serde_json::from_slice(&login)?;
        let file = self.folder.path().join(format!("login-of-{project}.json"));
        std::fs::write(&file, serde_json::json!({ "projects": { project: login } }).to_string())?;
        Ok(file)
    }

    /// A file of logins, as `docker login` writes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn login_file(&self, password: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.path().join(format!("login-{password}"));
        std::fs::create_dir_all(&folder)?;
        let host = self.host();
        let auth = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("{USER}:{password}"));
        let file = folder.join("config.json");
        std::fs::write(&file, serde_json::json!({ "auths": { host: { "auth": auth } } }).to_string())?;
        Ok(file)
    }

    /// Puts an image with one file into the registry, and nowhere else; answers its reference.
    ///
    /// # Errors
    /// When Docker refuses.
    pub fn publish(&self, name: &str) -> anyhow::Result<String> {
        let image = format!("{}/{name}:1", self.host());
        let tree = self.folder.path().join("tree");
        std::fs::create_dir_all(&tree)?;
        std::fs::write(tree.join("from-the-registry"), "yes\n")?;
        let archive = self.folder.path().join("tree.tar");
        run(Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&archive).arg("."))?;
        run(Command::new("docker").arg("import").arg(&archive).arg(&image))?;
        let login = self.login_file(PASSWORD)?;
        let config = login.parent().context("the login file's folder")?;
        run(Command::new("docker").arg("--config").arg(config).args(["push", "--quiet", &image]))?;
        run(Command::new("docker").args(["rmi", &image]))?;
        Ok(image)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // What cannot be ended any more needs no ending.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
