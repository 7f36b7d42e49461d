//! The state that all handlers share.

use std::{sync::Arc, time::Instant};

use emergent_auth::Tokens;
use emergent_budget::Budget;
use emergent_core::Workspaces;
use emergent_mcp_hosting::Hosting;
use emergent_store::Store;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    http::{
        hosts::Hosts,
        rates::{RateLimit, Rates},
    },
    peers::Peers,
};

/// The parts that the API is made of.
pub struct ApiParts {
    /// The service of workspaces.
    pub workspaces: Workspaces,
    /// The service of hosted MCP servers.
    pub hosting: Hosting,
    /// The URL at which clients reach this server, where it is known.
    pub public_url: Option<String>,
    /// The store that keeps the tokens and projects.
    pub store: Store,
    /// The exporter of the metrics that the process records.
    pub metrics: PrometheusHandle,
    /// The host names that the server answers for.
    pub hosts: Hosts,
    /// The client for requests to other servers.
    pub peers: Peers,
    /// The memory that requests may hold.
    pub budget: Budget,
    /// The rate at which each project may call; `None` for no limit.
    pub rate_limit: Option<RateLimit>,
}

/// The state that all handlers share. Clones are cheap.
#[derive(Clone)]
pub struct ApiState(Arc<Inner>);

struct Inner {
    workspaces: Workspaces,
    hosting: Hosting,
    public_url: Option<String>,
    store: Store,
    tokens: Tokens,
    metrics: PrometheusHandle,
    hosts: Hosts,
    peers: Peers,
    budget: Budget,
    rates: Rates,
    started: Instant,
}

impl ApiState {
    /// Builds the state from its parts.
    pub fn new(parts: ApiParts) -> Self {
        let ApiParts { workspaces, hosting, public_url, store, metrics, hosts, peers, budget, rate_limit } = parts;
        let (tokens, rates, started) = (Tokens::new(store.clone()), Rates::new(rate_limit), Instant::now());
        Self(Arc::new(Inner {
            workspaces,
            hosting,
            public_url,
            store,
            tokens,
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

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
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
