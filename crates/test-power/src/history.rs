//! The history of a disk, in order, and the parts of it that may be left when the power goes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsString,
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use crate::contents::Contents;

/// The directory that is mounted.
pub(crate) const TOP: u64 = 1;

/// The bytes that cannot be torn apart: a disk writes so many whole or not at all.
const SECTOR: usize = 512;

/// A moment in the history of a disk: so many things had been done.
pub type Moment = usize;

/// The kind of an inode, with its contents.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    File,
    Directory,
    Link(PathBuf),
    /// A socket or a pipe, which means nothing once its process is gone.
    Passing,
}

/// Something that was done.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Write {
        inode: u64,
        offset: u64,
        data: Arc<[u8]>,
        at: SystemTime,
    },
    SetLength {
        inode: u64,
        length: u64,
        at: SystemTime,
    },
    Sync {
        inode: u64,
    },
    /// Names that change together.
    Names(Vec<Name>),
    SyncNames {
        directory: u64,
    },
}

/// A name in a directory, and what it means from now on.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) directory: u64,
    pub(crate) name: OsString,
    pub(crate) inode: Option<u64>,
}

/// The memory of a disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) events: Vec<Event>,
    pub(crate) kinds: HashMap<u64, (Kind, u32)>,
    /// From here on it counts; what was before is on the disk.
    pub(crate) begin: Moment,
}

/// The files and directories on the disk.
#[derive(Debug, Clone, Default)]
struct Tree {
    files: HashMap<u64, Contents>,
    names: HashMap<u64, BTreeMap<OsString, u64>>,
}

/// A disk as it may be found after a power cut.
#[derive(Debug)]
pub struct Cut {
    /// When the power went: what was promised before this moment has to be there.
    pub moment: Moment,
    /// How it came about, for people.
    pub story: String,
    tree: Tree,
    kinds: Arc<HashMap<u64, (Kind, u32)>>,
}

/// SplitMix64: the same numbers for the same seed, everywhere.
#[derive(Debug, Clone)]
struct Dice(u64);

// === impl History ===

impl History {
    /// The trees that may be found at `count` moments, for one seed always the same.
    pub(crate) fn cuts(&self, seed: u64, count: usize) -> Vec<Cut> {
        let mut dice = Dice(seed);
        let span = self.events.len() - self.begin + 1;
        let mut moments: Vec<_> = (0..count).map(|_| self.begin + dice.below(span)).collect();
        moments.sort_unstable();
        let kinds = Arc::new(self.kinds.clone());
        let (mut stable, mut open) = (Tree::default(), Vec::new());
        let mut done = 0;
        let mut cuts = Vec::new();
        for moment in moments {
            while done < moment {
                open.push(done);
                self.keep(done, &mut stable, &mut open);
                done += 1;
                if done == self.begin {
                    open.drain(..).for_each(|event| stable.apply(&self.events[event]));
                }
            }
            cuts.push(self.cut(moment, &stable, &open, &mut dice, &kinds));
        }
        cuts
    }

    /// Applies what a sync has made sure of.
    fn keep(&self, sync: Moment, stable: &mut Tree, open: &mut Vec<Moment>) {
        let sure: HashSet<Moment> = match &self.events[sync] {
            Event::Sync { inode } => {
                let of_file = |event: &&Moment| match &self.events[**event] {
                    Event::Write { inode: its, .. } | Event::SetLength { inode: its, .. } => its == inode,
                    Event::Sync { .. } | Event::Names(_) | Event::SyncNames { .. } => false,
                };
                open.iter().filter(of_file).copied().collect()
            }
            Event::SyncNames { directory } => {
                // With what was done before in directories that share a change with this one.
                let mut directories = HashSet::from([*directory]);
                let of_directory = |event: &&Moment| match &self.events[**event] {
                    Event::Names(names) if names.iter().any(|name| directories.contains(&name.directory)) => {
                        directories.extend(names.iter().map(|name| name.directory));
                        true
                    }
                    _ => false,
                };
                open.iter().rev().filter(of_directory).copied().collect()
            }
            Event::Write { .. } | Event::SetLength { .. } | Event::Names(_) => return,
        };
        open.retain(|event| {
            let is_sure = sure.contains(event);
            if is_sure {
                stable.apply(&self.events[*event]);
            }
            !is_sure && *event != sync
        });
    }

    /// Adds to what is sure some of what is not.
    fn cut(
        &self,
        moment: Moment,
        stable: &Tree,
        open: &[Moment],
        dice: &mut Dice,
        kinds: &Arc<HashMap<u64, (Kind, u32)>>,
    ) -> Cut {
        let mut tree = stable.clone();
        let mut files: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
        let (mut changes, mut kept) = (Vec::new(), 0);
        for event in open.iter().map(|event| &self.events[*event]) {
            match event {
                Event::Write { inode, .. } | Event::SetLength { inode, .. } => {
                    files.entry(*inode).or_default().push(event)
                }
                Event::Names(names) => changes.push((event, names)),
                Event::Sync { .. } | Event::SyncNames { .. } => {}
            }
        }
        let unsynced = files.values().map(Vec::len).sum::<usize>() + changes.len();
        for (inode, events) in files {
            kept += tree.apply_some(inode, &events, dice);
        }
        // A change that is lost loses all later ones of its directories.
        let odds = dice.below(5);
        let mut lost = HashSet::new();
        for (event, names) in changes {
            let follows = names.iter().all(|name| !lost.contains(&name.directory));
            if follows && dice.below(4) < odds {
                tree.apply(event);
                kept += 1;
            } else {
                lost.extend(names.iter().map(|name| name.directory));
            }
        }
        let last = moment.checked_sub(1).map_or_else(|| "nothing".to_owned(), |last| self.tell(last));
        let story = format!(
            "after {moment} events of {}, the last of them {last}; {kept} of {unsynced} unsynced changes are kept",
            self.events.len()
        );
        Cut { moment, story, tree, kinds: Arc::clone(kinds) }
    }

    fn tell(&self, event: Moment) -> String {
        match &self.events[event] {
            Event::Write { inode, offset, data, .. } => format!("{} bytes at {offset} of file {inode}", data.len()),
            Event::SetLength { inode, length, .. } => format!("the length {length} of file {inode}"),
            Event::Sync { inode } => format!("a sync of file {inode}"),
            Event::Names(names) => {
                let names = names.iter().map(|name| match name.inode {
                    Some(inode) => format!("{} is {inode}", name.name.display()),
                    None => format!("{} is gone", name.name.display()),
                });
                names.collect::<Vec<_>>().join(", ")
            }
            Event::SyncNames { directory } => format!("a sync of directory {directory}"),
        }
    }
}

// === impl Tree ===

impl Tree {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { inode, offset, data, at } => self.file(*inode, *at).write(*offset, data),
            Event::SetLength { inode, length, at } => self.file(*inode, *at).set_length(*length),
            Event::Names(names) => {
                for Name { directory, name, inode } in names {
                    let entries = self.names.entry(*directory).or_default();
                    match inode {
                        Some(inode) => entries.insert(name.clone(), *inode),
                        None => entries.remove(name),
                    };
                }
            }
            Event::Sync { .. } | Event::SyncNames { .. } => {}
        }
    }

    /// Applies some of the changes to a file that were not synced; answers how many.
    fn apply_some(&mut self, inode: u64, events: &[&Event], dice: &mut Dice) -> usize {
        let up_to = dice.below(events.len() + 1);
        let chosen: Vec<&Event> = match dice.below(5) {
            0 => Vec::new(),
            1 => events.to_vec(),
            2 => events[..up_to].to_vec(),
            3 => events.iter().filter(|_| dice.below(2) == 0).copied().collect(),
            // The length came before the contents.
            _ => {
                for event in events {
                    match event {
                        Event::Write { offset, data, at, .. } => {
                            let file = self.file(inode, *at);
                            file.set_length(file.length().max(offset + data.len() as u64));
                        }
                        other => self.apply(other),
                    }
                }
                return 0;
            }
        };
        for (number, event) in chosen.iter().enumerate() {
            match event {
                Event::Write { offset, data, at, .. } if number + 1 == chosen.len() && data.len() > SECTOR => {
                    let sectors = 1 + dice.below(data.len().div_ceil(SECTOR));
                    self.file(inode, *at).write(*offset, &data[..data.len().min(sectors * SECTOR)]);
                }
                event => self.apply(event),
            }
        }
        chosen.len()
    }

    fn file(&mut self, inode: u64, at: SystemTime) -> &mut Contents {
        let file = self.files.entry(inode).or_insert_with(|| Contents::empty(at));
        file.modified = at;
        file
    }
}

// === impl Cut ===

impl Cut {
    /// Puts the tree into a directory that is empty.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, into: &Path) -> io::Result<()> {
        self.put_directory(TOP, into, &mut HashMap::new())
    }

    fn put_directory(&self, directory: u64, into: &Path, known: &mut HashMap<u64, PathBuf>) -> io::Result<()> {
        for (name, inode) in self.tree.names.get(&directory).into_iter().flatten() {
            let path = into.join(name);
            let Some((kind, mode)) = self.kinds.get(inode) else { continue };
            let permissions = fs::Permissions::from_mode(*mode);
            match kind {
                Kind::Directory => {
                    fs::create_dir(&path)?;
                    fs::set_permissions(&path, permissions)?;
                    self.put_directory(*inode, &path, known)?;
                }
                Kind::File => match known.get(inode) {
                    Some(other) => fs::hard_link(other, &path)?,
                    None => {
                        match self.tree.files.get(inode) {
                            Some(contents) => contents.put(&path)?,
                            None => drop(fs::File::create_new(&path)?),
                        }
                        fs::set_permissions(&path, permissions)?;
                        known.insert(*inode, path);
                    }
                },
                Kind::Link(target) => symlink(target, &path)?,
                Kind::Passing => {}
            }
        }
        Ok(())
    }
}

// === impl Dice ===

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^= number >> 31;
        usize::try_from(number % (limit.max(1) as u64)).unwrap_or_default()
    }
}
