//! A TCP proxy in front of PostgreSQL that cuts connections where it hurts.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What a request may ask for, by a word in its bytes followed by a number; each is done once.
const WORDS: [&str; 4] = ["lose-reply-", "lose-both-", "lose-request-", "swallow-"];

pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    done: Mutex<HashSet<String>>,
    cut: Mutex<Vec<&'static str>>,
    /// Reply bytes that still pass in total, then everything is cut and nothing passes any more.
    budget: AtomicUsize,
    closed: AtomicBool,
}

impl Proxy {
    /// Passes everything on to `server` until told otherwise.
    pub async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { budget: AtomicUsize::new(usize::MAX), ..State::default() });
        let (server, shared) = (server.to_owned(), Arc::clone(&state));
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if shared.closed.load(Ordering::SeqCst) {
                    continue;
                }
                let server = TcpStream::connect(&server).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                tokio::spawn(Arc::clone(&shared).pass(client, server));
            }
        });
        Self { address, state }
    }

    /// Lets `bytes` of replies through, then cuts every connection for ever.
    pub fn cut_after(&self, bytes: usize) {
        self.state.budget.store(bytes, Ordering::SeqCst);
    }

    /// How often each kind of cut was made, in the order of `WORDS`.
    pub fn cuts(&self) -> Vec<(&'static str, usize)> {
        let cut = self.state.cut.lock().unwrap();
        WORDS.iter().map(|word| (*word, cut.iter().filter(|c| c == &word).count())).collect()
    }
}

impl State {
    async fn pass(self: Arc<Self>, client: TcpStream, server: TcpStream) {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let end = Arc::new(Notify::new());
        let lose_reply = Arc::new(AtomicBool::new(false));
        let requests = tokio::spawn(Arc::clone(&self).requests(
            from_client,
            to_server,
            Arc::clone(&end),
            Arc::clone(&lose_reply),
        ));
        let replies =
            tokio::spawn(self.replies(from_server, to_client, Arc::clone(&end), lose_reply));
        end.notified().await;
        // Dropping the halves closes both connections.
        requests.abort();
        replies.abort();
    }

    async fn requests(
        self: Arc<Self>,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        end: Arc<Notify>,
        lose_reply: Arc<AtomicBool>,
    ) {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let word = self.word_in(&buffer[..read]);
            match word {
                Some("lose-request-") => break,
                Some("lose-reply-") => lose_reply.store(true, Ordering::SeqCst),
                Some("swallow-") => {
                    // A black hole: the connection stands, and nothing more is heard on it.
                    std::future::pending::<()>().await;
                }
                _ => {}
            }
            if to.write_all(&buffer[..read]).await.is_err() || word == Some("lose-both-") {
                break;
            }
        }
        end.notify_one();
    }

    async fn replies(
        self: Arc<Self>,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        end: Arc<Notify>,
        lose_reply: Arc<AtomicBool>,
    ) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if lose_reply.load(Ordering::SeqCst) || !self.may_pass(read) {
                break;
            }
            if to.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        end.notify_one();
    }

    fn may_pass(&self, bytes: usize) -> bool {
        let passes = |left: usize| match left {
            usize::MAX => Some(left),
            left => left.checked_sub(bytes),
        };
        if self.budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, passes).is_ok() {
            return true;
        }
        self.closed.store(true, Ordering::SeqCst);
        self.budget.store(0, Ordering::SeqCst);
        false
    }

    /// The first word in a request that was not obeyed yet.
    fn word_in(&self, request: &[u8]) -> Option<&'static str> {
        let text = String::from_utf8_lossy(request);
        for word in WORDS {
            for (at, _) in text.match_indices(word) {
                let number = text[at + word.len()..].split(|c: char| !c.is_ascii_digit()).next()?;
                if self.done.lock().unwrap().insert(format!("{word}{number}")) {
                    self.cut.lock().unwrap().push(word);
                    return Some(word);
                }
            }
        }
        None
    }
}
