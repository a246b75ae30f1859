use super::*;
use proptest::prelude::*;

fn timing(cron: &str, zone: &str) -> Timing {
    Timing::parse(cron, zone).unwrap_or_else(|faults| panic!("{cron} {zone}: {faults:?}"))
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The next instants after `from`, with a day in front where it changes.
fn fires(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    let show = |at: DateTime<Utc>| at.format("%m-%dT%H:%M").to_string();
    timing(cron, zone).upcoming(at(from), count).into_iter().map(show).collect()
}

#[test]
fn a_time_that_the_clock_skips_fires_once_when_the_gap_ends() {
    // Berlin: 02:00 to 03:00 on 29 March 2026 and 28 March 2027
    assert_eq!(
        fires("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3),
        ["03-28T01:30", "03-29T01:00", "03-30T00:30"]
    );
    assert_eq!(
        fires("30 2 * * *", "Europe/Berlin", "2027-03-26T12:00:00Z", 3),
        ["03-27T01:30", "03-28T01:00", "03-29T00:30"]
    );
    // several in the gap are one, also together with the one at its end
    assert_eq!(fires("0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2), ["03-29T01:00", "03-30T00:00"]);
    assert_eq!(
        fires("0 2,3,4 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 3),
        ["03-29T01:00", "03-29T02:00", "03-30T00:00"]
    );
    assert_eq!(fires("*/15 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2), ["03-29T01:00", "03-30T00:00"]);
    // every second hour names times of the day
    assert_eq!(
        fires("0 */2 * * *", "Europe/Berlin", "2026-03-28T22:30:00Z", 3),
        ["03-28T23:00", "03-29T01:00", "03-29T02:00"]
    );
    // New York: 02:00 to 03:00 on 8 March 2026 and 14 March 2027
    assert_eq!(fires("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", 2), ["03-08T07:00", "03-09T06:30"]);
    assert_eq!(fires("30 2 * * *", "America/New_York", "2027-03-13T12:00:00Z", 2), ["03-14T07:00", "03-15T06:30"]);
    // Lord Howe: 02:00 to 02:30 on 4 October 2026 and 3 October 2027
    assert_eq!(fires("10 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", 2), ["10-03T15:30", "10-04T15:10"]);
    assert_eq!(fires("10 2 * * *", "Australia/Lord_Howe", "2027-10-02T12:00:00Z", 2), ["10-02T15:30", "10-03T15:10"]);
    // midnight itself, where a day begins at one
    assert_eq!(fires("0 0 * * *", "America/Asuncion", "2023-09-30T12:00:00Z", 2), ["10-01T04:00", "10-02T03:00"]);
    // a day that did not exist fires with the next, once
    assert_eq!(
        fires("0 0 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 3),
        ["12-29T10:00", "12-30T10:00", "12-31T10:00"]
    );
}

#[test]
fn a_time_that_comes_twice_fires_the_first_time_only() {
    // Berlin: 03:00 back to 02:00 on 25 October 2026 and 31 October 2027
    assert_eq!(fires("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2), ["10-25T00:30", "10-26T01:30"]);
    assert_eq!(fires("30 2 * * *", "Europe/Berlin", "2027-10-30T12:00:00Z", 2), ["10-31T00:30", "11-01T01:30"]);
    // asked between the two, or in the second
    assert_eq!(fires("30 2 * * *", "Europe/Berlin", "2026-10-25T00:40:00Z", 1), ["10-26T01:30"]);
    assert_eq!(fires("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["10-26T01:30"]);
    // lists and ranges name times of the day as well
    assert_eq!(
        fires("30 2,14 * * *", "Europe/Berlin", "2026-10-24T13:00:00Z", 3),
        ["10-25T00:30", "10-25T13:30", "10-26T01:30"]
    );
    assert_eq!(
        fires("15,45 1-3 * * *", "Europe/Berlin", "2026-10-24T23:40:00Z", 5),
        ["10-24T23:45", "10-25T00:15", "10-25T00:45", "10-25T02:15", "10-25T02:45"]
    );
    // New York: 02:00 back to 01:00 on 1 November 2026 and 7 November 2027
    assert_eq!(fires("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2), ["11-01T05:30", "11-02T06:30"]);
    assert_eq!(fires("30 1 * * *", "America/New_York", "2027-11-06T12:00:00Z", 2), ["11-07T05:30", "11-08T06:30"]);
    // Lord Howe: 02:00 back to 01:30 on 5 April 2026 and 4 April 2027
    assert_eq!(fires("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", 2), ["04-04T14:45", "04-05T15:15"]);
    assert_eq!(fires("45 1 * * *", "Australia/Lord_Howe", "2027-04-03T12:00:00Z", 2), ["04-03T14:45", "04-04T15:15"]);
}

#[test]
fn every_hour_means_real_time() {
    for (cron, minutes) in [("*/15 * * * *", 15), ("0 * * * *", 60), ("30 0-23 * * *", 60), ("* * * * *", 1)] {
        for (zone, change) in [
            ("Europe/Berlin", "2026-03-29T01:00:00Z"),
            ("Europe/Berlin", "2026-10-25T01:00:00Z"),
            ("Europe/Berlin", "2027-10-31T01:00:00Z"),
            ("America/New_York", "2026-03-08T07:00:00Z"),
            ("America/New_York", "2027-11-07T06:00:00Z"),
        ] {
            let instants = timing(cron, zone).upcoming(at(change) - TimeDelta::hours(3), 8 * 60 / minutes);
            for pair in instants.windows(2) {
                assert_eq!(pair[1] - pair[0], TimeDelta::minutes(minutes as i64), "{cron} {zone} {pair:?}");
            }
        }
    }
    // half an hour back and forth
    for (change, step) in [("2026-04-04T15:00:00Z", 15), ("2026-10-03T15:30:00Z", 15), ("2027-04-03T15:00:00Z", 15)] {
        let instants = timing("*/15 * * * *", "Australia/Lord_Howe").upcoming(at(change) - TimeDelta::hours(2), 16);
        assert!(instants.windows(2).all(|pair| pair[1] - pair[0] == TimeDelta::minutes(step)), "{change} {instants:?}");
    }
}

#[test]
fn days_months_and_weekdays() {
    assert_eq!(fires("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ["02-29T00:00"]);
    assert_eq!(timing("0 0 29 2 *", "UTC").next_after(at("2096-03-01T00:00:00Z")), Some(at("2104-02-29T00:00:00Z")));
    // day of month or day of week, where both are given
    assert_eq!(fires("0 0 13 * FRI", "UTC", "2026-01-08T00:00:00Z", 3), ["01-09T00:00", "01-13T00:00", "01-16T00:00"]);
    assert_eq!(fires("0 12 L JAN,feb *", "UTC", "2026-01-15T00:00:00Z", 2), ["01-31T12:00", "02-28T12:00"]);
    assert_eq!(fires("0 12 * * 7", "UTC", "2026-01-01T00:00:00Z", 1), ["01-04T12:00"]);
    // strictly after, whatever the fraction
    assert_eq!(timing("0 12 * * *", "UTC").next_after(at("2026-01-01T12:00:00Z")), Some(at("2026-01-02T12:00:00Z")));
    assert_eq!(timing("0 12 * * *", "UTC").next_after(at("2026-01-01T11:59:59.9Z")), Some(at("2026-01-01T12:00:00Z")));
}

#[test]
fn what_is_no_timing_is_refused() {
    for cron in [
        "",
        " ",
        "* * * *",
        "* * * * * *",
        "0 0 1 1 * 2030",
        "@daily",
        "@every 1m",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5/15 * * * *",
        "a b c d e",
        "1-0 * * * *",
        "-1 * * * *",
        "* * * * MOON",
        "\u{660} * * * *",
        "* * * *\u{a0}*",
        "1.5 * * * *",
        ", * * * *",
        "1,,2 * * * *",
        "1, * * * *",
        "* * * * *;",
        "0 0 * * *\n",
        "** * * * *",
    ] {
        assert_eq!(Timing::parse(cron, "UTC").err(), Some(vec![Fault::Cron]), "{cron:?}");
    }
    for zone in ["", "Mars/Olympus", "europe/berlin", "+02:00", "CEST", "Local", "Europe/Berlin ", "../etc/passwd"] {
        assert_eq!(Timing::parse("* * * * *", zone).err(), Some(vec![Fault::Zone]), "{zone:?}");
    }
    assert_eq!(Timing::parse("x", "y").err(), Some(vec![Fault::Cron, Fault::Zone]));
}

#[test]
fn what_never_comes_is_known() {
    for cron in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 31W 2 *", "* * 30-31 2 *"] {
        for zone in ["UTC", "Europe/Berlin"] {
            assert_eq!(timing(cron, zone).next_after(at("2026-01-01T00:00:00Z")), None, "{cron} {zone}");
        }
    }
    // the day of the week alone is enough
    assert!(timing("0 0 30 2 MON", "UTC").next_after(at("2026-01-01T00:00:00Z")).is_some());
}

#[test]
fn what_was_missed_is_made_up_for_as_asked() {
    let hourly = timing("0 * * * *", "UTC");
    let (due, now) = (at("2026-01-01T01:00:00Z"), at("2026-01-01T05:20:00Z"));
    let next = Some(at("2026-01-01T06:00:00Z"));
    let last = at("2026-01-01T05:00:00Z");
    assert_eq!(hourly.step(due, now, CatchUp::None), Step { act: Act::Miss(last), next });
    assert_eq!(hourly.step(due, now, CatchUp::Last), Step { act: Act::Fire(last), next });
    assert_eq!(
        hourly.step(due, now, CatchUp::All),
        Step { act: Act::Fire(due), next: Some(at("2026-01-01T02:00:00Z")) }
    );
    // what is seen a moment late was not missed
    for policy in [CatchUp::None, CatchUp::Last, CatchUp::All] {
        let late = due + TimeDelta::seconds(20);
        let next = Some(at("2026-01-01T02:00:00Z"));
        assert_eq!(hourly.step(due, late, policy), Step { act: Act::Fire(due), next }, "{policy}");
        assert_eq!(hourly.step(due, due, policy), Step { act: Act::Fire(due), next }, "{policy}");
    }
    // an older instant was missed although the last was not
    let late = last + TimeDelta::seconds(20);
    assert_eq!(hourly.step(due, late, CatchUp::None), Step { act: Act::Fire(last), next });
    // an instant that the expression does not have, since it or the zone's rules changed, still counts as due
    let odd = at("2026-01-01T05:10:00Z");
    assert_eq!(hourly.step(odd, now, CatchUp::Last), Step { act: Act::Fire(odd), next });
    assert_eq!(hourly.step(odd, now, CatchUp::None), Step { act: Act::Miss(odd), next });
}

/// Every step of a schedule until it has caught up.
fn caught_up(timing: &Timing, due: DateTime<Utc>, now: DateTime<Utc>, policy: CatchUp) -> Vec<DateTime<Utc>> {
    let (mut due, mut fired) = (Some(due), Vec::new());
    while let Some(instant) = due.filter(|due| *due <= now) {
        let step = timing.step(instant, now, policy);
        if let Act::Fire(at) = step.act {
            fired.push(at);
        }
        assert!(step.next.is_none_or(|next| next > instant), "a schedule goes on: {step:?} after {instant}");
        due = step.next;
    }
    fired
}

#[test]
fn all_makes_up_for_the_latest_hundred() {
    let minutely = timing("* * * * *", "UTC");
    let now = at("2026-06-01T00:00:30Z");
    let fired = caught_up(&minutely, at("2020-01-01T00:00:00Z"), now, CatchUp::All);
    assert_eq!(fired.len(), MOST_CAUGHT_UP);
    assert_eq!((fired[0], fired[99]), (at("2026-05-31T22:21:00Z"), at("2026-06-01T00:00:00Z")));
    let fired = caught_up(&minutely, at("2026-05-31T23:57:00Z"), now, CatchUp::All);
    assert_eq!(fired.len(), 4, "{fired:?}");
    for policy in [CatchUp::None, CatchUp::Last] {
        assert_eq!(caught_up(&minutely, at("2020-01-01T00:00:00Z"), now, policy), [at("2026-06-01T00:00:00Z")]);
    }
}

fn field(values: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = String> {
    let (first, last) = (*values.start(), *values.end());
    prop_oneof![
        3 => Just("*".to_owned()),
        3 => values.clone().prop_map(|one| one.to_string()),
        1 => (2_u32..=20).prop_map(|step| format!("*/{step}")),
        1 => prop::collection::btree_set(values, 1..4)
            .prop_map(|some| some.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
        1 => (first..=last, 0_u32..10).prop_map(move |(from, more)| format!("{from}-{}", (from + more).min(last))),
    ]
}

fn zone() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "America/St_Johns",
        "Asia/Kathmandu",
        "Africa/Casablanca",
        "Pacific/Apia",
        "America/Asuncion",
        "Antarctica/Troll",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn instants_never_repeat_nor_go_back(
        minute in field(0..=59), hour in field(0..=23), day in prop_oneof![2 => Just("*".to_owned()), 1 => field(1..=28)],
        zone in zone(), start in 1_767_225_600_i64..1_893_456_000,
    ) {
        let timing = timing(&format!("{minute} {hour} {day} * *"), zone);
        let mut after = DateTime::from_timestamp(start, 0).unwrap();
        for _ in 0..40 {
            let next = timing.next_after(after).unwrap();
            prop_assert!(next > after);
            // there is nothing between: whoever asks later, but before it, is told the same
            let between = after + (next - after) / 2;
            prop_assert_eq!(timing.next_after(between), Some(next));
            prop_assert_eq!(timing.next_after(next - TimeDelta::seconds(1)), Some(next));
            after = next;
        }
    }

    #[test]
    fn each_time_of_the_day_fires_once_a_day(hour in 0_u32..24, minute in 0_u32..60, zone in zone(), start in 1_767_225_600_i64..1_893_456_000) {
        let timing = timing(&format!("{minute} {hour} * * *"), zone);
        let instants = timing.upcoming(DateTime::from_timestamp(start, 0).unwrap(), 60);
        for pair in instants.windows(2) {
            let apart = (pair[1] - pair[0]).num_minutes();
            prop_assert!((22 * 60..=26 * 60).contains(&apart), "{:?}", pair);
        }
    }

    #[test]
    fn catching_up_never_repeats_nor_exceeds_its_bound(
        minute in field(0..=59), hour in field(0..=23), zone in zone(), start in 1_767_225_600_i64..1_893_456_000, away in 0_i64..5_000_000,
    ) {
        let timing = timing(&format!("{minute} {hour} * * *"), zone);
        let due = timing.next_after(DateTime::from_timestamp(start, 0).unwrap()).unwrap();
        let now = due + TimeDelta::seconds(away);
        for policy in [CatchUp::None, CatchUp::Last, CatchUp::All] {
            let fired = caught_up(&timing, due, now, policy);
            prop_assert!(fired.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(fired.iter().all(|at| (due..=now).contains(at)));
            let most = if policy == CatchUp::All { MOST_CAUGHT_UP } else { 1 };
            prop_assert!(fired.len() <= most);
            prop_assert!(policy == CatchUp::None || !fired.is_empty());
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(cron in "[0-9A-Za-z*,/#?L W\\- \t]{0,40}", zone in "[A-Za-z/_]{0,20}") {
        if let Ok(timing) = Timing::parse(&cron, "UTC") {
            let _ = timing.next_after(DateTime::from_timestamp(1_767_225_600, 0).unwrap());
        }
        let _ = Timing::parse("* * * * *", &zone);
    }
}
