//! The Docker Engine: whether it answers, whether gVisor works in it, whether there is an image to start from.

use std::time::Duration;

use anyhow::Context as _;
use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{RemoveContainerOptions, WaitContainerOptions},
};
use emergent_types::ServerId;
use futures::StreamExt as _;
use tokio::time::timeout;

use super::{
    check::Check,
    remains::{self, Remains},
};
use crate::config::Config;

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
const CALL_DEADLINE: Duration = Duration::from_secs(10);
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Tries what today's coreutils ask of a kernel.
const TRIAL: &str = "command -v stat >/dev/null || exit 0; stat / >/dev/null 2>&1 || exit 3";
/// The exit code of [`TRIAL`] when `stat` fails.
const STAT_FAILED: i64 = 3;
const INSTALL_GVISOR: &str = "install runsc (https://gvisor.dev/docs/user_guide/install), register it with `runsc \
    install`, restart Docker; until then workspaces share the host's kernel";

/// All that is to be seen in Docker.
pub(super) async fn checks(config: &Config) -> Vec<Check> {
    let host = config.docker.host.as_deref().unwrap_or(DEFAULT_HOST);
    let (docker, version) = match timeout(CALL_DEADLINE, connect(host)).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return vec![unreachable(host, &error.to_string())],
        Err(_) => return vec![unreachable(host, "no answer")],
    };
    let image = image(&docker, config).await;
    let gvisor = gvisor(&docker, config, image.verdict == super::Verdict::Ok).await;
    vec![engine(host, &version), gvisor, image, leftovers(&docker).await]
}

async fn leftovers(docker: &Docker) -> Check {
    match timeout(START_DEADLINE, remains::list(docker)).await {
        Ok(Ok(all)) => remains::check(&all),
        Ok(Err(error)) => Check::warn("leftovers", &format!("{error:#}"), "see what Docker says of it"),
        Err(_) => {
            Check::warn("leftovers", "Docker did not list its containers, volumes and images in time", "restart Docker")
        }
    }
}

/// Returns a client of Docker, and the containers, volumes and images that the server has made there.
pub(super) async fn remains_of(config: &Config, server: ServerId) -> anyhow::Result<(Docker, Option<Remains>)> {
    let host = config.docker.host.as_deref().unwrap_or(DEFAULT_HOST);
    let (docker, _) = timeout(CALL_DEADLINE, connect(host)).await.context("Docker does not answer")??;
    let all = remains::list(&docker).await?;
    Ok((docker, Remains::find(all, server)))
}

async fn connect(host: &str) -> Result<(Docker, String), Error> {
    let seconds = CALL_DEADLINE.as_secs();
    let docker = match host.strip_prefix("unix://") {
        Some(path) => Docker::connect_with_unix(path, seconds, API_DEFAULT_VERSION)?,
        None => Docker::connect_with_http(host, seconds, API_DEFAULT_VERSION)?,
    };
    let docker = docker.negotiate_version().await?;
    let version = docker.version().await?.version.unwrap_or_default();
    Ok((docker, version))
}

fn unreachable(host: &str, reason: &str) -> Check {
    let advice = "install Docker Engine 20.10 or later and start it (`systemctl start docker`); this user must be allowed \
                  to use its socket, or DOCKER_HOST must name another one";
    Check::fail("docker", &format!("{host} does not answer: {reason}"), advice)
}

fn engine(host: &str, version: &str) -> Check {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let release = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let detail = format!("Docker Engine {version} at {host}");
    if release < (20, 10) {
        return Check::fail("docker", &detail, "install Docker Engine 20.10 or later");
    }
    Check::ok("docker", &detail)
}

async fn image(docker: &Docker, config: &Config) -> Check {
    let name = config.core.default_image.as_str();
    match timeout(CALL_DEADLINE, docker.inspect_image(name)).await {
        Ok(Ok(image)) => {
            let megabytes = image.size.unwrap_or(0) / 1_000_000;
            Check::ok("base image", &format!("{name} is there ({megabytes} MB)"))
        }
        Ok(Err(Error::DockerResponseServerError { status_code: 404, .. })) => Check::warn(
            "base image",
            &format!("{name} is not on the engine; the first workspace has to pull it"),
            "make it with `make setup`, or name an image that can be pulled in WORKSPACE_DEFAULT_IMAGE",
        ),
        Ok(Err(error)) => Check::fail("base image", &error.to_string(), "see what Docker says of it"),
        Err(_) => Check::fail("base image", "Docker does not answer", "restart Docker"),
    }
}

/// Registered is not enough: a container is started under it, where there is an image to start.
async fn gvisor(docker: &Docker, config: &Config, has_image: bool) -> Check {
    let runtime = config.docker.runtime.as_str();
    let registered = match timeout(CALL_DEADLINE, docker.info()).await {
        Ok(Ok(info)) => info.runtimes.is_some_and(|runtimes| runtimes.contains_key(runtime)),
        Ok(Err(error)) => return Check::fail("gvisor", &error.to_string(), "see what Docker says"),
        Err(_) => return Check::fail("gvisor", "Docker does not answer", "restart Docker"),
    };
    if !registered {
        return Check::warn("gvisor", &format!("Docker has no runtime {runtime}"), INSTALL_GVISOR);
    }
    if !has_image {
        let detail = format!("Docker has the runtime {runtime}; without the base image it could not be tried");
        return Check::warn("gvisor", &detail, "get the base image and look again");
    }
    match timeout(START_DEADLINE, start_one(docker, config)).await {
        Ok(Ok(Trial::Plain)) => {
            Check::ok("gvisor", &format!("Docker has the runtime {runtime}, and a container started under it"))
        }
        Ok(Ok(Trial::RefusesFlag)) => {
            let detail = format!(
                "Docker has the runtime {runtime}, and a container started under it; it is an old release that refuses \
                 statx(AT_NO_AUTOMOUNT), which `ls -l`, `stat` and `find` ask for; in workspaces a library of the guest's \
                 works around that for all programs but statically linked ones"
            );
            Check::warn("gvisor", &detail, "install a newer release of gVisor if statically linked programs need it")
        }
        Ok(Err(reason)) => Check::fail(
            "gvisor",
            &format!("a container under {runtime} did not start: {reason}"),
            "see `journalctl -u docker`; an old runsc may need --network=host or --platform=ptrace in its runtimeArgs; or \
             take the runtime out of Docker's daemon.json to use the standard one",
        ),
        Err(_) => Check::fail(
            "gvisor",
            &format!("a container under {runtime} did not start within 30 s"),
            "try another --platform in its runtimeArgs",
        ),
    }
}

/// The outcome of the container that was started under the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// Nothing special.
    Plain,
    /// The image's `stat` asks for more than the runtime knows.
    RefusesFlag,
}

async fn start_one(docker: &Docker, config: &Config) -> Result<Trial, String> {
    let body = ContainerCreateBody {
        image: Some(config.core.default_image.as_str().to_owned()),
        entrypoint: Some(["/bin/sh", "-c", TRIAL].map(str::to_owned).to_vec()),
        host_config: Some(HostConfig {
            runtime: Some(config.docker.runtime.clone()),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let created = docker.create_container(None, body).await.map_err(|error| error.to_string())?;
    let started = start_and_wait(docker, &created.id).await;
    let force = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
    docker.remove_container(&created.id, Some(force)).await.map_err(|error| error.to_string())?;
    started
}

async fn start_and_wait(docker: &Docker, id: &str) -> Result<Trial, String> {
    docker.start_container(id, None).await.map_err(|error| error.to_string())?;
    match docker.wait_container(id, None::<WaitContainerOptions>).next().await {
        Some(Err(Error::DockerContainerWaitError { code: STAT_FAILED, .. })) => Ok(Trial::RefusesFlag),
        Some(Err(error)) => Err(error.to_string()),
        Some(Ok(_)) | None => Ok(Trial::Plain),
    }
}
