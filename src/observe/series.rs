//! Series that are found once and then counted by position: no lock and no hash on a request's way.
//!
//! A [`Family`] holds all series of one metric. It looks a series up by its whole list of label values, because the vectors of the
//! `prometheus` crate tell series apart by a hash of the values run together, in which upstream `api` with instance `1host:80` and
//! upstream `api1` with instance `host:80` are one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prometheus::core::{Collector, Desc, Metric};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

use super::names::{self, Kind};

/// A kind of series that can be made from a metric's description. The names are constants of [`names`], and a test makes every one of
/// them: that they are well formed is no matter of input.
pub(super) trait Series: Metric + 'static {
    const TYPE: MetricType;

    fn make(metric: &names::Metric, labels: &[&str]) -> prometheus::Result<Self>;
}

impl Series for IntCounter {
    const TYPE: MetricType = MetricType::COUNTER;

    fn make(metric: &names::Metric, labels: &[&str]) -> prometheus::Result<Self> {
        IntCounter::with_opts(options(metric, labels))
    }
}

impl Series for IntGauge {
    const TYPE: MetricType = MetricType::GAUGE;

    fn make(metric: &names::Metric, labels: &[&str]) -> prometheus::Result<Self> {
        IntGauge::with_opts(options(metric, labels))
    }
}

impl Series for Histogram {
    const TYPE: MetricType = MetricType::HISTOGRAM;

    fn make(metric: &names::Metric, labels: &[&str]) -> prometheus::Result<Self> {
        let bounds = if let Kind::Histogram(bounds) = metric.kind { bounds } else { &[] };
        Histogram::with_opts(HistogramOpts { common_opts: options(metric, labels), buckets: bounds.to_vec() })
    }
}

fn options(metric: &names::Metric, labels: &[&str]) -> Opts {
    debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
    metric
        .labels
        .iter()
        .zip(labels)
        .fold(Opts::new(metric.name, metric.help), |opts, (name, value)| opts.const_label(*name, *value))
}

type Children<M> = BTreeMap<Vec<String>, M>;

/// All series of one metric.
#[derive(Clone)]
pub(super) struct Family<M> {
    metric: &'static names::Metric,
    desc: Desc,
    children: Arc<Mutex<Children<M>>>,
}

/// Where families are shown.
pub(super) trait Shows {
    /// Shows a family from now on.
    fn show<M: Series>(&self, family: &Family<M>) -> prometheus::Result<()>;
}

impl Shows for Registry {
    fn show<M: Series>(&self, family: &Family<M>) -> prometheus::Result<()> {
        self.register(Box::new(family.clone()))
    }
}

/// A registry that can forget series of what a plan no longer names.
#[derive(Default)]
pub(super) struct Shown {
    registry: Registry,
    families: Mutex<Vec<Box<dyn Forgets>>>,
}

/// What can forget some of its series.
trait Forgets: Send + Sync {
    fn retain(&self, keep: &dyn Fn(&str, &str) -> bool);
}

impl Shown {
    /// What is shown.
    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// Shows a collector that is not a family of ours.
    pub(super) fn register(&self, collector: Box<dyn Collector>) -> prometheus::Result<()> {
        self.registry.register(collector)
    }

    /// Forgets every series that has a label, given by name and value, that `keep` does not want.
    pub(super) fn retain(&self, keep: &dyn Fn(&str, &str) -> bool) {
        for family in self.families.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            family.retain(keep);
        }
    }
}

impl Shows for Shown {
    fn show<M: Series>(&self, family: &Family<M>) -> prometheus::Result<()> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(family.clone()));
        self.registry.register(Box::new(family.clone()))
    }
}

impl<M: Series> Forgets for Family<M> {
    fn retain(&self, keep: &dyn Fn(&str, &str) -> bool) {
        let wanted =
            |values: &[String]| self.metric.labels.iter().zip(values).all(|(name, value)| keep(name, value));
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|values, _| wanted(values));
    }
}

impl<M: Series> Family<M> {
    /// An empty family, shown by `registry` from now on.
    pub(super) fn new(registry: &impl Shows, metric: &'static names::Metric) -> Self {
        let labels = metric.labels.iter().map(|&label| label.to_owned()).collect();
        let desc = Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, Default::default())
            .expect("the names are constants, well formed");
        let family = Self { metric, desc, children: Arc::default() };
        registry.show(&family).expect("the names are constants, each used for one family");
        family
    }

    /// The series with these label values, made at 0 when it is not there. Locks: not for a request's way.
    pub(super) fn series(&self, labels: &[&str]) -> M {
        self.series_begun(labels, |_| {})
    }

    /// The same, begun by `begin` when it is made.
    pub(super) fn series_begun(&self, labels: &[&str], begin: impl FnOnce(&M)) -> M {
        let key: Vec<String> = labels.iter().map(|&value| value.to_owned()).collect();
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let made = M::make(self.metric, labels).expect("the names are constants, well formed");
            begin(&made);
            made
        };
        children.entry(key).or_insert_with(make).clone()
    }
}

impl<M: Series> Collector for Family<M> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        let mut family = MetricFamily::default();
        family.set_name(self.metric.name.to_owned());
        family.set_help(self.metric.help.to_owned());
        family.set_field_type(M::TYPE);
        family.set_metric(children.values().map(Metric::metric).collect());
        vec![family]
    }
}

/// One counter per status, found by position. Made when first counted: an instance that knows three statuses shows three series.
pub(super) struct Codes {
    family: Family<IntCounter>,
    before: Vec<String>,
    counters: Box<[OnceLock<IntCounter>]>,
}

/// Positions after the statuses 100–599.
const NO_STATUS: usize = 500;
const OTHER_STATUS: usize = 501;

impl Codes {
    /// Counters whose labels are `before` and then the status.
    pub(super) fn new(family: &Family<IntCounter>, before: &[&str]) -> Self {
        Self {
            family: family.clone(),
            before: before.iter().map(|&value| value.to_owned()).collect(),
            counters: (0..=OTHER_STATUS).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The counter of a status; 0 stands for none.
    pub(super) fn of(&self, status: u16) -> &IntCounter {
        let index = match status {
            100..=599 => usize::from(status) - 100,
            0 => NO_STATUS,
            _ => OTHER_STATUS,
        };
        self.counters[index].get_or_init(|| {
            let code = match index {
                NO_STATUS => "none".to_owned(),
                OTHER_STATUS => "other".to_owned(),
                _ => status.to_string(),
            };
            let labels: Vec<&str> = self.before.iter().map(String::as_str).chain([code.as_str()]).collect();
            self.family.series(&labels)
        })
    }
}

/// Series told apart by words of the code. Those named in advance exist at 0 and are found without a lock; another word, which only a
/// change of the code can bring, is counted all the same.
pub(super) struct Words<M, const N: usize> {
    family: Family<M>,
    before: Vec<String>,
    known: Vec<([&'static str; N], M)>,
}

impl<M: Series, const N: usize> Words<M, N> {
    /// Series whose labels are `before` and then one of `words`; the most frequent first.
    pub(super) fn new(family: &Family<M>, before: &[&str], words: &[[&'static str; N]]) -> Self {
        let mut all = Self {
            family: family.clone(),
            before: before.iter().map(|&value| value.to_owned()).collect(),
            known: Vec::new(),
        };
        all.known = words.iter().map(|&words| (words, all.find(words))).collect();
        all
    }

    /// Hands the series of these words to `count`.
    pub(super) fn with(&self, words: [&'static str; N], count: impl FnOnce(&M)) {
        match self.known.iter().find(|(known, _)| *known == words) {
            Some((_, series)) => count(series),
            None => count(&self.find(words)),
        }
    }

    fn find(&self, words: [&'static str; N]) -> M {
        let labels: Vec<&str> = self.before.iter().map(String::as_str).chain(words).collect();
        self.family.series(&labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(registry: &Registry) -> Family<IntCounter> {
        Family::new(registry, &names::UPSTREAM_REQUESTS)
    }

    fn shown(registry: &Registry) -> Vec<(Vec<String>, u64)> {
        let families = registry.gather();
        let metrics = families.iter().flat_map(MetricFamily::get_metric);
        metrics
            .map(|metric| {
                let labels = metric.get_label().iter().map(|pair| pair.value().to_owned()).collect();
                (labels, metric.get_counter().get_value() as u64)
            })
            .collect()
    }

    #[test]
    fn series_whose_values_run_together_alike_are_two() {
        let registry = Registry::new();
        let family = requests(&registry);
        family.series(&["api", "1host:80", "200"]).inc();
        family.series(&["api1", "host:80", "200"]).inc_by(2);
        family.series(&["api", "1host:80", "200"]).inc_by(4);
        let mut counts: Vec<u64> = shown(&registry).into_iter().map(|(_, count)| count).collect();
        counts.sort_unstable();
        assert_eq!(counts, [2, 5]);
    }

    #[test]
    fn each_status_has_its_counter() {
        let registry = Registry::new();
        let codes = Codes::new(&requests(&registry), &["u", "i"]);
        for (status, code) in [
            (0, "none"),
            (1, "other"),
            (99, "other"),
            (100, "100"),
            (200, "200"),
            (599, "599"),
            (600, "other"),
            (u16::MAX, "other"),
        ] {
            let before = codes.of(status).get();
            codes.of(status).inc();
            let wanted = (vec![code.to_owned(), "i".to_owned(), "u".to_owned()], before + 1);
            assert!(shown(&registry).contains(&wanted), "{status} in {:?}", shown(&registry));
        }
        assert_eq!(shown(&registry).len(), 5);
    }

    #[test]
    fn a_word_not_named_in_advance_is_counted() {
        let registry = Registry::new();
        let family = Family::new(&registry, &names::CACHE_STORES);
        let words: Words<IntCounter, 1> = Words::new(&family, &["api"], &[["stored"]]);
        assert_eq!(shown(&registry), [(vec!["api".to_owned(), "stored".to_owned()], 0)]);
        words.with(["stored"], IntCounter::inc);
        words.with(["new-reason"], IntCounter::inc);
        words.with(["new-reason"], IntCounter::inc);
        let counts: Vec<u64> = shown(&registry).into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 1]);
    }
}
