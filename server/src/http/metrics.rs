//! What `/metrics` shows: requests by route and status, their durations, and how the server stands.

use std::sync::Mutex;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What a request is counted under; the route is a pattern, so that there are only so many.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: &'static str,
}

type Histograms = Family<RouteLabel, Histogram, fn() -> Histogram>;

/// The counters of one server.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Labels, Counter>,
    durations: Histograms,
    in_flight: Gauge,
    log_position: Gauge,
    views_position: Gauge,
    waiting: Gauge,
    batches: Gauge,
    appends: Gauge,
    stale: Gauge,
    sealed_position: Gauge,
    live_streams: Gauge,
}

/// How log and views stand at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub log_position: u64,
    pub views_position: u64,
    /// Appends that wait.
    pub waiting: u64,
    /// Batches written since the start.
    pub batches: u64,
    /// Appends in them.
    pub appends: u64,
    /// Appends refused since what they rest on had changed.
    pub stale: u64,
    /// The last event that is known to be sealed.
    pub sealed_position: u64,
    /// Live streams and exports of the log that are open.
    pub live_streams: u64,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("proximity");
        let requests = Family::<Labels, Counter>::default();
        let durations: Histograms =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 14)));
        let in_flight = Gauge::default();
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register("http_request_seconds", "Time to answer", durations.clone());
        registry.register("http_requests_in_flight", "Being worked on", in_flight.clone());
        let mut gauge = |name, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let log_position = gauge("log_position", "The last event of the log");
        let views_position = gauge("views_position", "The last event that the views hold");
        let waiting = gauge("appends_waiting", "Appends that wait to be written");
        let batches = gauge("append_batches", "Batches written since the start");
        let appends = gauge("appends", "Appends written since the start");
        let stale = gauge(
            "appends_stale",
            "Appends refused since the start because what they rest on had changed; most are decided anew",
        );
        let sealed_position = gauge("sealed_position", "The last event that is sealed");
        let live_streams =
            gauge("live_streams", "Live streams and exports of the log that are open");
        Self {
            registry: Mutex::new(registry),
            requests,
            durations,
            in_flight,
            log_position,
            views_position,
            waiting,
            batches,
            appends,
            stale,
            sealed_position,
            live_streams,
        }
    }

    /// Sets what is looked up when it is asked for.
    pub fn set(&self, figures: Figures) {
        let number = |figure: u64| i64::try_from(figure).unwrap_or(i64::MAX);
        self.log_position.set(number(figures.log_position));
        self.views_position.set(number(figures.views_position));
        self.waiting.set(number(figures.waiting));
        self.batches.set(number(figures.batches));
        self.appends.set(number(figures.appends));
        self.stale.set(number(figures.stale));
        self.sealed_position.set(number(figures.sealed_position));
        self.live_streams.set(number(figures.live_streams));
    }

    /// Counts a request in; it is counted out when the guard is dropped.
    pub fn enter(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Requests that are being worked on.
    pub fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    /// Counts an answer.
    pub fn answered(&self, route: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&Labels { route, status }).inc();
        self.durations.get_or_create(&RouteLabel { route }).observe(took.as_secs_f64());
    }

    /// The text format of OpenMetrics.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.lock())?;
        Ok(text)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// One request that is being worked on.
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
