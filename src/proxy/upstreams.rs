//! The instances as an operator sees them, and what an operator may say about one while the gateway runs.

use serde::{Deserialize, Serialize};

use super::live::{Live, Upstream};
use crate::observe::access::time_text;
use crate::upstream::state::{Order, State};

/// All upstreams.
#[derive(Debug, Serialize, Deserialize)]
pub struct Overview {
    /// In the order of the configuration.
    pub upstreams: Vec<Shown>,
}

/// One upstream.
#[derive(Debug, Serialize, Deserialize)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// Requests that wait for a place on one of its instances.
    pub waiting: usize,
    /// So few instances are up that all are used.
    pub panic: bool,
    /// Whether it is asked: `closed`, `open` or `half-open`; `None` without a breaker.
    pub circuit: Option<String>,
    /// Its instances.
    pub instances: Vec<Instance>,
}

/// One instance.
#[derive(Debug, Serialize, Deserialize)]
pub struct Instance {
    /// `host:port` as configured.
    pub name: String,
    /// The address used next; `None` while its name does not resolve.
    pub address: Option<String>,
    /// A word of `upstream::state::Condition`.
    pub state: String,
    /// Why, where there is more to say.
    pub reason: String,
    /// Since when, as RFC 3339 has it.
    pub since: String,
    /// The same in seconds before now.
    pub for_seconds: f64,
    /// Its share, as it was last said.
    pub weight: u32,
    /// It is used only while no other is up.
    pub backup: bool,
    /// Requests in flight.
    pub in_flight: u32,
}

/// An order for one instance.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// The upstream's name.
    pub upstream: String,
    /// The instance's name.
    pub instance: String,
    /// What it is to do.
    pub order: Word,
}

/// The words of orders.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// See [`Order::Drain`].
    Drain,
    /// See [`Order::Ready`].
    Ready,
    /// See [`Order::Weight`].
    Weight(Weight),
}

/// A share, from 0 to 1000.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "u32")]
pub struct Weight(u32);

impl TryFrom<u32> for Weight {
    type Error = &'static str;

    fn try_from(weight: u32) -> Result<Self, Self::Error> {
        if weight <= 1000 { Ok(Self(weight)) } else { Err("a weight is at most 1000") }
    }
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// There is no such upstream.
    #[error("there is no upstream {0:?}; there are: {1}")]
    Upstream(String, String),
    /// The upstream has no such instance.
    #[error("there is no instance {0:?} there; there are: {1}")]
    Instance(String, String),
}

impl Overview {
    /// As it is now.
    pub fn of(live: &Live) -> Self {
        Self { upstreams: live.upstreams.iter().map(|upstream| shown(live, upstream)).collect() }
    }
}

fn shown(live: &Live, upstream: &Upstream) -> Shown {
    let group = &upstream.group;
    let states = group.states().into_iter().enumerate();
    Shown {
        name: group.name().to_string(),
        waiting: group.waiting(),
        panic: group.panics(),
        circuit: group.circuit().map(|circuit| circuit.as_str().to_owned()),
        instances: states.filter_map(|(index, state)| instance(live, upstream, index, state)).collect(),
    }
}

fn instance(live: &Live, upstream: &Upstream, index: usize, state: State) -> Option<Instance> {
    let endpoint = upstream.group.endpoints().get(index)?;
    Some(Instance {
        name: endpoint.name().to_owned(),
        address: endpoint.addr().map(|addr| addr.to_string()),
        state: state.condition.as_str().to_owned(),
        reason: state.reason,
        since: time_text(live.clock.wall().minus(state.lasted)),
        for_seconds: (state.lasted.as_secs_f64() * 1000.0).round() / 1000.0,
        weight: endpoint.weight(),
        backup: endpoint.is_backup(),
        in_flight: endpoint.in_flight(),
    })
}

impl Told {
    /// Does it, and shows the instance as it is then.
    ///
    /// # Errors
    /// When there is no such instance.
    pub fn carry_out(&self, live: &Live) -> Result<Instance, Unknown> {
        let named = |upstream: &&Upstream| upstream.group.name().as_str() == self.upstream;
        let upstream = live.upstreams.iter().find(named).ok_or_else(|| {
            let known: Vec<_> = live.upstreams.iter().map(|u| u.group.name().as_str()).collect();
            Unknown::Upstream(self.upstream.clone(), known.join(", "))
        })?;
        let group = &upstream.group;
        let unknown = || {
            let known: Vec<_> = group.endpoints().iter().map(|endpoint| endpoint.name()).collect();
            Unknown::Instance(self.instance.clone(), known.join(", "))
        };
        let found = group.endpoints().iter().find(|endpoint| endpoint.name() == self.instance);
        let index = found.ok_or_else(unknown)?.index();
        group.obey(
            index,
            match self.order {
                Word::Drain => Order::Drain,
                Word::Ready => Order::Ready,
                Word::Weight(weight) => Order::Weight(weight.0),
            },
        );
        let state = group.states().into_iter().nth(index).ok_or_else(unknown)?;
        instance(live, upstream, index, state).ok_or_else(unknown)
    }
}
