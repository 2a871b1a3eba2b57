//! Series of secured listeners.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::names;
use super::series::{Family, Shows, Words};
use crate::plan::Plan;

/// The families of secured listeners.
pub(super) struct Families {
    handshakes: Family<IntCounter>,
    duration: Family<Histogram>,
    expiry: Family<IntGauge>,
    reloads: Family<IntCounter>,
}

/// The series of one listener.
#[derive(Clone)]
pub struct TlsMetrics(Arc<Series>);

struct Series {
    listener: String,
    handshakes: Words<IntCounter, 1>,
    duration: Histogram,
    expiry: Family<IntGauge>,
    reloads: Words<IntCounter, 1>,
}

/// How a handshake ends.
const RESULTS: [[&str; 1]; 12] = [
    ["ok"],
    ["timeout"],
    ["closed"],
    ["plain-http"],
    ["version"],
    ["cipher"],
    ["protocol"],
    ["unknown-name"],
    ["no-certificate"],
    ["bad-certificate"],
    ["refused"],
    ["other"],
];
const RELOADS: [[&str; 1]; 2] = [["ok"], ["failed"]];

/// The names of secured listeners and their certificates, as labels have them.
pub(super) fn names(plan: &Plan) -> HashSet<String> {
    let secured = plan.listeners.iter().filter_map(|l| Some((l.name.to_string(), l.tls.as_ref()?)));
    secured
        .flat_map(|(name, tls)| {
            let files = tls.certificates.iter().map(|pair| pair.cert.display().to_string());
            files.chain([name]).collect::<Vec<_>>()
        })
        .collect()
}

impl Families {
    pub(super) fn new(registry: &impl Shows) -> Self {
        Self {
            handshakes: Family::new(registry, &names::TLS_HANDSHAKES),
            duration: Family::new(registry, &names::TLS_HANDSHAKE_DURATION),
            expiry: Family::new(registry, &names::TLS_CERTIFICATE_EXPIRY),
            reloads: Family::new(registry, &names::TLS_RELOADS),
        }
    }

    /// The series of a listener, at 0 from the start.
    pub(super) fn listener(&self, name: &str) -> TlsMetrics {
        TlsMetrics(Arc::new(Series {
            listener: name.to_owned(),
            handshakes: Words::new(&self.handshakes, &[name], &RESULTS),
            duration: self.duration.series(&[name]),
            expiry: self.expiry.clone(),
            reloads: Words::new(&self.reloads, &[name], &RELOADS),
        }))
    }

    /// All series that a plan knows.
    pub(super) fn of(&self, plan: &Plan) {
        for listener in &plan.listeners {
            let Some(tls) = &listener.tls else { continue };
            let series = self.listener(listener.name.as_str());
            for pair in &tls.certificates {
                series.expires(&pair.cert.display().to_string(), 0);
            }
        }
    }
}

impl TlsMetrics {
    /// A handshake ended: `ok`, or why not.
    pub fn handshake(&self, result: &'static str, took: Duration) {
        self.0.handshakes.with([result], IntCounter::inc);
        self.0.duration.observe(took.as_secs_f64());
    }

    /// When a certificate expires, in seconds since 1970.
    pub fn expires(&self, certificate: &str, at: i64) {
        self.0.expiry.series(&[&self.0.listener, certificate]).set(at);
    }

    /// Changed files were taken over (`ok`) or not (`failed`).
    pub fn reloaded(&self, result: &'static str) {
        self.0.reloads.with([result], IntCounter::inc);
    }
}
