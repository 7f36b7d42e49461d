//! The offers of the servers, merged into lists with pages of our own.

use std::sync::Arc;

use futures::{FutureExt as _, future::join_all};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;

use super::{Upstreams, names, session, session::GatewaySession};
use crate::{
    envelope::Message,
    modern::HeaderRules,
    rpc::{self, Failure},
};

/// How many items a page has.
const PAGE: usize = 250;
/// The most bytes and items that are kept of one server's offers of one kind; the rest is left out.
const CATALOGUE_LIMIT: usize = 4 << 20;
const ITEMS_LIMIT: usize = 5_000;
/// How long clients of the newer era may believe a list.
const LIST_TTL_MS: u64 = 5_000;

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
    json: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PageParams {
    cursor: Option<String>,
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
        let items = session::member(page, offer.key())?;
        let items: Vec<&RawValue> = serde_json::from_str(items.get()).ok()?;
        for item in items.into_iter().filter_map(|raw| Item::of(server, raw)) {
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
        let written = session::member(raw, "name")?.get();
        let name: String = serde_json::from_str(written).ok()?;
        let at = (written.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        let public = names::public_name(server, &name);
        let (before, after) = (text.get(..at)?, text.get(at + written.len()..)?);
        // A line is the frame of a message.
        let json = format!("{before}{}{after}", names::quoted(&public)).replace(['\n', '\r'], " ");
        Some(Self { public, name, json })
    }
}

/// One page of the offers of all servers, as the result of a list: at once, with the offers that are known. The client
/// is told of a change when there are more, and in a log message of servers that are left out.
pub(super) async fn page(
    gateway: &Arc<GatewaySession>,
    offer: Offer,
    message: &Message,
    modern: bool,
) -> Result<String, Failure> {
    let PageParams { cursor } =
        message.params_text().and_then(|params| serde_json::from_str(params).ok()).unwrap_or_default();
    let servers = gateway.upstreams.list().await;
    // A first page has what a server was just found to offer; further ones are of the same list.
    let first = cursor.is_none();
    let running = servers.iter().filter(|server| server.trouble.is_none());
    let offering = running.filter(|server| offer == Offer::Tools || gateway.upstreams.allows_all_of(&server.name));
    let catalogues = join_all(offering.map(|server| gateway.offered(server, offer, first).boxed())).await;
    if first {
        gateway.tell_troubles(&servers, message, modern).await;
    }
    let items = catalogues.iter().flatten().flat_map(|catalogue| &catalogue.items);
    let allowed = |item: &&Item| {
        names::split(&item.public).is_some_and(|(server, _)| offer.is_allowed(&*gateway.upstreams, server, &item.name))
    };
    let items: Vec<&Item> = items.filter(allowed).collect();
    let start = match &cursor {
        None => 0,
        Some(cursor) => {
            1 + items.iter().position(|item| item.public == *cursor).ok_or_else(|| {
                Failure::new(
                    rpc::INVALID_PARAMS,
                    "the list has changed behind this cursor; begin again without one".into(),
                )
            })?
        }
    };
    let page: Vec<&Item> = items.iter().skip(start).take(PAGE).copied().collect();
    let next = page.last().filter(|_| start + page.len() < items.len()).map(|item| item.public.as_str());
    let mut rest = json!({});
    if let Some(next) = next {
        rest["nextCursor"] = json!(next);
    }
    if modern {
        complete(&mut rest);
    }
    let rest = rest.to_string();
    let rest = rest.strip_prefix('{').unwrap_or_default();
    let comma = if rest == "}" { "" } else { "," };
    let listed = page.iter().map(|item| item.json.as_str()).collect::<Vec<_>>().join(",");
    Ok(format!(r#"{{"{}":[{listed}]{comma}{rest}"#, offer.key()))
}

/// Adds the members that each list of the newer era has besides its items.
pub(super) fn complete(result: &mut Value) {
    result["resultType"] = json!("complete");
    result["ttlMs"] = json!(LIST_TTL_MS);
    result["cacheScope"] = json!("private");
    result["_meta"] = json!({ "io.modelcontextprotocol/serverInfo": session::info() });
}
