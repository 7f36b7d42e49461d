//! What the handlers share.

use std::{sync::Arc, time::Instant};

use emergent_budget::Budget;
use emergent_core::Workspaces;
use emergent_mcp_hosting::Hosting;
use emergent_store::Store;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    audit::Actions,
    auth::Tokens,
    forward::Peers,
    hosts::Hosts,
    rates::{RateLimit, Rates},
};

/// What the API is made of.
pub struct ApiParts {
    /// The domain.
    pub workspaces: Workspaces,
    /// Hosted MCP servers.
    pub hosting: Hosting,
    /// Where others reach this server, where that is known.
    pub public_url: Option<String>,
    /// Where tokens are kept.
    pub store: Store,
    /// Renders the metrics that the process records.
    pub metrics: PrometheusHandle,
    /// Which hosts the server answers for.
    pub hosts: Hosts,
    /// How other servers are reached.
    pub peers: Peers,
    /// What requests may hold in memory.
    pub budget: Budget,
    /// How often each project may call; `None` for as often as it likes.
    pub rate_limit: Option<RateLimit>,
}

/// What the handlers share. Clones are cheap.
#[derive(Clone)]
pub struct ApiState(Arc<Inner>);

struct Inner {
    workspaces: Workspaces,
    hosting: Hosting,
    public_url: Option<String>,
    tokens: Tokens,
    actions: Actions,
    metrics: PrometheusHandle,
    hosts: Hosts,
    peers: Peers,
    budget: Budget,
    rates: Rates,
    started: Instant,
}

impl ApiState {
    /// Puts the parts together.
    pub fn new(parts: ApiParts) -> Self {
        let ApiParts { workspaces, hosting, public_url, store, metrics, hosts, peers, budget, rate_limit } = parts;
        let (tokens, actions) = (Tokens::new(store), Actions::of(&crate::openapi()));
        let (rates, started) = (Rates::new(rate_limit), Instant::now());
        Self(Arc::new(Inner {
            workspaces,
            hosting,
            public_url,
            tokens,
            actions,
            metrics,
            hosts,
            peers,
            budget,
            rates,
            started,
        }))
    }

    pub(crate) fn workspaces(&self) -> &Workspaces {
        &self.0.workspaces
    }

    pub(crate) fn hosting(&self) -> &Hosting {
        &self.0.hosting
    }

    pub(crate) fn public_url(&self) -> Option<&str> {
        self.0.public_url.as_deref()
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    pub(crate) fn actions(&self) -> &Actions {
        &self.0.actions
    }

    pub(crate) fn metrics(&self) -> &PrometheusHandle {
        &self.0.metrics
    }

    pub(crate) fn hosts(&self) -> &Hosts {
        &self.0.hosts
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.0.peers
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.0.rates
    }

    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }
}
