//! The offers of one server of one kind, as the gateway lists them.

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Upstreams, names};
use crate::{
    elements::{Elements, member},
    headers::HeaderRules,
};

/// The most bytes and items that are kept of one server's offers of one kind; the rest is left out.
pub(super) const CATALOGUE_LIMIT: usize = 4 << 20;
const ITEMS_LIMIT: usize = 5_000;

/// The kinds of named things that servers offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Offer {
    Tools,
    Prompts,
}

/// The offers of one server of one kind.
pub(super) struct Catalogue {
    pub(super) items: Vec<Item>,
    /// The bytes of the items' descriptions.
    size: usize,
    /// The rules about which arguments of the server's tools are repeated in headers.
    pub(super) rules: HeaderRules,
    pub(super) read: Instant,
}

/// A tool or a prompt.
pub(super) struct Item {
    /// The item's name at the gateway.
    pub(super) public: String,
    /// The item's name at its server.
    pub(super) name: String,
    /// The server's description of the item, under its name at the gateway.
    pub(super) json: String,
}

// === impl Offer ===

impl Offer {
    pub(super) const ALL: [Self; 2] = [Self::Tools, Self::Prompts];

    /// The key of the kind in lists and among capabilities.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
        }
    }

    /// The method that lists items of the kind.
    pub(super) fn list(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
        }
    }

    /// The notification of a change.
    pub(super) fn changed(self) -> &'static str {
        match self {
            Self::Tools => "notifications/tools/list_changed",
            Self::Prompts => "notifications/prompts/list_changed",
        }
    }

    /// The member by which a listener of the newer era asks for changes of the kind.
    pub(super) fn filter(self) -> &'static str {
        match self {
            Self::Tools => "toolsListChanged",
            Self::Prompts => "promptsListChanged",
        }
    }

    /// The word for one item of the kind.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Tools => "tool",
            Self::Prompts => "prompt",
        }
    }

    /// Whether the caller may use this item of the kind.
    pub(super) fn is_allowed(self, upstreams: &dyn Upstreams, server: &str, name: &str) -> bool {
        match self {
            Self::Tools => upstreams.allows_tool(server, name),
            Self::Prompts => upstreams.allows_all_of(server),
        }
    }
}

// === impl Catalogue ===

impl Catalogue {
    pub(super) fn new() -> Self {
        Self { items: Vec::new(), size: 0, rules: HeaderRules::default(), read: Instant::now() }
    }

    /// The bytes of the items' descriptions.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Adds one page of a server's list; returns the cursor of the next, as JSON, if there is one.
    pub(super) fn add(&mut self, server: &str, offer: Offer, page: &RawValue) -> Option<String> {
        let items = Elements::of(member(page, offer.key())?)?;
        for item in items.filter_map(|raw| Item::of(server, raw)) {
            self.size += item.json.len();
            if self.size > CATALOGUE_LIMIT || self.items.len() >= ITEMS_LIMIT {
                tracing::warn!(
                    server,
                    offer = offer.key(),
                    "an MCP server lists more than is kept; the rest is left out"
                );
                return None;
            }
            self.items.push(item);
        }
        self.rules.add(page)
    }

    /// Whether both catalogues give the same list.
    pub(super) fn lists_the_same(&self, other: &Self) -> bool {
        self.items.iter().map(|item| &item.json).eq(other.items.iter().map(|item| &item.json))
    }
}

// === impl Item ===

impl Item {
    /// The description with its name replaced, and nothing else.
    fn of(server: &str, raw: &RawValue) -> Option<Self> {
        let text = raw.get();
        let written = member(raw, "name")?.get();
        let name: String = serde_json::from_str(written).ok()?;
        let at = (written.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        let public = names::public_name(server, &name);
        let (before, after) = (text.get(..at)?, text.get(at + written.len()..)?);
        // A line is the frame of a message.
        let json = format!("{before}{}{after}", names::quoted(&public)).replace(['\n', '\r'], " ");
        Some(Self { public, name, json })
    }
}
