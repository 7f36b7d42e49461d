//! A manager in another process, behind its REST API.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use emergent_firecracker_manager::{
    SandboxId,
    http::{CHANNEL_PROTOCOL, CreateBody, HealthBody, SandboxBody, SnapshotBody, SnapshotRequestBody, TemplatesBody},
};
use emergent_provider::ByteStream;
use emergent_types::SnapshotId;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Action, Manager, ManagerError};

/// The time that a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The time that a query may take.
const QUICK: Duration = Duration::from_secs(15);
/// The time that a change may take: a boot, or gigabytes of memory to disk.
const THOROUGH: Duration = Duration::from_secs(300);
/// The longest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// A manager in another process.
pub(crate) struct Remote {
    client: Client,
    url: String,
    token: Option<SecretString>,
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

#[derive(Deserialize)]
struct SandboxList {
    sandboxes: Vec<SandboxBody>,
}

#[derive(Deserialize)]
struct SnapshotList {
    snapshots: Vec<SnapshotBody>,
}

// === impl Remote ===

impl Remote {
    pub(crate) fn new(url: String, token: Option<SecretString>) -> Result<Self, reqwest::Error> {
        // Channels are upgrades, which HTTP/1.1 has.
        let client = Client::builder().http1_only().connect_timeout(CONNECT).build()?;
        Ok(Self { client, url, token })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ManagerError> {
        let response = request.send().await.map_err(|error| self.down(error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let problem = bounded::<Problem>(response).await;
        let detail = problem.map_or_else(|_| format!("it answered {status}"), |problem| problem.detail);
        Err(match status {
            StatusCode::NOT_FOUND => ManagerError::NotFound(detail),
            StatusCode::CONFLICT => ManagerError::WrongState(detail),
            StatusCode::UNAUTHORIZED => ManagerError::Down {
                advice: "set WORKSPACE_FIRECRACKER_TOKEN to its API key".to_owned(),
                source: detail.into(),
            },
            _ => ManagerError::Refused(detail),
        })
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ManagerError> {
        let response = self.send(request).await?;
        bounded(response).await.map_err(|reason| ManagerError::Refused(format!("its answer cannot be read: {reason}")))
    }

    fn down(&self, error: reqwest::Error) -> ManagerError {
        ManagerError::Down {
            advice: "see that the manager runs, and that WORKSPACE_FIRECRACKER_URL leads to it".to_owned(),
            // The address may hold what is not for everybody.
            source: Box::new(error.without_url()),
        }
    }
}

#[async_trait]
impl Manager for Remote {
    fn name(&self) -> String {
        format!("the microVM manager at {}", self.url)
    }

    fn shared_id(&self) -> Option<String> {
        // The same loopback address leads elsewhere on another machine.
        let url: Url = self.url.parse().ok()?;
        let host = url.host_str()?;
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let is_local = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        (!is_local).then(|| self.url.clone())
    }

    fn holders(&self) -> Option<PathBuf> {
        None
    }

    async fn health(&self) -> Result<HealthBody, ManagerError> {
        let sent = self.request(Method::GET, "/health").timeout(QUICK).send().await;
        let response = sent.map_err(|error| self.down(error))?;
        // That it is unhealthy is an answer, too.
        bounded(response).await.map_err(|reason| ManagerError::Down {
            advice: "see that WORKSPACE_FIRECRACKER_URL leads to a manager of microVMs".to_owned(),
            source: reason.into(),
        })
    }

    async fn templates(&self) -> Result<TemplatesBody, ManagerError> {
        self.json(self.request(Method::GET, "/templates").timeout(QUICK)).await
    }

    async fn create(&self, body: CreateBody) -> Result<SandboxBody, ManagerError> {
        self.json(self.request(Method::POST, "/sandboxes").timeout(THOROUGH).json(&body)).await
    }

    async fn get(&self, id: SandboxId) -> Result<SandboxBody, ManagerError> {
        self.json(self.request(Method::GET, &format!("/sandboxes/{id}")).timeout(QUICK)).await
    }

    async fn list(&self) -> Result<Vec<SandboxBody>, ManagerError> {
        let list: SandboxList = self.json(self.request(Method::GET, "/sandboxes").timeout(QUICK)).await?;
        Ok(list.sandboxes)
    }

    async fn act(&self, id: SandboxId, action: Action) -> Result<(), ManagerError> {
        let method = if action == Action::Destroy { Method::DELETE } else { Method::POST };
        let request = self.request(method, &format!("/sandboxes/{id}{}", action.path()));
        self.send(request.timeout(THOROUGH)).await.map(drop)
    }

    async fn snapshot(&self, id: SandboxId, body: SnapshotRequestBody) -> Result<SnapshotBody, ManagerError> {
        let request = self.request(Method::POST, &format!("/sandboxes/{id}/snapshots"));
        self.json(request.timeout(THOROUGH).json(&body)).await
    }

    async fn snapshots(&self) -> Result<Vec<SnapshotBody>, ManagerError> {
        let list: SnapshotList = self.json(self.request(Method::GET, "/snapshots").timeout(QUICK)).await?;
        Ok(list.snapshots)
    }

    async fn delete_snapshot(&self, id: SnapshotId) -> Result<(), ManagerError> {
        let request = self.request(Method::DELETE, &format!("/snapshots/{id}"));
        self.send(request.timeout(THOROUGH)).await.map(drop)
    }

    async fn open(&self, id: SandboxId) -> Result<ByteStream, ManagerError> {
        // No time limit of the client's own: it would end the channel, too.
        let request = self.request(Method::GET, &format!("/sandboxes/{id}/channel"));
        let request = request.header(header::CONNECTION, "upgrade").header(header::UPGRADE, CHANNEL_PROTOCOL);
        let silent = || ManagerError::Down {
            advice: "see that the manager runs".to_owned(),
            source: "it did not answer in time".into(),
        };
        let response = tokio::time::timeout(QUICK, self.send(request)).await.map_err(|_| silent())??;
        let upgraded = response.upgrade().await.map_err(|error| self.down(error))?;
        Ok(Box::new(upgraded))
    }
}

/// Reads an answer of bounded length.
async fn bounded<T: DeserializeOwned>(mut response: Response) -> Result<T, String> {
    let mut bytes = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| error.without_url().to_string())? {
        if bytes.len() + part.len() > ANSWER_LIMIT {
            return Err("it is too long".to_owned());
        }
        bytes.extend_from_slice(&part);
    }
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}
