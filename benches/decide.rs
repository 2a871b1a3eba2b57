//! What a choice costs: nanoseconds a pick for each way to balance, at several sizes of an upstream.
//!
//! `cargo bench --no-default-features --bench decide`: without the server, since nothing here opens a socket.

#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use vanne::balance::ewma::Meter;
use vanne::balance::{Candidate, Choice, HashOn, Method, Picker};
use vanne::base::clock::MonoTime;
use vanne::base::dice::Dice;

const DECAY: Duration = Duration::from_secs(10);
const PICKS: u64 = 100_000;
/// The best of so many rounds: what disturbs a round only makes it slower.
const ROUNDS: usize = 7;

fn main() {
    let methods = [
        ("round_robin", Method::RoundRobin),
        ("least_conn", Method::LeastConn),
        ("p2c", Method::P2c { decay: DECAY }),
        ("ip_hash", Method::IpHash),
        ("consistent_hash", Method::ConsistentHash { on: HashOn::Client, load: 0 }),
        ("  with load = 125", Method::ConsistentHash { on: HashOn::Client, load: 125 }),
        ("random", Method::Random),
    ];
    let sizes = [3, 20, 100, 500];
    println!("{:<20}{}", "ns a pick", sizes.map(|size| format!("{size:>12}")).concat());
    for (name, method) in methods {
        let costs = sizes.map(|size| format!("{:>12.0}", cost(&method, size)));
        println!("{name:<20}{}", costs.concat());
    }
}

/// The nanoseconds of one pick among so many endpoints of weights 1 to 5, some of them busy.
fn cost(method: &Method, size: usize) -> f64 {
    let endpoints: Vec<(String, u32)> =
        (0..size).map(|i| (format!("10.0.{}.{}:8000", i / 250, i % 250), 1 + i as u32 % 5)).collect();
    let picker = Picker::new(method, &endpoints);
    let mut dice = Dice::seeded(1);
    let candidates: Vec<Candidate> = endpoints
        .iter()
        .map(|(_, weight)| Candidate {
            weight: *weight,
            in_flight: dice.below(10) as u32,
            up: true,
            meter: Meter::default().with(
                MonoTime::default(),
                Duration::from_micros(1 + dice.below(9000) as u64),
                DECAY,
            ),
            ..Candidate::default()
        })
        .collect();
    let now = MonoTime::from_millis(50);
    let round = |dice: &mut Dice| {
        let begun = Instant::now();
        for key in 0..PICKS {
            let candidates = black_box(&candidates);
            let mut choice = Choice { candidates, tried: &[], bound: None, key: Some(key), now, dice };
            black_box(picker.pick(&mut choice));
        }
        begun.elapsed().as_nanos() as f64 / PICKS as f64
    };
    (0..ROUNDS).map(|_| round(&mut dice)).fold(f64::INFINITY, f64::min)
}
