//! A named gate: one side waits at it, the other sees who waits and opens it.

use std::sync::Arc;

use tokio::sync::watch;

use super::within;

/// A closed gate that can be opened once, for everyone who waits or comes later. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    name: Arc<str>,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    arrived: usize,
    open: bool,
}

impl Gate {
    /// A closed gate. The name appears in the panic when a wait is in vain.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), state: watch::Sender::new(State { arrived: 0, open: false }) }
    }

    /// Arrives at the gate and waits until it is open.
    pub async fn wait(&self) {
        self.state.send_modify(|state| state.arrived += 1);
        self.until("to be opened", |state| state.open).await;
    }

    /// Opens the gate.
    pub fn release(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// Waits until `count` have arrived at the gate since it was made, whether it is open or not.
    pub async fn arrived(&self, count: usize) {
        self.until(&format!("to be reached by {count}"), |state| state.arrived >= count).await;
    }

    async fn until(&self, what: &str, reached: impl FnMut(&State) -> bool) {
        let mut state = self.state.subscribe();
        let waiting = state.wait_for(reached);
        within(&format!("gate '{}' {what}", self.name), waiting)
            .await
            .expect("the gate outlives its waiters");
    }
}
