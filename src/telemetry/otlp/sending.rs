//! The task that sends spans.

use std::mem;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::encoding::Encoder;
use super::outage::Outage;
use super::proto::ExportTraceServiceRequest;
use crate::trail::{Span, Spans};

/// The most spans of a batch.
const MOST: usize = 512;

/// How long the first of a batch waits for others.
const GATHERING: Duration = Duration::from_secs(1);

/// How often a batch is sent before it is given up.
const ATTEMPTS: u32 = 5;

/// The wait after the first attempt; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Sends spans, a batch at a time.
pub(super) struct Sending {
    spans: Spans,
    client: Client,
    encoder: Encoder,
    outage: Outage,
    gathered: Vec<Span>,
}

/// A batch on its way.
struct Batch {
    message: ExportTraceServiceRequest,
    count: u64,
}

impl Sending {
    pub(super) fn new(spans: Spans, (client, encoder, outage): (Client, Encoder, Outage)) -> Self {
        Self { spans, client, encoder, outage, gathered: Vec::new() }
    }

    /// Sends what comes until `finish` is cancelled, then what there is.
    pub(super) async fn run(mut self, finish: CancellationToken) {
        let mut left = None;
        // What was gathered until then stays.
        while left.is_none() && finish.run_until_cancelled(self.gather()).await == Some(true) {
            let batch = self.batch();
            left = self.deliver(batch, &finish).await;
        }
        self.finish(left).await;
    }

    /// Waits for a batch; whether there may be more.
    async fn gather(&mut self) -> bool {
        if !self.spans.take(&mut self.gathered, MOST).await {
            return false;
        }
        let until = Instant::now() + GATHERING;
        while self.gathered.len() < MOST {
            let room = MOST - self.gathered.len();
            match timeout_at(until, self.spans.take(&mut self.gathered, room)).await {
                Ok(true) => {}
                Ok(false) | Err(_) => break,
            }
        }
        true
    }

    fn batch(&mut self) -> Batch {
        let spans = mem::take(&mut self.gathered);
        let count = spans.len() as u64;
        Batch { message: self.encoder.message(spans), count }
    }

    /// Sends a batch until it is taken or given up; it comes back where `finish` was cancelled before.
    async fn deliver(&mut self, batch: Batch, finish: &CancellationToken) -> Option<Batch> {
        let mut wait = FIRST_WAIT;
        for attempt in 1..=ATTEMPTS {
            match self.attempt(&batch).await {
                None => return None,
                Some(true) if attempt < ATTEMPTS => {}
                Some(_) => break,
            }
            if finish.run_until_cancelled(sleep(wait)).await.is_none() {
                return Some(batch);
            }
            wait *= 2;
        }
        self.spans.failed(batch.count);
        None
    }

    /// Sends a batch once; where it was not taken, whether it may be another time.
    async fn attempt(&mut self, batch: &Batch) -> Option<bool> {
        match self.client.send(&batch.message).await {
            Ok(rejected) => {
                let rejected = rejected.unwrap_or_default();
                let count = u64::try_from(rejected.rejected_spans).unwrap_or_default();
                self.spans.sent(batch.count, count);
                if count > 0 {
                    self.outage.rejected(count, &rejected.error_message);
                }
                self.outage.passed(self.spans.report());
                None
            }
            Err(refused) => {
                self.outage.failed(&refused.cause, self.spans.report());
                Some(refused.may_pass)
            }
        }
    }

    /// Sends what there is, `first` at first, each batch once. After one that is not taken, all are dropped.
    async fn finish(&mut self, first: Option<Batch>) {
        self.spans.close();
        let mut next = first;
        let mut is_taken = true;
        loop {
            let room = MOST.saturating_sub(self.gathered.len());
            let batch = match next.take() {
                Some(batch) => batch,
                None if self.spans.take(&mut self.gathered, room).await => self.batch(),
                None if self.gathered.is_empty() => return,
                None => self.batch(),
            };
            is_taken = is_taken && self.attempt(&batch).await.is_none();
            if !is_taken {
                self.spans.failed(batch.count);
            }
        }
    }
}
