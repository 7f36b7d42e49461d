//! The manager's states, on a monitor that is written here: what runs is a few lines, what is on disk is real.

mod crash;
mod guest;
mod lives;
mod monitor;
mod rest;
mod service;
