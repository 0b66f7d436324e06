//! Whether two measurements agree: who is apart both times must stand in the same order both times.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// How two measurements of the same work compare, over all pairs of contestants of each workload.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Pairs that both measured, with intervals.
    pub pairs: usize,
    /// Pairs whose intervals do not overlap in either measurement.
    pub apart: usize,
    /// Those of them that stand in the other order the second time: `WORK: A, B`.
    pub turned: Vec<String>,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pair in &self.turned {
            writeln!(f, "  the other way round the second time: {pair}")?;
        }
        let turned = self.turned.len();
        write!(f, "{} pairs, {} apart both times, {turned} of them in another order", self.pairs, self.apart)
    }
}

/// Compares two files that `--json` wrote.
///
/// # Errors
/// There is no pair of contestants with intervals in both: different workloads, or fewer than 6 rounds.
pub fn agreement(first: &Value, second: &Value) -> Result<Agreement, String> {
    let mut found = Agreement::default();
    let second = intervals(second);
    for (work, first) in intervals(first) {
        let Some(second) = second.get(work) else { continue };
        let names: Vec<_> = first.keys().filter(|name| second.contains_key(*name)).collect();
        for (i, a) in names.iter().enumerate() {
            for b in &names[i + 1..] {
                found.pairs += 1;
                let (Some(then), Some(now)) = (below(&first, a, b), below(second, a, b)) else { continue };
                found.apart += 1;
                if then != now {
                    found.turned.push(format!("{work}: {a}, {b}"));
                }
            }
        }
    }
    if found.pairs == 0 {
        return Err("the two have no two contestants of one workload, with intervals, in common".into());
    }
    Ok(found)
}

type Intervals<'a> = BTreeMap<&'a str, (f64, f64)>;

/// By workload and contestant.
fn intervals(results: &Value) -> BTreeMap<&str, Intervals<'_>> {
    let works = results["workloads"].as_array().into_iter().flatten();
    works.filter_map(|work| Some((work["name"].as_str()?, of_work(work)))).collect()
}

fn of_work(work: &Value) -> Intervals<'_> {
    let interval = |who: &Value| {
        let ends = &who["ratio_interval_95"];
        Some((ends[0].as_f64()?, ends[1].as_f64()?))
    };
    let contestants = work["contestants"].as_array().into_iter().flatten();
    contestants.filter_map(|who| Some((who["name"].as_str()?, interval(who)?))).collect()
}

/// Whether `a` is wholly below `b`, or wholly above it; nothing if they overlap.
fn below(of: &Intervals<'_>, a: &str, b: &str) -> Option<bool> {
    let (a, b) = (of[a], of[b]);
    if a.1 < b.0 {
        Some(true)
    } else if b.1 < a.0 {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn results(of: &[(&str, Option<(f64, f64)>)]) -> Value {
        let contestants: Vec<_> = of
            .iter()
            .map(|(name, ends)| json!({ "name": name, "ratio_interval_95": ends.map(|(a, b)| [a, b]) }))
            .collect();
        json!({ "workloads": [{ "name": "hello-1k", "contestants": contestants }] })
    }

    #[test]
    fn only_pairs_that_are_apart_both_times_can_turn() {
        let first = results(&[
            ("bare", Some((1.0, 1.0))),
            ("us", Some((1.1, 1.2))),
            ("them", Some((1.3, 1.4))),
            ("failed", None),
        ]);
        let second = results(&[
            ("them", Some((1.05, 1.1))),
            ("us", Some((1.15, 1.2))),
            ("bare", Some((1.0, 1.1))),
            ("failed", Some((2.0, 3.0))),
        ]);
        let same = agreement(&first, &first).unwrap();
        assert_eq!((same.pairs, same.apart, same.turned.len()), (3, 3, 0));
        let found = agreement(&first, &second).unwrap();
        assert_eq!((found.pairs, found.apart), (3, 2));
        assert_eq!(found.turned, ["hello-1k: them, us"]);
        assert!(found.to_string().contains("1 of them in another order"), "{found}");
    }

    #[test]
    fn nothing_in_common_is_an_error() {
        let one = results(&[("bare", Some((1.0, 1.0)))]);
        assert!(agreement(&one, &json!({})).is_err());
        assert!(agreement(&one, &one).is_err());
    }
}
