//! A second process: this test binary runs itself again, for what one process cannot show.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Chooses what the second process does; it is set by [`Second::start`] only.
const ROLE: &str = "PROXIMITY_TEST_ROLE";
const ARGUMENT: &str = "PROXIMITY_TEST_ARGUMENT";
const READY: &str = "second process: ready";
const RESULT: &str = "second process: result ";

/// A running second process that waits to be told to go.
pub struct Second {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Second {
    /// Starts `role` and waits until it is ready.
    pub fn start(role: &str, argument: &str) -> Self {
        Self::start_with(Command::new(std::env::current_exe().unwrap()), role, argument)
    }

    /// As [`start`](Self::start), with a command that ends in running this binary.
    pub fn start_with(mut command: Command, role: &str, argument: &str) -> Self {
        let mut child = command
            .args(["child::the_second_process", "--exact", "--ignored", "--nocapture"])
            .env(ROLE, role)
            .env(ARGUMENT, argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut this = Self { child, input, output };
        this.line_with(READY);
        this
    }

    /// Lets it begin.
    pub fn go(&mut self) {
        self.input.write_all(b"go\n").unwrap();
        self.input.flush().unwrap();
    }

    /// Waits for what it found.
    pub fn result(mut self) -> serde_json::Value {
        let result = self.line_with(RESULT);
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&result).unwrap()
    }

    /// Ends it without warning, after everything that it said was read.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.output.lines().map(Result::unwrap).collect()
    }

    /// The rest of the next line that contains `mark`.
    fn line_with(&mut self, mark: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).unwrap();
            assert_ne!(read, 0, "the second process ended early: {:?}", self.child.wait());
            if let Some((_, rest)) = line.split_once(mark) {
                return rest.trim().to_owned();
            }
        }
    }
}

/// Tells the first process that this one is ready, and waits for its sign.
pub fn ready() {
    println!("\n{READY}");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    assert_eq!(line, "go\n");
}

#[test]
#[ignore = "started by the tests that need a second process"]
fn the_second_process() {
    let role = std::env::var(ROLE).expect("started by another test only");
    let argument = std::env::var(ARGUMENT).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = runtime.block_on(async {
        match role.as_str() {
            "racers" => crate::races::second_racers(&argument).await,
            "clients" => crate::counting::second_clients(&argument).await,
            "stock" => crate::stock::second_clients(&argument).await,
            "crash" => crate::crash::append_until_killed(&argument).await,
            "full-disk" => crate::full_disk::on_a_small_disk(&argument).await,
            "full-heads" => crate::heads_dir::on_a_full_disk(&argument).await,
            "begin-to-write" => crate::still::begin_to_write(&argument).await,
            other => panic!("no role {other}"),
        }
    });
    println!("\n{RESULT}{result}");
}
