//! The offers of the servers, merged into lists with pages of our own.

use std::sync::Arc;

use futures::{FutureExt as _, future::join_all};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    catalogue::{CATALOGUE_LIMIT, Item, Offer},
    names,
    session::GatewaySession,
};
use crate::{
    envelope::Message,
    rpc::{self, Failure},
};

/// The number of items that a page has.
const PAGE: usize = 250;
/// The most bytes of a page's items: as many as one server's list may have, so that the longest item has room.
const PAGE_BYTES: usize = CATALOGUE_LIMIT;
/// The time for which clients of the newer era may believe a list.
const LIST_TTL_MS: u64 = 5_000;

#[derive(Default, Deserialize)]
#[serde(default)]
struct PageParams {
    cursor: Option<String>,
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
    let mut bytes = 0;
    let has_room = |item: &&Item| {
        bytes += item.json.len();
        bytes <= PAGE_BYTES
    };
    let page: Vec<&Item> = items.iter().skip(start).take(PAGE).copied().take_while(has_room).collect();
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
    result["_meta"] = json!({ "io.modelcontextprotocol/serverInfo": server_info() });
}

/// The `serverInfo` of a gateway.
pub(super) fn server_info() -> Value {
    json!({ "name": "emergent", "title": "Emergent Workspaces", "version": env!("CARGO_PKG_VERSION") })
}
