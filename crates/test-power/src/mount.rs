//! The disk, mounted: every call changes it at once, and is remembered.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fs::File,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use fuser::{
    BackgroundSession, FileAttr, FileType, Filesystem, KernelConfig, MountOption, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
};
use parking_lot::{Mutex, MutexGuard};
use tempfile::TempDir;

use crate::{
    contents::Contents,
    history::{Cut, Event, History, Kind, Moment, Name, TOP},
};

/// Nothing is known to the kernel but what it asks for.
const FRESH: Duration = Duration::ZERO;
/// The room that the disk claims to have, in blocks of 4 KiB.
const ROOM: u64 = 1 << 28;

/// A disk that is mounted for as long as this lives.
pub struct Disk {
    state: Arc<Mutex<State>>,
    // Unmounted before its directory goes.
    _session: BackgroundSession,
    directory: TempDir,
}

struct State {
    inodes: HashMap<u64, Inode>,
    history: History,
    next: u64,
}

struct Inode {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    names: u32,
    contents: Contents,
    entries: BTreeMap<OsString, u64>,
}

struct Mounted(Arc<Mutex<State>>);

/// A number of `errno`.
type Refusal = i32;

// === impl Disk ===

impl Disk {
    /// Mounts an empty disk.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn mount() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let mut state = State { inodes: HashMap::new(), history: History::default(), next: TOP };
        state.make(Kind::Directory, 0o755, owner);
        let state = Arc::new(Mutex::new(state));
        let options = [MountOption::FSName("emergent-test-power".to_owned()), MountOption::DefaultPermissions];
        let session = fuser::spawn_mount2(Mounted(Arc::clone(&state)), directory.path(), &options);
        Ok(Self { state, _session: session.context("the disk is not mounted")?, directory })
    }

    /// Returns the reason why no disk can be mounted here; `None` where one can.
    pub fn why_missing() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("it takes root".to_owned());
        }
        let opened = File::options().read(true).write(true).open("/dev/fuse");
        opened.err().map(|error| format!("it takes /dev/fuse: {error}"))
    }

    /// Returns the directory on which the disk is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The present moment: whatever was answered until now was answered after what the disk did until now.
    pub fn moment(&self) -> Moment {
        lock(&self.state).history.events.len()
    }

    /// All that is there has always been there. Cuts come later than this.
    pub fn settle(&self) {
        let mut state = lock(&self.state);
        state.history.begin = state.history.events.len();
    }

    /// The disk as it may be found after power cuts at `count` moments. What `seed` decides is when they are, and what
    /// of the unsynced changes is kept.
    pub fn cuts(&self, seed: u64, count: usize) -> Vec<Cut> {
        let history = lock(&self.state).history.clone();
        history.cuts(seed, count)
    }
}

// === impl State ===

impl State {
    fn make(&mut self, kind: Kind, mode: u32, owner: (u32, u32)) -> u64 {
        let inode = self.next;
        self.next += 1;
        self.history.kinds.insert(inode, (kind.clone(), mode));
        let contents = Contents::empty(SystemTime::now());
        self.inodes.insert(inode, Inode { kind, mode, owner, names: 0, contents, entries: BTreeMap::new() });
        inode
    }

    fn inode(&mut self, inode: u64) -> Result<&mut Inode, Refusal> {
        self.inodes.get_mut(&inode).ok_or(libc::ENOENT)
    }

    fn find(&mut self, directory: u64, name: &OsStr) -> Result<u64, Refusal> {
        self.inode(directory)?.entries.get(name).copied().ok_or(libc::ENOENT)
    }

    /// Changes names together.
    fn name(&mut self, names: Vec<Name>) -> Result<(), Refusal> {
        for Name { directory, name, inode } in &names {
            let entries = &mut self.inode(*directory)?.entries;
            let former = match inode {
                Some(inode) => entries.insert(name.clone(), *inode),
                None => entries.remove(name),
            };
            if let Some(former) = former {
                self.inode(former)?.names -= 1;
            }
            if let Some(inode) = inode {
                self.inode(*inode)?.names += 1;
            }
        }
        self.history.events.push(Event::Names(names));
        Ok(())
    }

    fn add(
        &mut self,
        directory: u64,
        name: &OsStr,
        kind: Kind,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<FileAttr, Refusal> {
        if self.find(directory, name).is_ok() {
            return Err(libc::EEXIST);
        }
        let inode = self.make(kind, mode & 0o7777, owner);
        self.name(vec![Name { directory, name: name.to_owned(), inode: Some(inode) }])?;
        self.attributes(inode)
    }

    fn remove(&mut self, directory: u64, name: &OsStr) -> Result<(), Refusal> {
        let inode = self.find(directory, name)?;
        if !self.inode(inode)?.entries.is_empty() {
            return Err(libc::ENOTEMPTY);
        }
        self.name(vec![Name { directory, name: name.to_owned(), inode: None }])
    }

    fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), flags: u32) -> Result<(), Refusal> {
        let (moved, former) = (self.find(from.0, from.1)?, self.find(to.0, to.1).ok());
        if flags & libc::RENAME_NOREPLACE != 0 && former.is_some() {
            return Err(libc::EEXIST);
        }
        let exchanged = flags & libc::RENAME_EXCHANGE != 0;
        if exchanged && former.is_none() {
            return Err(libc::ENOENT);
        }
        if let Some(former) = former
            && !exchanged
            && !self.inode(former)?.entries.is_empty()
        {
            return Err(libc::ENOTEMPTY);
        }
        if former == Some(moved) {
            return Ok(());
        }
        let left = if exchanged { former } else { None };
        self.name(vec![
            Name { directory: from.0, name: from.1.to_owned(), inode: left },
            Name { directory: to.0, name: to.1.to_owned(), inode: Some(moved) },
        ])
    }

    fn write(&mut self, inode: u64, offset: u64, data: &[u8]) -> Result<(), Refusal> {
        let at = SystemTime::now();
        let contents = &mut self.inode(inode)?.contents;
        contents.write(offset, data);
        contents.modified = at;
        self.history.events.push(Event::Write { inode, offset, data: data.into(), at });
        Ok(())
    }

    fn set_length(&mut self, inode: u64, length: u64) -> Result<(), Refusal> {
        let at = SystemTime::now();
        let contents = &mut self.inode(inode)?.contents;
        contents.set_length(length);
        contents.modified = at;
        self.history.events.push(Event::SetLength { inode, length, at });
        Ok(())
    }

    fn set_mode(&mut self, inode: u64, mode: u32) -> Result<(), Refusal> {
        let its = self.inode(inode)?;
        its.mode = mode & 0o7777;
        let kind = its.kind.clone();
        self.history.kinds.insert(inode, (kind, mode & 0o7777));
        Ok(())
    }

    fn attributes(&mut self, inode: u64) -> Result<FileAttr, Refusal> {
        let its = self.inode(inode)?;
        let time = its.contents.modified;
        Ok(FileAttr {
            ino: inode,
            size: its.contents.length(),
            blocks: its.contents.allocated() / 512,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: its.kind.word(),
            perm: u16::try_from(its.mode).unwrap_or_default(),
            nlink: if matches!(its.kind, Kind::Directory) { 2 } else { its.names },
            uid: its.owner.0,
            gid: its.owner.1,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

// === impl Kind ===

impl Kind {
    fn word(&self) -> FileType {
        match self {
            Self::File => FileType::RegularFile,
            Self::Directory => FileType::Directory,
            Self::Link(_) => FileType::Symlink,
            Self::Passing => FileType::Socket,
        }
    }
}

// === impl Mounted ===

impl Mounted {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock()
}

fn owner(request: &Request<'_>) -> (u32, u32) {
    (request.uid(), request.gid())
}

fn place(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or_default()
}

fn entry(reply: ReplyEntry, made: Result<FileAttr, Refusal>) {
    match made {
        Ok(attributes) => reply.entry(&FRESH, &attributes, 0),
        Err(refusal) => reply.error(refusal),
    }
}

fn done(reply: ReplyEmpty, done: Result<(), Refusal>) {
    match done {
        Ok(()) => reply.ok(),
        Err(refusal) => reply.error(refusal),
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _: &Request<'_>, _: &mut KernelConfig) -> Result<(), Refusal> {
        Ok(())
    }

    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.state();
        let found = state.find(parent, name).and_then(|inode| state.attributes(inode));
        entry(reply, found);
    }

    fn getattr(&mut self, _: &Request<'_>, ino: u64, _: Option<u64>, reply: ReplyAttr) {
        match self.state().attributes(ino) {
            Ok(attributes) => reply.attr(&FRESH, &attributes),
            Err(refusal) => reply.error(refusal),
        }
    }

    fn setattr(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<u64>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<u32>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        let mut change = || {
            if let Some(mode) = mode {
                state.set_mode(ino, mode)?;
            }
            if let Some(length) = size {
                state.set_length(ino, length)?;
            }
            let its = state.inode(ino)?;
            its.owner = (uid.unwrap_or(its.owner.0), gid.unwrap_or(its.owner.1));
            match mtime {
                Some(TimeOrNow::SpecificTime(time)) => its.contents.modified = time,
                Some(TimeOrNow::Now) => its.contents.modified = SystemTime::now(),
                None => {}
            }
            state.attributes(ino)
        };
        match change() {
            Ok(attributes) => reply.attr(&FRESH, &attributes),
            Err(refusal) => reply.error(refusal),
        }
    }

    fn readlink(&mut self, _: &Request<'_>, ino: u64, reply: ReplyData) {
        match self.state().inode(ino).map(|its| its.kind.clone()) {
            Ok(Kind::Link(target)) => reply.data(target.as_os_str().as_encoded_bytes()),
            Ok(_) => reply.error(libc::EINVAL),
            Err(refusal) => reply.error(refusal),
        }
    }

    fn mknod(
        &mut self,
        request: &Request<'_>,
        parent: u64,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let kind = if mode & libc::S_IFMT == libc::S_IFREG { Kind::File } else { Kind::Passing };
        entry(reply, self.state().add(parent, name, kind, mode & !umask, owner(request)));
    }

    fn mkdir(&mut self, request: &Request<'_>, parent: u64, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        entry(reply, self.state().add(parent, name, Kind::Directory, mode & !umask, owner(request)));
    }

    fn unlink(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.state().remove(parent, name));
    }

    fn rmdir(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.state().remove(parent, name));
    }

    fn symlink(&mut self, request: &Request<'_>, parent: u64, name: &OsStr, target: &Path, reply: ReplyEntry) {
        entry(reply, self.state().add(parent, name, Kind::Link(target.to_owned()), 0o777, owner(request)));
    }

    fn rename(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        newparent: u64,
        newname: &OsStr,
        flags: u32,
        reply: ReplyEmpty,
    ) {
        done(reply, self.state().rename((parent, name), (newparent, newname), flags));
    }

    fn link(&mut self, _: &Request<'_>, ino: u64, newparent: u64, newname: &OsStr, reply: ReplyEntry) {
        let mut state = self.state();
        let made = match state.find(newparent, newname) {
            Ok(_) => Err(libc::EEXIST),
            Err(_) => state
                .name(vec![Name { directory: newparent, name: newname.to_owned(), inode: Some(ino) }])
                .and_then(|()| state.attributes(ino)),
        };
        entry(reply, made);
    }

    fn create(
        &mut self,
        request: &Request<'_>,
        parent: u64,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.state().add(parent, name, Kind::File, mode & !umask, owner(request)) {
            Ok(attributes) => reply.created(&FRESH, &attributes, 0, 0, 0),
            Err(refusal) => reply.error(refusal),
        }
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _: u64,
        offset: i64,
        size: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyData,
    ) {
        match self.state().inode(ino) {
            Ok(its) => reply.data(&its.contents.read(place(offset), usize::try_from(size).unwrap_or_default())),
            Err(refusal) => reply.error(refusal),
        }
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _: u64,
        offset: i64,
        data: &[u8],
        _: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyWrite,
    ) {
        match self.state().write(ino, place(offset), data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or_default()),
            Err(refusal) => reply.error(refusal),
        }
    }

    fn flush(&mut self, _: &Request<'_>, _: u64, _: u64, _: u64, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&mut self, _: &Request<'_>, ino: u64, _: u64, _: bool, reply: ReplyEmpty) {
        self.state().history.events.push(Event::Sync { inode: ino });
        reply.ok();
    }

    fn fsyncdir(&mut self, _: &Request<'_>, ino: u64, _: u64, _: bool, reply: ReplyEmpty) {
        self.state().history.events.push(Event::SyncNames { directory: ino });
        reply.ok();
    }

    fn readdir(&mut self, _: &Request<'_>, ino: u64, _: u64, offset: i64, mut reply: ReplyDirectory) {
        let mut state = self.state();
        let entries = match state.inode(ino) {
            Ok(its) => its.entries.clone(),
            Err(refusal) => return reply.error(refusal),
        };
        // Those that lead upwards the kernel knows by itself.
        let here = [".", ".."].map(|name| (OsString::from(name), ino));
        let all = here.into_iter().chain(entries).enumerate();
        for (number, (name, inode)) in all.skip(usize::try_from(offset).unwrap_or_default()) {
            let kind = state.inode(inode).map_or(FileType::RegularFile, |its| its.kind.word());
            if reply.add(inode, i64::try_from(number + 1).unwrap_or(i64::MAX), kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&mut self, _: &Request<'_>, _: u64, reply: ReplyStatfs) {
        reply.statfs(ROOM, ROOM, ROOM, ROOM, ROOM, 4096, 255, 4096);
    }

    fn lseek(&mut self, _: &Request<'_>, ino: u64, _: u64, offset: i64, whence: i32, reply: ReplyLseek) {
        let found = match self.state().inode(ino) {
            Ok(its) if matches!(whence, libc::SEEK_DATA | libc::SEEK_HOLE) => {
                its.contents.seek(place(offset), whence == libc::SEEK_DATA).ok_or(libc::ENXIO)
            }
            Ok(_) => Err(libc::EINVAL),
            Err(refusal) => Err(refusal),
        };
        match found {
            Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Err(refusal) => reply.error(refusal),
        }
    }
}
