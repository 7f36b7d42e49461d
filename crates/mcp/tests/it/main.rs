//! The bridge over real children, through the same call that an HTTP server makes.

mod bad_children;
mod bad_clients;
mod calls;
mod gateway;
mod isolation;
mod keeping;
mod leaks;
mod legacy;
mod modern;
mod orders;
mod owners;
mod reattach;
mod shared;
mod support;
