//! Requests that share runs.

mod meeting;

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::time::Duration;

use proptest::prelude::*;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::super::backend::RunError;
use super::super::datatype::DataType;
use super::super::metadata::{Dim, Signature, TensorSpec};
use super::super::padding::Padding;
use super::super::request::{InferenceRequest, NamedTensor};
use super::super::tensor::Tensor;
use super::shared::lock;
use super::*;

/// An input of this value makes a run fail, one of the next panic, and one of that after it last.
const POISON: i32 = 1_000_000;

/// Doubles each element of `x`, and sums up each row.
#[derive(Default)]
struct Doubler {
    /// Of each run, its rows.
    runs: Mutex<Vec<usize>>,
    /// Waited for in each run while it is there: once when it begins, and once before it ends.
    door: Mutex<Option<Arc<Barrier>>>,
    /// Whether it answers with one row, whatever it was asked.
    lies: AtomicBool,
    cancelled: AtomicBool,
    /// Whether a run takes some time, however many rows there are.
    is_slow: AtomicBool,
}

impl Doubler {
    fn run(
        &self,
        request: &PreparedRequest,
        control: &RunControl,
    ) -> Result<Vec<Tensor>, RunError> {
        let x = request.inputs()[0].as_ref().unwrap();
        let values = x.as_slice::<i32>().unwrap();
        lock(&self.runs).push(x.shape()[0]);
        let began = Instant::now();
        while self.is_slow.load(Ordering::SeqCst) && began.elapsed() < Duration::from_micros(20) {
            std::hint::spin_loop();
        }
        let door = lock(&self.door).take();
        if let Some(door) = door {
            door.wait();
            door.wait();
        }
        if control.is_cancelled() {
            self.cancelled.store(true, Ordering::SeqCst);
            return Err(RunError::Cancelled);
        }
        if values.contains(&POISON) {
            return Err(RunError::Rejected("poison".to_owned()));
        }
        assert!(!values.contains(&(POISON + 1)), "it panics");
        while values.contains(&(POISON + 2)) {
            if control.is_cancelled() {
                return Err(RunError::Cancelled);
            }
            std::thread::yield_now();
        }
        let doubled = values.iter().map(|value| value * 2).collect();
        let sums = values.chunks(x.shape()[1].max(1)).map(|row| row.iter().sum()).collect();
        let tensor = |shape: Vec<usize>, values: Vec<i32>| Tensor::from_vec(shape, values).unwrap();
        let (doubled, sums) =
            (tensor(x.shape().to_vec(), doubled), tensor(vec![x.shape()[0]], sums));
        let rows = if self.lies.load(Ordering::SeqCst) { 1 } else { x.shape()[0] };
        let outputs = [doubled.row_range(0..rows), sums.row_range(0..rows)];
        Ok(request.outputs().iter().map(|output| outputs[*output].clone()).collect())
    }

    /// Holds up the next run.
    fn hold_up(&self) -> Arc<Barrier> {
        let door = Arc::new(Barrier::new(2));
        *lock(&self.door) = Some(Arc::clone(&door));
        door
    }

    fn rows(&self) -> Vec<usize> {
        lock(&self.runs).clone()
    }
}

struct Shown(Arc<Doubler>);

impl Instance for Shown {
    fn run(
        &mut self,
        request: &PreparedRequest,
        control: &RunControl,
    ) -> Result<Vec<Tensor>, RunError> {
        self.0.run(request, control)
    }
}

fn signature() -> Signature {
    let spec = |name: &str, dims: &[&str]| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Int32,
        shape: Some(dims.iter().map(|dim| Dim::Dynamic((*dim).to_owned())).collect()),
        optional: false,
    };
    let outputs = vec![spec("doubled", &["batch", "length"]), spec("sum", &["batch"])];
    Signature { inputs: vec![spec("x", &["batch", "length"])], outputs }
}

fn request(rows: usize, values: &[i32]) -> PreparedRequest {
    let tensor = Tensor::from_vec(vec![rows, values.len() / rows], values.to_vec()).unwrap();
    let inputs = vec![NamedTensor { name: "x".to_owned(), tensor }];
    PreparedRequest::new(&signature(), InferenceRequest { inputs, outputs: Vec::new() }).unwrap()
}

fn options(max_delay: Duration) -> BatchOptions {
    let max_entries = NonZeroUsize::new(8).unwrap();
    BatchOptions {
        max_entries,
        max_delay,
        padding: Padding::default(),
        without_entries: Vec::new(),
    }
}

/// With one instance. A delay, however short, makes batches as large as they may be.
fn pool(batching: BatchOptions) -> (Arc<InstancePool>, Arc<Doubler>) {
    let doubler = Arc::new(Doubler::default());
    let instances: Vec<Box<dyn Instance>> = vec![Box::new(Shown(Arc::clone(&doubler)))];
    let options = PoolOptions {
        name: "a/1".to_owned(),
        queue_capacity: NonZeroUsize::new(64).unwrap(),
        batched: true,
        batching: Ok(batching),
    };
    let spawner = Spawner::start();
    let watch = Arc::new(RunWatch::start(&spawner));
    let pool = InstancePool::new(&options, instances, (&spawner, &watch));
    (Arc::new(pool), doubler)
}

fn later() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

type Answers = Vec<Result<Vec<Tensor>, InferError>>;

/// Asks all of them while a run is under way, so that they wait together; with these deadlines.
async fn together(
    (pool, doubler): (&Arc<InstancePool>, &Doubler),
    requests: Vec<(PreparedRequest, RunTerms)>,
) -> Answers {
    let door = doubler.hold_up();
    let mut asking = JoinSet::new();
    let ask = |(place, (request, terms)): (usize, (PreparedRequest, RunTerms))| {
        let pool = Arc::clone(pool);
        async move { (place, pool.run(request, terms).await) }
    };
    asking.spawn(ask((0, (request(1, &[0]), later().into()))));
    let inside = Arc::clone(&door);
    tokio::task::spawn_blocking(move || inside.wait()).await.unwrap();
    let count = requests.len();
    for (place, request) in requests.into_iter().enumerate() {
        let before = pool.queue_depth();
        asking.spawn(ask((place + 1, request)));
        while pool.queue_depth() == before {
            tokio::task::yield_now().await;
        }
    }
    tokio::task::spawn_blocking(move || door.wait()).await.unwrap();
    let mut answers: BTreeMap<usize, _> = asking.join_all().await.into_iter().collect();
    assert!(answers.remove(&0).unwrap().is_ok());
    assert_eq!(answers.len(), count);
    answers.into_values().map(|answer| answer.map(|completion| completion.outputs)).collect()
}

fn usual(requests: Vec<PreparedRequest>) -> Vec<(PreparedRequest, RunTerms)> {
    requests.into_iter().map(|request| (request, later().into())).collect()
}

fn alone(request: &PreparedRequest) -> Vec<Tensor> {
    Doubler::default().run(request, &RunControl::default()).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What waits and is to share runs: rows, and a length.
fn shapes() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((1..5_usize, 1..3_usize), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_mix_of_requests_is_answered_as_each_alone(shapes in shapes(), delay in any::<bool>()) {
        let requests: Vec<PreparedRequest> = shapes
            .iter()
            .zip(1..)
            .map(|((rows, length), number)| request(*rows, &vec![number; rows * length]))
            .collect();
        let expected: Vec<_> = requests.iter().map(|request| Ok(alone(request))).collect();
        let delay = if delay { Duration::from_millis(1) } else { Duration::ZERO };
        let (pool, doubler) = pool(options(delay));
        let answers = runtime().block_on(together((&pool, &doubler), usual(requests)));
        prop_assert_eq!(answers, expected);
        let rows = doubler.rows();
        prop_assert!(rows.iter().all(|rows| *rows <= 8), "{:?}", rows);
        prop_assert_eq!(rows.iter().sum::<usize>(), 1 + shapes.iter().map(|(rows, _)| rows).sum::<usize>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_shares_a_run_and_is_counted_once() {
    let (pool, doubler) = pool(options(Duration::from_millis(1)));
    let requests = (1..=6).map(|number| request(1, &[number, -number])).collect();
    let answers = together((&pool, &doubler), usual(requests)).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(doubler.rows(), [1, 6]);
    let sizes: Vec<_> =
        pool.runs().by_size().iter().map(|(size, runs)| (*size, runs.count)).collect();
    assert_eq!((sizes, pool.runs().total().count), (vec![(1, 1), (6, 1)], 2));
    assert_eq!(pool.batching(), BatchingReport::On { max_entries: 8, entries: 8 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_delay_nothing_is_waited_for_and_sizes_are_learned() {
    let (pool, doubler) = pool(options(Duration::ZERO));
    let first = pool.run(request(1, &[1]), later()).await.unwrap();
    assert!(first.timings.queue < Duration::from_secs(1));
    for _ in 0..20 {
        let requests = (1..=20).map(|number| request(1, &[number])).collect();
        let answers = together((&pool, &doubler), usual(requests)).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
    assert!(doubler.rows().iter().any(|rows| *rows > 1), "larger batches were tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_is_that_of_one_request() {
    let (pool, doubler) = pool(options(Duration::from_millis(1)));
    let values = [1, POISON, 2, POISON + 1, 3];
    let requests = values.iter().map(|value| request(1, &[*value])).collect();
    let answers = together((&pool, &doubler), usual(requests)).await;
    for place in [0, 2, 4] {
        assert_eq!(answers[place], Ok(alone(&request(1, &[values[place]]))));
    }
    let rejected = RunError::Rejected("poison".to_owned());
    assert_eq!(answers[1], Err(InferError::Run(rejected)));
    assert!(matches!(answers[3], Err(InferError::Run(RunError::Panicked(_)))), "{answers:?}");
    assert_eq!(doubler.rows(), [1, 5, 1, 1, 1, 1, 1]);
    assert!(matches!(pool.batching(), BatchingReport::On { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_lies_about_batches_gets_none_any_more() {
    let (pool, doubler) = pool(options(Duration::from_millis(1)));
    doubler.lies.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let requests: Vec<_> = (1..=3).map(|number| request(1, &[number])).collect();
        let expected: Vec<_> = requests.iter().map(|request| Ok(alone(request))).collect();
        assert_eq!(together((&pool, &doubler), usual(requests)).await, expected);
    }
    assert_eq!(doubler.rows(), [1, 3, 1, 1, 1, 1, 1, 1, 1]);
    let reason = "it answers a batch of 3 with 1 entries in an output".to_owned();
    assert_eq!(pool.batching(), BatchingReport::Off { reason });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_late_or_gone_is_left_out() {
    let (pool, doubler) = pool(options(Duration::from_millis(1)));
    let door = doubler.hold_up();
    let held = Arc::clone(&pool);
    let first = tokio::spawn(async move { held.run(request(1, &[0]), later()).await });
    let inside = Arc::clone(&door);
    tokio::task::spawn_blocking(move || inside.wait()).await.unwrap();
    let ask = |values: &[i32], deadline| {
        let (pool, request) = (Arc::clone(&pool), request(1, values));
        tokio::spawn(async move { pool.run(request, deadline).await })
    };
    let waiting = [ask(&[1], later()), ask(&[2], later()), ask(&[3], Instant::now())];
    while pool.queue_depth() < 3 {
        tokio::task::yield_now().await;
    }
    let [one, two, three] = waiting;
    assert_eq!(three.await.unwrap().unwrap_err(), InferError::DeadlineExceeded);
    two.abort();
    assert!(two.await.unwrap_err().is_cancelled());
    tokio::task::spawn_blocking(move || door.wait()).await.unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(one.await.unwrap().unwrap().outputs, alone(&request(1, &[1])));
    assert_eq!(doubler.rows(), [1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_run_is_cancelled_once_nobody_wants_it() {
    let (pool, doubler) = pool(options(Duration::from_millis(1)));
    let gate = doubler.hold_up();
    let ask = |value: i32| {
        let (pool, request) = (Arc::clone(&pool), request(1, &[value]));
        tokio::spawn(async move { pool.run(request, later()).await })
    };
    let first = ask(0);
    let inside = Arc::clone(&gate);
    tokio::task::spawn_blocking(move || inside.wait()).await.unwrap();
    let waiting = [ask(1), ask(2)];
    while pool.queue_depth() < 2 {
        tokio::task::yield_now().await;
    }
    // The next run is that of both.
    let second = doubler.hold_up();
    tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
    first.await.unwrap().unwrap();
    let inside = Arc::clone(&second);
    tokio::task::spawn_blocking(move || inside.wait()).await.unwrap();
    for asking in waiting {
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
    }
    tokio::task::spawn_blocking(move || second.wait()).await.unwrap();
    assert_eq!(
        pool.run(request(1, &[5]), later()).await.unwrap().outputs,
        alone(&request(1, &[5]))
    );
    assert!(doubler.cancelled.load(Ordering::SeqCst));
    assert_eq!(doubler.rows(), [1, 2, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_an_end_keeps_only_its_own_request() {
    let (pool, doubler) = pool(options(Duration::from_millis(1)));
    let patience = Instant::now() + Duration::from_secs(3);
    let requests = [1, 2, POISON + 2].map(|value| {
        let deadline = if value > POISON { patience } else { later() };
        (request(1, &[value]), deadline.into())
    });
    let answers = together((&pool, &doubler), requests.to_vec()).await;
    let expected = [1, 2].map(|value| Ok(alone(&request(1, &[value]))));
    assert_eq!(answers[..2], expected);
    assert_eq!(answers[2], Err(InferError::DeadlineExceeded));
    assert_eq!(doubler.rows(), [1, 3, 1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_priority_goes_first() {
    let (pool, doubler) =
        pool(BatchOptions { max_entries: NonZeroUsize::MIN, ..options(Duration::ZERO) });
    let with = |rows: usize, priority| {
        let terms = RunTerms { deadline: later(), priority: std::num::NonZeroU32::new(priority) };
        (request(rows, &vec![0; rows]), terms)
    };
    let requests = vec![with(2, 0), with(3, 7), with(4, 1), with(5, 7)];
    let answers = together((&pool, &doubler), requests).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(doubler.rows(), [1, 4, 3, 5, 2]);
}
