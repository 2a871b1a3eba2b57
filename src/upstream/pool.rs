//! The bounded pool: how many requests an instance has at once, and the one queue of those that wait for a place on any of them.
//!
//! A waiter is bound to no instance: whoever gives a place back hands it to the first in the queue that may have it. Choosing an instance
//! before waiting would leave a client standing behind a slow answer while another instance is idle.
//!
//! Limits are kept by choosing and counting under one lock, so that two workers never take the same last place. Giving back takes no lock
//! while nobody waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Group, Picked, Wanted};
use crate::plan::{self, Priority};

/// Why a request has no place on an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// No instance may be used: all were tried, have weight 0 or no address.
    NoInstance,
    /// As many requests wait as may.
    QueueFull,
    /// It waited as long as it may.
    TimedOut,
    /// The upstream is not asked because its exchanges failed; asking again makes sense after so long.
    CircuitOpen(Duration),
}

/// The pool of one group.
#[derive(Debug)]
pub(super) struct Pool {
    limits: plan::Pool,
    line: Mutex<Line>,
    /// How many wait, readable without the lock.
    waiting: AtomicUsize,
}

/// Who waits, in the order of their coming: the high class first.
#[derive(Debug, Default)]
struct Line {
    high: VecDeque<Waiter>,
    normal: VecDeque<Waiter>,
    tickets: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    wanted: Wanted,
    place: oneshot::Sender<Picked>,
}

/// A place in the queue; left when dropped, as it is when the client is gone.
struct Turn<'a> {
    group: &'a Arc<Group>,
    pool: &'a Pool,
    priority: Priority,
    ticket: u64,
    place: oneshot::Receiver<Picked>,
}

enum Entered<'a> {
    At(Picked),
    Waits(Turn<'a>),
}

impl Pool {
    pub(super) fn new(limits: plan::Pool) -> Self {
        Self { limits, line: Mutex::default(), waiting: AtomicUsize::new(0) }
    }

    pub(super) fn limits(&self) -> &plan::Pool {
        &self.limits
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn class(&mut self, priority: Priority) -> &mut VecDeque<Waiter> {
        match priority {
            Priority::High => &mut self.high,
            Priority::Normal => &mut self.normal,
        }
    }

    fn len(&self) -> usize {
        self.high.len() + self.normal.len()
    }

    /// Whether one of this priority that comes now would overtake nobody.
    fn is_clear_for(&self, priority: Priority) -> bool {
        self.high.is_empty() && (priority == Priority::High || self.normal.is_empty())
    }

    fn leave(&mut self, priority: Priority, ticket: u64) -> Option<Waiter> {
        let class = self.class(priority);
        let at = class.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()?;
        class.remove(at)
    }
}

impl Group {
    /// A place on an instance, waited for if need be. Dropped while it waits, it leaves the queue.
    pub(super) async fn find_place(
        self: &Arc<Self>,
        wanted: Wanted,
        priority: Priority,
    ) -> Result<Picked, NoPlace> {
        let Some(pool) = &self.pool else { return self.pick(&wanted).ok_or(NoPlace::NoInstance) };
        let mut turn = match self.enter_or_queue(pool, wanted, priority)? {
            Entered::At(picked) => return Ok(picked),
            Entered::Waits(turn) => turn,
        };
        let begun = self.clock.mono();
        let got = timeout(pool.limits.timeout, &mut turn.place).await;
        self.report.waited(self.clock.mono().since(begun));
        match got {
            Ok(Ok(picked)) => Ok(picked),
            _ => {
                self.report.rejected("timeout");
                Err(NoPlace::TimedOut)
            }
        }
    }

    /// How many requests wait for a place.
    pub fn waiting(&self) -> usize {
        self.pool.as_ref().map_or(0, |pool| pool.waiting.load(Ordering::Relaxed))
    }

    fn enter_or_queue<'a>(
        self: &'a Arc<Self>,
        pool: &'a Pool,
        wanted: Wanted,
        priority: Priority,
    ) -> Result<Entered<'a>, NoPlace> {
        let mut line = pool.lock();
        if line.is_clear_for(priority)
            && let Some(picked) = self.pick(&wanted)
        {
            return Ok(Entered::At(picked));
        }
        if !self.may_serve(&wanted) {
            return Err(NoPlace::NoInstance);
        }
        if line.len() >= pool.limits.queue || pool.limits.timeout.is_zero() {
            self.report.rejected("full");
            return Err(NoPlace::QueueFull);
        }
        line.tickets += 1;
        let ticket = line.tickets;
        let (sender, place) = oneshot::channel();
        line.class(priority).push_back(Waiter { ticket, wanted, place: sender });
        self.note_waiting(pool, &line);
        drop(line);
        // A place given back between the choice above and the entry in the queue was told to nobody.
        self.serve_waiting();
        Ok(Entered::Waits(Turn { group: self, pool, priority, ticket, place }))
    }

    fn note_waiting(&self, pool: &Pool, line: &Line) {
        pool.waiting.store(line.len(), Ordering::SeqCst);
        self.report.waiting(line.len());
    }

    /// Hands free places to those who wait. To be called whenever an instance may have room that it had not.
    pub(super) fn serve_waiting(self: &Arc<Self>) {
        let Some(pool) = &self.pool else { return };
        while pool.waiting.load(Ordering::SeqCst) > 0 {
            let mut line = pool.lock();
            let Some((waiter, picked)) = self.next_served(&mut line) else { return };
            self.note_waiting(pool, &line);
            drop(line);
            // One that left in this instant gives the place back by dropping it, which serves the next.
            let _ = waiter.place.send(picked);
        }
    }

    /// The first in the queue that may have one of the free places. One that has tried the free instance already keeps nobody else from it.
    fn next_served(self: &Arc<Self>, line: &mut Line) -> Option<(Waiter, Picked)> {
        for priority in [Priority::High, Priority::Normal] {
            let mut at = 0;
            while let Some(waiter) = line.class(priority).get(at) {
                match self.pick(&waiter.wanted) {
                    Some(picked) => return line.class(priority).remove(at).map(|waiter| (waiter, picked)),
                    None if waiter.wanted.tried.is_empty() => return None,
                    None => at += 1,
                }
            }
        }
        None
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut line = self.pool.lock();
        let left = line.leave(self.priority, self.ticket);
        self.group.note_waiting(self.pool, &line);
        drop(line);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;
    use crate::base::clock::Clock;
    use crate::base::name::UpstreamName;
    use crate::forward::HostRule;
    use crate::upstream::Report;

    #[derive(Default)]
    struct Told {
        rejected: Mutex<Vec<&'static str>>,
    }

    impl Report for Told {
        fn in_flight(&self, _: usize, _: i64) {}
        fn up(&self, _: usize, _: bool) {}
        fn checked(&self, _: usize, _: bool) {}
        fn ejected(&self, _: usize) {}
        fn state(&self, _: usize, _: &'static str, _: Duration) {}
        fn panics(&self, _: bool) {}
        fn circuit(&self, _: bool) {}
        fn waiting(&self, _: usize) {}
        fn waited(&self, _: Duration) {}
        fn rejected(&self, why: &'static str) {
            self.rejected.lock().unwrap().push(why);
        }
    }

    fn pool(size: u32, overflow: u32, queue: usize) -> plan::Pool {
        plan::Pool { size, overflow, timeout: Duration::from_secs(30), queue, recycle: None }
    }

    fn group(instances: u16, pool: plan::Pool) -> (Arc<Group>, Arc<Told>) {
        let told = Arc::new(Told::default());
        let second = Duration::from_secs(1);
        let server = |i| plan::Instance { addr: format!("127.0.0.1:{}", 8000 + i), weight: 1, backup: false };
        let plan = plan::Upstream {
            name: UpstreamName::from("api"),
            servers: (1..=instances).map(server).collect(),
            balance: crate::balance::Method::RoundRobin,
            health: None,
            timeouts: plan::UpstreamTimeouts {
                connect: second,
                read: second,
                total: None,
                write: second,
                idle: second,
            },
            tries: 3,
            eject: None,
            panic: 0,
            breaker: None,
            pool: Some(pool),
            sticky: None,
            host: HostRule::Client,
        };
        (Group::reporting_to(&plan, Arc::new(Clock::start()), told.clone()), told)
    }

    fn anyone(tried: &[usize]) -> Wanted {
        Wanted { tried: tried.into(), key: None, bound: None }
    }

    fn wait(group: &Arc<Group>, priority: Priority, tried: &[usize]) -> JoinHandle<Result<Picked, NoPlace>> {
        let (group, wanted) = (group.clone(), anyone(tried));
        tokio::spawn(async move { group.enter(wanted, priority).await })
    }

    async fn until_waiting(group: &Group, count: usize) {
        while group.waiting() != count {
            tokio::task::yield_now().await;
        }
    }

    async fn enter(group: &Arc<Group>) -> Picked {
        group.enter(anyone(&[]), Priority::Normal).await.expect("a place")
    }

    fn loads(group: &Group) -> Vec<u32> {
        group.endpoints().iter().map(|endpoint| endpoint.in_flight()).collect()
    }

    #[tokio::test]
    async fn an_instances_overflow_is_touched_when_no_instance_has_room() {
        let (group, _) = group(2, pool(1, 1, 0));
        let mut held = vec![enter(&group).await, enter(&group).await];
        assert_eq!(loads(&group), [1, 1]);
        held.extend([enter(&group).await, enter(&group).await]);
        assert_eq!(loads(&group), [2, 2]);
        let refused = group.enter(anyone(&[]), Priority::Normal).await;
        assert_eq!(refused.unwrap_err(), NoPlace::QueueFull);
        drop(held);
        assert_eq!(loads(&group), [0, 0]);
    }

    #[tokio::test]
    async fn those_who_wait_are_served_in_their_order_the_high_class_first() {
        let (group, _) = group(1, pool(1, 0, 10));
        let held = enter(&group).await;
        let first = wait(&group, Priority::Normal, &[]);
        until_waiting(&group, 1).await;
        let second = wait(&group, Priority::Normal, &[]);
        until_waiting(&group, 2).await;
        let urgent = wait(&group, Priority::High, &[]);
        until_waiting(&group, 3).await;
        drop(held);
        let urgent = urgent.await.unwrap().expect("served first");
        assert_eq!(group.waiting(), 2);
        drop(urgent);
        let first = first.await.unwrap().expect("served next");
        assert_eq!((group.waiting(), loads(&group)), (1, vec![1]));
        drop(first);
        drop(second.await.unwrap().expect("served last"));
        assert_eq!((group.waiting(), loads(&group)), (0, vec![0]));
    }

    #[tokio::test]
    async fn a_newcomer_overtakes_nobody() {
        let (group, _) = group(2, pool(1, 0, 10));
        let held = [enter(&group).await, enter(&group).await];
        // This one has tried both but the second, which is busy.
        let waiter = wait(&group, Priority::Normal, &[0]);
        until_waiting(&group, 1).await;
        let [first, second] = held;
        assert_eq!((first.index, second.index), (0, 1));
        drop(first);
        assert_eq!(group.waiting(), 1, "the free instance is one it has tried");
        let newcomer = enter(&group).await;
        assert_eq!(newcomer.index, 0, "which keeps nobody else from it");
        drop(second);
        assert_eq!(waiter.await.unwrap().expect("served").index, 1);
    }

    #[tokio::test]
    async fn who_leaves_the_queue_takes_no_place() {
        let (group, _) = group(1, pool(1, 0, 1));
        let held = enter(&group).await;
        let leaves = wait(&group, Priority::Normal, &[]);
        until_waiting(&group, 1).await;
        leaves.abort();
        until_waiting(&group, 0).await;
        let stays = wait(&group, Priority::Normal, &[]);
        until_waiting(&group, 1).await;
        drop(held);
        drop(stays.await.unwrap().expect("served"));
        assert_eq!(loads(&group), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_so() {
        let (group, told) = group(1, pool(1, 0, 1));
        let held = enter(&group).await;
        let refused = group.enter(anyone(&[]), Priority::Normal).await;
        assert_eq!(refused.unwrap_err(), NoPlace::TimedOut);
        assert_eq!(group.waiting(), 0);
        drop(held);
        assert_eq!(*told.rejected.lock().unwrap(), ["timeout"]);
    }

    #[tokio::test]
    async fn who_has_tried_every_instance_does_not_wait_for_one() {
        let (group, _) = group(2, pool(1, 0, 1));
        let _held = [enter(&group).await, enter(&group).await];
        let refused = group.enter(anyone(&[0, 1]), Priority::Normal).await;
        assert_eq!(refused.unwrap_err(), NoPlace::NoInstance);
    }

    /// Many come and go at once on several threads, some leaving the queue: no limit is ever passed, and nothing is left behind.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn limits_hold_and_counts_return_to_zero() {
        let (group, _) = group(3, pool(2, 1, 1000));
        let mut tasks = Vec::new();
        for i in 0..300u64 {
            let group = group.clone();
            tasks.push(tokio::spawn(async move {
                let priority = if i % 5 == 0 { Priority::High } else { Priority::Normal };
                let entered = group.enter(anyone(&[]), priority);
                let patience = Duration::from_micros(if i % 7 == 0 { 50 } else { 10_000_000 });
                if let Ok(Ok(picked)) = timeout(patience, entered).await {
                    assert!(picked.endpoint.in_flight() <= 3, "{:?}", loads(&group));
                    tokio::task::yield_now().await;
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!((loads(&group), group.waiting()), (vec![0, 0, 0], 0));
    }
}
