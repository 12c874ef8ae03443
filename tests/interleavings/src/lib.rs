//! Model checks by [loom](https://docs.rs/loom): every interleaving of a few threads.

#![cfg(all(loom, test))]

#[path = "../../../src/lifecycle/resource/flight.rs"]
mod flight;
#[path = "../../../src/model/gate.rs"]
#[expect(dead_code, reason = "not everything of it is checked here")]
mod gate;
mod notify;
#[path = "../../../src/turns.rs"]
#[expect(dead_code, reason = "not everything of it is checked here")]
mod turns;

use std::future::poll_fn;
use std::task::{Context, Poll};

use flight::Flight;
use gate::{Gate, enter_current};
use loom::future::block_on;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use turns::Turns;

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

/// A version with its gate, which is freed once nobody is inside.
#[derive(Default)]
struct Version {
    gate: Gate,
    freed: AtomicBool,
}

/// The flip: who comes while versions are swapped enters one that is there, and who comes after the
/// swap has returned enters the new one.
#[test]
fn a_flip_loses_nobody_and_leads_everybody_on() {
    model(|| {
        let (old, new) = (Arc::new(Version::default()), Arc::new(Version::default()));
        let current = Arc::new(Mutex::new(Arc::clone(&old)));
        let swapped = Arc::new(AtomicBool::new(false));
        let request = {
            let (current, swapped) = (Arc::clone(&current), Arc::clone(&swapped));
            let new = Arc::clone(&new);
            move || {
                let late = swapped.load(Ordering::SeqCst);
                let now = || Some(Arc::clone(&current.lock().unwrap()));
                let enter = |version: Arc<Version>| version.gate.enter().then_some(version);
                let entered = enter_current(now, enter).unwrap();
                assert!(
                    !entered.freed.load(Ordering::SeqCst),
                    "a request is inside what was freed"
                );
                assert!(!late || Arc::ptr_eq(&entered, &new), "the old version has answered late");
                entered.gate.leave();
            }
        };
        let requests = [thread::spawn(request.clone()), thread::spawn(request)];
        *current.lock().unwrap() = new;
        swapped.store(true, Ordering::SeqCst);
        old.gate.close();
        block_on(old.gate.drained());
        old.freed.store(true, Ordering::SeqCst);
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

/// Who is woken sees what was done before, whether it is polled at that moment or not, and by however many it is
/// woken at once; also where it forgets the wakes until one thing was done, and only then looks for the other.
#[test]
fn no_wake_is_missed() {
    for forgets in [false, true] {
        model(move || wake_by_two_threads(forgets));
    }
}

fn wake_by_two_threads(forgets: bool) {
    let done: [Arc<AtomicBool>; 2] = [Arc::default(), Arc::default()];
    let (mut turns, mut threads) = (Turns::default(), Vec::new());
    let mut is_first_done = false;
    let mut step = |context: &mut Context<'_>, forget_wakes: &dyn Fn()| {
        if threads.is_empty() {
            threads.extend(done.clone().map(|done| {
                let waker = context.waker().clone();
                thread::spawn(move || {
                    // What orders this is the wake alone.
                    done.store(true, Ordering::Relaxed);
                    waker.wake();
                })
            }));
        }
        if !is_first_done && done[0].load(Ordering::Relaxed) {
            is_first_done = true;
            if forgets {
                forget_wakes();
            }
        }
        let is_done = done[1].load(Ordering::Relaxed) && is_first_done;
        if is_done { Poll::Ready(()) } else { Poll::Pending }
    };
    let mut task = None;
    block_on(poll_fn(|context| {
        // Those of loom do not know each other for the same.
        let waker = task.get_or_insert_with(|| context.waker().clone());
        turns.poll(&mut step, &mut Context::from_waker(waker))
    }));
    for thread in threads.drain(..) {
        thread.join().unwrap();
    }
}
