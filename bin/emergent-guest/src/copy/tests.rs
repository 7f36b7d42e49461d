//! Copies of trees that were made to be difficult.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    os::unix::net::UnixListener,
    path::Path,
};

use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, XattrFlags};
use tempfile::TempDir;

use super::*;

struct Trees {
    folder: TempDir,
}

impl Trees {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("from")).unwrap();
        fs::create_dir(folder.path().join("to")).unwrap();
        Self { folder }
    }

    fn from(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("from").join(name)
    }

    fn to(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("to").join(name)
    }

    fn copy(&self) -> u64 {
        tree(&self.from(""), &self.to("")).unwrap()
    }
}

fn set_times(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn contents_modes_times_and_the_directory_itself_come_along() {
    let trees = Trees::new();
    fs::create_dir_all(trees.from("deep/er")).unwrap();
    fs::write(trees.from("deep/er/file"), "text").unwrap();
    fs::set_permissions(trees.from("deep/er/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(trees.from("deep"), fs::Permissions::from_mode(0o1750)).unwrap();
    for (path, seconds) in [("deep/er/file", 1_000), ("deep/er", 2_000), ("deep", 3_000), ("", 4_000)] {
        set_times(&trees.from(path), seconds);
    }
    assert!(trees.copy() >= 4);
    assert_eq!(fs::read(trees.to("deep/er/file")).unwrap(), b"text");
    for path in ["deep/er/file", "deep/er", "deep", ""] {
        let (was, is) = (fs::metadata(trees.from(path)).unwrap(), fs::metadata(trees.to(path)).unwrap());
        assert_eq!((was.mode(), was.uid(), was.gid()), (is.mode(), is.uid(), is.gid()), "{path}");
        assert_eq!((was.mtime(), was.mtime_nsec()), (is.mtime(), is.mtime_nsec()), "{path}");
    }
}

#[test]
fn owners_come_along_where_they_can_be_given() {
    if !rustix::process::geteuid().is_root() {
        tracing::warn!("skipped: only root can give a file to somebody else");
        return;
    }
    let trees = Trees::new();
    fs::write(trees.from("file"), "x").unwrap();
    symlink("file", trees.from("link")).unwrap();
    for name in ["file", "link"] {
        std::os::unix::fs::lchown(trees.from(name), Some(1234), Some(4321)).unwrap();
    }
    trees.copy();
    for name in ["file", "link"] {
        let is = fs::symlink_metadata(trees.to(name)).unwrap();
        assert_eq!((is.uid(), is.gid()), (1234, 4321), "{name}");
    }
}

#[test]
fn links_are_copied_and_never_followed() {
    let trees = Trees::new();
    let outside = trees.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    for (name, target) in [("absolute", "/etc"), ("up", "../outside"), ("broken", "nowhere"), ("self", "self")] {
        symlink(target, trees.from(name)).unwrap();
    }
    set_times(&trees.from("absolute"), 1_000);
    trees.copy();
    for (name, target) in [("absolute", "/etc"), ("up", "../outside"), ("broken", "nowhere"), ("self", "self")] {
        assert_eq!(fs::read_link(trees.to(name)).unwrap(), Path::new(target));
    }
    assert_eq!(fs::symlink_metadata(trees.to("absolute")).unwrap().mtime(), 1_000);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let trees = Trees::new();
    fs::create_dir(trees.from("sub")).unwrap();
    fs::write(trees.from("one"), "x").unwrap();
    fs::hard_link(trees.from("one"), trees.from("sub/two")).unwrap();
    symlink("x", trees.from("link")).unwrap();
    rustix::fs::linkat(CWD, trees.from("link"), CWD, trees.from("link2"), AtFlags::empty()).unwrap();
    trees.copy();
    let inode = |name: &str| fs::symlink_metadata(trees.to(name)).unwrap().ino();
    assert_eq!(inode("one"), inode("sub/two"));
    assert_eq!(inode("link"), inode("link2"));
    assert_ne!(inode("one"), fs::metadata(trees.from("one")).unwrap().ino());
}

#[test]
fn holes_stay_holes() {
    let trees = Trees::new();
    let file = fs::File::create(trees.from("sparse")).unwrap();
    file.set_len(1 << 40).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"data", 1 << 30).unwrap();
    trees.copy();
    let copy = fs::metadata(trees.to("sparse")).unwrap();
    assert_eq!(copy.size(), 1 << 40);
    assert!(copy.blocks() < 1024, "{}", copy.blocks());
    let mut read = [0; 6];
    let copied = fs::File::open(trees.to("sparse")).unwrap();
    std::os::unix::fs::FileExt::read_at(&copied, &mut read, (1 << 30) - 1).unwrap();
    assert_eq!(&read, b"\0data\0");
}

#[test]
fn pipes_and_sockets_are_made_anew_and_hold_nothing_up() {
    let trees = Trees::new();
    rustix::fs::mknodat(CWD, trees.from("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _listener = UnixListener::bind(trees.from("socket")).unwrap();
    trees.copy();
    let kind = |name: &str| FileType::from_raw_mode(fs::symlink_metadata(trees.to(name)).unwrap().mode());
    assert_eq!((kind("pipe"), kind("socket")), (FileType::Fifo, FileType::Socket));
}

#[test]
fn extended_attributes_come_along() {
    let trees = Trees::new();
    fs::write(trees.from("file"), "x").unwrap();
    match rustix::fs::setxattr(trees.from("file"), c"user.note", b"kept", XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => {
            tracing::warn!("skipped: this file system has no extended attributes");
            return;
        }
        set => set.unwrap(),
    }
    trees.copy();
    let mut value = [0_u8; 16];
    let length = rustix::fs::getxattr(trees.to("file"), c"user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"kept");
}

#[test]
fn a_tree_deeper_than_any_path_is_copied_and_odd_names_too() {
    let trees = Trees::new();
    let name = "d".repeat(200);
    let mut directory = rustix::fs::openat(CWD, trees.from(""), DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..60 {
        rustix::fs::mkdirat(&directory, &name, Mode::RWXU).unwrap();
        directory = rustix::fs::openat(&directory, &name, DIRECTORY, Mode::empty()).unwrap();
    }
    let odd = c"-\n\xff *";
    rustix::fs::mkdirat(&directory, odd, Mode::RWXU).unwrap();
    trees.copy();
    let mut copied = rustix::fs::openat(CWD, trees.to(""), DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..60 {
        copied = rustix::fs::openat(&copied, &name, DIRECTORY, Mode::empty()).unwrap();
    }
    rustix::fs::openat(&copied, odd, DIRECTORY, Mode::empty()).unwrap();
}

#[test]
fn nothing_is_copied_until_somebody_says_so() {
    let trees = Trees::new();
    fs::write(trees.from("file"), "x").unwrap();
    for (told, copied) in [("", false), ("now\n", true)] {
        let mut answer = Vec::new();
        when_told(&[(trees.from(""), trees.to(""))], told.as_bytes(), &mut answer).unwrap();
        assert_eq!((trees.to("file").exists(), answer.ends_with(b"\n")), (copied, copied), "{answer:?}");
    }
    let mut answer = Vec::new();
    when_told(&[(trees.from(""), trees.to("nowhere"))], b"now\n".as_slice(), &mut answer).unwrap();
    assert!(answer.starts_with(b"\"/\": "), "{answer:?}");
}

#[test]
fn several_trees_are_copied_one_after_the_other() {
    let (one, other) = (Trees::new(), Trees::new());
    fs::write(other.from("file"), "x").unwrap();
    let pairs = [&one, &other].map(|trees| (trees.from(""), trees.to("")));
    let mut answer = Vec::new();
    when_told(&pairs, b"now\n".as_slice(), &mut answer).unwrap();
    let bytes = String::from_utf8(answer).unwrap();
    let bytes = bytes.split_whitespace().map(|bytes| bytes.parse::<u64>().unwrap()).collect::<Vec<_>>();
    assert!(bytes.len() == 2 && bytes[1] > bytes[0] && other.to("file").exists(), "{bytes:?}");
}

#[test]
fn what_cannot_be_copied_is_named() {
    let trees = Trees::new();
    fs::write(trees.from("file"), "x").unwrap();
    fs::write(trees.to("file"), "was here before").unwrap();
    let error = tree(&trees.from(""), &trees.to("")).unwrap_err();
    assert!(error.to_string().starts_with("\"/file\": "), "{error}");
}
