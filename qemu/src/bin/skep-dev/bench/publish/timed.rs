//! What was measured by the clock (and in bytes): a table and a chart for each machine on
//! which Skep and Linux were measured side by side.

use super::replaced;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

const MARK: &str = "timed";
/// Where a row's bar ends, however much better Skep is.
const LONGEST: f64 = 4.0;

/// The samples of one measure on one machine.
#[derive(Clone, Debug, PartialEq)]
struct Samples(Vec<f64>);

impl Samples {
    fn sorted(mut values: Vec<f64>) -> Samples {
        values.sort_by(f64::total_cmp);
        Samples(values)
    }

    fn median(&self) -> f64 {
        let (low, high) = ((self.0.len() - 1) / 2, self.0.len() / 2);
        f64::midpoint(self.0[low], self.0[high])
    }

    /// The median with the least and the most.
    fn shown(&self) -> String {
        let (least, most) = (self.0[0], self.0[self.0.len() - 1]);
        match self.0.len() {
            1 => short(least),
            _ => format!(
                "{} ({} to {})",
                short(self.median()),
                short(least),
                short(most)
            ),
        }
    }
}

/// Both systems with some number of CPUs.
#[derive(Clone, Debug, PartialEq)]
struct Pair {
    skep: Samples,
    linux: Samples,
    /// How many times as good Skep is.
    ratio: f64,
}

/// One measure, by the number of CPUs.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    metric: String,
    unit: String,
    pairs: BTreeMap<u64, Pair>,
}

impl Row {
    fn ratio(&self, cpus: u64) -> Option<f64> {
        self.pairs.get(&cpus).map(|pair| pair.ratio)
    }

    fn worst(&self) -> f64 {
        let all = self.pairs.values().map(|pair| pair.ratio);
        all.fold(f64::MAX, f64::min)
    }

    /// The program that was measured: what the name begins with.
    fn program(&self) -> &str {
        self.metric.split('_').next().unwrap_or_default()
    }
}

/// What was measured on one machine: what is behind `skep` and `linux` in the systems' names.
struct Machine {
    name: String,
    rows: Vec<Row>,
}

/// Whether more of it is better: amounts a second, but not of what disturbs an idle machine.
fn more_is_better(metric: &str, unit: &str) -> bool {
    unit.ends_with("/s") && !metric.starts_with("idle")
}

type Key = (String, String, String, u64);

/// The samples of these tags that were measured by the clock, by machine.
fn machines(text: &str, tag: &str) -> Result<Vec<Machine>> {
    let mut samples: BTreeMap<Key, Vec<f64>> = BTreeMap::new();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).context("a record is no JSON")?;
        let word = |name: &str| record[name].as_str().unwrap_or_default().to_string();
        if !record["icount"].is_null() || word("tag") != tag || word("metric").ends_with("_insn") {
            continue;
        }
        if let (Some(value), Some(cpus)) = (record["value"].as_f64(), record["smp"].as_u64())
            && value > 0.0
        {
            let key = (word("system"), word("metric"), word("unit"), cpus);
            samples.entry(key).or_default().push(value);
        }
    }
    let systems: BTreeSet<_> = samples.keys().map(|key| key.0.clone()).collect();
    let names = systems.iter().filter_map(|name| name.strip_prefix("skep"));
    let all = names.map(|name| Machine {
        name: name.to_string(),
        rows: rows(&samples, name),
    });
    Ok(all.filter(|machine| !machine.rows.is_empty()).collect())
}

/// The measures that both systems have, with that in which Skep is worst first.
fn rows(samples: &BTreeMap<Key, Vec<f64>>, machine: &str) -> Vec<Row> {
    let (skep, linux) = (format!("skep{machine}"), format!("linux{machine}"));
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    for ((_, metric, unit, cpus), ours) in samples.iter().filter(|(key, _)| key.0 == skep) {
        let key = (linux.clone(), metric.clone(), unit.clone(), *cpus);
        let Some(theirs) = samples.get(&key) else {
            continue;
        };
        let (skep, linux) = (
            Samples::sorted(ours.clone()),
            Samples::sorted(theirs.clone()),
        );
        let part = skep.median() / linux.median();
        let ratio = match more_is_better(metric, unit) {
            true => part,
            false => 1.0 / part,
        };
        let row = rows.entry((metric.clone(), unit.clone()));
        let row = row.or_insert_with(|| Row {
            metric: metric.clone(),
            unit: unit.clone(),
            pairs: BTreeMap::new(),
        });
        row.pairs.insert(*cpus, Pair { skep, linux, ratio });
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.sort_by(|a, b| a.worst().total_cmp(&b.worst()));
    rows
}

/// Three digits of a number, or all before the point.
fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => super::grouped(v),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The middle of these, if there are any.
fn median(values: Vec<f64>) -> Option<f64> {
    (!values.is_empty()).then(|| Samples::sorted(values).median())
}

impl Machine {
    fn cpus(&self) -> BTreeSet<u64> {
        let pairs = self.rows.iter().flat_map(|row| row.pairs.keys());
        pairs.copied().collect()
    }

    fn title(&self) -> String {
        match self.name.strip_prefix('-') {
            Some(name) => format!("on the machine `{name}`"),
            None => "with virtio devices".to_string(),
        }
    }

    /// How often Skep is as good, by the median, and each program by its geometric mean.
    fn summary(&self, cpus: u64) -> String {
        let ratios: Vec<f64> = self.rows.iter().filter_map(|row| row.ratio(cpus)).collect();
        let mut programs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for row in &self.rows {
            let of = programs.entry(row.program()).or_default();
            of.extend(row.ratio(cpus).map(f64::ln));
        }
        let means = programs.iter().filter(|(_, of)| !of.is_empty());
        let means = means.map(|(program, of)| {
            let mean = of.iter().sum::<f64>() / of.len() as f64;
            format!("{program} {:.2}", mean.exp())
        });
        let means: Vec<_> = means.collect();
        format!(
            "{cpus} CPU{}: {} measures, median {:.2}, below 1: {}. Geometric means: {}.",
            if cpus == 1 { "" } else { "s" },
            ratios.len(),
            median(ratios.clone()).unwrap_or_default(),
            ratios.iter().filter(|ratio| **ratio < 1.0).count(),
            means.join(", "),
        )
    }

    fn table(&self) -> String {
        let cpus = self.cpus();
        let mut out = format!("Skep and Linux {}.\n\n", self.title());
        for n in &cpus {
            let _ = writeln!(out, "* {}", self.summary(*n));
        }
        let heads = cpus
            .iter()
            .map(|n| format!(" {n} CPU: Skep | Linux | ratio |"));
        let _ = writeln!(out, "\n| |{}", heads.collect::<String>());
        let _ = writeln!(out, "| --- |{}", " --- | --- | --- |".repeat(cpus.len()));
        for row in &self.rows {
            let _ = write!(out, "| {}, {} |", row.metric, row.unit);
            for n in &cpus {
                let _ = match row.pairs.get(n) {
                    Some(p) => {
                        let (skep, linux) = (p.skep.shown(), p.linux.shown());
                        write!(out, " {skep} | {linux} | {:.2} |", p.ratio)
                    }
                    None => write!(out, " | | |"),
                };
            }
            out.push('\n');
        }
        out
    }

    /// Bars of how many times as good Skep is with this many CPUs.
    fn chart(&self, cpus: u64) -> String {
        const STEP: f64 = 16.0;
        const LEFT: f64 = 190.0;
        const SCALE: f64 = 120.0;
        const TOP: f64 = 34.0;
        let rows: Vec<_> = self
            .rows
            .iter()
            .filter_map(|r| Some((r, r.ratio(cpus)?)))
            .collect();
        let (width, height) = (
            LEFT + SCALE * LONGEST + 50.0,
            TOP + STEP * rows.len() as f64 + 8.0,
        );
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"8\" y=\"14\">How many times as good as Linux, {cpus} CPU</text>\n"
        );
        for (i, (row, ratio)) in rows.iter().enumerate() {
            let y = TOP + STEP * i as f64;
            let colour = if *ratio < 1.0 { "#c0392b" } else { "#3c8d5a" };
            let bar = SCALE * ratio.min(LONGEST);
            let _ = writeln!(
                out,
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT:.0}\" y=\"{y:.0}\" width=\"{bar:.1}\" height=\"12\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{:.0}\">{ratio:.2}</text>",
                LEFT - 6.0,
                y + 10.0,
                row.metric,
                LEFT + bar + 4.0,
                y + 10.0,
            );
        }
        let x = LEFT + SCALE;
        let _ = writeln!(
            out,
            "<line x1=\"{x:.0}\" y1=\"{:.0}\" x2=\"{x:.0}\" y2=\"{height:.0}\" stroke=\"black\" \
             stroke-dasharray=\"3 3\"/><text x=\"{x:.0}\" y=\"28\" text-anchor=\"middle\">Linux</text>",
            TOP - 4.0,
        );
        out.push_str("</svg>\n");
        out
    }
}

/// The document with the tables of these samples, and the charts by their files' names.
pub(super) fn written(document: &str, text: &str, tag: &str) -> Result<(String, Charts)> {
    let machines = machines(text, tag)?;
    let (mut tables, mut charts) = (String::new(), Charts::new());
    for machine in &machines {
        tables.push_str(&machine.table());
        for cpus in machine.cpus() {
            let file = format!("timed{}-{cpus}.svg", machine.name);
            let _ = write!(
                tables,
                "\n![The same as bars, {cpus} CPU](figures/{file})\n"
            );
            charts.insert(file, machine.chart(cpus));
        }
        tables.push('\n');
    }
    match machines.is_empty() {
        // What is there stays: nobody measured anything.
        true => Ok((document.to_string(), charts)),
        false => Ok((replaced(document, MARK, tables.trim_end())?, charts)),
    }
}

/// Files of `docs/figures`.
pub(super) type Charts = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(system: &str, cpus: u64, metric: &str, value: f64, unit: &str) -> String {
        format!(
            "{{\"system\": \"{system}\", \"smp\": {cpus}, \"icount\": null, \"tag\": \"t\", \
             \"metric\": \"{metric}\", \"value\": {value}, \"unit\": \"{unit}\"}}\n"
        )
    }

    fn recorded() -> String {
        [
            record("skep", 1, "nginx_1k", 3000.0, "req/s"),
            record("skep", 1, "nginx_1k", 1000.0, "req/s"),
            record("skep", 1, "nginx_1k", 2000.0, "req/s"),
            record("linux", 1, "nginx_1k", 1000.0, "req/s"),
            record("skep", 2, "nginx_1k", 10.0, "req/s"),
            record("linux", 2, "nginx_1k", 5.0, "req/s"),
            record("skep", 1, "py_json", 20.0, "ms"),
            record("linux", 1, "py_json", 10.0, "ms"),
            record("skep", 1, "idle_wakeups", 2.0, "1/s"),
            record("linux", 1, "idle_wakeups", 20.0, "1/s"),
            record("skep-e1000e", 1, "nginx_1k", 7.0, "req/s"),
            record("linux-e1000e", 1, "nginx_1k", 14.0, "req/s"),
            record("skep", 1, "only_ours", 1.0, "ms"),
            record("skep", 1, "py_fails", 0.0, "ms").replace(": 0,", ": \"FAIL\","),
            record("skep", 1, "stat_insn", 1.0, "insn"),
            record("linux", 1, "stat_insn", 1.0, "insn"),
            record("skep", 1, "py_json", 1.0, "ms").replace("\"t\"", "\"other\""),
            record("skep", 1, "py_json", 1.0, "ms").replace("null", "\"0\""),
        ]
        .concat()
    }

    #[test]
    fn both_systems_are_compared_machine_by_machine() {
        let machines = machines(&recorded(), "t").expect("readable");
        let names: Vec<_> = machines.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["", "-e1000e"]);
        let metrics: Vec<_> = machines[0].rows.iter().map(|r| r.metric.as_str()).collect();
        assert_eq!(metrics, ["py_json", "nginx_1k", "idle_wakeups"]);
        let ratios: Vec<_> = machines[0].rows.iter().map(|r| r.ratio(1)).collect();
        assert_eq!(ratios, [Some(0.5), Some(2.0), Some(10.0)]);
        assert_eq!(machines[0].rows[1].ratio(2), Some(2.0));
        assert_eq!(machines[1].rows[0].ratio(1), Some(0.5));
        assert!(super::machines("no json", "t").is_err());
    }

    #[test]
    fn the_document_gets_a_table_and_a_chart_for_each() {
        let old =
            "a\n<!-- timed: written by scripts/bench publish -->\nold\n<!-- timed: end -->\nz\n";
        let (new, charts) = written(old, &recorded(), "t").expect("written");
        assert!(new.starts_with("a\n") && new.ends_with("\nz\n") && !new.contains("old"));
        for part in [
            "| nginx_1k, req/s | 2,000 (1,000 to 3,000) | 1,000 | 2.00 | 10.0 | 5.00 | 2.00 |\n",
            "| py_json, ms | 20.0 | 10.0 | 0.50 | | | |\n",
            "* 1 CPU: 3 measures, median 2.00, below 1: 1. Geometric means: idle 10.00, nginx 2.00, py 0.50.",
            "on the machine `e1000e`",
            "(figures/timed-e1000e-1.svg)",
        ] {
            assert!(new.contains(part), "{part}: {new}");
        }
        let names: Vec<_> = charts.keys().map(String::as_str).collect();
        assert_eq!(names, ["timed-1.svg", "timed-2.svg", "timed-e1000e-1.svg"]);
        assert_eq!(charts["timed-1.svg"].matches("height=\"12\"").count(), 3);
        assert!(charts["timed-1.svg"].contains("#c0392b"));
        let (same, none) = written(old, &recorded(), "unknown").expect("written");
        assert!(same == old && none.is_empty());
    }
}
