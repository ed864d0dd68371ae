//! TCP that has data to send at both ends while the mobile host is nowhere: how
//! long after its new address is usable it goes on.

use super::Row;
use crate::cable::Lane;
use crate::error::{Error, Result};
use crate::lab::Places;
use crate::scenario::common::{begin, vanish};
use std::time::Duration;

/// Delay of the path, one way.
const ONE_WAY: u32 = 10;
/// A path on which a stream of so many bytes lasts for a while.
const RATE: u64 = 20_000_000;
/// What a move may take beside round trips, milliseconds.
const ALLOWANCE: f64 = 3.0;

/// So many outages of this length, each in a world of its own.
pub(super) fn bench(places: &Places, outage: Duration, times: usize) -> Result<Vec<Row>> {
    let costs: Vec<[Duration; 2]> = (0..times).map(|_| one(places, outage)).collect::<Result<_>>()?;
    let round_trip = 2.0 * f64::from(ONE_WAY);
    let name = |way: &str| format!("outage of {} s, {ONE_WAY} ms one way, data {way}", outage.as_secs_f64());
    let (sent, received): (Vec<_>, Vec<_>) = costs.into_iter().map(|[sent, received]| (sent, received)).unzip();
    let delay = Duration::from_millis(ONE_WAY.into());
    Ok(vec![
        Row::departures(name("mobile > peer"), sent, delay, Some(round_trip + ALLOWANCE)),
        Row::times(name("peer > mobile"), received, Some(2.0 * round_trip + ALLOWANCE)),
    ])
}

/// How long data took each way after the new address was usable.
fn one(places: &Places, outage: Duration) -> Result<[Duration; 2]> {
    let lane = Lane { delay: Duration::from_millis(ONE_WAY.into()) / 2, rate: RATE, queue: 64 << 10, loss: 0 };
    let (lab, streams) = begin(places, lane, false)?;
    // In the midst of what both have to say.
    streams.allow(11);
    streams.wait(3)?;
    let heard = vanish(&lab, &streams, outage)?;
    streams.finish()?;
    lab.finish()?;
    match (heard.sent_data, heard.received_data) {
        (Some(sent), Some(received)) => Ok([sent, received]),
        _ => Err(Error::Check("heard nothing".to_owned())),
    }
}
