//! The retries of an upstream, counted by all workers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::balance::budget::{Budget, Rules};
use crate::base::clock::MonoTime;

/// How many requests came, and how many of them may still be tried again.
#[derive(Debug)]
pub struct Retries {
    rules: Option<Rules>,
    requests: AtomicU64,
    /// Taken by retries alone.
    budget: Mutex<Budget>,
}

impl Retries {
    /// `None`: all may be tried again.
    pub fn new(rules: Option<Rules>) -> Self {
        Self { rules, requests: AtomicU64::new(0), budget: Mutex::default() }
    }

    /// A request is tried for the first time.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one retry, when there is one left.
    pub fn spend(&self, now: MonoTime) -> bool {
        let Some(rules) = &self.rules else { return true };
        let seen = self.requests.load(Ordering::Relaxed);
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).spend(now, seen, rules)
    }
}
