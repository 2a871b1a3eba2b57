//! How many connections are open, in all and from one address, and whether one more may be.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// The most connections; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// In all.
    pub all: usize,
    /// From one address; from one /64 network of IPv6, which is what one customer gets.
    pub each: usize,
}

/// The open connections of one listener.
#[derive(Debug, Default)]
pub struct Crowd {
    all: usize,
    each: HashMap<IpAddr, usize>,
}

impl Crowd {
    /// Lets one more connection from `addr` in, or answers false. With `exempt`, as for a trusted proxy, behind which many clients stand, only
    /// the limit in all counts.
    pub fn enter(&mut self, addr: IpAddr, room: Room, exempt: bool) -> bool {
        let here = self.each.get(&one(addr)).copied().unwrap_or(0);
        let full = |count: usize, most: usize| most != 0 && count >= most;
        if full(self.all, room.all) || (!exempt && full(here, room.each)) {
            return false;
        }
        self.all += 1;
        self.each.insert(one(addr), here + 1);
        true
    }

    /// A connection from `addr` that was let in has ended.
    pub fn leave(&mut self, addr: IpAddr) {
        self.all = self.all.saturating_sub(1);
        let addr = one(addr);
        match self.each.get_mut(&addr) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.each.remove(&addr)),
        }
    }
}

/// What counts as one address.
fn one(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) => IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() >> 64 << 64)),
        addr => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn no_more_than_allowed_in_all_and_from_one_address() {
        let room = Room { all: 3, each: 2 };
        let mut crowd = Crowd::default();
        assert!(crowd.enter(ip("192.0.2.1"), room, false));
        assert!(crowd.enter(ip("::ffff:192.0.2.1"), room, false));
        assert!(!crowd.enter(ip("192.0.2.1"), room, false));
        assert!(crowd.enter(ip("192.0.2.2"), room, false));
        assert!(!crowd.enter(ip("192.0.2.3"), room, false));
        crowd.leave(ip("192.0.2.1"));
        assert!(crowd.enter(ip("192.0.2.1"), room, false));
    }

    #[test]
    fn a_customers_ipv6_network_is_one_address() {
        let room = Room { all: 0, each: 1 };
        let mut crowd = Crowd::default();
        assert!(crowd.enter(ip("2001:db8:1:1::1"), room, false));
        assert!(!crowd.enter(ip("2001:db8:1:1:ffff::2"), room, false));
        assert!(crowd.enter(ip("2001:db8:1:2::1"), room, false));
    }

    #[test]
    fn a_trusted_proxy_may_bring_as_many_as_there_is_room_for() {
        let room = Room { all: 3, each: 1 };
        let mut crowd = Crowd::default();
        for _ in 0..3 {
            assert!(crowd.enter(ip("10.0.0.1"), room, true));
        }
        assert!(!crowd.enter(ip("10.0.0.1"), room, true));
    }

    #[test]
    fn without_limits_all_are_let_in_and_nothing_is_kept_of_those_who_left() {
        let mut crowd = Crowd::default();
        for _ in 0..1000 {
            assert!(crowd.enter(ip("192.0.2.1"), Room { all: 0, each: 0 }, false));
        }
        for _ in 0..1000 {
            crowd.leave(ip("192.0.2.1"));
        }
        assert_eq!((crowd.all, crowd.each.len()), (0, 0));
    }
}
