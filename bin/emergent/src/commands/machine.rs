//! `emergent kernel import` and `emergent image build`.

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

/// Works with kernels.
pub(super) async fn kernel(command: KernelCommand) -> ExitStatus {
    let KernelCommand::Import(arguments) = command;
    ended(tokio::task::spawn_blocking(move || import(arguments)).await)
}

/// Works with images.
pub(super) async fn image(command: ImageCommand) -> ExitStatus {
    let ImageCommand::Build(arguments) = command;
    ended(tokio::task::spawn_blocking(move || build(arguments)).await)
}

fn import(arguments: KernelImportArgs) -> anyhow::Result<String> {
    let KernelImportArgs { place, package, vmlinux } = arguments;
    let source = package.map(KernelSource::Package).or_else(|| vmlinux.map(KernelSource::Image));
    let source = source.context("name a package or an image")?;
    let guest = guest_binary::find(place.guest.as_deref())?;
    let kernel = kernels::import(&Layout::new(place.dir), &place.name, &source, &guest)?;
    Ok(format!("kernel {} is {}, with {} modules", kernel.name, kernel.source, kernel.modules.len()))
}

fn build(arguments: ImageBuildArgs) -> anyhow::Result<String> {
    let ImageBuildArgs { place, docker, oci, tree, size } = arguments;
    let source = docker.map(ImageSource::Docker).or_else(|| oci.map(ImageSource::Oci));
    let source = source.or_else(|| tree.map(ImageSource::Tree)).context("name an image, a layout or a tree")?;
    let guest = guest_binary::find(place.guest.as_deref())?;
    let layout = Layout::new(place.dir);
    let template = images::build(&layout, &place.name, &source, size << 30, &guest)?;
    let file = images::root(&layout, &place.name);
    Ok(format!("image {} is {}, in {}", template.name, template.source, file.display()))
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
