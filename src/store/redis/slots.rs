//! Which server of a Cluster holds which keys.

use ::redis::Value;

use crate::base::redis_url::Host;

/// The number of slots of a Cluster.
pub const SLOTS: usize = 16384;

/// The slot of the keys whose hash tag is `tag`: CRC16 (XMODEM) of it.
pub fn slot_of(tag: &[u8]) -> usize {
    let sum = tag.iter().fold(0u16, |sum, byte| (sum << 8) ^ TABLE[usize::from((sum >> 8) as u8 ^ byte)]);
    usize::from(sum) % SLOTS
}

const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
}

/// Slots, first and last, and the master that holds them.
pub type Range = (usize, usize, Host);

/// Reads the answer to CLUSTER SLOTS; a master without an address is the server that was asked.
pub fn ranges_of(answer: Value, asked: &Host) -> Vec<Range> {
    let Value::Array(ranges) = answer else { return Vec::new() };
    let range = |range: Value| {
        let Value::Array(parts) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &parts[..] else { return None };
        let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
        (first <= last && last < SLOTS).then_some((first, last, master_of(master, asked)?))
    };
    ranges.into_iter().filter_map(range).collect()
}

fn master_of(words: &[Value], asked: &Host) -> Option<Host> {
    let [name, Value::Int(port), ..] = words else { return None };
    let name = match name {
        Value::BulkString(name) if !name.is_empty() && name != b"?" => {
            String::from_utf8(name.clone()).ok()?
        }
        Value::BulkString(_) | Value::Nil => asked.name.clone(),
        _ => return None,
    };
    Some(Host { name, port: u16::try_from(*port).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_the_checksum_of_the_tag() {
        // As `CLUSTER KEYSLOT` answers.
        for (tag, slot) in [("123456789", 0x31C3), ("foo", 12182), ("fleet", 14574), ("", 0)] {
            assert_eq!(slot_of(tag.as_bytes()), slot, "{tag}");
        }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn range(first: i64, last: i64, name: Value, port: i64) -> Value {
        let master = Value::Array(vec![name, Value::Int(port), text("id"), Value::Array(Vec::new())]);
        let replica = Value::Array(vec![text("replica"), Value::Int(1), text("id")]);
        Value::Array(vec![Value::Int(first), Value::Int(last), master, replica])
    }

    #[test]
    fn the_masters_of_the_slots_are_read_and_nothing_else() {
        let asked = Host { name: "seed".into(), port: 7000 };
        let host = |name: &str, port| Host { name: name.into(), port };
        let answer = Value::Array(vec![
            range(0, 99, text("10.0.0.1"), 7001),
            range(100, 100, Value::Nil, 7002),
            range(101, 16383, text(""), 7003),
            range(5, 4, text("x"), 1),
            range(0, 16384, text("x"), 1),
            range(0, 1, text("x"), 70_000),
            Value::Array(vec![Value::Int(1)]),
            Value::Nil,
        ]);
        let expected = [
            (0, 99, host("10.0.0.1", 7001)),
            (100, 100, host("seed", 7002)),
            (101, 16383, host("seed", 7003)),
        ];
        assert_eq!(ranges_of(answer, &asked), expected);
        assert!(ranges_of(Value::Nil, &asked).is_empty());
    }
}
