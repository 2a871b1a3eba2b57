//! What the selectors promise, whatever the weights, loads and failures.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use vanne::balance::ewma::Meter;
use vanne::balance::hash::client_key;
use vanne::balance::{Candidate, Choice, HashOn, Method, Picker, Room};
use vanne::base::clock::MonoTime;
use vanne::base::dice::Dice;

/// Those whose shares are as even as their numbers allow.
const EVEN: [Method; 5] = [
    Method::RoundRobin,
    Method::LeastConn,
    Method::IpHash,
    Method::P2c { decay: Duration::from_secs(10) },
    Method::Random,
];
const RING: Method = Method::ConsistentHash { on: HashOn::Client, load: 0 };
const BOUNDED_RING: Method = Method::ConsistentHash { on: HashOn::Client, load: 125 };

fn all() -> Vec<Method> {
    EVEN.into_iter().chain([RING, BOUNDED_RING]).collect()
}

/// A picker with the endpoints it chooses among.
struct Pool {
    picker: Picker,
    candidates: Vec<Candidate>,
    dice: Dice,
    now: MonoTime,
}

impl Pool {
    fn new(method: &Method, weights: &[u32]) -> Self {
        let endpoints: Vec<_> =
            weights.iter().enumerate().map(|(i, w)| (format!("10.0.0.{i}:8000"), *w)).collect();
        Self {
            picker: Picker::new(method, &endpoints),
            candidates: weights.iter().map(|w| idle(*w)).collect(),
            dice: Dice::seeded(7),
            now: MonoTime::default(),
        }
    }

    fn of(method: &Method, candidates: Vec<Candidate>) -> Self {
        let weights: Vec<_> = candidates.iter().map(|c| c.weight).collect();
        Self { candidates, ..Self::new(method, &weights) }
    }

    fn pick_for(&mut self, client: u64, tried: &[usize]) -> Option<usize> {
        self.picker.pick(&mut Choice {
            candidates: &self.candidates,
            tried,
            bound: None,
            key: Some(client),
            now: self.now,
            dice: &mut self.dice,
        })
    }

    fn pick(&mut self) -> Option<usize> {
        self.pick_for(0, &[])
    }

    /// How many of the next `picks` each endpoint gets; every pick must find one.
    fn shares(&mut self, picks: usize) -> Vec<usize> {
        let mut shares = vec![0; self.candidates.len()];
        for client in 0..picks {
            shares[self.pick_for(client as u64, &[]).expect("somebody can be chosen")] += 1;
        }
        shares
    }

    fn letters(&mut self, picks: usize) -> String {
        (0..picks).map(|_| (b'a' + self.pick().expect("somebody can be chosen") as u8) as char).collect()
    }
}

fn idle(weight: u32) -> Candidate {
    Candidate { weight, up: true, ..Candidate::default() }
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    (0..5u32, 0..9u32, any::<bool>()).prop_map(|(weight, in_flight, up)| Candidate {
        weight,
        in_flight,
        up,
        ..Candidate::default()
    })
}

fn assert_within(shares: &[usize], exact: &[f64], slack: f64) {
    for (position, (got, exact)) in shares.iter().zip(exact).enumerate() {
        let off = (*got as f64 - exact).abs();
        assert!(off <= slack, "endpoint {position} got {got}, not {exact:.1} ± {slack}: {shares:?}");
    }
}

// What holds for every selector.

proptest! {
    #[test]
    fn a_choice_is_an_endpoint_with_weight_that_was_not_tried_and_up_while_any_such_is(
        candidates in vec(any_candidate(), 0..8),
        tried in vec(0..8usize, 0..8),
        client: u64,
    ) {
        let left = |position: &usize| candidates[*position].weight > 0 && !tried.contains(position);
        let left: Vec<_> = (0..candidates.len()).filter(left).collect();
        let some_up = left.iter().any(|p| candidates[*p].up);
        for method in all() {
            let mut pool = Pool::of(&method, candidates.clone());
            for _ in 0..20 {
                match pool.pick_for(client, &tried) {
                    Some(chosen) => {
                        prop_assert!(left.contains(&chosen), "{method:?} chose {chosen} of {left:?}");
                        prop_assert!(!some_up || candidates[chosen].up, "{method:?} chose one that is down");
                    }
                    None => prop_assert!(left.is_empty(), "{method:?} chose nobody of {left:?}"),
                }
            }
        }
    }
}

#[test]
fn when_nobody_is_up_the_shares_are_those_of_all() {
    for method in EVEN {
        let mut pool = Pool::new(&method, &[2, 1, 1]);
        pool.candidates.iter_mut().for_each(|c| c.up = false);
        assert_within(&pool.shares(4000), &[2000.0, 1000.0, 1000.0], 150.0);
    }
}

#[test]
fn every_selector_shares_out_an_idle_pool_by_weight() {
    for method in EVEN {
        let mut pool = Pool::new(&method, &[4, 3, 2, 1]);
        assert_within(&pool.shares(10_000), &[4000.0, 3000.0, 2000.0, 1000.0], 200.0);
    }
}

#[test]
fn a_weight_changed_while_running_changes_the_share() {
    for method in EVEN {
        let mut pool = Pool::new(&method, &[4, 4, 4]);
        pool.candidates[2].weight = 2;
        assert_within(&pool.shares(5000), &[2000.0, 2000.0, 1000.0], 150.0);
    }
}

// Round robin.

#[test]
fn round_robin_takes_turns_smoothly() {
    for (weights, order) in [
        (&[1, 1, 1][..], "abcabc"),
        (&[5, 1, 1], "aabacaaaabacaa"),
        (&[50, 10, 10], "aabacaaaabacaa"),
        (&[2, 1], "abaaba"),
        (&[0, 1, 0, 1], "bdbdbd"),
        (&[4_000_000_000, 2_000_000_000], "abaaba"),
        (&[1], "aaa"),
    ] {
        assert_eq!(Pool::new(&Method::RoundRobin, weights).letters(order.len()), order, "{weights:?}");
    }
}

proptest! {
    #[test]
    fn round_robin_shares_are_exact_over_every_cycle(weights in vec(0..9u32, 1..8), begin in 0..50usize) {
        let cycle: u32 = weights.iter().sum();
        prop_assume!(cycle > 0);
        let mut pool = Pool::new(&Method::RoundRobin, &weights);
        pool.shares(begin);
        let exact: Vec<_> = weights.iter().map(|w| *w as usize).collect();
        prop_assert_eq!(pool.shares(cycle as usize), exact);
    }

    #[test]
    fn nobody_is_ever_a_whole_turn_ahead_of_its_share(weights in vec(1..9u32, 2..8)) {
        let cycle: u32 = weights.iter().sum();
        let mut pool = Pool::new(&Method::RoundRobin, &weights);
        let mut served = vec![0; weights.len()];
        for turn in 1..=2 * cycle {
            let chosen = pool.pick().unwrap();
            served[chosen] += 1;
            // served < share + 1, the share being turn × weight ÷ cycle
            prop_assert!((served[chosen] - 1) * cycle < turn * weights[chosen], "{weights:?}: {chosen} at turn {turn}");
        }
    }

    #[test]
    fn the_turns_of_those_that_are_down_are_spread_over_the_rest_by_weight(
        weights in vec(1..6u32, 3..7),
        down in any::<Index>(),
    ) {
        let down = down.index(weights.len());
        let mut pool = Pool::new(&Method::RoundRobin, &weights);
        pool.candidates[down].up = false;
        let rest = f64::from(weights.iter().sum::<u32>() - weights[down]);
        let share = |(position, weight): (usize, &u32)| {
            if position == down { 0.0 } else { 3000.0 * f64::from(*weight) / rest }
        };
        let exact: Vec<_> = weights.iter().enumerate().map(share).collect();
        // A broken cycle at the end, and the sequence's own error: a few picks, not a few percent.
        assert_within(&pool.shares(3000), &exact, 10.0);
    }

    #[test]
    fn weights_without_a_short_cycle_get_their_shares_too(weights in vec(1_000_000..9_000_000u32, 2..6)) {
        let mut pool = Pool::new(&Method::RoundRobin, &weights);
        let all: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        let exact: Vec<_> = weights.iter().map(|w| 3000.0 * f64::from(*w) / all).collect();
        assert_within(&pool.shares(3000), &exact, 10.0);
    }
}

#[test]
fn a_tiny_weight_beside_a_huge_one_keeps_its_tiny_share() {
    let shares = Pool::new(&Method::RoundRobin, &[1, 99_999]).shares(100_000);
    assert_within(&shares, &[1.0, 99_999.0], 2.0);
}

#[test]
fn second_attempts_are_spread_over_the_rest_and_do_not_steer_first_ones() {
    let mut pool = Pool::new(&Method::RoundRobin, &[1, 1, 1]);
    let (mut first, mut second) = ([0; 3], [0; 3]);
    for _ in 0..3000 {
        let chosen = pool.pick_for(0, &[]).unwrap();
        first[chosen] += 1;
        // The last endpoint refuses every connection, and nobody has noticed yet.
        if chosen == 2 {
            second[pool.pick_for(0, &[2]).unwrap()] += 1;
        }
    }
    assert_eq!(first, [1000, 1000, 1000]);
    assert_within(&second, &[500.0, 500.0, 0.0], 5.0);
}

#[test]
fn workers_that_pick_at_once_still_get_exact_shares_together() {
    let pool = Pool::new(&Method::RoundRobin, &[3, 2, 1]);
    let work = |seed| {
        let mut dice = Dice::seeded(seed);
        let mut shares = [0; 3];
        for _ in 0..600 {
            let mut choice = Choice {
                candidates: &pool.candidates,
                tried: &[],
                bound: None,
                key: None,
                now: MonoTime::default(),
                dice: &mut dice,
            };
            shares[pool.picker.pick(&mut choice).unwrap()] += 1;
        }
        shares
    };
    let together = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|seed| scope.spawn(move || work(seed))).collect();
        let shares = workers.into_iter().map(|worker| worker.join().unwrap());
        shares.fold([0; 3], |a, b| [a[0] + b[0], a[1] + b[1], a[2] + b[2]])
    });
    assert_eq!(together, [1200, 800, 400]);
}

// Least connections.

proptest! {
    #[test]
    fn least_conn_never_picks_a_busier_one_per_weight(
        loads in vec((any::<u32>(), 1..=u32::MAX), 1..10),
        seed: u64,
    ) {
        let load = |(in_flight, weight): &(u32, u32)| Candidate { in_flight: *in_flight, ..idle(*weight) };
        let mut pool = Pool::of(&Method::LeastConn, loads.iter().map(load).collect());
        pool.dice = Dice::seeded(seed);
        let chosen = pool.pick().unwrap();
        let chosen = pool.candidates[chosen];
        for other in &pool.candidates {
            let busier = u128::from(chosen.in_flight) * u128::from(other.weight)
                > u128::from(other.in_flight) * u128::from(chosen.weight);
            prop_assert!(!busier, "{chosen:?} chosen before {other:?}");
        }
    }
}

#[test]
fn least_conn_breaks_ties_by_chance_among_the_least_busy_alone() {
    let load = |in_flight, weight| Candidate { in_flight, ..idle(weight) };
    // 2 of 1, 4 of 2 and 6 of 3 are equally busy; 3 of 1 is busier.
    let mut pool = Pool::of(&Method::LeastConn, vec![load(2, 1), load(3, 1), load(4, 2), load(6, 3)]);
    let shares = pool.shares(6000);
    assert_within(&shares, &[1000.0, 0.0, 2000.0, 3000.0], 150.0);
    assert_eq!(shares[1], 0);
}

#[test]
fn least_conn_fills_a_pool_in_proportion_to_weight() {
    let mut pool = Pool::new(&Method::LeastConn, &[1, 2, 3]);
    for _ in 0..60 {
        let chosen = pool.pick().unwrap();
        pool.candidates[chosen].in_flight += 1;
    }
    let loads: Vec<_> = pool.candidates.iter().map(|c| c.in_flight).collect();
    assert_eq!(loads, [10, 20, 30]);
}

// Client hash.

proptest! {
    #[test]
    fn when_an_instance_leaves_only_its_clients_move(weights in vec(1..6u32, 2..8), leaving in any::<Index>()) {
        let leaving = leaving.index(weights.len());
      for method in [Method::IpHash, RING] {
        let mut pool = Pool::new(&method, &weights);
        let before: Vec<_> = (0..300).map(|client| pool.pick_for(client, &[]).unwrap()).collect();
        pool.candidates[leaving].up = false;
        for (client, before) in before.iter().enumerate() {
            let after = pool.pick_for(client as u64, &[]).unwrap();
            if *before == leaving {
                prop_assert_ne!(after, leaving);
            } else {
                prop_assert_eq!(after, *before, "client {} had no reason to move", client);
            }
        }
        pool.candidates[leaving].up = true;
        for (client, before) in before.iter().enumerate() {
            prop_assert_eq!(pool.pick_for(client as u64, &[]).unwrap(), *before, "client {} is not back", client);
        }
      }
    }
}

#[test]
fn the_clients_of_one_that_left_are_spread_over_all_others_by_weight() {
    let mut pool = Pool::new(&Method::IpHash, &[4, 3, 2, 1]);
    let orphans: Vec<_> = (0..20_000).filter(|client| pool.pick_for(*client, &[]) == Some(0)).collect();
    pool.candidates[0].up = false;
    let mut shares = [0; 4];
    for client in &orphans {
        shares[pool.pick_for(*client, &[]).unwrap()] += 1;
    }
    let sixth = orphans.len() as f64 / 6.0;
    assert_within(&shares, &[0.0, 3.0 * sixth, 2.0 * sixth, sixth], 250.0);
}

#[test]
fn an_instance_removed_from_the_plan_moves_no_other_client_and_the_order_does_not_matter() {
    let all = ["a:1", "b:1", "c:1", "d:1"];
    let fewer = ["d:1", "a:1", "c:1"];
    for method in [Method::IpHash, RING] {
        moves_only_what_it_must(&method, &all, &fewer);
    }
}

fn moves_only_what_it_must(method: &Method, all: &[&str], fewer: &[&str]) {
    let picker = |names: &[&str]| {
        Picker::new(method, &names.iter().map(|name| (name.to_string(), 1)).collect::<Vec<_>>())
    };
    let (before, after) = (picker(all), picker(fewer));
    let mut dice = Dice::seeded(1);
    let mut pick = |picker: &Picker, count, client| {
        let candidates = vec![idle(1); count];
        picker
            .pick(&mut Choice {
                candidates: &candidates,
                tried: &[],
                bound: None,
                key: Some(client),
                now: MonoTime::default(),
                dice: &mut dice,
            })
            .unwrap()
    };
    for client in 0..500 {
        let (old, new) = (all[pick(&before, 4, client)], fewer[pick(&after, 3, client)]);
        assert!(old == new || old == "b:1", "{method:?}: client {client} moved from {old} to {new}");
    }
}

/// Computed once. Gateways of one fleet, of different releases, must send a client to the same instance.
const KEY: u64 = 211_982_827_174_691_851;
const CHOICES: [usize; 12] = [1, 3, 3, 3, 2, 3, 1, 2, 3, 3, 1, 3];

#[test]
fn the_choice_is_the_same_in_every_process_and_release() {
    assert_eq!(client_key(IpAddr::from([192, 0, 2, 77])), KEY);
    let mut pool = Pool::new(&Method::IpHash, &[1, 1, 1, 2]);
    let chosen: Vec<_> = (0..12).map(|client| pool.pick_for(client, &[]).unwrap()).collect();
    assert_eq!(chosen, CHOICES);
}

#[test]
fn a_client_is_its_network() {
    let key = |text: &str| client_key(text.parse().unwrap());
    for (one, other, same, fact) in [
        ("192.0.2.1", "192.0.2.254", true, "one /24 is one client"),
        ("192.0.2.1", "192.0.3.1", false, "another /24 is another"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", true, "one /64 is one client"),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", false, "another /64 is another"),
        (
            "::ffff:192.0.2.1",
            "192.0.2.9",
            true,
            "an IPv4 address mapped into IPv6 is IPv4 (RFC 4291 §2.5.5.2)",
        ),
        ("::ffff:192.0.2.1", "::ffff:192.0.3.1", false, "and not one /64 with all others"),
    ] {
        assert_eq!(key(one) == key(other), same, "{fact}: {one} {other}");
    }
}

// The ring.

/// How many of 30,000 keys each endpoint has.
fn key_shares(pool: &mut Pool) -> Vec<usize> {
    pool.shares(30_000)
}

#[test]
fn a_ring_shares_out_keys_by_weight() {
    for weights in [&[1, 1, 1, 1][..], &[4, 3, 2, 1], &[1, 1000, 500], &[5; 20]] {
        let shares = key_shares(&mut Pool::new(&RING, weights));
        let total: u32 = weights.iter().sum();
        for (got, weight) in shares.iter().zip(weights) {
            let exact = 30_000.0 * f64::from(*weight) / f64::from(total);
            let off = (*got as f64 - exact).abs();
            assert!(off <= exact * 0.15 + 20.0, "{got}, not {exact:.0}: {shares:?} for {weights:?}");
        }
    }
}

#[test]
fn an_endpoint_that_joins_a_ring_takes_its_share_and_moves_nothing_else() {
    let names = |count: usize| (0..count).map(|i| (format!("10.0.0.{i}:80"), 1)).collect::<Vec<_>>();
    let (before, after) = (Picker::new(&RING, &names(9)), Picker::new(&RING, &names(10)));
    let candidates = vec![idle(1); 10];
    let mut dice = Dice::seeded(1);
    let mut pick = |picker: &Picker, count: usize, key| {
        let (candidates, now) = (&candidates[..count], MonoTime::default());
        picker
            .pick(&mut Choice { candidates, tried: &[], bound: None, key: Some(key), now, dice: &mut dice })
            .unwrap()
    };
    let mut moved = 0;
    for key in 0..20_000 {
        let (old, new) = (pick(&before, 9, key), pick(&after, 10, key));
        assert!(old == new || new == 9, "key {key} moved from {old} to {new}");
        moved += usize::from(old != new);
    }
    assert!((1700..2300).contains(&moved), "{moved} of 20,000 keys moved to the tenth endpoint");
}

#[test]
fn while_an_endpoint_warms_up_it_takes_more_and_more_keys_and_none_moves_twice() {
    let mut pool = Pool::new(&RING, &[2, 2, 2]);
    let whole: Vec<_> = (0..6000).map(|key| pool.pick_for(key, &[]).unwrap()).collect();
    let mut had: HashSet<u64> = HashSet::new();
    for part in [1, 10, 25, 50, 75, 100] {
        pool.candidates = vec![idle(200), idle(2 * part), idle(200)];
        let has: HashSet<u64> = (0..6000).filter(|key| pool.pick_for(*key, &[]) == Some(1)).collect();
        assert!(has.is_superset(&had), "at {part} % it lost keys that it had");
        let exact = 6000.0 * f64::from(part) / f64::from(200 + part);
        assert!((has.len() as f64 - exact).abs() < 30.0 + exact * 0.15, "{} keys at {part} %", has.len());
        assert!(has.iter().all(|key| whole[*key as usize] == 1), "all are its own");
        had = has;
    }
}

#[test]
fn a_bound_on_the_load_sends_what_is_beyond_it_to_the_next() {
    let mut pool = Pool::new(&BOUNDED_RING, &[1, 1, 2]);
    // All ask for the same thing.
    for _ in 0..400 {
        let chosen = pool.pick_for(7, &[]).unwrap();
        pool.candidates[chosen].in_flight += 1;
    }
    let loads: Vec<_> = pool.candidates.iter().map(|c| c.in_flight).collect();
    assert!(loads.iter().zip([125, 125, 250]).all(|(load, most)| *load <= most), "{loads:?}");
    assert!(
        loads.iter().zip([125, 125, 250]).any(|(load, most)| *load == most),
        "its own was full first: {loads:?}"
    );

    let mut unbounded = Pool::new(&RING, &[1, 1, 2]);
    let owner = unbounded.pick_for(7, &[]).unwrap();
    unbounded.candidates[owner].in_flight = 1000;
    assert_eq!(unbounded.pick_for(7, &[]), Some(owner), "without a bound a key has one owner, however busy");
}

proptest! {
    #[test]
    fn a_bounded_ring_always_finds_somebody(loads in vec((0..50u32, 0..4u32), 1..9), key: u64) {
        let candidates = loads.iter().map(|(in_flight, weight)| Candidate { in_flight: *in_flight, ..idle(*weight) });
        let mut pool = Pool::of(&Method::ConsistentHash { on: HashOn::Client, load: 100 }, candidates.collect());
        let some = loads.iter().any(|(_, weight)| *weight > 0);
        prop_assert_eq!(pool.pick_for(key, &[]).is_some(), some);
    }
}

/// Computed once, as [`CHOICES`] is.
const PLACES: [usize; 12] = [3, 0, 3, 3, 2, 2, 2, 0, 3, 1, 3, 3];

#[test]
fn a_place_on_the_ring_is_the_same_in_every_process_and_release() {
    let mut pool = Pool::new(&RING, &[1, 1, 1, 2]);
    let chosen: Vec<_> = (0..12).map(|key| pool.pick_for(key, &[]).unwrap()).collect();
    assert_eq!(chosen, PLACES);
}

#[test]
fn a_request_without_a_key_is_shared_out_by_chance_and_weight() {
    for method in [RING, Method::IpHash] {
        let mut pool = Pool::new(&method, &[3, 1]);
        let mut shares = [0; 2];
        for _ in 0..4000 {
            let (candidates, now) = (&pool.candidates, pool.now);
            let mut choice =
                Choice { candidates, tried: &[], bound: None, key: None, now, dice: &mut pool.dice };
            shares[pool.picker.pick(&mut choice).unwrap()] += 1;
        }
        assert_within(&shares, &[3000.0, 1000.0], 150.0);
    }
}

// The soonest of two.

const DECAY: Duration = Duration::from_secs(10);
const P2C: Method = Method::P2c { decay: DECAY };

fn answering_in(millis: u64, in_flight: u32, weight: u32) -> Candidate {
    let meter = Meter::default().with(MonoTime::default(), Duration::from_millis(millis), DECAY);
    Candidate { meter, in_flight, ..idle(weight) }
}

#[test]
fn of_two_the_one_that_answers_sooner_is_chosen() {
    for (one, other, fact) in [
        (answering_in(10, 0, 1), answering_in(20, 0, 1), "it is quicker"),
        (answering_in(10, 2, 1), answering_in(10, 5, 1), "it has less under way"),
        (answering_in(10, 4, 1), answering_in(100, 0, 1), "quick and busy beats slow and idle"),
        (answering_in(10, 4, 4), answering_in(10, 2, 1), "it can take more"),
        (idle(1), answering_in(1, 0, 1), "nobody knows it yet"),
        (
            answering_in(900, 9, 1),
            Candidate { in_flight: 1, ..idle(1) },
            "a newcomer that owes an answer is not flooded",
        ),
    ] {
        let mut pool = Pool::of(&P2C, vec![one, other]);
        assert_eq!(pool.shares(50), [50, 0], "{fact}");
    }
}

#[test]
fn a_slow_answer_is_forgotten_after_a_while() {
    let slow = answering_in(1000, 0, 1);
    let mut pool = Pool::of(&P2C, vec![slow, answering_in(50, 0, 1)]);
    assert_eq!(pool.shares(50), [0, 50]);
    // The other one has gone on answering meanwhile.
    pool.now = MonoTime::from_millis(60_000);
    pool.candidates[1].meter = Meter::default().with(pool.now, Duration::from_millis(50), DECAY);
    assert_eq!(pool.shares(50), [50, 0]);
}

#[test]
fn among_many_the_slow_ones_are_spared() {
    let mut candidates = vec![answering_in(10, 0, 1); 9];
    candidates.push(answering_in(500, 0, 1));
    let shares = Pool::of(&P2C, candidates).shares(9000);
    assert_eq!(shares[9], 0, "it is drawn with another one each time, and that one is quicker: {shares:?}");
    assert_within(&shares[..9], &[1000.0; 9], 150.0);
}

// Large pools.

#[test]
fn in_a_large_pool_the_busier_of_two_is_spared() {
    let mut candidates = vec![idle(1); 200];
    candidates[17].in_flight = 5;
    let shares = Pool::of(&Method::LeastConn, candidates).shares(40_000);
    assert_eq!(shares[17], 0);
    assert!(shares.iter().enumerate().all(|(i, n)| i == 17 || (120..300).contains(n)), "{shares:?}");
}

#[test]
fn a_hundred_instances_of_many_weights_get_their_shares_to_a_percent() {
    let weights: Vec<u32> = (0..100).map(|i| 1 + i % 5).collect();
    for method in [Method::RoundRobin, Method::LeastConn] {
        let mut pool = Pool::new(&method, &weights);
        let mut shares = vec![0usize; 100];
        for _ in 0..100_000 {
            let chosen = pool.pick().unwrap();
            shares[chosen] += 1;
            // Under least_conn they answer at a pace by weight once all are busy: what is in flight is what was given and not yet taken.
            pool.candidates[chosen].in_flight += 1;
        }
        for (got, weight) in shares.iter().zip(&weights) {
            let exact = 100_000.0 * f64::from(*weight) / 300.0;
            assert!((*got as f64 - exact).abs() <= exact / 100.0, "{method:?}: {got}, not {exact:.1} ± 1 %");
        }
    }
}

// Chance.

#[test]
fn chance_reaches_everybody_and_repeats_with_its_seed() {
    let run = || -> Vec<_> {
        let mut pool = Pool::new(&Method::Random, &[1, 1, 1]);
        (0..100).map(|_| pool.pick().unwrap()).collect()
    };
    assert_eq!(run(), run());
    assert_eq!(run().into_iter().collect::<HashSet<_>>().len(), 3);
}

// Limits.

#[test]
fn a_full_endpoint_is_a_reason_to_wait_and_overflow_a_last_resort() {
    let endpoint = |up, room| Candidate { in_flight: 9, up, room, ..idle(1) };
    for (candidates, expected, fact) in [
        (vec![(true, Room::Full), (true, Room::Free)], Some(1), "one with room is chosen before a full one"),
        (vec![(true, Room::Overflow), (true, Room::Free)], Some(1), "and before one in its overflow"),
        (
            vec![(true, Room::Full), (true, Room::Overflow)],
            Some(1),
            "whose overflow serves when nobody is free",
        ),
        (vec![(true, Room::Full), (true, Room::Full)], None, "when all are full nobody is chosen"),
        (vec![(true, Room::Full), (false, Room::Free)], None, "not even one that is down and idle"),
        (vec![(false, Room::Full), (false, Room::Free)], Some(1), "unless none is up"),
    ] {
        let candidates: Vec<_> = candidates.into_iter().map(|(up, room)| endpoint(up, room)).collect();
        for method in all() {
            for client in 0..20 {
                let mut pool = Pool::of(&method, candidates.clone());
                assert_eq!(pool.pick_for(client, &[]), expected, "{method:?}: {fact}");
            }
        }
    }
}

#[test]
fn room_is_what_size_and_overflow_leave() {
    for (in_flight, room) in [
        (0, Room::Free),
        (1, Room::Free),
        (2, Room::Overflow),
        (4, Room::Overflow),
        (5, Room::Full),
        (9, Room::Full),
    ] {
        assert_eq!(Room::of(in_flight, 2, 3), room, "{in_flight} of 2 + 3");
    }
}

#[test]
fn a_backup_is_chosen_while_no_other_endpoint_is_up() {
    let endpoint = |up, backup, room| Candidate { up, room, backup, ..idle(1) };
    let (primary, backup) = (false, true);
    for (candidates, tried, expected, fact) in [
        (vec![(true, primary), (true, backup)], vec![], vec![0], "not while a primary is up"),
        (vec![(false, primary), (true, backup)], vec![], vec![1], "once none is"),
        (vec![(true, primary), (true, backup)], vec![0], vec![1], "or all that are up were tried"),
        (vec![(false, primary), (false, backup)], vec![], vec![0, 1], "when none is up at all, all are used"),
    ] {
        let candidates: Vec<_> =
            candidates.into_iter().map(|(up, backup)| endpoint(up, backup, Room::Free)).collect();
        for method in all() {
            let mut pool = Pool::of(&method, candidates.clone());
            let seen: HashSet<_> = (0..100).filter_map(|client| pool.pick_for(client, &tried)).collect();
            assert_eq!(seen, HashSet::from_iter(expected.iter().copied()), "{method:?}: {fact}");
        }
    }
    let full = vec![endpoint(true, primary, Room::Full), endpoint(true, backup, Room::Free)];
    assert_eq!(Pool::of(&Method::RoundRobin, full).pick(), None, "a primary that is full is waited for");
}
