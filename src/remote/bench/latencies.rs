//! How long requests took.

use std::time::Duration;

/// The widest bar.
const WIDTH: usize = 40;

/// Durations, as they were measured.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    micros: Vec<u32>,
}

impl Latencies {
    pub(super) fn add(&mut self, took: Duration) {
        self.micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    pub(super) fn add_all(&mut self, mut other: Self) {
        self.micros.append(&mut other.micros);
        self.micros.sort_unstable();
    }

    pub(super) fn count(&self) -> usize {
        self.micros.len()
    }

    /// What that share of them did not exceed; `None` where there are none. They have to be sorted, as they
    /// are once they were added up.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let last = self.micros.len().checked_sub(1)?;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a place in a list of measurements"
        )]
        let place = (last as f64 * share).round() as usize;
        let micros = *self.micros.get(place.min(last))?;
        Some(Duration::from_micros(micros.into()))
    }

    /// A bar for each doubling.
    pub(super) fn histogram(&self) -> String {
        let (Some(first), Some(last)) = (self.micros.first(), self.micros.last()) else {
            return String::new();
        };
        let level = |micros: u32| micros.max(1).ilog2();
        let bars: Vec<(u32, usize)> = (level(*first)..=level(*last))
            .map(|wanted| {
                let within = self.micros.iter().filter(|micros| level(**micros) == wanted);
                (wanted, within.count())
            })
            .collect();
        let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(1);
        let bar = |(level, count): &(u32, usize)| {
            let end = 2.0 * f64::from(2_u32.pow(*level)) / 1000.0;
            let bar = "#".repeat((count * WIDTH).div_ceil(most.max(1)));
            format!("  < {end:>9.3} ms {count:>9} {bar}").trim_end().to_owned() + "\n"
        };
        bars.iter().map(bar).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_bars() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.quantile(0.5), latencies.histogram()), (None, String::new()));
        let mut other = Latencies::default();
        (1..=100).for_each(|micros| other.add(Duration::from_micros(micros * 10)));
        latencies.add_all(other);
        assert_eq!(latencies.count(), 100);
        let quantile = |share| latencies.quantile(share).map(|time| time.as_micros());
        assert_eq!(
            (quantile(0.0), quantile(0.99), quantile(1.0)),
            (Some(10), Some(990), Some(1000))
        );
        let histogram = latencies.histogram();
        assert_eq!(histogram.lines().count(), 7);
        assert!(histogram.lines().last().unwrap().ends_with(&"#".repeat(WIDTH)), "{histogram}");
    }
}
