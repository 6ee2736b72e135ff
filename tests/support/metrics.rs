//! Reading `/metrics`.

use crate::http;

/// One scrape.
#[derive(Clone, Debug)]
pub struct Scrape(String);

impl Scrape {
    /// Scrapes `address` (`host:port`).
    ///
    /// # Panics
    /// When that fails.
    pub async fn of(address: &str) -> Self {
        let answer = http::get(address, "/metrics").await;
        let answer = answer.unwrap_or_else(|e| panic!("metrics of {address}: {e}"));
        assert!(
            answer.status.is_success(),
            "metrics of {address}: {}",
            answer.status
        );
        Self(answer.body)
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The value of a series that has at least these labels, if it is there.
    #[must_use]
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\""))
            .collect();
        self.0.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(labelled) => labelled.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            let has = |wanted: &String| labels.split(',').any(|label| label == wanted);
            if !wanted.iter().all(has) {
                return None;
            }
            value.split(' ').next()?.parse().ok()
        })
    }

    /// As [`Scrape::find`]; a counter that never counted is zero.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or(0.0)
    }

    /// The whole number in a counter with an `outcome`.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters are small and whole"
    )]
    pub fn outcome(&self, name: &str, outcome: &str) -> u64 {
        self.value(name, &[("outcome", outcome)]) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_name_and_labels() {
        let scrape = Scrape("# TYPE a counter\na_total{outcome=\"x\",role=\"y\"} 3\nab 7\na 1.5\n".into());
        assert_eq!(scrape.find("a_total", &[("outcome", "x")]), Some(3.0));
        assert_eq!(scrape.find("a_total", &[("outcome", "z")]), None);
        assert_eq!(scrape.find("a", &[]), Some(1.5));
        assert_eq!(scrape.outcome("a_total", "x"), 3);
    }
}
