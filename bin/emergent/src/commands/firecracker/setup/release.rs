//! The programs `firecracker` and `jailer`, installed only from the bytes of the project's own release.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};
use tokio::{process::Command, time::timeout};

use super::finding::{Finding, State};
use crate::cli::SetupArgs;

/// The release that this program was made for.
const RELEASE: &str = "v1.17.0";
/// The checksums that the release publishes beside its archives.
const CHECKSUMS: [(&str, &str); 2] = [
    ("x86_64", "06094a1108ae9e82aa4c23a775aa92758f53f1175d422270d9d6162cb9ade558"),
    ("aarch64", "e351ebe4f7a16b5873bbd51005d2e6767103cff4d5ebc829df2d3f95a93e2256"),
];
const RELEASES: &str = "https://github.com/firecracker-microvm/firecracker/releases/download";
const PROGRAMS: [&str; 2] = ["firecracker", "jailer"];
/// The most bytes of an archive and of a program: far more than any release has.
const LARGEST_ARCHIVE: u64 = 256 << 20;
const LARGEST_PROGRAM: u64 = 64 << 20;
const DOWNLOAD: Duration = Duration::from_secs(300);
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

/// Installs the programs unless this release is installed.
pub(super) async fn install(arguments: &SetupArgs) -> Finding {
    let name = "firecracker";
    let release = arguments.release.as_deref().unwrap_or(RELEASE);
    let shown = arguments.bin_dir.display();
    if is_installed(&arguments.bin_dir, release).await {
        return Finding::new(name, State::Present, format!("{release} in {shown}, with jailer"));
    }
    let Some(checksum) = checksum(arguments) else {
        let advice = "name the archive's SHA-256 with --sha256, and the archive with --from";
        return Finding::missing(name, format!("no release is known for {}", std::env::consts::ARCH), advice);
    };
    let source = arguments.from.as_ref().map_or_else(|| url(release), |path| path.display().to_string());
    if arguments.dry_run {
        let detail = format!("install {release} into {shown} from {source}, SHA-256 {checksum}");
        return Finding::new(name, State::Would, detail);
    }
    match fetch_and_install(arguments, release, &checksum).await {
        Ok(()) => Finding::new(name, State::Done, format!("installed {release} into {shown}, with jailer")),
        Err(error) => {
            let advice = if arguments.from.is_some() {
                "see that it is the archive of this release, and that the directory can be written"
            } else {
                "download it elsewhere and name the file with --from; writing into the directory may take root"
            };
            Finding::missing(name, format!("{error:#}"), advice)
        }
    }
}

async fn fetch_and_install(arguments: &SetupArgs, release: &str, checksum: &str) -> anyhow::Result<()> {
    let archive = match &arguments.from {
        Some(path) => read(path)?,
        None => download(&url(release)).await?,
    };
    verify(&archive, checksum)?;
    let programs = unpack(&archive, release)?;
    fs::create_dir_all(&arguments.bin_dir).with_context(|| format!("making {}", arguments.bin_dir.display()))?;
    for (program, bytes) in programs {
        put(&arguments.bin_dir, program, &bytes)?;
    }
    Ok(())
}

fn checksum(arguments: &SetupArgs) -> Option<String> {
    let known = || CHECKSUMS.iter().find(|(machine, _)| *machine == std::env::consts::ARCH);
    arguments.sha256.clone().or_else(|| known().map(|(_, checksum)| (*checksum).to_owned()))
}

fn url(release: &str) -> String {
    format!("{RELEASES}/{release}/firecracker-{release}-{}.tgz", std::env::consts::ARCH)
}

async fn is_installed(bin_dir: &Path, release: &str) -> bool {
    for program in PROGRAMS {
        let asked = Command::new(bin_dir.join(program)).arg("--version").kill_on_drop(true).output();
        let Ok(Ok(output)) = timeout(VERSION_DEADLINE, asked).await else { return false };
        let said = String::from_utf8_lossy(&output.stdout);
        if !said.lines().next().unwrap_or_default().ends_with(release) {
            return false;
        }
    }
    true
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let reading = || format!("reading {}", path.display());
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(LARGEST_ARCHIVE).read_to_end(&mut bytes)).with_context(reading)?;
    Ok(bytes)
}

async fn download(url: &str) -> anyhow::Result<Vec<u8>> {
    let downloading = || format!("downloading {url}");
    let client = reqwest::Client::builder().https_only(true).timeout(DOWNLOAD).build()?;
    let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    // The error would name the address once more.
    let mut answer = answer.map_err(reqwest::Error::without_url).with_context(downloading)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url).with_context(downloading)? {
        bytes.extend_from_slice(&chunk);
        ensure!(bytes.len() as u64 <= LARGEST_ARCHIVE, "{url} is larger than any release");
    }
    Ok(bytes)
}

/// Refuses an archive with another checksum.
fn verify(archive: &[u8], checksum: &str) -> anyhow::Result<()> {
    let found = hex::encode(Sha256::digest(archive));
    ensure!(found == checksum, "the archive's SHA-256 is {found}, not {checksum}: nothing was installed");
    Ok(())
}

/// Extracts the two programs from the archive, and nothing else.
fn unpack(archive: &[u8], release: &str) -> anyhow::Result<Vec<(&'static str, Vec<u8>)>> {
    let machine = std::env::consts::ARCH;
    let mut found = Vec::new();
    let mut tar = tar::Archive::new(GzDecoder::new(archive));
    for entry in tar.entries().context("reading the archive")? {
        let entry = entry.context("reading the archive")?;
        let path = entry.path().context("reading the archive")?.into_owned();
        let is_file = entry.header().entry_type().is_file();
        let named =
            |program: &&str| path == Path::new(&format!("release-{release}-{machine}/{program}-{release}-{machine}"));
        let Some(program) = PROGRAMS.into_iter().find(named).filter(|_| is_file) else { continue };
        let mut bytes = Vec::new();
        let size = entry.take(LARGEST_PROGRAM).read_to_end(&mut bytes).context("reading the archive")?;
        ensure!(size > 0 && (size as u64) < LARGEST_PROGRAM, "{program} in the archive is empty or too large");
        found.push((program, bytes));
    }
    match PROGRAMS.iter().find(|program| !found.iter().any(|(name, _)| name == *program)) {
        Some(program) => bail!("the archive has no {program} of {release} for {machine}"),
        None => Ok(found),
    }
}

/// Puts a program in place in one step: a caller meanwhile runs the old one or the new one.
fn put(directory: &Path, program: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let (place, new) = (directory.join(program), directory.join(format!(".{program}.new")));
    let put = || -> io::Result<()> {
        fs::write(&new, bytes)?;
        fs::set_permissions(&new, Permissions::from_mode(0o755))?;
        fs::rename(&new, &place)
    };
    put().with_context(|| format!("writing {}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(release: &str, programs: &[&str]) -> Vec<u8> {
        let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(encoder);
        for program in programs {
            let machine = std::env::consts::ARCH;
            let mut header = tar::Header::new_gnu();
            header.set_size(2);
            header.set_mode(0o755);
            let path = format!("release-{release}-{machine}/{program}-{release}-{machine}");
            tar.append_data(&mut header, path, &b"hi"[..]).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn both_programs_are_taken_and_nothing_else() {
        let archive = archive("v1.2.3", &["firecracker", "jailer", "seccompiler-bin"]);
        let programs = unpack(&archive, "v1.2.3").unwrap();
        assert_eq!(programs, [("firecracker", b"hi".to_vec()), ("jailer", b"hi".to_vec())]);
    }

    #[test]
    fn an_archive_of_another_release_or_without_a_program_is_refused() {
        assert!(unpack(&archive("v1.2.4", &["firecracker", "jailer"]), "v1.2.3").is_err());
        assert!(unpack(&archive("v1.2.3", &["firecracker"]), "v1.2.3").is_err());
        assert!(unpack(b"no archive", "v1.2.3").is_err());
    }

    #[test]
    fn other_bytes_than_those_that_were_published_are_refused() {
        let refused = verify(b"other", CHECKSUMS[0].1).unwrap_err().to_string();
        assert!(refused.contains("nothing was installed"), "{refused}");
    }
}
