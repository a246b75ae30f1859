//! Figures of several repetitions, as tables that can be pasted into a document.

use super::median;

/// What one thing reached, one figure for each repetition.
#[derive(Clone, Debug, Default)]
pub struct Series(pub Vec<f64>);

impl Series {
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// The middle, and the whole range in brackets.
    pub fn cell(&self) -> String {
        let Some(middle) = median(&self.0) else { return "–".to_owned() };
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("**{}** ({}–{})", number(middle), number(least), number(most))
    }

    /// Each figure in proportion to that of the same repetition.
    pub fn over(&self, floor: &Self) -> Self {
        Self(self.0.iter().zip(&floor.0).map(|(ours, theirs)| ours / theirs).collect())
    }
}

/// As many digits as mean something.
fn number(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => {
            let whole = format!("{figure:.0}");
            let head = whole.len() % 3;
            let (head, tail) = whole.split_at(head);
            let groups = tail.as_bytes().chunks(3).map(String::from_utf8_lossy);
            let all: Vec<String> = std::iter::once(head.to_owned())
                .filter(|head| !head.is_empty())
                .chain(groups.map(Into::into))
                .collect();
            all.join(",")
        }
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// Prints a table in Markdown, with the load that the machine was under.
pub fn print(title: &str, columns: &[&str], rows: &[Vec<String>], load: &[f64]) {
    let line = |cells: &[String]| super::say(&format!("| {} |", cells.join(" | ")));
    super::say(&format!("\n### {title}\n"));
    line(&columns.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    line(&columns.iter().map(|_| "---".to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
    super::say(&format!("\nLoad average {}.", Series(load.to_vec()).cell()));
}

/// The load average of the last minute; not a number where the system does not tell it.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_shows_the_middle_and_the_range() {
        assert_eq!(Series(vec![3.0, 1234.5, 20.25]).cell(), "**20.2** (3.00–1,234)");
        assert_eq!(Series(vec![1_000_000.0]).cell(), "**1,000,000** (1,000,000–1,000,000)");
        assert_eq!(Series(vec![123.0]).cell(), "**123** (123–123)");
        assert_eq!(Series::default().cell(), "–");
    }

    #[test]
    fn a_ratio_is_taken_within_a_repetition() {
        assert_eq!(Series(vec![1.0, 4.0]).over(&Series(vec![2.0, 4.0])).0, [0.5, 1.0]);
    }
}
