//! What a caller may use of one hosted server.

use bytes::Bytes;
use emergent_mcp::{Ambiguous, Called, Rebuilt, gateway::public_name};
use emergent_mcp_hosting::HostingError;
use emergent_store::McpAllowList;
use http::HeaderMap;
use serde_json::value::RawValue;

use crate::problem::{ProblemKind, Refusal};

/// One server, as a caller may use it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed<'a> {
    list: Option<&'a McpAllowList>,
    server: &'a str,
}

// === impl Allowed ===

impl<'a> Allowed<'a> {
    /// What of the server may be used; one of which nothing may be is as good as not there.
    ///
    /// # Errors
    /// The refusal of a server that is not there.
    pub(crate) fn of(list: Option<&'a McpAllowList>, server: &'a str) -> Result<Self, Refusal> {
        if list.is_none_or(|list| list.allows_any_of(server)) {
            Ok(Self { list, server })
        } else {
            Err(HostingError::NotFound.into())
        }
    }

    /// Whether all that the server has may be used.
    pub(crate) fn is_all(self) -> bool {
        self.list.is_none_or(|list| list.allows_all_of(self.server))
    }

    /// Whether a tool may be used, which is named by its own name or the one that it has at `/mcp`.
    pub(crate) fn has_tool(self, tool: &str) -> bool {
        let at_gateway = || public_name(self.server, tool).split_off(self.server.len() + 2);
        self.list.is_none_or(|list| list.allows_tool(self.server, tool) || list.allows_tool(self.server, &at_gateway()))
    }

    /// The parameters to call a method with: as they are for a caller who may use everything, else written anew from
    /// what was judged.
    ///
    /// # Errors
    /// The refusal of what may not be used, or can be read in two ways.
    pub(crate) fn params(self, method: &str, params: Option<Box<RawValue>>) -> Result<Option<Box<RawValue>>, Refusal> {
        if self.is_all() {
            return Ok(params);
        }
        let (called, params) = Called::by(method, params.as_deref()).map_err(|why| self.ambiguous(&why))?;
        self.check(&called)?;
        Ok(params)
    }

    /// The body to send on for a caller who may not use everything: written anew from what was judged.
    ///
    /// # Errors
    /// The refusal of what may not be used, or can be read in two ways.
    pub(crate) fn body(self, body: &Bytes, headers: &HeaderMap) -> Result<Bytes, Refusal> {
        let Rebuilt { called, body } = Rebuilt::of(body, headers).map_err(|why| self.ambiguous(&why))?;
        called.iter().try_for_each(|called| self.check(called))?;
        Ok(body)
    }

    /// Refuses a call of anything that may not be used. A caller who may use some tools may use nothing but tools.
    fn check(self, called: &Called) -> Result<(), Refusal> {
        let what = match called {
            Called::Harmless => return Ok(()),
            Called::Tool(tool) if self.has_tool(tool) => return Ok(()),
            Called::Tool(tool) => format!("the tool {tool:?}"),
            Called::Other(method) => format!("the method {method:?}"),
        };
        Err(self.refusal(&what))
    }

    fn ambiguous(self, why: &Ambiguous) -> Refusal {
        self.refusal(&why.to_string())
    }

    fn refusal(self, what: &str) -> Refusal {
        let detail = format!(
            "your token may use some tools of the MCP server {:?} alone, and not {what}; GET /api/v1/tokens shows which, \
             as `mcp_servers`",
            self.server
        );
        Refusal::new(ProblemKind::McpToolNotAllowed, detail)
    }
}
