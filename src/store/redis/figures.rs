//! What Redis says of itself, for an operator who asks.

use std::time::Duration;

use ::redis::Value;
use serde::Serialize;
use tokio::time::timeout;

use super::RedisTier;
use super::node::Node;

/// How long it may take to say it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Figures of the whole server, whoever uses it; what it does not tell is absent.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// Whether the last operation of this gateway succeeded.
    pub up: bool,
    /// Keys in the database, those of others among them.
    pub keys: Option<u64>,
    /// Bytes in use.
    pub used_memory: Option<u64>,
    /// Bytes it may use; 0: no limit.
    pub maxmemory: Option<u64>,
    /// What it does when they are used up.
    pub maxmemory_policy: Option<String>,
    /// Keys that left to make room.
    pub evicted_keys: Option<u64>,
    /// Keys that expired.
    pub expired_keys: Option<u64>,
}

impl RedisTier {
    /// Asks for them, past the breaker: who asks wants to know.
    pub async fn figures(&self) -> Figures {
        let mut figures = Figures { up: self.is_up(), ..Figures::default() };
        for node in self.shared.all_nodes() {
            self.add_figures(&node, &mut figures).await;
        }
        figures
    }

    /// Those of one server on top of the others'.
    async fn add_figures(&self, node: &Node, figures: &mut Figures) {
        let asked = async {
            let connections = self.shared.connections(node).await.ok()?;
            let mut connection = connections.reads[1].clone();
            let mut pipe = ::redis::pipe();
            pipe.ignore_errors();
            pipe.cmd("DBSIZE").cmd("INFO").arg("memory").cmd("INFO").arg("stats");
            pipe.query_async::<Vec<::redis::RedisResult<Value>>>(&mut connection).await.ok()
        };
        let answers = timeout(PATIENCE, asked).await.ok().flatten().unwrap_or_default();
        for answer in answers.into_iter().flatten() {
            match answer {
                Value::Int(keys) => add(&mut figures.keys, u64::try_from(keys).ok()),
                Value::BulkString(text) => figures.read(&String::from_utf8_lossy(&text)),
                Value::VerbatimString { text, .. } => figures.read(&text),
                _ => {}
            }
        }
    }
}

fn add(sum: &mut Option<u64>, number: Option<u64>) {
    if let Some(number) = number {
        *sum = Some(sum.unwrap_or_default().saturating_add(number));
    }
}

impl Figures {
    fn read(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let number = value.trim().parse().ok();
            match name {
                "used_memory" => add(&mut self.used_memory, number),
                "maxmemory" => add(&mut self.maxmemory, number),
                "maxmemory_policy" => self.maxmemory_policy = Some(value.trim().to_owned()),
                "evicted_keys" => add(&mut self.evicted_keys, number),
                "expired_keys" => add(&mut self.expired_keys, number),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_info_says() {
        let mut figures = Figures::default();
        figures.read("# Memory\r\nused_memory:1024\r\nused_memory_human:1K\r\nmaxmemory:0\r\nmaxmemory_policy:volatile-lfu\r\n");
        figures.read("evicted_keys:7\r\nexpired_keys:x\r\n");
        assert_eq!((figures.used_memory, figures.maxmemory), (Some(1024), Some(0)));
        assert_eq!(figures.maxmemory_policy.as_deref(), Some("volatile-lfu"));
        assert_eq!((figures.evicted_keys, figures.expired_keys), (Some(7), None));
    }
}
