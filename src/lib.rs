//! Vanne: an edge gateway on pingora.
//!
//! The modules below stand in the order in which a request meets them. *Decide without touching, touch without
//! deciding*: the pure modules take facts (and the time) and return a decision with its reason; one thin layer,
//! [`proxy`], speaks pingora; the configuration compiles into the pure modules' own types.
//!
//! | layer | modules | may import |
//! |---|---|---|
//! | L0 | [`base`] | nothing of this crate |
//! | L1 | [`route`] [`guard`] [`cache`] [`balance`] [`forward`] | L0, not each other |
//! | L2 | [`plan`] | L0, L1 |
//! | L3 | [`config`]; and, not meeting it, [`store`] [`upstream`] [`ward`] [`files`] [`observe`] | L0–L2 (all but `observe` may count through it, `ward` in `store`) |
//! | L3 | [`explain`] | L0–L2 |
//! | L4 | [`fast_path`]; above it [`proxy`] | all below but [`config`]; `fast_path` not `proxy` |
//! | L5 | [`app`], [`cli`], [`demo`] | everything |
//!
//! Three guards hold the table: `cargo check --lib --no-default-features` compiles L0–L2 and `config` without
//! pingora, tokio or redis; `tests/architecture.rs` reads the `use crate::…` lines; `.clippy.toml` bans the clocks
//! outside [`base::clock`].

#[cfg(feature = "server")]
pub mod fast_path;

#[cfg(feature = "server")]
pub mod proxy;

pub mod route;

pub mod guard;

pub mod cache;

#[cfg(feature = "server")]
pub mod store;

pub mod balance;

#[cfg(feature = "server")]
pub mod upstream;

pub mod forward;

#[cfg(feature = "server")]
pub mod files;

#[cfg(feature = "server")]
pub mod ward;

#[cfg(feature = "server")]
pub mod observe;

pub mod plan;

pub mod config;

pub mod explain;

#[cfg(feature = "server")]
pub mod app;

#[cfg(feature = "server")]
pub mod cli;

#[cfg(feature = "server")]
pub mod demo;

pub mod base;
