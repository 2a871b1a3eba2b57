//! How long a client may keep us waiting while it sends content or takes an answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Counts the time spent waiting for the other side, over a whole message in one direction: no more than a grace, and what a least rate takes for the
/// bytes that were moved. A time-out per read alone lets a client that sends a byte now and then hold an instance for hours.
#[derive(Debug)]
pub struct Patience {
    grace: Duration,
    rate: u64,
    moved: u64,
    waited: Duration,
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// `rate` in bytes per second; 0 waits for ever.
    pub fn new(grace: Duration, rate: u64) -> Self {
        Self { grace, rate, moved: 0, waited: Duration::ZERO, since: None, alarm: None }
    }

    /// So many bytes were moved: the wait, if there was one, is over.
    pub fn moved(&mut self, count: usize) {
        self.moved = self.moved.saturating_add(count as u64);
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
            self.alarm = None;
        }
    }

    /// The other side keeps us waiting; ready once that has lasted too long.
    pub fn poll_exhausted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.rate == 0 {
            return Poll::Pending;
        }
        let allowed = self.grace.saturating_add(Duration::from_secs(self.moved / self.rate));
        let left = allowed.saturating_sub(self.waited);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(left)));
        self.since.get_or_insert_with(|| alarm.deadline() - left);
        alarm.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn exhausted_after(patience: &mut Patience) -> Duration {
        let begun = Instant::now();
        poll_fn(|cx| patience.poll_exhausted(cx)).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_has_the_grace() {
        let mut patience = Patience::new(Duration::from_secs(30), 100);
        assert_eq!(exhausted_after(&mut patience).await.as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_moved_earns_time_and_waiting_spends_it() {
        let mut patience = Patience::new(Duration::from_secs(30), 100);
        patience.moved(1000);
        let wait = tokio::time::timeout(Duration::from_secs(15), exhausted_after(&mut patience));
        assert!(wait.await.is_err());
        patience.moved(0);
        assert_eq!(exhausted_after(&mut patience).await.as_secs(), 25);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_does_not_earn_what_it_spends() {
        let mut patience = Patience::new(Duration::from_secs(30), 100);
        let begun = Instant::now();
        while tokio::time::timeout(Duration::from_secs(1), exhausted_after(&mut patience)).await.is_err() {
            patience.moved(1);
        }
        assert_eq!(begun.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_it_waits_for_ever() {
        let mut patience = Patience::new(Duration::ZERO, 0);
        let day = Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, exhausted_after(&mut patience)).await.is_err());
    }
}
