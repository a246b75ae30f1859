//! What `./just bench` measures; docs/PERFORMANCE.md tells how to read it.
#![allow(clippy::indexing_slicing, reason = "a measurement that does not find what it needs is to end")]

mod delay;
pub mod engine;
pub mod login;
pub mod paced;
pub mod scan;
mod table;

/// The middle of some figures; of an even number, the mean of the two in the middle.
#[must_use]
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { sorted.get(middle - 1).map(|lower| f64::midpoint(*lower, upper)) }
}

#[allow(clippy::print_stdout, reason = "the figures are what was asked for")]
fn say(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_does_not_follow_an_outlier() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 900.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 900.0]), Some(3.0));
    }
}
