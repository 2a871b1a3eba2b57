//! The specification, in the words of a user: the real gateway on real sockets, a scripted origin behind it, a client that sees every byte.
//!
//! The modules stand in the order in which a request meets what they are about.

#![cfg(feature = "server")]

#[path = "../support/mod.rs"]
mod support;

mod edge;

mod tls;

mod http2;

mod guard;

mod hostile;

mod hostile_cache;

mod hostile_flow;

mod siege;

mod rates;

mod access;

mod cors;

mod headers;

mod route;

mod files;

mod compress;

mod cache;

mod fast_path;

mod coalesce;

mod never_mixed;

mod question;

mod resume;

mod shadow;

mod conformance;

mod redis;

mod large;

mod topology;

mod failing;

mod layout;

mod purge;

mod fleet;

mod stored;

mod figures;

mod balance;

mod pick;

mod sticky;

mod split;

mod retry;

mod storm;

mod health;

mod operate;

mod pool;

mod eject;

mod breaker;

mod forward;

mod behind_cdn;

mod onward;

mod observe;

mod process;

mod reload;

mod upgrade;

mod simulation;

mod explain;
