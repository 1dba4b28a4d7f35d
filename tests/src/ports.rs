//! Ports for servers that are started again: nobody else can get one while its server is away.

use std::fs::{File, TryLockError};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Above the ports that a lab's applications get, below those that the kernel gives to outgoing
/// connections and to listeners on port 0 (`net.ipv4.ip_local_port_range`, from 32768 on).
const FIRST: u16 = 30_000;
const COUNT: u16 = 2_700;

/// A port that is this test's until it is dropped, among all tests of this machine.
///
/// A port that was only found free may be a stranger's connection by the time a killed server
/// is started on it again.
pub struct Port {
    pub number: u16,
    _lock: File,
}

impl Port {
    /// The next port that no other test has and nobody listens on.
    pub fn claim() -> Self {
        static TRIED: AtomicU16 = AtomicU16::new(0);
        let folder = std::env::temp_dir().join("proximity-test-ports");
        std::fs::create_dir_all(&folder).unwrap();
        // Each process begins elsewhere, so that parallel ones hardly meet.
        let begin = std::process::id().wrapping_mul(7_919) % u32::from(COUNT);
        let begin = u16::try_from(begin).unwrap();
        for _ in 0..COUNT {
            let tried = TRIED.fetch_add(1, Ordering::Relaxed) % COUNT;
            let number = FIRST + (begin + tried) % COUNT;
            let path = folder.join(number.to_string());
            // Another user's lock file is another user's port.
            let Ok(lock) = File::options().create(true).append(true).open(&path) else { continue };
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => panic!("{}: {error}", path.display()),
            }
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no port from {FIRST} on is free: {COUNT} were tried");
    }
}
