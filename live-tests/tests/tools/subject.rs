//! What every case has: a workspace of a server of its own.

use std::time::Duration;

use emergent_live_tests::{Reply, Runtime, Server, api::WORKSPACES, until};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

/// A workspace, and the server that made it. Both go when it is dropped.
pub(crate) struct Subject {
    server: Server,
    id: String,
}

impl Subject {
    /// A workspace with nothing special.
    pub(crate) async fn on(runtime: Runtime) -> anyhow::Result<Self> {
        Self::with(runtime, json!({})).await
    }

    /// A workspace as asked for.
    pub(crate) async fn with(runtime: Runtime, mut body: Value) -> anyhow::Result<Self> {
        body["network"] = json!("none");
        let server = Server::on(runtime).await?;
        let id = server.api.create(body).await?;
        Ok(Self { server, id })
    }

    /// Calls a tool.
    pub(crate) async fn tool(&self, name: &str, body: Value) -> anyhow::Result<Reply> {
        self.server.api.tool(&self.id, name, body).await
    }

    /// Runs a command that must succeed; answers its standard output.
    pub(crate) async fn bash(&self, command: &str) -> anyhow::Result<String> {
        self.server.api.bash(&self.id, command).await
    }

    /// A request to something below the workspace, to be completed.
    pub(crate) fn request(&self, method: Method, below: &str) -> RequestBuilder {
        self.server.api.request(method, &format!("{WORKSPACES}/{}/{below}", self.id))
    }

    /// Sends a request and reads the JSON answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Reply> {
        self.server.api.send(request).await
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
