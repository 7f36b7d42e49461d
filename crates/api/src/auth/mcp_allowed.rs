//! The part of one hosted server that a caller may use.

use bytes::Bytes;
use emergent_mcp::{Ambiguous, Called, Rebuilt, gateway::public_name};
use emergent_mcp_hosting::HostingError;
use emergent_store::McpAllowList;
use http::HeaderMap;
use serde_json::value::RawValue;

use crate::http::problem::{ProblemKind, Refusal};

/// The part of one hosted server that a caller may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed<'a> {
    list: Option<&'a McpAllowList>,
    server: &'a str,
}

// === impl Allowed ===

impl<'a> Allowed<'a> {
    /// Returns the part of the server that may be used; a server without such a part counts as absent.
    ///
    /// # Errors
    /// The refusal of an absent server.
    pub(crate) fn of(list: Option<&'a McpAllowList>, server: &'a str) -> Result<Self, Refusal> {
        if list.is_none_or(|list| list.allows_any_of(server)) {
            Ok(Self { list, server })
        } else {
            Err(HostingError::NotFound.into())
        }
    }

    /// Returns whether everything that the server has may be used.
    pub(crate) fn is_all(self) -> bool {
        self.list.is_none_or(|list| list.allows_all_of(self.server))
    }

    /// Returns whether a tool may be used. The tool is named by its own name or by its name at `/mcp`.
    pub(crate) fn has_tool(self, tool: &str) -> bool {
        let at_gateway = || public_name(self.server, tool).split_off(self.server.len() + 2);
        self.list.is_none_or(|list| list.allows_tool(self.server, tool) || list.allows_tool(self.server, &at_gateway()))
    }

    /// Returns the parameters to call a method with: unchanged for a caller who may use everything, otherwise written
    /// anew from the checked parts.
    ///
    /// # Errors
    /// The refusal of a call that is not allowed, or that can be read in two ways.
    pub(crate) fn params(self, method: &str, params: Option<Box<RawValue>>) -> Result<Option<Box<RawValue>>, Refusal> {
        if self.is_all() {
            return Ok(params);
        }
        let (called, params) = Called::by(method, params.as_deref()).map_err(|why| self.ambiguous(&why))?;
        self.check(&called)?;
        Ok(params)
    }

    /// Returns the body and the headers to send on for a caller who may not use everything: written anew from the
    /// checked parts.
    ///
    /// # Errors
    /// The refusal of a call that is not allowed, or that can be read in two ways.
    pub(crate) fn rebuilt(self, body: &Bytes, headers: &HeaderMap) -> Result<Rebuilt, Refusal> {
        let rebuilt = Rebuilt::of(body, headers).map_err(|why| self.ambiguous(&why))?;
        rebuilt.called.iter().try_for_each(|called| self.check(called))?;
        Ok(rebuilt)
    }

    /// Refuses calls that are not allowed. A caller who may use only some tools may use nothing but tools.
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
