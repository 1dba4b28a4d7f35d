//! A line that says how far a long command is, on a terminal only.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often it is drawn anew.
const EVERY: Duration = Duration::from_millis(100);
/// Signs between the brackets.
const WIDTH: u64 = 30;

/// Draws the line; it is wiped when this goes away.
pub struct Bar {
    on_terminal: bool,
    drawn: Mutex<Option<Instant>>,
}

impl Bar {
    pub fn new() -> Self {
        Self { on_terminal: std::io::stderr().is_terminal(), drawn: Mutex::new(None) }
    }

    /// So many of so many events after this time.
    pub fn show(&self, done: u64, total: u64, elapsed: Duration) {
        self.show_from(0, done, total, elapsed);
    }

    /// The same when `before` of them had been done by somebody else.
    pub fn show_from(&self, before: u64, done: u64, total: u64, elapsed: Duration) {
        let mut drawn = self.drawn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let due = drawn.is_none_or(|at| at.elapsed() >= EVERY) || done >= total;
        if !self.on_terminal || !due {
            return;
        }
        *drawn = Some(Instant::now());
        write(&format!("\r{}\x1b[K", line(before, done, total, elapsed)));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.on_terminal {
            write("\r\x1b[K");
        }
    }
}

/// Nobody is harmed when a progress line does not arrive.
fn write(text: &str) {
    if std::io::stderr().write_all(text.as_bytes()).is_err() {}
}

fn line(before: u64, done: u64, total: u64, elapsed: Duration) -> String {
    let share = |of: u64| done.saturating_mul(of).checked_div(total).unwrap_or(of).min(of);
    let filled = usize::try_from(share(WIDTH)).unwrap_or_default();
    let empty = usize::try_from(WIDTH).unwrap_or_default() - filled;
    // Counts of events are far below 2^52, where a double is exact.
    let rate = done.saturating_sub(before) as f64 / elapsed.as_secs_f64().max(1e-9);
    let left = match done {
        none if none <= before => String::new(),
        _ => format!(", {}", left((total.saturating_sub(done)) as f64 / rate)),
    };
    format!(
        "[{}{}] {:>3} %  {done} of {total} events, {rate:.0}/s{left}",
        "#".repeat(filled),
        ".".repeat(empty),
        share(100)
    )
}

fn left(seconds: f64) -> String {
    match seconds {
        short if short < 60.0 => format!("{short:.0} s left"),
        long if long < 3_600.0 => format!("{:.0} min left", long / 60.0),
        longest => format!("{:.1} h left", longest / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_how_fast_and_how_long_still() {
        let half = line(0, 500, 1_000, Duration::from_secs(5));
        assert!(half.contains("###############..............."), "{half}");
        assert!(half.ends_with(" 50 %  500 of 1000 events, 100/s, 5 s left"), "{half}");
        let begun = line(0, 0, 1_000, Duration::from_millis(1));
        assert!(begun.ends_with("0 %  0 of 1000 events, 0/s"), "{begun}");
        let resumed = line(500, 600, 1_000, Duration::from_secs(1));
        assert!(resumed.ends_with("600 of 1000 events, 100/s, 4 s left"), "{resumed}");
        assert!(line(0, 0, 0, Duration::ZERO).contains("100 %"));
        assert!(line(0, 10, 100_000, Duration::from_secs(10)).ends_with("27.8 h left"));
    }
}
