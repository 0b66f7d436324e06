//! The text formats: families, and samples with their labels.

use std::fmt::{Display, Write};

use super::cells::{BOUNDS, bound};
use super::format::Format;
use super::status::{CoreStatus, Status, TimesStatus};

/// Names and values.
pub(super) type Labels<'a> = &'a [(&'a str, &'a dyn Display)];

/// A text that is being written.
pub(super) struct Exposition {
    out: String,
    format: Format,
}

impl Exposition {
    /// With nothing in it.
    pub(super) fn new(format: Format) -> Self {
        Exposition { out: String::with_capacity(32 << 10), format }
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    /// Begins a family; `name` without `annulus_` and `_total`.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        // The old format names what the samples are called.
        let suffix = match (self.format, kind) {
            (Format::Prometheus, "counter") => "_total",
            (Format::Prometheus, "info") => "_info",
            _ => "",
        };
        let kind = if self.format == Format::Prometheus && kind == "info" { "gauge" } else { kind };
        let prefix = prefix_of(name);
        self.line(format_args!("# HELP {prefix}{name}{suffix} {help}"));
        self.line(format_args!("# TYPE {prefix}{name}{suffix} {kind}"));
        if self.format == Format::OpenMetrics {
            for unit in ["seconds", "bytes"] {
                if name.ends_with(&format!("_{unit}")) {
                    self.line(format_args!("# UNIT {prefix}{name} {unit}"));
                }
            }
        }
    }

    fn line(&mut self, line: impl Display) {
        // A String takes all that it is given.
        let _ = writeln!(self.out, "{line}");
    }

    /// One sample; `name` as the sample is called.
    pub(super) fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.out.push_str(prefix_of(name));
        self.out.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let value = value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.out, "{}{label}=\"{value}\"", if at == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    /// A family of one gauge.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// A family of one counter.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(&format!("{name}_total"), &[], value);
    }

    /// A histogram.
    pub(super) fn histogram(&mut self, name: &str, help: &str, times: &TimesStatus) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut sum = 0;
        for at in 0..BOUNDS {
            sum += times.counts.get(at).copied().unwrap_or(0);
            self.sample(&bucket, &[("le", &bound(at))], sum);
        }
        self.sample(&bucket, &[("le", &"+Inf")], times.count());
        self.sample(&format!("{name}_sum"), &[], times.sum);
        self.sample(&format!("{name}_count"), &[], times.count());
    }

    /// A family with a sample for each core, of each of `values`.
    pub(super) fn per_core<'a>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        status: &'a Status,
        samples: impl Fn(&'a CoreStatus) -> Vec<(Option<(&'a str, &'a str)>, f64)>,
    ) {
        self.family(name, kind, help);
        let sample = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        for core in &status.cores {
            for (label, value) in samples(core) {
                let mut labels: Vec<(&str, &dyn Display)> =
                    vec![("core", &core.core), ("cpu", &core.cpu), ("node", &core.node)];
                if let Some((label, value)) = &label {
                    labels.push((label, value));
                }
                self.sample(&sample, &labels, value);
            }
        }
    }
}

/// Metrics that every process has keep their usual names.
fn prefix_of(name: &str) -> &'static str {
    if name.starts_with("process_") { "" } else { "annulus_" }
}
