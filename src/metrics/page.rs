//! One page of metrics while it is made.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily};

use super::names::{Described, Kind};
use crate::tally::{BOUNDED, DurationsReport, bounds};

/// The ends of the buckets of numbers of entries.
const SIZES: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// What there is to tell, by name and by the values of labels.
#[derive(Default)]
pub(super) struct Page(BTreeMap<&'static str, Family>);

struct Family {
    name: Described,
    series: BTreeMap<Vec<String>, Sample>,
}

enum Sample {
    Number(f64),
    Histogram { buckets: Vec<(f64, u64)>, count: u64, sum: f64 },
}

/// How many of the buckets of durations are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    /// All of them.
    Fine,
    /// Every second.
    Coarse,
}

impl Page {
    /// Tells a number.
    pub(super) fn set(&mut self, name: &Described, labels: &[&str], value: f64) {
        self.put(name, labels, Sample::Number(value));
    }

    /// Adds to a number that may have been told already.
    pub(super) fn add(&mut self, name: &Described, labels: &[&str], value: f64) {
        let sample = self.family(name).series.entry(owned(labels)).or_insert(Sample::Number(0.0));
        if let Sample::Number(sum) = sample {
            *sum += value;
        }
    }

    /// Tells durations.
    pub(super) fn durations(
        &mut self,
        name: &Described,
        labels: &[&str],
        (report, grain): (&DurationsReport, Grain),
    ) {
        let mut before = 0;
        let ends = bounds().map(|end| end.as_secs_f64()).into_iter();
        let all = ends.zip(report.buckets).map(|(end, count)| {
            before += count;
            (end, before)
        });
        let all: Vec<_> = all.collect();
        let step = match grain {
            Grain::Fine => 1,
            Grain::Coarse => 2,
        };
        // The last bound is always one of them.
        let buckets = all.into_iter().skip((BOUNDED - 1) % step).step_by(step).collect();
        let (count, sum) = (report.count(), report.total.as_secs_f64());
        self.put(name, labels, Sample::Histogram { buckets, count, sum });
    }

    /// Tells numbers of entries with how often there were so many, and of others how many there were and
    /// their sum, which were more than any bucket has.
    pub(super) fn sizes(
        &mut self,
        name: &Described,
        labels: &[&str],
        (sizes, beyond): (&BTreeMap<u64, u64>, (u64, u64)),
    ) {
        let up_to = |end: u64| sizes.range(..=end).map(|(_, count)| count).sum();
        let buckets = SIZES.iter().map(|end| (float(*end), up_to(*end))).collect();
        let sum = sizes.iter().map(|(size, count)| size.saturating_mul(*count)).sum::<u64>();
        let (count, sum) = (up_to(u64::MAX) + beyond.0, float(sum.saturating_add(beyond.1)));
        self.put(name, labels, Sample::Histogram { buckets, count, sum });
    }

    fn put(&mut self, name: &Described, labels: &[&str], sample: Sample) {
        self.family(name).series.insert(owned(labels), sample);
    }

    fn family(&mut self, name: &Described) -> &mut Family {
        let new = || Family { name: *name, series: BTreeMap::new() };
        self.0.entry(name.name).or_insert_with(new)
    }

    /// The page as the library takes it.
    pub(super) fn families(self) -> Vec<MetricFamily> {
        self.0.into_values().map(Family::into_proto).collect()
    }
}

fn owned(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

/// A count as the format has it.
#[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^52")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// What is told of a metric before its series, also where there are none.
pub(super) fn head(text: &mut String, name: &Described) {
    let Described { name, kind, help, .. } = name;
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name()).ok();
}

impl Family {
    fn into_proto(self) -> MetricFamily {
        let Self { name, series } = self;
        let mut family = MetricFamily::default();
        family.set_name(name.name.to_owned());
        family.set_help(name.help.to_owned());
        family.set_field_type(name.kind.proto());
        let metric = |(labels, sample): (Vec<String>, Sample)| {
            let pairs = name.labels.iter().zip(labels).map(|(label, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*label).to_owned());
                pair.set_value(value);
                pair
            });
            let mut metric = Metric::from_label(pairs.collect());
            sample.fill(&mut metric, name.kind);
            metric
        };
        family.set_metric(series.into_iter().map(metric).collect());
        family
    }
}

impl Sample {
    fn fill(self, metric: &mut Metric, kind: Kind) {
        match self {
            Self::Number(value) if kind == Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Self::Number(value) => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            Self::Histogram { buckets, count, sum } => {
                let bucket = |(end, count)| {
                    let mut bucket = Bucket::default();
                    bucket.set_upper_bound(end);
                    bucket.set_cumulative_count(count);
                    bucket
                };
                let mut histogram = Histogram::default();
                histogram.set_bucket(buckets.into_iter().map(bucket).collect());
                histogram.set_sample_count(count);
                histogram.set_sample_sum(sum);
                metric.set_histogram(histogram);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::TextEncoder;

    use super::*;
    use crate::metrics::names;

    fn text(fill: impl FnOnce(&mut Page)) -> String {
        let mut page = Page::default();
        fill(&mut page);
        TextEncoder::new().encode_to_string(&page.families()).unwrap()
    }

    #[test]
    fn durations_are_told_by_as_many_buckets_as_are_wanted() {
        let mut report = DurationsReport { total: Duration::from_millis(1), ..Default::default() };
        (report.buckets[0], report.buckets[1], report.buckets[BOUNDED]) = (1, 1, 1);
        for (grain, first) in [(Grain::Fine, "0.000016\"} 1"), (Grain::Coarse, "0.000032\"} 2")] {
            let name = &names::GRPC_CALL_DURATION_SECONDS;
            let text = text(|page| page.durations(name, &["m"], (&report, grain)));
            let buckets: Vec<&str> =
                text.lines().filter(|line| line.contains("_bucket{")).collect();
            assert!(buckets[0].ends_with(first), "{text}");
            assert!(buckets[buckets.len() - 2].ends_with("le=\"33.554432\"} 2"), "{text}");
            assert!(buckets.last().unwrap().ends_with("le=\"+Inf\"} 3"), "{text}");
            assert!(text.contains("_sum{method=\"m\"} 0.001\n"), "{text}");
        }
    }

    #[test]
    fn sizes_beyond_every_bucket_are_counted_too() {
        let sizes = BTreeMap::from([(1, 2), (3, 1), (1000, 1)]);
        let name = &names::INFERENCE_BATCH_SIZE;
        let text = text(|page| page.sizes(name, &["m", "1"], (&sizes, (2, 500))));
        let bucket = "onward_inference_batch_size_bucket{model=\"m\",version=\"1\",le=";
        for line in [
            format!("{bucket}\"2\"}} 2\n"),
            format!("{bucket}\"4\"}} 3\n"),
            format!("{bucket}\"256\"}} 3\n"),
            format!("{bucket}\"+Inf\"}} 6\n"),
            "onward_inference_batch_size_sum{model=\"m\",version=\"1\"} 1505\n".to_owned(),
        ] {
            assert!(text.contains(&line), "no {line} in {text}");
        }
    }

    #[test]
    fn numbers_of_the_same_labels_can_be_added() {
        let name = &names::INFERENCE_IN_FLIGHT;
        let text = text(|page| {
            page.add(name, &["m\"", "1"], 1.0);
            page.add(name, &["m\"", "1"], 2.0);
        });
        assert!(text.ends_with("onward_inference_in_flight{model=\"m\\\"\",version=\"1\"} 3\n"));
    }
}
