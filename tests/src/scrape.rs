//! A reader of Prometheus's text format (0.0.4) that takes nothing for granted.

use std::collections::{BTreeMap, HashMap};

/// What a scrape told: samples by name and labels, types by family.
#[derive(Debug, Default)]
pub struct Scrape {
    pub types: HashMap<String, String>,
    samples: HashMap<(String, BTreeMap<String, String>), f64>,
}

impl Scrape {
    /// Panics at what a scraper would refuse.
    pub fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        let mut helped = Vec::new();
        assert!(text.ends_with('\n'), "the last line does not end");
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(!help.is_empty());
                helped.push(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
                let twice = scrape.types.insert(name.to_owned(), kind.to_owned());
                assert!(twice.is_none(), "{name} is described twice");
            } else {
                scrape.sample(line);
            }
        }
        for (name, _) in scrape.samples.keys() {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let family = family.filter(|family| scrape.types.contains_key(*family)).unwrap_or(name);
            assert!(scrape.types.contains_key(family), "{name} has no type");
            assert!(helped.iter().any(|helped| helped == family), "{name} has no help");
            assert!(name.starts_with("keywright_") || name.starts_with("process_"), "{name}");
        }
        scrape
    }

    fn sample(&mut self, line: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closing brace")),
            None => (series, ""),
        };
        let labels = labels.split("\",").filter(|pair| !pair.is_empty()).map(|pair| {
            let (label, value) = pair.split_once("=\"").expect("a label");
            (label.to_owned(), value.trim_end_matches('"').to_owned())
        });
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let twice = self.samples.insert((name.to_owned(), labels.collect()), value);
        assert!(twice.is_none(), "told twice: {line}");
    }

    /// The sum of the samples of this name that have these labels among theirs; `None` when there is no such.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |own: &BTreeMap<String, String>| {
            labels.iter().all(|(label, value)| own.get(*label).is_some_and(|own| own == value))
        };
        let found = self.samples.iter().filter(|((own, of), _)| own == name && fits(of)).map(|(_, value)| *value);
        found.reduce(|sum, value| sum + value)
    }
}
