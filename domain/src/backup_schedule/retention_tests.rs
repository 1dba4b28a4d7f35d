//! That the choice keeps what its rules promise: cases that can be read, and laws over many others.

use super::*;

/// One backup at this hour since the first day's midnight; day 0 is a Monday, the 1st of a month.
fn at_hour(number: i64, hour: i64) -> Candidate {
    let day = hour.div_euclid(24);
    Candidate {
        backup: BackupId(number),
        at: hour * 3_600_000_000,
        day,
        week: day.div_euclid(7),
        month: day.div_euclid(30),
        in_use: false,
    }
}

fn daily(days: i64) -> Vec<Candidate> {
    (0..days).map(|day| at_hour(day + 1, day * 24 + 2)).collect()
}

fn numbers(found: Vec<BackupId>) -> Vec<i64> {
    found.into_iter().map(|backup| backup.0).collect()
}

fn keep(last: u16, daily: u16, weekly: u16, monthly: u16) -> Retention {
    Retention { last, daily, weekly, monthly }
}

#[test]
fn without_a_rule_everything_is_kept() {
    assert_eq!(excess(Retention::default(), &daily(400)), []);
}

#[test]
fn keep_last_keeps_the_newest_ones_and_names_the_others_oldest_first() {
    assert_eq!(numbers(excess(keep(3, 0, 0, 0), &daily(6))), [1, 2, 3]);
    assert_eq!(excess(keep(6, 0, 0, 0), &daily(6)), []);
}

#[test]
fn keep_daily_keeps_the_newest_of_each_day_that_has_one() {
    // Three on day 0, none on day 1, two on day 2.
    let backups = [(1, 1), (2, 9), (3, 23), (4, 48), (5, 60)].map(|(n, hour)| at_hour(n, hour));
    assert_eq!(numbers(excess(keep(0, 2, 0, 0), &backups)), [1, 2, 4], "days without one are free");
    assert_eq!(numbers(excess(keep(0, 1, 0, 0), &backups)), [1, 2, 3, 4]);
}

#[test]
fn keep_weekly_and_monthly_count_weeks_and_months() {
    // Days 0 to 69: weeks end on days 6, 13 …, months on days 29 and 59.
    let kept = |rule| {
        let gone = numbers(excess(rule, &daily(70)));
        (1..=70).filter(|n| !gone.contains(n)).collect::<Vec<i64>>()
    };
    assert_eq!(kept(keep(0, 0, 3, 0)), [56, 63, 70]);
    assert_eq!(kept(keep(0, 0, 0, 3)), [30, 60, 70]);
    assert_eq!(kept(keep(2, 3, 2, 2)), [60, 63, 68, 69, 70], "what one rule keeps is kept");
}

#[test]
fn a_backup_in_use_counts_and_is_not_touched() {
    let mut backups = daily(4);
    backups[0].in_use = true;
    assert_eq!(numbers(excess(keep(1, 0, 0, 0), &backups)), [2, 3]);
    backups[3].in_use = true;
    assert_eq!(numbers(excess(keep(1, 0, 0, 0), &backups)), [2, 3], "the newest is still kept");
}

#[test]
fn a_number_to_keep_lies_between_0_and_1000() {
    assert_eq!(Retention::number(0), Ok(0));
    assert_eq!(Retention::number(1_000), Ok(1_000));
    for wrong in [-1, 1_001, i64::MIN, i64::MAX, 65_536] {
        assert_eq!(Retention::number(wrong).unwrap_err().code, "backup_schedule.keep_invalid");
    }
}

/// A small generator, so that a failure can be repeated: each case prints its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn the_laws_of_the_choice_hold_for_whatever_backups_there_are() {
    for seed in 1..=4_000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut some = |limit: u64| u16::try_from(random.below(limit)).unwrap_or(0);
        let rule = keep(some(5), some(5), some(4), some(4));
        let count = usize::from(some(40));
        let mut backups: Vec<Candidate> = (0..count)
            .map(|n| {
                let mut one = at_hour(n as i64 + 1, i64::from(some(24 * 90)));
                one.in_use = some(10) == 0;
                one
            })
            .collect();
        let gone = excess(rule, &backups);
        check(seed, rule, &backups, &gone);

        // The order in which the records are looked at does not matter.
        backups.reverse();
        assert_eq!(excess(rule, &backups), gone, "seed {seed}");

        // Once they are removed, nothing else is: the choice is stable.
        backups.retain(|one| !gone.contains(&one.backup));
        assert_eq!(excess(rule, &backups), [], "seed {seed}");
    }
}

/// The laws, said another way than the choice is made.
fn check(seed: u64, rule: Retention, backups: &[Candidate], gone: &[BackupId]) {
    let is_gone = |one: &&Candidate| gone.contains(&one.backup);
    let newer = |one: &Candidate| {
        backups.iter().filter(|other| (other.at, other.backup) > (one.at, one.backup)).count()
    };
    for one in backups.iter().filter(is_gone) {
        assert!(!one.in_use, "seed {seed}: {one:?} is in use");
        assert!(newer(one) > 0, "seed {seed}: {one:?} is the newest");
    }
    for one in backups.iter().filter(|one| !one.in_use) {
        // It is kept by a rule exactly when it is among the newest, or the newest of its period and
        // fewer later periods have one than the rule counts.
        let period_keeps = |number: u16, period: fn(&Candidate) -> i64| {
            let is_newest = backups.iter().all(|other| {
                period(other) != period(one) || { (other.at, other.backup) <= (one.at, one.backup) }
            });
            let later: BTreeSet<i64> =
                backups.iter().map(period).filter(|other| *other > period(one)).collect();
            is_newest && later.len() < usize::from(number)
        };
        let wanted = rule.keeps_all()
            || newer(one) < usize::from(rule.last).max(1)
            || period_keeps(rule.daily, |one| one.day)
            || period_keeps(rule.weekly, |one| one.week)
            || period_keeps(rule.monthly, |one| one.month);
        assert_eq!(!gone.contains(&one.backup), wanted, "seed {seed}: {one:?} under {rule:?}");
    }
}
