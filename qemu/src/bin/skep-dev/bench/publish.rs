//! `skep-dev bench publish [TAG]`: what was recorded as tables and charts.
//!
//! Takes the newest count of guest instructions that the harness has recorded for each
//! operation and system, and all samples of a tag that were measured by the clock
//! ([`timed`]), and writes them, losers first, between marks of
//! `docs/performance.md`, and as bars to `docs/figures/`.

mod timed;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skep_qemu::Artifacts;
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

const DOCUMENT: &str = "docs/performance.md";
const CHARTS: &str = "docs/figures";
const MARK: &str = "micro";

/// Operations that stay in user mode: the control, not a result.
const CONTROL: [&str; 3] = ["cpu_loop", "memcpy_64k", "memcpy_4m"];
/// The part of the small Linux that the median is to stay below.
const GOAL: f64 = 0.6;

/// Instructions for one operation.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    name: String,
    skep: f64,
    skep_2_cpus: Option<f64>,
    small: Option<f64>,
    debian: Option<f64>,
}

impl Row {
    /// What it is of the small Linux.
    fn ratio(&self) -> Option<f64> {
        Some(self.skep / self.small?)
    }

    fn of_debian(&self) -> Option<f64> {
        Some(self.skep / self.debian?)
    }

    fn is_control(&self) -> bool {
        CONTROL.contains(&self.name.as_str())
    }
}

/// Writes all from the results in this folder, of what was timed those with this tag.
pub(super) fn publish(results: &Path, tag: &str) -> Result<()> {
    let path = results.join("results.jsonl");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("nothing is recorded in {}", path.display()))?;
    let root = Artifacts::new().root().to_path_buf();
    let document = root.join(DOCUMENT);
    let old = fs::read_to_string(&document)?;
    let (mut new, mut charts) = timed::written(&old, &text, tag)?;
    let rows = rows(&text)?;
    // Without anybody to compare with, what was published before says more.
    if rows.iter().any(|row| row.ratio().is_some()) {
        new = replaced(&new, MARK, &table(&rows))?;
        charts.insert("micro.svg".to_string(), chart(&rows));
    }
    ensure!(
        !charts.is_empty(),
        "nothing of Skep and Linux is recorded{}; run: scripts/bench all skep linux [--tag TAG], \
         scripts/bench micro skep linux linux-tiny --icount 0",
        if tag.is_empty() { "" } else { " with this tag" },
    );
    fs::write(&document, new)?;
    fs::create_dir_all(root.join(CHARTS))?;
    for (name, chart) in &charts {
        fs::write(root.join(CHARTS).join(name), chart)?;
        println!("{CHARTS}/{name}, and its table in {DOCUMENT}");
    }
    Ok(())
}

/// The newest counts, the one with the highest part of the small Linux first.
fn rows(text: &str) -> Result<Vec<Row>> {
    let mut newest: BTreeMap<(String, String, u64), f64> = BTreeMap::new();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).context("a record is no JSON")?;
        let word = |name: &str| record[name].as_str().unwrap_or_default();
        let Some(name) = word("metric").strip_suffix("_insn") else {
            continue;
        };
        if let (Some(value), "0", Some(cpus)) = (
            record["value"].as_f64(),
            word("icount"),
            record["smp"].as_u64(),
        ) {
            newest.insert((name.into(), word("system").into(), cpus), value);
        }
    }
    let get = |name: &str, system: &str, cpus| {
        let key = (name.to_string(), system.to_string(), cpus);
        newest.get(&key).copied()
    };
    let names = newest
        .keys()
        .filter(|(_, system, cpus)| system == "skep" && *cpus == 1);
    let mut rows: Vec<Row> = names
        .map(|(name, ..)| Row {
            name: name.clone(),
            skep: get(name, "skep", 1).unwrap_or_default(),
            skep_2_cpus: get(name, "skep", 2),
            small: get(name, "linux-tiny", 1),
            debian: get(name, "linux", 1),
        })
        .collect();
    let key = |row: &Row| row.ratio().unwrap_or(f64::MAX);
    rows.sort_by(|a, b| key(b).total_cmp(&key(a)));
    Ok(rows)
}

/// The middle of what the operations that are no control have.
fn median(rows: &[Row], of: impl Fn(&Row) -> Option<f64>) -> Option<f64> {
    let mut all: Vec<f64> = rows
        .iter()
        .filter(|r| !r.is_control())
        .filter_map(of)
        .collect();
    all.sort_by(f64::total_cmp);
    let (low, high) = (
        all.get(all.len().checked_sub(1)? / 2)?,
        all.get(all.len() / 2)?,
    );
    Some(f64::midpoint(*low, *high))
}

fn table(rows: &[Row]) -> String {
    let mut out = String::new();
    let part = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.2}"));
    let above = |of: fn(&Row) -> Option<f64>| {
        let higher = rows.iter().filter(|r| !r.is_control());
        higher.filter(|r| of(r).is_some_and(|x| x > 1.0)).count()
    };
    let _ = writeln!(
        out,
        "Without the {} that stay in user mode (the control), the median is {} of the small Linux\n\
         ({} need more than it) and {} of Debian's ({} need more).\n",
        CONTROL.len(),
        part(median(rows, Row::ratio)),
        above(Row::ratio),
        part(median(rows, Row::of_debian)),
        above(Row::of_debian),
    );
    let _ = writeln!(
        out,
        "| operation | Skep | Skep, 2 CPUs | small Linux | ratio | Debian's | ratio |\n\
         | --- | --- | --- | --- | --- | --- | --- |"
    );
    for row in rows {
        let count = |x: Option<f64>| x.map_or(String::new(), grouped);
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            grouped(row.skep),
            count(row.skep_2_cpus),
            count(row.small),
            part(row.ratio()),
            count(row.debian),
            part(row.of_debian()),
        );
    }
    out
}

/// A whole number with commas.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The document with this between the marks of this name.
fn replaced(document: &str, mark: &str, between: &str) -> Result<String> {
    let begin = format!("<!-- {mark}: written by scripts/bench publish -->");
    let end = format!("<!-- {mark}: end -->");
    let marks = document.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    let (before, after) =
        marks.with_context(|| format!("{DOCUMENT} has no marks for what is {mark}"))?;
    Ok(format!("{before}{begin}\n\n{between}\n{end}{after}"))
}

/// Bars of what each operation is of the small Linux, with lines at the same and the goal.
fn chart(rows: &[Row]) -> String {
    const STEP: f64 = 16.0;
    const LEFT: f64 = 130.0;
    const SCALE: f64 = 420.0;
    const TOP: f64 = 34.0;
    let rows: Vec<_> = rows.iter().filter(|r| r.ratio().is_some()).collect();
    let (width, height) = (LEFT + 1.2 * SCALE, TOP + STEP * rows.len() as f64 + 8.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"14\">Guest instructions for an operation, the small Linux being 1; \
         less is better</text>\n"
    );
    for (i, row) in rows.iter().enumerate() {
        let ratio = row.ratio().unwrap_or_default();
        let y = TOP + STEP * i as f64;
        let colour = match ratio {
            _ if row.is_control() => "#bbbbbb",
            r if r > 1.0 => "#c0392b",
            r if r > GOAL => "#d9a441",
            _ => "#3c8d5a",
        };
        let bar = SCALE * ratio.min(1.15);
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT:.0}\" y=\"{:.0}\" width=\"{bar:.1}\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\">{ratio:.2}</text>",
            LEFT - 6.0,
            y + 10.0,
            row.name,
            y,
            LEFT + bar + 4.0,
            y + 10.0,
        );
    }
    for (at, name) in [(1.0, "small Linux"), (GOAL, "goal of the median")] {
        let x = LEFT + SCALE * at;
        let _ = writeln!(
            out,
            "<line x1=\"{x:.0}\" y1=\"{:.0}\" x2=\"{x:.0}\" y2=\"{height:.0}\" stroke=\"black\" \
             stroke-dasharray=\"3 3\"/><text x=\"{x:.0}\" y=\"28\" \
             text-anchor=\"middle\">{name}</text>",
            TOP - 4.0,
        );
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(system: &str, cpus: u64, name: &str, value: f64) -> String {
        format!(
            "{{\"system\": \"{system}\", \"smp\": {cpus}, \"icount\": \"0\", \
             \"metric\": \"{name}\", \"value\": {value}, \"unit\": \"insn\"}}\n"
        )
    }

    fn recorded() -> String {
        [
            record("skep", 1, "stat_insn", 9999.0),
            record("skep", 1, "stat_insn", 500.0),
            record("skep", 2, "stat_insn", 501.0),
            record("linux-tiny", 1, "stat_insn", 1000.0),
            record("linux", 1, "stat_insn", 2000.0),
            record("skep", 1, "loser_insn", 1100.0),
            record("linux-tiny", 1, "loser_insn", 1000.0),
            record("skep", 1, "cpu_loop_insn", 12000.0),
            record("linux-tiny", 1, "cpu_loop_insn", 12000.0),
            record("skep", 1, "stat", 0.5),
            record("linux", 1, "only_linux_insn", 1.0),
        ]
        .concat()
    }

    #[test]
    fn the_newest_counts_are_taken_and_losers_come_first() {
        let rows = rows(&recorded()).expect("readable");
        let names: Vec<_> = rows.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["loser", "cpu_loop", "stat"]);
        assert_eq!(rows[2].skep_2_cpus, Some(501.0));
        assert_eq!(rows[2].of_debian(), Some(0.25));
        assert_eq!(median(&rows, Row::ratio), Some(f64::midpoint(1.1, 0.5)));
        assert!(super::rows("no json").is_err());
    }

    #[test]
    fn the_document_keeps_what_is_around_the_marks() {
        let rows = rows(&recorded()).expect("readable");
        let (begin, end) = (
            "<!-- micro: written by scripts/bench publish -->",
            "<!-- micro: end -->",
        );
        let old = format!("before\n{begin}\nold\n{end}\nafter\n");
        let new = replaced(&old, MARK, &table(&rows)).expect("has marks");
        assert!(new.starts_with("before\n") && new.ends_with("\nafter\n"));
        assert!(!new.contains("old\n"));
        assert!(new.contains("| loser | 1,100 |  | 1,000 | 1.10 |  |  |"));
        assert!(new.contains("(1 need more than it)"));
        assert_eq!(replaced(&new, MARK, &table(&rows)).ok(), Some(new));
        assert!(replaced("no marks", MARK, "x").is_err());
    }

    #[test]
    fn the_chart_has_a_bar_for_each_that_can_be_compared() {
        let chart = chart(&rows(&recorded()).expect("readable"));
        assert_eq!(chart.matches("height=\"12\"").count(), 3);
        for part in [
            ">loser<", ">1.10<", "#c0392b", "#3c8d5a", "#bbbbbb", "</svg>",
        ] {
            assert!(chart.contains(part), "{part}");
        }
    }

    #[test]
    fn numbers_have_commas() {
        assert_eq!(
            [grouped(5.0), grouped(1234.4), grouped(1e6)],
            ["5", "1,234", "1,000,000"]
        );
    }
}
