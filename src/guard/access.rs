//! Which addresses may ask.
//!
//! The most specific network that holds an address decides, whatever the order they were written in; of two equal ones the denial. So an exception is
//! written as a smaller network, and nothing depends on which file was read first.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Networks that are let in and networks that are not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// By length of prefix, the longest first: the bits of each network, and whether it is let in.
    v4: Vec<(u8, HashMap<u32, bool>)>,
    v6: Vec<(u8, HashMap<u128, bool>)>,
    /// Whether an address that no network holds is let in.
    others: bool,
}

impl Access {
    /// Lets `allow` in and `deny` not. What neither names is let in only when nothing is allowed by name.
    pub fn new(allow: &[IpNet], deny: &[IpNet]) -> Self {
        let mut access = Self { others: allow.is_empty(), ..Self::default() };
        for (networks, allowed) in [(allow, true), (deny, false)] {
            for network in networks {
                access.add(*network, allowed);
            }
        }
        access
    }

    fn add(&mut self, network: IpNet, allowed: bool) {
        match network {
            IpNet::V4(network) => {
                insert(&mut self.v4, network.prefix_len(), network.network().to_bits(), allowed);
            }
            IpNet::V6(network) => {
                // An IPv4 client may come as a mapped address; it is judged as what it is.
                if let (Some(addr), 96..) = (network.network().to_ipv4_mapped(), network.prefix_len()) {
                    insert(&mut self.v4, network.prefix_len() - 96, addr.to_bits(), allowed);
                } else {
                    insert(&mut self.v6, network.prefix_len(), network.network().to_bits(), allowed);
                }
            }
        }
    }

    /// Whether this address is let in.
    pub fn allows(&self, addr: IpAddr) -> bool {
        let found = match addr.to_canonical() {
            IpAddr::V4(addr) => {
                let bits = addr.to_bits();
                let cut = |length: u8| bits & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                self.v4.iter().find_map(|(length, networks)| networks.get(&cut(*length)))
            }
            IpAddr::V6(addr) => {
                let bits = addr.to_bits();
                let cut = |length: u8| bits & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                self.v6.iter().find_map(|(length, networks)| networks.get(&cut(*length)))
            }
        };
        found.copied().unwrap_or(self.others)
    }
}

fn insert<Bits: std::hash::Hash + Eq>(
    tables: &mut Vec<(u8, HashMap<Bits, bool>)>,
    length: u8,
    bits: Bits,
    allowed: bool,
) {
    let at = match tables.binary_search_by(|(other, _)| length.cmp(other)) {
        Ok(at) => at,
        Err(at) => {
            tables.insert(at, (length, HashMap::new()));
            at
        }
    };
    tables[at].1.entry(bits).and_modify(|held| *held &= allowed).or_insert(allowed);
}

/// Reads a list of networks: one a line, `#` begins a comment.
///
/// # Errors
/// The number of the first line that is none, from 1.
pub fn read_list(text: &str) -> Result<Vec<IpNet>, usize> {
    let mut networks = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let network = match line.parse::<IpAddr>() {
            Ok(addr) => Ok(IpNet::from(addr)),
            Err(_) => line.parse::<IpNet>().map(|network| network.trunc()),
        };
        networks.push(network.map_err(|_| number + 1)?);
    }
    Ok(networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(allow: &[&str], deny: &[&str]) -> Access {
        let read = |list: &[&str]| read_list(&list.join("\n")).unwrap();
        Access::new(&read(allow), &read(deny))
    }

    #[test]
    fn the_most_specific_network_decides() {
        for (allow, deny, addr, allowed) in [
            (&[][..], &[][..], "192.0.2.1", true),
            (&[], &["192.0.2.0/24"], "192.0.2.1", false),
            (&[], &["192.0.2.0/24"], "192.0.3.1", true),
            (&["192.0.2.0/24"], &[], "192.0.2.1", true),
            (&["192.0.2.0/24"], &[], "192.0.3.1", false),
            (&["10.0.0.0/8"], &["10.9.0.0/16"], "10.9.1.1", false),
            (&["10.0.0.0/8"], &["10.9.0.0/16"], "10.8.1.1", true),
            (&["10.9.9.9"], &["10.9.0.0/16"], "10.9.9.9", true),
            (&["10.9.9.9"], &["10.9.0.0/16"], "10.9.9.8", false),
            (&["10.9.9.9"], &["0.0.0.0/0"], "10.9.9.9", true),
            (&["10.0.0.0/8"], &["10.0.0.0/8"], "10.1.1.1", false),
            (&["10.1.2.3/8"], &[], "10.200.0.1", true),
            (&["2001:db8::/32"], &[], "2001:db8::1", true),
            (&["2001:db8::/32"], &[], "2001:db9::1", false),
            (&["2001:db8::/32"], &["2001:db8::1"], "2001:db8::1", false),
            (&["2001:db8::/32"], &[], "192.0.2.1", false),
            (&["::/0"], &[], "2001:db8::1", true),
            (&["::/0"], &[], "192.0.2.1", false),
            (&["192.0.2.1"], &[], "::ffff:192.0.2.1", true),
            (&[], &["::ffff:192.0.2.0/120"], "192.0.2.1", false),
        ] {
            assert_eq!(
                access(allow, deny).allows(addr.parse().unwrap()),
                allowed,
                "{addr} with allow {allow:?} and deny {deny:?}"
            );
        }
    }

    #[test]
    fn a_list_has_one_network_a_line_and_says_which_is_none() {
        let text = "# ours\n10.0.0.0/8\n\n192.0.2.7 # the office\n2001:db8::/32\n";
        assert_eq!(read_list(text).unwrap().len(), 3);
        assert_eq!(read_list("10.0.0.0/8\nten\n"), Err(2));
        assert_eq!(read_list("10.0.0.0/33"), Err(1));
        assert_eq!(read_list(""), Ok(Vec::new()));
    }
}
