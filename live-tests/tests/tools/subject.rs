//! The subject of a case: a workspace of its own. All cases on a runtime share a server, since a server that runs
//! machines boots one first, to find out whether it can.

use std::{sync::Arc, time::Duration};

use emergent_live_tests::{Api, Reply, Runtime, Server, api::WORKSPACES, mcp::Session, until};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::Mutex;

static SERVERS: Mutex<Vec<(Runtime, Arc<Server>)>> = Mutex::const_new(Vec::new());

/// A workspace. Dropping it destroys the workspace.
pub(crate) struct Subject {
    api: Api,
    id: String,
}

/// Ends the servers, when no case is left.
pub(crate) fn end_servers() {
    SERVERS.blocking_lock().clear();
}

/// A client of a runtime's server, which the first caller starts. Its connections are the caller's own.
async fn api_on(runtime: Runtime) -> anyhow::Result<Api> {
    let mut servers = SERVERS.lock().await;
    let known = servers.iter().find(|(its, _)| *its == runtime).map(|(_, server)| Arc::clone(server));
    let server = match known {
        Some(server) => server,
        None => {
            let server = Arc::new(Server::on(runtime).await?);
            servers.push((runtime, Arc::clone(&server)));
            server
        }
    };
    Api::new(server.api.base(), server.api.token())
}

// === impl Subject ===

impl Subject {
    /// A workspace with nothing special.
    pub(crate) async fn on(runtime: Runtime) -> anyhow::Result<Self> {
        Self::with(runtime, json!({})).await
    }

    /// A workspace as asked for.
    pub(crate) async fn with(runtime: Runtime, mut body: Value) -> anyhow::Result<Self> {
        body["network"] = json!("none");
        let api = api_on(runtime).await?;
        let id = api.create(body).await?;
        Ok(Self { api, id })
    }

    /// Calls a tool.
    pub(crate) async fn tool(&self, name: &str, body: Value) -> anyhow::Result<Reply> {
        self.api.tool(&self.id, name, body).await
    }

    /// Runs a command that must succeed; answers its standard output.
    pub(crate) async fn bash(&self, command: &str) -> anyhow::Result<String> {
        self.api.bash(&self.id, command).await
    }

    /// A request to something below the workspace, to be completed.
    pub(crate) fn request(&self, method: Method, below: &str) -> RequestBuilder {
        self.api.request(method, &format!("{WORKSPACES}/{}/{below}", self.id))
    }

    /// Sends a request and reads the JSON answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Reply> {
        self.api.send(request).await
    }

    /// A session with the workspace's tools as an MCP server.
    pub(crate) fn mcp(&self) -> Session {
        // The endpoint keeps no sessions, and takes any id for none.
        Session { api: self.api.clone(), path: format!("{WORKSPACES}/{}/mcp", self.id), id: "none".to_owned() }
    }

    /// GET of something below the workspace.
    pub(crate) async fn get(&self, below: &str) -> anyhow::Result<Reply> {
        self.send(self.request(Method::GET, below)).await
    }

    /// POST to something below the workspace.
    pub(crate) async fn post(&self, below: &str, body: Value) -> anyhow::Result<Reply> {
        self.send(self.request(Method::POST, below).json(&body)).await
    }

    /// Waits until a command prints this, whatever has become of the sandbox meanwhile.
    pub(crate) async fn prints_again(&self, command: &str, printed: &str) -> anyhow::Result<()> {
        until("the workspace works again", Duration::from_secs(60), || async {
            let read = self.tool("bash", json!({ "command": command })).await?;
            Ok(if read.body["stdout"] == printed { Ok(()) } else { Err(read.body.to_string()) })
        })
        .await
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let (base, token) = (self.api.base().to_owned(), self.api.token().to_owned());
        let path = format!("{WORKSPACES}/{}", self.id);
        // Where nothing can be awaited any more. What stays all the same goes with the server.
        let removal = std::thread::spawn(move || {
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            executor.block_on(async { Api::new(base, token)?.delete(&path).await.map(drop) })
        });
        drop(removal.join());
    }
}
