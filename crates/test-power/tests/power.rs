//! The disk against programs whose faults are known: those that forget a sync are found, the one that forgets none is
//! not.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::ExitCode,
};

use anyhow::{Result, ensure};
use emergent_test_power::{Disk, Moment, cuts, run};

/// The omission of a program that replaces a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Forgets {
    Nothing,
    Contents,
    Name,
    /// The program writes the file in place.
    Atomicity,
}

fn main() -> ExitCode {
    run(&[
        ("a_file_that_is_replaced_as_it_should_be_is_always_whole", || replaced(Forgets::Nothing)),
        ("contents_that_are_not_synced_are_found_missing", || found(Forgets::Contents)),
        ("a_name_that_is_not_synced_is_found_missing", || found(Forgets::Name)),
        ("a_file_that_is_written_in_place_is_found_torn", || found(Forgets::Atomicity)),
        ("the_disk_is_a_file_system", files),
    ])
}

fn found(forgets: Forgets) -> Result<()> {
    match replaced(forgets) {
        Ok(()) => anyhow::bail!("no cut has shown it"),
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(text.contains("POWER_SEED"), "{text}");
            Ok(())
        }
    }
}

/// Replaces a file again and again, and looks for the number that was promised last.
fn replaced(forgets: Forgets) -> Result<()> {
    let disk = Disk::mount()?;
    fs::write(disk.path().join("file"), line(0))?;
    disk.settle();
    let mut promises = vec![(disk.moment(), 0)];
    for number in 1..20 {
        replace(disk.path(), number, forgets)?;
        promises.push((disk.moment(), number));
    }
    cuts(&disk, 1, |cut, found| {
        let text = fs::read(found.join("file"))?;
        let last = promises.iter().rfind(|(at, _): &&(Moment, _)| *at <= cut.moment).map_or(0, |(_, number)| *number);
        let allowed = [last, last + 1].map(line);
        ensure!(allowed.contains(&text), "of number {last} there is {:?}", String::from_utf8_lossy(&text));
        Ok(())
    })
}

fn replace(directory: &Path, number: usize, forgets: Forgets) -> Result<()> {
    let target = directory.join("file");
    let aside = if forgets == Forgets::Atomicity { target.clone() } else { directory.join("new") };
    let mut file = File::create(&aside)?;
    file.write_all(&line(number))?;
    if forgets != Forgets::Contents {
        file.sync_all()?;
    }
    if forgets != Forgets::Atomicity {
        fs::rename(&aside, target)?;
    }
    if forgets != Forgets::Name {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn line(number: usize) -> Vec<u8> {
    format!("{number:03}\n").repeat(500).into_bytes()
}

fn files() -> Result<()> {
    let disk = Disk::mount()?;
    let path = |name: &str| disk.path().join(name);
    fs::create_dir_all(path("a/b"))?;
    fs::write(path("a/one"), "one")?;
    fs::hard_link(path("a/one"), path("a/b/two"))?;
    std::os::unix::fs::symlink("one", path("a/link"))?;
    fs::copy(path("a/link"), path("three"))?;
    ensure!(fs::rename(path("three"), path("a")).is_err() && fs::remove_dir(path("a")).is_err());
    fs::rename(path("a/b"), path("c"))?;
    fs::write(path("c/two"), "of both")?;
    ensure!(fs::read_to_string(path("a/one"))? == "of both" && fs::read_to_string(path("three"))? == "one");
    disk.settle();
    cuts(&disk, 1, |_, found| {
        ensure!(fs::read_to_string(found.join("a/link"))? == "of both");
        ensure!(fs::read_dir(found)?.count() == 3 && fs::read_to_string(found.join("c/two"))? == "of both");
        Ok(())
    })
}
