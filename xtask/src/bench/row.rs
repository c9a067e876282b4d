//! One result, as a bench prints it:
//! `ROW⇥area⇥name⇥value⇥unit⇥baseline name⇥baseline value⇥ratio` (`⇥` is a tab).
//!
//! A row without a baseline leaves the last three empty, says `-`, or ends after the unit.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) area: String,
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: String,
    pub(super) baseline: Option<Baseline>,
}

/// The peer or the plain way of doing it, measured in the same run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Baseline {
    pub(super) name: String,
    pub(super) value: f64,
    /// Ours divided by theirs.
    pub(super) ratio: f64,
}

impl Row {
    /// Rates grow as things get better; times and sizes shrink.
    pub(super) fn more_is_better(&self) -> bool {
        self.unit.ends_with("/s")
    }

    /// The same thing, whatever it is set against; a bench prints a row for each baseline.
    pub(super) fn measures_the_same_as(&self, other: &Self) -> bool {
        self.area == other.area && self.name == other.name
    }

    pub(super) fn to_json(&self) -> Value {
        let mut value = json!({ "area": self.area, "name": self.name, "value": self.value, "unit": self.unit });
        if let Some(Baseline { name, value: theirs, ratio }) = &self.baseline {
            value["baseline"] = json!({ "name": name, "value": theirs, "ratio": ratio });
        }
        value
    }

    pub(super) fn from_json(value: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("not a row");
        let float = |value: &Value| value.as_f64().context("not a row");
        let baseline = match &value["baseline"] {
            Value::Null => None,
            theirs => Some(Baseline {
                name: text(&theirs["name"])?,
                value: float(&theirs["value"])?,
                ratio: float(&theirs["ratio"])?,
            }),
        };
        Ok(Self {
            area: text(&value["area"])?,
            name: text(&value["name"])?,
            value: float(&value["value"])?,
            unit: text(&value["unit"])?,
            baseline,
        })
    }
}

/// `None` for a line that is not a row; an error for a row nobody can read.
pub(super) fn parse(line: &str) -> Option<Result<Row>> {
    let columns: Vec<&str> = line.strip_prefix("ROW\t")?.split('\t').map(str::trim).collect();
    Some(row(&columns))
}

fn row(columns: &[&str]) -> Result<Row> {
    let [area, name, value, unit, baseline @ ..] = columns else { bail!("a row has at least five columns") };
    let baseline = match baseline {
        [] | ["" | "-", ..] => None,
        [name, value, ratio] => Some(Baseline { name: (*name).to_owned(), value: float(value)?, ratio: float(ratio)? }),
        _ => bail!("a row with a baseline has eight columns"),
    };
    Ok(Row {
        area: (*area).to_owned(),
        name: (*name).to_owned(),
        value: float(value)?,
        unit: (*unit).to_owned(),
        baseline,
    })
}

fn float(text: &str) -> Result<f64> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.with_context(|| format!("`{text}` is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "ROW\tmetrics\trecord\t4.5\tns\tprometheus-client\t12\t0.375";

    #[test]
    fn a_row_has_a_value_and_may_have_a_baseline() {
        let row = parse(LINE).unwrap().unwrap();
        assert_eq!((row.area.as_str(), row.value, row.baseline.as_ref().unwrap().ratio), ("metrics", 4.5, 0.375));
        assert!(!row.more_is_better());
        for line in ["ROW\tq\tclaim\t1\tjobs/s", "ROW\tq\tclaim\t1\tjobs/s\t\t\t", "ROW\tq\tclaim\t1\tjobs/s\t-\t-\t-"]
        {
            let row = parse(line).unwrap().unwrap();
            assert!(row.baseline.is_none() && row.more_is_better(), "{line}");
        }
    }

    #[test]
    fn other_lines_are_not_rows_and_broken_rows_are_errors() {
        assert!(parse("ROWS of seats").is_none());
        for line in ["ROW\tq\tclaim\t1", "ROW\tq\tclaim\tfast\tms", "ROW\tq\tclaim\tNaN\tms", "ROW\tq\tc\t1\tms\tx\t1"]
        {
            assert!(parse(line).unwrap().is_err(), "{line}");
        }
    }

    #[test]
    fn a_kept_row_reads_back_the_same() {
        for line in [LINE, "ROW\tq\tclaim\t1\tjobs/s"] {
            let row = parse(line).unwrap().unwrap();
            assert_eq!(Row::from_json(&row.to_json()).unwrap(), row);
        }
    }
}
