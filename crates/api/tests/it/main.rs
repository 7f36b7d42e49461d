//! The real router over a store in a temporary directory and a core without providers: who may call, what bad input
//! answers, and whether the OpenAPI document tells the truth.

#![expect(clippy::unwrap_used, reason = "an unwrap that fails is a failed test")]

mod audit;
mod auth;
mod harness;
mod limits;
mod lists;
mod mcp;
mod openapi;
mod pages;
mod problems;
mod projects;
mod quotas;
mod servers;
