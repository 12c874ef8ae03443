//! Networks that break off.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Stands between a client and a server, and cuts every connection once so many bytes have come back.
pub(super) struct Cutter {
    pub(super) address: String,
    pub(super) cuts: Arc<AtomicUsize>,
    pub(super) asked: Arc<Mutex<String>>,
}

impl Cutter {
    pub(super) fn before(server: &str, limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (cuts, asked) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<String>>::default());
        let (counted, heard) = (Arc::clone(&cuts), Arc::clone(&asked));
        let server = server.trim_start_matches("http://").to_owned();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let upstream = TcpStream::connect(&server).unwrap();
                let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                let heard = Arc::clone(&heard);
                thread::spawn(move || {
                    forward(from, to, |bytes| {
                        heard.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
                        true
                    });
                });
                let (counted, mut left) = (Arc::clone(&counted), limit);
                thread::spawn(move || {
                    forward(upstream, client, |bytes| {
                        let goes_on = bytes.len() <= left;
                        left = left.saturating_sub(bytes.len());
                        counted.fetch_add(usize::from(!goes_on), Ordering::SeqCst);
                        goes_on
                    });
                });
            }
        });
        Self { address, cuts, asked }
    }
}

/// Copies until one side ends, or `watch` says that it is enough.
fn forward(mut from: TcpStream, mut to: TcpStream, mut watch: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !watch(&buffer[..count]) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // They may be closed already.
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}
