//! Text → [`Plan`](crate::plan::Plan): what the operator wrote, read, checked and resolved.
//!
//! The way of a file: [`load`] parses TOML; `file` lists every key once, with its doc, its default and an example; `read` turns values
//! into those keys' types, with `variable`s put in; `overrides` lays flags and environment over them; `check` resolves names
//! and finds what no single value shows. Each step reports a [`Problem`] and goes on, so that one run shows every mistake: an
//! operator who is shown one mistake per attempt needs as many attempts as there are mistakes, in the middle of an outage.
//!
//! [`reference()`] and [`schema()`] are written from the same list of keys that the reader follows, so they cannot fall behind it.
//!
//! Not here: opening sockets, resolving host names, reading clocks.

mod check;
mod file;
mod kind;
mod load;
mod overrides;
mod problem;
mod read;
mod reference;
mod setting;
mod suggest;
mod table;
mod variable;

pub use load::{Source, load};
pub use overrides::Overrides;
pub use problem::{Problem, Problems};
pub use reference::{reference, schema};
pub use variable::{Env, SystemEnv};
