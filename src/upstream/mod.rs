//! The live side of an upstream: its endpoints, their counters, health and addresses.
//!
//! Not here: choosing (that is `balance`), pingora.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use smallvec::SmallVec;

use crate::balance::breaker::{Breaker, End, Ticket};
use crate::balance::check::Unwell;
use crate::balance::eject::{Standing, Strikes};
use crate::balance::hash::Facts;
use crate::balance::health::{Change, Tally};
use crate::balance::window::Window;
use crate::balance::{Candidate, Choice, Method, Picker, Room};
use crate::base::clock::{Clock, MonoTime};
use crate::base::dice::Dice;
use crate::base::name::UpstreamName;
use crate::observe::metrics::UpstreamMetrics;
use crate::plan::{self, HealthStart};

mod crisis;
pub mod discover;
mod latency;
mod outcome;
mod pool;
pub mod probe;
pub mod state;
mod succession;

use latency::Latency;
pub use pool::NoPlace;
use pool::Pool;
use state::Notes;
use succession::Kin;

thread_local! {
    /// One source of chance per worker, so that workers do not queue up for a shared one.
    static DICE: RefCell<Dice> = RefCell::new(Dice::from_entropy());
}

/// A running upstream.
pub struct Group {
    plan: plan::Upstream,
    /// Made anew when weights change.
    picker: ArcSwap<Picker>,
    endpoints: Box<[Arc<Endpoint>]>,
    pool: Option<Pool>,
    breaker: Option<Arc<Mutex<Breaker>>>,
    /// All endpoints are used because too few are up.
    panics: AtomicBool,
    clock: Arc<Clock>,
    report: Arc<dyn Report>,
    kin: Kin,
}

/// What a request asks of an upstream.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The positions of the endpoints it has tried.
    pub tried: SmallVec<[usize; 4]>,
    /// The hash of what decides who is chosen, where anything does: see [`Group::key`].
    pub key: Option<u64>,
    /// The position of the endpoint that its client is bound to.
    pub bound: Option<usize>,
}

/// One running endpoint.
pub struct Endpoint {
    index: usize,
    name: String,
    weight: AtomicU32,
    backup: bool,
    /// An operator said that it takes no new requests.
    drained: AtomicBool,
    /// When checks brought it back, in nanoseconds of the process's steady clock; 0: never.
    returned: AtomicU64,
    /// Shared with the same endpoint of an upstream that this one succeeds, or that succeeds it.
    in_flight: Arc<AtomicU32>,
    up: AtomicBool,
    /// When `up` last changed, in nanoseconds of the process's steady clock.
    since: AtomicU64,
    /// `None`: nobody checks it. The lock is taken by checks alone, never by a request.
    tally: Option<Mutex<Tally>>,
    /// Never empty once `resolved`.
    addrs: ArcSwap<Addresses>,
    resolved: AtomicBool,
    /// Counts the uses of `addrs`.
    turn: AtomicUsize,
    prefer_v6: AtomicBool,
    /// What requests hold against it. Choosing reads the two copies beside it and takes no lock.
    strikes: Mutex<Strikes>,
    /// Whether anything is held against it.
    struck: AtomicBool,
    /// When it is no longer out, in nanoseconds of the process's steady clock; 0 when nothing is held against it.
    out_until: AtomicU64,
    /// How its exchanges of the last while went; `None` when nothing is made of that.
    window: Option<Mutex<Window>>,
    /// It asked to be left alone until then, in nanoseconds of the process's steady clock.
    rests_until: AtomicU64,
    /// When its condition last changed by an event, in nanoseconds of the process's steady clock.
    changed: AtomicU64,
    /// What is known against it, for the operator.
    notes: Mutex<Notes>,
    /// How long its answers take.
    latency: Latency,
    report: Arc<dyn Report>,
}

/// A chosen endpoint. While it lives, the endpoint counts one request in flight: it is given back when dropped, on every way out.
pub struct Picked {
    /// The position in the plan.
    pub index: usize,
    /// The address to connect to.
    pub addr: SocketAddr,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Those who wait there take the place that it gives back.
    group: Arc<Group>,
    /// The breaker let it through, and is still to be told how it ended.
    ticket: Option<Ticket>,
}

/// The addresses of one endpoint, by family.
#[derive(Debug, Default, PartialEq, Eq)]
struct Addresses {
    v4: Vec<SocketAddr>,
    v6: Vec<SocketAddr>,
}

/// Who is told what happens to endpoints.
trait Report: Send + Sync {
    /// Requests in flight at endpoint `index` changed by `by`.
    fn in_flight(&self, index: usize, by: i64);
    /// Endpoint `index` may be used, or not.
    fn up(&self, index: usize, up: bool);
    /// A check of endpoint `index` ended.
    fn checked(&self, index: usize, ok: bool);
    /// Endpoint `index` was taken out for what happened to requests.
    fn ejected(&self, index: usize);
    /// Endpoint `index` has been in this state (a word of [`state::Condition`]) for this long.
    fn state(&self, index: usize, state: &'static str, lasted: Duration);
    /// All endpoints are used because too few are up, or no longer.
    fn panics(&self, panics: bool);
    /// The upstream is not asked because its exchanges failed, or asked again.
    fn circuit(&self, open: bool);
    /// So many requests wait for a place.
    fn waiting(&self, count: usize);
    /// A request waited this long, in vain or not.
    fn waited(&self, took: Duration);
    /// A request got no place: the queue was `full`, or its time was up (`timeout`), or the upstream is not asked (`circuit-open`).
    fn rejected(&self, why: &'static str);
}

impl Report for UpstreamMetrics {
    fn in_flight(&self, index: usize, by: i64) {
        self.in_flight(index, by);
    }

    fn up(&self, index: usize, up: bool) {
        self.up(index, up);
    }

    fn checked(&self, index: usize, ok: bool) {
        self.checked(index, ok);
    }

    fn ejected(&self, index: usize) {
        self.ejected(index);
    }

    fn state(&self, index: usize, state: &'static str, lasted: Duration) {
        self.state(index, state, lasted);
    }

    fn panics(&self, panics: bool) {
        self.panics(panics);
    }

    fn circuit(&self, open: bool) {
        self.circuit(open);
    }

    fn waiting(&self, count: usize) {
        self.waiting(count);
    }

    fn waited(&self, took: Duration) {
        self.waited(took);
    }

    fn rejected(&self, why: &'static str) {
        self.rejected(why);
    }
}

impl Group {
    /// The upstream as planned; every endpoint begins as its health checks are told to, without any up. Cheap: no DNS, no connections. An endpoint given by a name is not used until
    /// [`probe::run`] has resolved it.
    pub fn new(plan: &plan::Upstream, clock: Arc<Clock>, metrics: UpstreamMetrics) -> Arc<Self> {
        Self::reporting_to(plan, clock, Arc::new(metrics))
    }

    fn reporting_to(plan: &plan::Upstream, clock: Arc<Clock>, report: Arc<dyn Report>) -> Arc<Self> {
        Self::made(plan, clock, report, None, &|_| {})
    }

    /// `breaker` is one to go on with; `tell` is what an endpoint is told before it is used.
    fn made(
        plan: &plan::Upstream,
        clock: Arc<Clock>,
        report: Arc<dyn Report>,
        breaker: Option<Arc<Mutex<Breaker>>>,
        tell: &dyn Fn(&mut Endpoint),
    ) -> Arc<Self> {
        let endpoints = plan.servers.iter().enumerate();
        let endpoints = endpoints
            .map(|(index, server)| {
                let mut endpoint = Endpoint::new(index, server, plan, clock.mono(), &report);
                tell(&mut endpoint);
                Arc::new(endpoint)
            })
            .collect();
        let identities: Vec<_> = plan.servers.iter().map(|s| (s.addr.clone(), s.weight)).collect();
        let picker = ArcSwap::from_pointee(Picker::new(&plan.balance, &identities));
        let pool = plan.pool.clone().map(Pool::new);
        let new_breaker = |rules| Arc::new(Mutex::new(Breaker::new(rules)));
        let breaker = breaker.or_else(|| plan.breaker.clone().map(new_breaker));
        let panics = AtomicBool::new(false);
        let (plan, kin) = (plan.clone(), Kin::default());
        Arc::new(Self { plan, picker, endpoints, pool, breaker, panics, clock, report, kin })
    }

    /// Chooses an endpoint that was not tried and counts the request as in flight there. `None` when every endpoint was tried, has weight 0,
    /// has no address or is full.
    ///
    /// Choosing and counting are two steps: two workers that choose in the same instant may see the same counts, and the least busy
    /// endpoint then gets both. The next choice sees both. With a pool, its lock is held around both.
    fn pick(self: &Arc<Self>, wanted: &Wanted) -> Option<Picked> {
        let (tried, now) = (wanted.tried.as_slice(), self.clock.mono());
        let mut candidates: SmallVec<[Candidate; 16]> = self.candidates().collect();
        self.rescue(&mut candidates, now);
        let index = DICE.with_borrow_mut(|dice| {
            let Wanted { key, bound, .. } = *wanted;
            let picker = self.picker.load();
            picker.pick(&mut Choice { candidates: &candidates, tried, bound, key, now, dice })
        })?;
        let endpoint = self.endpoints.get(index)?;
        let addr = endpoint.next_addr()?;
        Some(Picked::new(self, endpoint, addr))
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        let limits = self.pool.as_ref().map(Pool::limits);
        let now = self.clock.mono();
        let slow_start = self.slow_start();
        // Weights are whole numbers: while one of them is a part of what was planned, all are counted in hundredths.
        let in_parts =
            !slow_start.is_zero() && self.endpoints.iter().any(|e| e.warmth(now, slow_start) < 100);
        self.endpoints.iter().map(move |endpoint| {
            let mut candidate = endpoint.as_candidate(limits, now);
            if in_parts {
                candidate.weight *= endpoint.warmth(now, slow_start);
            }
            candidate
        })
    }

    /// Whether any endpoint may ever serve this, once it has room.
    fn may_serve(&self, wanted: &Wanted) -> bool {
        self.candidates().enumerate().any(|(index, c)| c.weight > 0 && !wanted.tried.contains(&index))
    }

    /// Whether endpoint `index` is one that requests may be sent to, be it full at this moment.
    pub fn is_usable(&self, index: usize) -> bool {
        self.candidates().nth(index).is_some_and(|candidate| candidate.up && candidate.weight > 0)
    }

    /// The hash of what of a request decides who is chosen; `None`: nothing does, or it has none of it.
    pub fn key(&self, facts: &Facts<'_>) -> Option<u64> {
        self.plan.balance.hash_on()?.key(facts)
    }

    /// Endpoint `index` took this long to begin an answer, or was waited for so long in vain.
    pub fn took(&self, index: usize, time: Duration) {
        if let (Method::P2c { decay }, Some(endpoint)) = (&self.plan.balance, self.endpoints.get(index)) {
            endpoint.latency.note(self.clock.mono(), time, *decay);
        }
    }

    /// The endpoints, in the plan's order.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The plan it was made from.
    pub fn plan(&self) -> &plan::Upstream {
        &self.plan
    }

    /// Its name.
    pub fn name(&self) -> &UpstreamName {
        &self.plan.name
    }

    /// Takes the result of one health check of endpoint `index`. Changes nothing in a group without health checks.
    pub fn record_check(self: &Arc<Self>, index: usize, result: &Result<(), Unwell>) -> Change {
        let Some(endpoint) = self.endpoints.get(index) else { return Change::None };
        let change = endpoint.record_check(result, self.clock.mono());
        if change != Change::None {
            self.serve_waiting();
        }
        change
    }

    /// Gives endpoint `index` the addresses its name stands for now. Without any, those it had stay: a name server that answers nothing for
    /// a moment must not take a running instance out.
    ///
    /// Says whether they are other than before.
    pub fn set_addrs(self: &Arc<Self>, index: usize, addrs: &[SocketAddr]) -> bool {
        let Some(endpoint) = self.endpoints.get(index) else { return false };
        let is_first = endpoint.addr().is_none();
        let changed = endpoint.set_addrs(addrs);
        if changed {
            if is_first {
                endpoint.changed_at(self.clock.mono());
            }
            self.serve_waiting();
        }
        changed
    }
}

impl Endpoint {
    fn new(
        index: usize,
        server: &plan::Instance,
        upstream: &plan::Upstream,
        now: MonoTime,
        report: &Arc<dyn Report>,
    ) -> Self {
        let health = upstream.health.as_ref();
        let endpoint = Self {
            index,
            name: server.addr.clone(),
            weight: AtomicU32::new(server.weight),
            backup: server.backup,
            drained: AtomicBool::new(false),
            returned: AtomicU64::new(0),
            in_flight: Arc::default(),
            up: AtomicBool::new(health.is_none_or(|health| health.start == HealthStart::Up)),
            since: AtomicU64::new(now.as_nanos()),
            tally: health.map(|health| Mutex::new(first_tally(health))),
            addrs: ArcSwap::default(),
            resolved: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            prefer_v6: AtomicBool::new(false),
            strikes: Mutex::default(),
            struck: AtomicBool::new(false),
            out_until: AtomicU64::new(0),
            window: upstream.eject.as_ref().map(|rules| Mutex::new(Window::new(rules.window))),
            rests_until: AtomicU64::new(0),
            changed: AtomicU64::new(now.as_nanos()),
            notes: Mutex::default(),
            latency: Latency::default(),
            report: Arc::clone(report),
        };
        let addr = discover::literal(&endpoint.name);
        if !endpoint.set_addrs(addr.as_slice()) {
            endpoint.report_up();
        }
        endpoint
    }

    /// The position in the plan.
    pub fn index(&self) -> usize {
        self.index
    }

    /// `host:port` as written in the plan.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether health says it may be used. An endpoint whose name does not resolve is not used even so.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// When [`Endpoint::is_up`] last changed; the group's start, when it never did.
    pub fn since(&self) -> MonoTime {
        MonoTime::from_nanos(self.since.load(Ordering::Relaxed))
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// The address to connect to next; `None` while the name does not resolve. Asking does not move on to the next one.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr_at(self.turn.load(Ordering::Relaxed))
    }

    /// No connection stood at `addr`. When the name has addresses of the other family too, those are used from now on, until one of them
    /// fails: `localhost` stands for `127.0.0.1` and `::1`, and many a server listens on one of them only.
    pub fn connect_failed(&self, addr: SocketAddr) {
        self.prefer_v6.store(addr.is_ipv4(), Ordering::Relaxed);
    }

    /// The address to connect to now. A name with several addresses has them used in rotation, IPv4 before IPv6 when it has both.
    fn next_addr(&self) -> Option<SocketAddr> {
        self.addr_at(self.turn.fetch_add(1, Ordering::Relaxed))
    }

    /// An address of the family that `addr` is not of.
    fn other_family(&self, addr: SocketAddr) -> Option<SocketAddr> {
        let addrs = self.addrs.load();
        if addr.is_ipv4() { addrs.v6.first() } else { addrs.v4.first() }.copied()
    }

    fn addr_at(&self, turn: usize) -> Option<SocketAddr> {
        let addrs = self.addrs.load();
        let addrs = addrs.family(self.prefer_v6.load(Ordering::Relaxed));
        addrs.get(turn.checked_rem(addrs.len())?).copied()
    }

    /// How it stands, by what happened to requests.
    pub fn standing(&self, now: MonoTime) -> Standing {
        if self.rests(now) {
            return Standing::Out;
        }
        match MonoTime::from_nanos(self.out_until.load(Ordering::Relaxed)) {
            until if until == MonoTime::from_nanos(0) => Standing::Good,
            until if now < until => Standing::Out,
            _ => Standing::OnTrial,
        }
    }

    /// How much of its share it gets, in hundredths, from 1 to 100: it grows over `slow_start` after checks brought it back.
    fn warmth(&self, now: MonoTime, slow_start: Duration) -> u32 {
        let returned = self.returned.load(Ordering::Relaxed);
        if returned == 0 || slow_start.is_zero() {
            return 100;
        }
        let back_for = now.since(MonoTime::from_nanos(returned));
        ((back_for.as_secs_f64() / slow_start.as_secs_f64() * 100.0) as u32).clamp(1, 100)
    }

    fn change_strikes<T>(&self, change: impl FnOnce(&mut Strikes) -> T) -> T {
        let mut strikes = self.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut strikes);
        self.struck.store(!strikes.is_clean(), Ordering::Relaxed);
        self.out_until.store(strikes.until().map_or(0, MonoTime::as_nanos), Ordering::Relaxed);
        result
    }

    fn as_candidate(&self, limits: Option<&plan::Pool>, now: MonoTime) -> Candidate {
        // Weight 0 rather than "down": failing open must not choose what has no address, or is to be left alone.
        let weight = if self.is_usable() { self.weight() } else { 0 };
        let in_flight = self.in_flight();
        let room = limits.map_or(Room::Free, |pool| Room::of(in_flight, pool.size, pool.overflow));
        let trusted = match self.standing(now) {
            Standing::Good => true,
            Standing::OnTrial => in_flight == 0,
            Standing::Out => false,
        };
        let up = trusted && self.is_up();
        Candidate { weight, in_flight, up, room, backup: self.backup, meter: self.latency.meter() }
    }

    fn record_check(&self, result: &Result<(), Unwell>, now: MonoTime) -> Change {
        let Some(tally) = &self.tally else { return Change::None };
        self.report.checked(self.index, result.is_ok());
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let change = match result {
            Err(Unwell::Withdrawn(_)) => tally.withdraw(),
            result => tally.record(result.is_ok()),
        };
        if change != Change::None {
            self.up.store(tally.is_up(), Ordering::Relaxed);
            self.since.store(now.as_nanos(), Ordering::Relaxed);
            self.changed_at(now);
            self.note(|notes| {
                notes.check = result.as_ref().err().map_or_else(String::new, Unwell::to_string)
            });
            if change == Change::Up {
                self.returned.store(now.as_nanos(), Ordering::Relaxed);
            }
            self.report_up();
        }
        change
    }

    fn set_addrs(&self, addrs: &[SocketAddr]) -> bool {
        let addrs = Addresses::new(addrs);
        if addrs.is_empty() || addrs == **self.addrs.load() {
            return false;
        }
        self.addrs.store(Arc::new(addrs));
        self.resolved.store(true, Ordering::Release);
        self.report_up();
        true
    }

    fn report_up(&self) {
        self.report.up(self.index, self.is_up() && self.resolved.load(Ordering::Acquire));
    }
}

impl fmt::Debug for Picked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picked")
            .field("addr", &self.addr)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("index", &self.index)
            .field("name", &self.name)
            .field("weight", &self.weight())
            .field("in_flight", &self.in_flight())
            .field("up", &self.is_up())
            .field("addr", &self.addr())
            .finish_non_exhaustive()
    }
}

fn first_tally(health: &plan::Health) -> Tally {
    match health.start {
        HealthStart::Up => Tally::new(health.fall, health.rise),
        HealthStart::Down => Tally::unproven(health.fall, health.rise),
    }
}

impl Addresses {
    /// In an order of their own: a name server that turns the list around at each answer has not moved the instance.
    fn new(addrs: &[SocketAddr]) -> Self {
        let mut addrs = addrs.to_vec();
        addrs.sort_unstable();
        addrs.dedup();
        let (v4, v6) = addrs.into_iter().partition(SocketAddr::is_ipv4);
        Self { v4, v6 }
    }

    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    fn family(&self, prefer_v6: bool) -> &[SocketAddr] {
        let (first, second) = if prefer_v6 { (&self.v6, &self.v4) } else { (&self.v4, &self.v6) };
        if first.is_empty() { second } else { first }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("plan", &self.plan)
            .field("endpoints", &self.endpoints)
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

impl Picked {
    fn new(group: &Arc<Group>, endpoint: &Arc<Endpoint>, addr: SocketAddr) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        endpoint.report.in_flight(endpoint.index, 1);
        Self {
            index: endpoint.index,
            addr,
            endpoint: Arc::clone(endpoint),
            group: Arc::clone(group),
            ticket: None,
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.settle(End::Nothing);
        // In one order with the count of those who wait: either we see them, or they see the place.
        self.endpoint.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.endpoint.report.in_flight(self.endpoint.index, -1);
        self.group.serve_kin();
    }
}
