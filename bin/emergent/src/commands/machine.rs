//! `emergent kernel import` and `emergent image build`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use emergent_microvm::{
    Layout,
    images::{self, ImageSource},
    kernels::{self, KernelSource},
};

use crate::{
    cli::{ImageBuildArgs, ImageCommand, KernelCommand, KernelImportArgs},
    exit::ExitStatus,
    guest_binary, print,
};

/// Runs a command for kernels.
pub(super) async fn kernel(command: KernelCommand) -> ExitStatus {
    let KernelCommand::Import(arguments) = command;
    ended(tokio::task::spawn_blocking(move || import(arguments)).await)
}

/// Runs a command for images.
pub(super) async fn image(command: ImageCommand) -> ExitStatus {
    let ImageCommand::Build(arguments) = command;
    ended(tokio::task::spawn_blocking(move || build(arguments)).await)
}

fn import(arguments: KernelImportArgs) -> anyhow::Result<String> {
    let KernelImportArgs { place, from } = arguments;
    let guest = guest_binary::find(place.guest.as_deref())?;
    let download = tempfile::tempdir().context("making a folder for the download")?;
    let from = from.map_or_else(|| download_kernel(download.path()), Ok)?;
    let is_package = from.extension().is_some_and(|extension| extension == "deb");
    let source = if is_package { KernelSource::Package(from) } else { KernelSource::Image(from) };
    let kernel = kernels::import(&Layout::new(place.base()), &place.name, &source, &guest)?;
    Ok(format!("kernel {} is {}, with {} modules", kernel.name, kernel.source, kernel.modules.len()))
}

/// Downloads Debian's kernel package for clouds: the package that the meta-package names now.
fn download_kernel(folder: &Path) -> anyhow::Result<PathBuf> {
    const META: &str = "linux-image-cloud-amd64";
    let advice = || format!("{META} could not be found; run `apt-get update`, or give a kernel with --from");
    let said = Command::new("apt-cache").args(["depends", META]).output().with_context(advice)?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let package = said.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).with_context(advice)?;
    print::notice(&format!("downloading {package}\n"));
    let got = Command::new("apt-get").args(["download", "--quiet", package]).current_dir(folder).output();
    let got = got.context("apt-get could not be started")?;
    anyhow::ensure!(got.status.success(), "{}: {}", advice(), String::from_utf8_lossy(&got.stderr).trim());
    let file = std::fs::read_dir(folder)?.next().with_context(advice)??;
    Ok(file.path())
}

fn build(arguments: ImageBuildArgs) -> anyhow::Result<String> {
    let ImageBuildArgs { place, from, size } = arguments;
    let guest = guest_binary::find(place.guest.as_deref())?;
    let layout = Layout::new(place.base());
    let template = images::build(&layout, &place.name, &source(from), size << 30, &guest)?;
    let file = images::root(&layout, &place.name);
    Ok(format!("image {} is {}, in {}", template.name, template.source, file.display()))
}

/// Returns the kind of the source: an image's name begins with neither a slash nor a dot.
fn source(from: String) -> ImageSource {
    let path = Path::new(&from);
    match () {
        () if !from.starts_with(['/', '.']) => ImageSource::Docker(from),
        () if path.is_dir() && !path.join("oci-layout").exists() => ImageSource::Tree(from.into()),
        () => ImageSource::Oci(from.into()),
    }
}

fn ended(result: Result<anyhow::Result<String>, tokio::task::JoinError>) -> ExitStatus {
    match result.map_err(anyhow::Error::from).flatten() {
        Ok(line) => {
            print::line(&line);
            ExitStatus::Success
        }
        Err(error) => {
            print::error(&format!("{error:#}"));
            ExitStatus::Failure
        }
    }
}
