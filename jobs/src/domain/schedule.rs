//! When a schedule fires: five fields of cron on the clock of a time zone, and what is made up for after a time in which nobody
//! looked.
//!
//! Where the hour field names every hour, the schedule goes by real time: `*/15 * * * *` fires every fifteen minutes, through any
//! change of the clock. Everywhere else it names times of the day, and each of them fires once: one that the clock skips fires at
//! the first instant after the gap, together with the others that lie in it; one that comes twice fires the first time.

use chrono::{DateTime, NaiveDateTime, SubsecRound, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use keywright_entities::types::CatchUp;

/// What croner calls a value that a field has.
const ALL_BIT: u8 = 1;
const HOURS: usize = 24;
/// The fields of an expression.
const FIELDS: usize = 5;
/// The longest gap that any zone ever made: Samoa left out a whole day in 2011.
const LONGEST_GAP_MINUTES: i64 = 25 * 60;
/// An instant that is found this late was not missed: whoever looks may have been held up.
pub const ON_TIME: TimeDelta = TimeDelta::seconds(30);
/// The most missed instants that [`CatchUp::All`] makes up for; older ones are left out.
pub const MOST_CAUGHT_UP: usize = 100;

/// What is wrong with a timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not five fields of cron.
    Cron,
    /// No name of the IANA time zone database.
    Zone,
}

/// An expression on the clock of a zone.
#[derive(Clone, Debug)]
pub struct Timing {
    cron: Cron,
    zone: Tz,
    /// By real time rather than by times of the day.
    every_hour: bool,
}

impl Timing {
    /// Reads five fields (`*`, numbers, names of months and weekdays, `,` `-` `/`, and `L` `W` `#` for last, nearest weekday and
    /// nth) and a zone's exact name.
    ///
    /// # Errors
    /// Everything that is wrong. An expression without any instant is none of it: see [`Timing::next_after`].
    pub fn parse(cron: &str, zone: &str) -> Result<Self, Vec<Fault>> {
        match (read_cron(cron), zone.parse::<Tz>()) {
            (Some(cron), Ok(zone)) => {
                let every_hour = cron.pattern.hours.count_set_values(ALL_BIT) == HOURS;
                Ok(Self { cron, zone, every_hour })
            }
            (cron, zone) => {
                let faults = [cron.is_none().then_some(Fault::Cron), zone.is_err().then_some(Fault::Zone)];
                Err(faults.into_iter().flatten().collect())
            }
        }
    }

    /// The first instant after this one; `None` when there is none, as for the 30th of February.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let after = after.trunc_subsecs(0);
        let local = after.with_timezone(&self.zone);
        if self.every_hour {
            return self.cron.find_next_occurrence(&local, false).ok().map(|at| at.to_utc());
        }
        let mut local = local.naive_local();
        loop {
            local = self.cron.find_next_occurrence(&local.and_utc(), false).ok()?.naive_utc();
            // times of the day that are already past: repeated ones, or others in the same gap
            let at = self.first_instant(local)?;
            if at > after {
                return Some(at);
            }
        }
    }

    /// The next instants after this one, at most `count`.
    pub fn upcoming(&self, after: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        std::iter::successors(self.next_after(after), |at| self.next_after(*at)).take(count).collect()
    }

    /// When this time of the day is, or when the gap that it lies in ends.
    fn first_instant(&self, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        (0..LONGEST_GAP_MINUTES).find_map(|minutes| {
            let local = local.checked_add_signed(TimeDelta::minutes(minutes))?;
            self.zone.from_local_datetime(&local).earliest().map(|at| at.to_utc())
        })
    }

    /// The latest instants after `from` and up to `until`, at most `count`, oldest first. What it costs depends on `count`, not
    /// on how long the time is.
    fn latest(&self, from: DateTime<Utc>, until: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        let mut window = TimeDelta::hours(2);
        loop {
            let start = until.checked_sub_signed(window).map_or(from, |start| start.max(from));
            let first = self.next_after(start);
            let within = std::iter::successors(first, |at| self.next_after(*at)).take_while(|at| *at <= until);
            let mut found: Vec<_> = within.collect();
            if found.len() >= count || start <= from {
                return found.split_off(found.len().saturating_sub(count));
            }
            window = window.checked_mul(8).unwrap_or(TimeDelta::MAX);
        }
    }

    /// What is to be done now about a schedule whose next instant was `due`, which is not after `now`.
    pub fn step(&self, due: DateTime<Utc>, now: DateTime<Utc>, policy: CatchUp) -> Step {
        let wanted = match policy {
            CatchUp::None | CatchUp::Last => 1,
            CatchUp::All => MOST_CAUGHT_UP,
        };
        let mut later = self.latest(due, now, wanted).into_iter();
        // `due` itself is the oldest; there is room for it as long as those after it are not too many already
        let first = if later.len() < wanted { due } else { later.next().unwrap_or(due) };
        let at = if policy == CatchUp::All { first } else { later.next().unwrap_or(first) };
        if policy == CatchUp::None && now - at > ON_TIME {
            return Step { act: Act::Miss(at), next: self.next_after(now) };
        }
        let next = if policy == CatchUp::All { self.next_after(at) } else { self.next_after(now.max(at)) };
        Step { act: Act::Fire(at), next }
    }
}

/// One step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub act: Act,
    /// The instant that follows, which may have come already; `None` when none does.
    pub next: Option<DateTime<Utc>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// This instant's job is to begin.
    Fire(DateTime<Utc>),
    /// This instant, the latest, was missed, as were those before it since the last step.
    Miss(DateTime<Utc>),
}

/// Nicknames such as `@daily` and a sixth field are not read, nor anything beyond ASCII.
fn read_cron(text: &str) -> Option<Cron> {
    let known = |c: char| c.is_ascii_alphanumeric() || " \t*,-/#?".contains(c);
    let whole = |field: &str| field.split(',').all(|item| !item.is_empty());
    if !text.chars().all(known) || text.split_whitespace().count() != FIELDS || !text.split_whitespace().all(whole) {
        return None;
    }
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build().parse(text).ok()
}

#[cfg(test)]
mod tests;
