//! Counting for the fleet: one client's moment in Redis, judged and moved in one call.

use std::time::Duration;

use redis::Value;
use tokio::time::timeout;

use super::node::Node;
use super::{Failure, RedisTier, Shared, Trouble};

/// The generic cell rate algorithm on Redis' own clock, in microseconds: gateways whose clocks differ still count alike. Keeps the moment at which the
/// bucket is full again, for as long as it is not. Answers with whether the request is taken and with how long the bucket takes to be full. One
/// key, so that it may run on any cluster.
const TAKE: &str = "\
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, whole = tonumber(ARGV[1]), tonumber(ARGV[2])
local before = math.max(tonumber(redis.call('GET', KEYS[1]) or 0) or 0, now)
if before - now > whole then before = now + whole end
local after = before + interval
if after - whole > now then
  return {0, before - now}
end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return {1, after - now}
";

/// The longest a bucket takes to fill, in microseconds: what a number of Lua holds exactly, beside the time of day.
const LONGEST: u64 = 1 << 51;

/// What Redis said about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether it is taken.
    pub taken: bool,
    /// How long until the bucket is full.
    pub full_in: Duration,
}

impl RedisTier {
    /// Takes one request from the bucket `name`, which gets one back every `interval` and is full after `whole`.
    ///
    /// # Errors
    /// When Redis did not answer within its budget, or not well; whether it counted is then unknown.
    pub async fn take(&self, name: &str, interval: Duration, whole: Duration) -> Result<Taken, Trouble> {
        let shared = &self.shared;
        let name = format!("{}:limit:{{{name}}}", shared.prefix);
        let node = shared.node_of_name(&name);
        let node = shared.asked(node.as_ref())?;
        let started = shared.clock.mono();
        let ended = timeout(shared.budget, shared.take(node, &name, micros(interval), micros(whole))).await;
        shared.metrics.command("limit", shared.clock.mono().since(started));
        match ended.unwrap_or(Err(Failure::Timeout)) {
            Ok(taken) => {
                shared.succeeded(node);
                Ok(taken)
            }
            Err(failure) => {
                shared.failed(node, failure);
                Err(failure.into())
            }
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST)
}

impl Shared {
    async fn take(&self, node: &Node, name: &str, interval: u64, whole: u64) -> Result<Taken, Failure> {
        let connections = self.connections(node).await?;
        let side = name.len() & 1;
        let mut connection = connections.reads[side].clone();
        let mut command = ::redis::cmd("EVAL");
        command.arg(TAKE).arg(1).arg(name).arg(interval).arg(whole.max(interval));
        let answer = command.query_async::<Value>(&mut connection).await;
        let taken = answer.map_err(|e| Failure::of(&e)).and_then(|value| taken(&value));
        if taken.as_ref().is_err_and(|failure| failure.breaks()) {
            self.broken(node, &connections);
        }
        taken
    }
}

fn taken(answer: &Value) -> Result<Taken, Failure> {
    let Value::Array(parts) = answer else { return Err(Failure::Connection) };
    match parts.as_slice() {
        [Value::Int(taken @ (0 | 1)), Value::Int(full_in)] => Ok(Taken {
            taken: *taken == 1,
            full_in: Duration::from_micros(u64::try_from(*full_in).unwrap_or(0)),
        }),
        _ => Err(Failure::Connection),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_script_says_is_taken_for_its_answer() {
        let pair = |a: i64, b: i64| Value::Array(vec![Value::Int(a), Value::Int(b)]);
        let full_in = Duration::from_micros(7);
        assert_eq!(taken(&pair(1, 7)), Ok(Taken { taken: true, full_in }));
        assert_eq!(taken(&pair(0, 7)), Ok(Taken { taken: false, full_in }));
        for other in [pair(2, 7), Value::Nil, Value::Int(1), Value::Array(Vec::new())] {
            assert_eq!(taken(&other), Err(Failure::Connection), "{other:?}");
        }
    }
}
