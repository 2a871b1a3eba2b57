//! How often and how long requests are tried.

use std::time::Duration;

use crate::balance::budget::Rules;
use crate::balance::retry::Conditions;
use crate::config::file::{RouteTable, UpstreamTable, time};
use crate::config::kind::{List, OrOff, RetryOn, Timeout};
use crate::config::problem::Problem;
use crate::config::read::{Reader, Set};
use crate::plan::Trying;

/// What an upstream says.
pub fn of_upstream(table: &UpstreamTable, reader: &mut Reader<'_>) -> Option<Trying> {
    let read = time(&table.read_timeout)?;
    let total = optional(&table.timeout)?;
    if total.is_some_and(|total| total < read) && table.try_timeout.is_absent() {
        reader.report(
            Problem::of(&table.timeout.spot, "the time for all attempts is less than that for one read")
                .also(&table.read_timeout.spot, "one read may take longer")
                .help("write a longer `timeout`, or a shorter `read_timeout`"),
        );
        return None;
    }
    let attempt = optional(&table.try_timeout)?;
    if attempt.is_some_and(|attempt| attempt > read) {
        reader.report(
            Problem::of(&table.try_timeout.spot, "no read is waited for that long")
                .also(&table.read_timeout.spot, "the most for one read")
                .help("write a shorter `try_timeout`, or a longer `read_timeout`"),
        );
        return None;
    }
    within(&table.try_timeout, &table.timeout, reader)?;
    let tries = Some(table.tries.value()?.as_u32());
    Some(Trying { tries, total, attempt, on: Some(conditions(table.retry_on.value()?)?) })
}

/// What a route says otherwise.
pub fn of_route(table: &RouteTable, reader: &mut Reader<'_>) -> Option<Trying> {
    within(&table.try_timeout, &table.timeout, reader)?;
    Some(Trying {
        tries: table.tries.optional()?.map(|tries| tries.as_u32()),
        total: optional(&table.timeout)?,
        attempt: optional(&table.try_timeout)?,
        on: match table.retry_on.optional()? {
            Some(list) => Some(conditions(list)?),
            None => None,
        },
    })
}

/// `Some(None)`: all may be tried again.
pub fn budget(table: &UpstreamTable) -> Option<Option<Rules>> {
    Some(match table.retry_budget.value()? {
        OrOff::On(table) => {
            Some(Rules { share: table.share.value()?.as_u32(), least: table.least.value()?.as_u32() })
        }
        OrOff::Off => None,
    })
}

/// One attempt may not take longer than all of them.
fn within(attempt: &Set<Timeout>, total: &Set<Timeout>, reader: &mut Reader<'_>) -> Option<()> {
    if let (Some(one), Some(all)) = (optional(attempt)?, optional(total)?)
        && one > all
    {
        reader.report(
            Problem::of(&attempt.spot, "one attempt may take longer than all of them")
                .also(&total.spot, "the time for all")
                .help("write a shorter `try_timeout`, or a longer `timeout`"),
        );
        return None;
    }
    Some(())
}

fn optional(set: &Set<Timeout>) -> Option<Option<Duration>> {
    Some(set.optional()?.map(|time| time.0))
}

fn conditions(list: &List<RetryOn>) -> Option<Conditions> {
    let mut conditions = Conditions::default();
    for on in list.all()? {
        match *on {
            RetryOn::Closed => conditions.closed = true,
            RetryOn::Timeout => conditions.timeout = true,
            RetryOn::Statuses(low, high) => conditions.statuses.push((low, high)),
        }
    }
    Some(conditions)
}
