//! What failures of exchanges lead to.

use std::time::Duration;

use super::health::statuses;
use crate::balance::{breaker, eject};
use crate::config::file::{self, BreakerTable, EjectTable, time};
use crate::config::kind::Timeout;
use crate::config::problem::Problem;
use crate::config::read::{Reader, Set};

/// When an instance is taken out.
pub fn eject(table: &EjectTable, reader: &mut Reader<'_>) -> Option<eject::Rules> {
    let (time, most) = growing(&table.time, &table.max_time, "an instance would be out", reader)?;
    Some(eject::Rules {
        after: table.after.value()?.as_u32(),
        time,
        most,
        share: table.share.value()?.as_u32(),
        rate: table.rate.value()?.as_u32(),
        volume: table.volume.value()?.as_u32(),
        window: file::time(&table.window)?,
        statuses: statuses(table.statuses.value()?)?,
        retry_after: file::time(&table.retry_after)?,
    })
}

/// When an upstream is not asked.
pub fn breaker(table: &BreakerTable, reader: &mut Reader<'_>) -> Option<breaker::Rules> {
    let (pause, most) = growing(&table.time, &table.max_time, "the upstream would not be asked", reader)?;
    Some(breaker::Rules {
        share: table.rate.value()?.as_u32(),
        least: table.volume.value()?.as_u32(),
        window: time(&table.window)?,
        pause,
        most,
        probes: table.probes.value()?.as_u32(),
        statuses: statuses(table.statuses.value()?)?,
    })
}

/// A time that doubles up to a longest one.
fn growing(
    first: &Set<Timeout>,
    longest: &Set<Timeout>,
    what: &str,
    reader: &mut Reader<'_>,
) -> Option<(Duration, Duration)> {
    let (time, most) = (time(first)?, time(longest)?);
    if most < time {
        reader.report(
            Problem::of(&first.spot, format!("{what} for longer than `max_time`"))
                .also(&longest.spot, "the longest time")
                .help("write a longer `max_time`, or a shorter `time`"),
        );
        return None;
    }
    Some((time, most))
}
