//! Writing the files of a package from the database.

use super::{
    disk,
    events::{self, Events},
    files::{Population, PopulationFiles, Room, text},
    gaps::{self, Tally},
    populations::{self, POPULATIONS, Rows},
    query,
    source::Source,
    still_ours,
};
use crate::{
    context::Context,
    domain::evidence::{Draw, Standing, sections},
    job::JobError,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How often each value of a column was met, for the report's figures.
const FIGURES: &[(&str, &str)] =
    &[("assets", "type"), ("assets", "status"), ("scopes", "state"), ("jobs", "state"), ("gaps", "gap")];

/// All that was written of populations.
pub struct Told {
    pub sections: Vec<(&'static str, Standing)>,
    pub populations: Vec<Population>,
    /// Beside the rows of a population: how else they were counted, and to how many.
    pub counts: BTreeMap<&'static str, Vec<(String, u64)>>,
    /// The audit log's, where the package has them.
    pub events: Option<Events>,
    pub gaps: Tally,
    pub figures: BTreeMap<(&'static str, &'static str), BTreeMap<String, u64>>,
}

impl Told {
    pub fn includes(&self, section: &str) -> bool {
        self.sections.iter().any(|(name, standing)| *name == section && *standing == Standing::Included)
    }

    pub fn population(&self, name: &str) -> Option<&Population> {
        self.populations.iter().find(|population| population.name == name)
    }

    fn met(&mut self, population: &'static str, columns: &[&str], cells: &[Value]) {
        for (of, column) in FIGURES.iter().filter(|(of, _)| *of == population) {
            let place = columns.iter().position(|name| name == column);
            let value = place.and_then(|place| cells.get(place)).map(text).unwrap_or_default();
            *self.figures.entry((of, column)).or_default().entry(value).or_default() += 1;
        }
    }
}

/// Writes every population that belongs to the package, and what it cannot tell.
pub async fn write(context: &Context, source: &Source<'_>, room: &mut Room) -> Result<Told, JobError> {
    let mut told = Told {
        sections: sections(&source.request.include, source.package.restricted),
        populations: Vec::new(),
        counts: BTreeMap::new(),
        events: None,
        gaps: Tally::default(),
        figures: BTreeMap::new(),
    };
    let draw = || Draw::new(&source.seed(), source.sample().size);
    let mut gaps = PopulationFiles::begin(room, "gaps", gaps::COLUMNS, draw()).map_err(disk)?;
    let mut tally = Tally::default();
    for population in POPULATIONS {
        // what is missing is told whether or not the rest of it was asked for
        let tells_gaps = matches!(population.name, "scopes" | "warnings");
        let included = told.includes(population.section);
        if !included && !tells_gaps {
            continue;
        }
        context.evidence.step(population.name);
        let mut files = None;
        if included {
            files = Some(PopulationFiles::begin(room, population.name, population.columns, draw()).map_err(disk)?);
        }
        let mut row = |cells: Vec<Value>| -> Result<(), JobError> {
            match population.name {
                "scopes" => tally.scope(&mut gaps, &cells)?,
                "warnings" => tally.warning(&mut gaps, &cells)?,
                _ => {}
            }
            let Some(files) = &mut files else { return Ok(()) };
            told.met(population.name, population.columns, &cells);
            files.row(&cells).map_err(disk)
        };
        let mut counts = Vec::new();
        match &population.rows {
            Rows::Frozen(list) => {
                let Some(rows) = source.frozen(list).as_array() else { continue };
                rows.iter().try_for_each(|of| row(populations::frozen(population.columns, of)))?;
                counts.push(("rows fixed when the package was asked for".to_owned(), rows.len() as u64));
            }
            Rows::Stored(query, cells) => {
                let mut after = None;
                loop {
                    still_ours(context).await?;
                    let page = query.page(source, after).await?;
                    after = page.last().map(|(key, _)| *key);
                    let last = (page.len() as u64) < query::PAGE;
                    page.into_iter().try_for_each(|(_, stored)| row(cells(source, stored)))?;
                    if last {
                        break;
                    }
                }
                counts.push(("counted by the database".to_owned(), query.count(source).await?));
            }
        }
        if population.name == "scopes" {
            tally.stale(&mut gaps, source).await?;
            tally.subscriptions(&mut gaps, source)?;
        }
        let Some(files) = files else { continue };
        if let Some((how, text)) = population.recount {
            counts.push((how.to_owned(), query::count(source, text).await?));
        }
        let written = files.end(room).map_err(disk)?;
        reconcile(population.name, written.rows, counts.first())?;
        told.counts.insert(population.name, counts);
        told.populations.push(written);
    }
    let written = gaps.end(room).map_err(disk)?;
    reconcile("gaps", written.rows, Some(&("tallied by kind".to_owned(), tally.total())))?;
    told.counts.insert("gaps", vec![("tallied by kind".to_owned(), tally.total())]);
    let by_gap = tally.by_gap().clone();
    told.figures.insert(("gaps", "gap"), by_gap);
    told.populations.push(written);
    told.gaps = tally;
    told.events = events::write(context, source, room).await?;
    Ok(told)
}

/// A population that is not what the database counts is told to nobody.
fn reconcile(name: &str, rows: u64, counted: Option<&(String, u64)>) -> Result<(), JobError> {
    match counted {
        Some((how, other)) if *other != rows => Err(JobError::retry(
            "count_mismatch",
            format!(
                "{rows} rows of {name} were written, but {how} there are {other}; what is being told changed meanwhile"
            ),
        )),
        _ => Ok(()),
    }
}

/// What the package is about and what it is not, for `scope.json`.
pub fn scope(source: &Source<'_>, told: &Told) -> Value {
    let package = source.package;
    let sections: Vec<Value> =
        told.sections.iter().map(|(name, standing)| json!({"section": name, "standing": standing})).collect();
    json!({
        "package": package.id,
        "organisation": source.organisation(),
        "requestedBy": actor(source),
        "request": package.request,
        "exportedAt": super::request::spelled(package.created_at),
        "period": {"from": super::request::spelled(package.period_from), "to": super::request::spelled(package.as_of)},
        "asOf": super::request::spelled(package.as_of),
        "rowsWithoutHistory": "subscriptions, users and settings are told as they were at exportedAt",
        "restrictedToSubscriptions": package.restricted,
        "coversEverything": source.everything,
        "subscriptions": source.frozen("subscriptions"),
        "frameworks": source.request.frameworks.iter().map(|name| json!({"framework": name, "standing": Standing::NotInThisVersion}))
            .collect::<Vec<_>>(),
        "sections": sections,
        "auditEvents": audit_events(source, told),
        "gaps": told.gaps.json(),
    })
}

/// Which events of the audit log are there, by number, and under which checkpoint.
fn audit_events(source: &Source<'_>, told: &Told) -> Value {
    let Some(Events { chosen, file }) = &told.events else {
        let wanted = source.request.include.audit;
        return json!({"standing": if wanted { Standing::NotPermitted } else { Standing::NotRequested }});
    };
    json!({
        "standing": Standing::Included,
        "file": file.path,
        "events": file.rows,
        "from": chosen.from.to_string(),
        "to": chosen.to.to_string(),
        "checkpoint": chosen.covered.to_string(),
    })
}

/// Who asked for the package.
pub fn actor(source: &Source<'_>) -> Value {
    let package = source.package;
    json!({"type": package.requested_by_type, "id": package.requested_by_id, "name": package.requested_by_name})
}

/// The populations as the manifest tells them.
pub fn listing(told: &Told) -> Vec<Value> {
    let one = |population: &Population| {
        let counts = told.counts.get(population.name).into_iter().flatten();
        let counts: Vec<Value> = counts
            .map(|(how, rows)| json!({"how": how, "rows": rows, "difference": i128::from(*rows) - i128::from(population.rows)}))
            .collect();
        json!({
            "population": population.name,
            "rows": population.rows,
            "key": population.columns.first(),
            "columns": population.columns,
            "csv": format!("population/{}.csv", population.name),
            "jsonl": format!("population/{}.jsonl", population.name),
            "sample": {"file": population.sample.path, "rows": population.sample.rows},
            "counts": counts,
        })
    };
    told.populations.iter().map(one).collect()
}
