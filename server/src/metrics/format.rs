//! The two text formats that scrapers take.

/// Which format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus' own text format.
    Prometheus,
    /// OpenMetrics, which scrapers ask for by Accept.
    OpenMetrics,
}

impl Format {
    /// The one that `accept`, the field of a request, asks for.
    pub(crate) fn for_accept(accept: &str) -> Self {
        let is_asked_for = accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_it =
                parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
            is_it && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        });
        if is_asked_for { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// The media type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Format::for_accept(prometheus), Format::OpenMetrics);
        for other in ["", "*/*", "text/plain", "application/openmetrics-text;q=0"] {
            assert_eq!(Format::for_accept(other), Format::Prometheus, "{other:?}");
        }
    }
}
