//! Images made for one case, and removed with it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// An image of the local engine. Dropping it removes its reference.
pub struct Image {
    /// The image's reference.
    pub reference: String,
}

impl Image {
    /// Makes another name for the image that workspaces run by default.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn of_workspace(reference: &str) -> anyhow::Result<Self> {
        docker(&["tag", "emergent/workspace:latest", reference])?;
        Ok(Self { reference: reference.to_owned() })
    }

    /// Makes an image from the one that workspaces run by default, with additional lines of a Dockerfile.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn with(reference: &str, lines: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("making a directory")?;
        let dockerfile = format!("FROM emergent/workspace:latest\n{lines}\n");
        std::fs::write(folder.path().join("Dockerfile"), dockerfile).context("writing a Dockerfile")?;
        docker(&["build", "--quiet", "--tag", reference, &folder.path().display().to_string()])?;
        Ok(Self { reference: reference.to_owned() })
    }

    /// Lets the same name stand for an image with an additional label.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn change(&self) -> anyhow::Result<()> {
        let container = docker(&["create", "--entrypoint", "none", &self.reference])?;
        let changed = docker(&["commit", "--change", "LABEL changed=yes", container.trim(), &self.reference]);
        docker(&["rm", container.trim()])?;
        changed.map(drop)
    }

    /// Makes an image in which no workspace can be started: a file is where the guest's directory has to be.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn that_cannot_start(reference: &str) -> anyhow::Result<Self> {
        let tree = tempfile::tempdir().context("making a directory")?;
        std::fs::write(tree.path().join(".emergent"), "in the way").context("writing a file")?;
        let mut tar = Command::new("tar")
            .args(["--create", "--directory"])
            .arg(tree.path())
            .arg(".emergent")
            .stdout(Stdio::piped())
            .spawn()
            .context("starting tar")?;
        let archive = tar.stdout.take().context("no output of tar")?;
        let imported = Command::new("docker").args(["import", "-", reference]).stdin(archive).output();
        let imported = imported.context("starting docker")?;
        ensure!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        ensure!(tar.wait().context("waiting for tar")?.success(), "tar failed");
        Ok(Self { reference: reference.to_owned() })
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // A case has failed already when this does.
        drop(docker(&["rmi", "--force", &self.reference]));
    }
}

fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("docker").args(arguments).output().context("starting docker")?;
    ensure!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
