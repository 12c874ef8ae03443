//! Model checks by [loom](https://docs.rs/loom): every interleaving of a few threads.

#![cfg(all(loom, test))]

#[path = "../../../src/lifecycle/resource/flight.rs"]
mod flight;
#[path = "../../../src/model/gate.rs"]
#[expect(dead_code, reason = "not everything of it is checked here")]
mod gate;
mod notify;

use flight::Flight;
use gate::Gate;
use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

/// Every interleaving in which threads are interrupted at most so often: what goes wrong at all goes
/// wrong with few interruptions, and without a bound three threads take minutes.
fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

/// What a version's requests do: if they get in, what serves them is still there.
#[test]
fn nobody_is_inside_when_the_gate_is_drained() {
    model(|| {
        let (gate, freed) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
        let requests: Vec<_> = (0..2)
            .map(|_| {
                let (gate, freed) = (Arc::clone(&gate), Arc::clone(&freed));
                thread::spawn(move || {
                    if gate.enter() {
                        assert!(
                            !freed.load(Ordering::SeqCst),
                            "a request is inside what was freed"
                        );
                        gate.leave();
                    }
                })
            })
            .collect();
        gate.close();
        block_on(gate.drained());
        freed.store(true, Ordering::SeqCst);
        assert!(!gate.enter());
        for request in requests {
            request.join().unwrap();
        }
    });
}

/// Whoever needs what has to be set up once: one does it, and all go on when it is there.
#[test]
fn one_sets_up_and_the_others_wait_for_it() {
    model(|| {
        let flight = Arc::new(Flight::default());
        let (inside, set_up) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let need = |flight: Arc<Flight>, inside: Arc<AtomicBool>, set_up: Arc<AtomicBool>| {
            if flight.begin() {
                assert!(!inside.swap(true, Ordering::SeqCst), "two are at it at once");
                // Another may have landed before.
                set_up.store(true, Ordering::Relaxed);
                inside.store(false, Ordering::SeqCst);
                flight.land();
            }
            block_on(flight.landed());
            assert!(set_up.load(Ordering::Relaxed), "it went on before it was there");
        };
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (flight, inside) = (Arc::clone(&flight), Arc::clone(&inside));
                let set_up = Arc::clone(&set_up);
                thread::spawn(move || need(flight, inside, set_up))
            })
            .collect();
        need(flight, inside, set_up);
        for other in others {
            other.join().unwrap();
        }
    });
}

/// The last to leave wakes who waits, also when it leaves at the moment the wait begins.
#[test]
fn the_wait_for_the_last_always_ends() {
    model(|| {
        let gate = Arc::new(Gate::default());
        assert!(gate.enter());
        let inside = Arc::clone(&gate);
        let request = thread::spawn(move || inside.leave());
        gate.close();
        block_on(gate.drained());
        request.join().unwrap();
    });
}
