//! A server of a hundred lines that speaks just enough of the protocol to be loaded, and errs on demand.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

/// What goes wrong with every tenth job.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fault {
    None,
    LosesEveryTenth,
    RefusesEveryTenth,
    HandsOutTwiceEveryTenth,
}

/// Listens on a free port until dropped.
pub(super) struct Fake {
    pub(super) address: String,
    stop: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

struct State {
    fault: Fault,
    submitted: u64,
    waiting: VecDeque<Value>,
}

impl Fake {
    pub(super) fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let state = Arc::new(Mutex::new(State { fault, submitted: 0, waiting: VecDeque::new() }));
        let listening = thread::spawn(move || {
            for stream in listener.incoming().take_while(|_| !stopped.load(Ordering::Acquire)) {
                let state = Arc::clone(&state);
                // Ends with its connection.
                thread::spawn(move || serve(&state, BufReader::new(stream.unwrap())));
            }
        });
        Self { address, stop, listening: Some(listening) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(&self.address);
        let _ = self.listening.take().map(JoinHandle::join);
    }
}

fn serve(state: &Mutex<State>, mut stream: BufReader<TcpStream>) {
    while let Ok((head, body)) = request(&mut stream) {
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (status, data) = state.lock().unwrap().answer(path, &body);
        let text = json!({ "success": status < 400, "data": data }).to_string();
        let answer = format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

impl State {
    fn answer(&mut self, path: &str, body: &Value) -> (u16, Value) {
        match path.rsplit('/').next() {
            Some("job") => self.submit(body),
            Some("claim") => (200, json!({ "jobs": self.claim(&body["limit"]), "leaseMs": 10_000 })),
            Some("complete") => {
                let leases = body["results"].as_array().into_iter().flatten().map(|result| &result["lease"]);
                let stale = |lease: &Value| lease.as_str().is_none_or(|lease| lease.starts_with("stale"));
                let outcomes: Vec<&str> = leases.map(|lease| if stale(lease) { "stale" } else { "ok" }).collect();
                (200, json!({ "outcomes": outcomes, "jobs": self.claim(&body["claim"]["limit"]) }))
            }
            _ => (404, Value::Null),
        }
    }

    fn submit(&mut self, body: &Value) -> (u16, Value) {
        self.submitted += 1;
        let is_tenth = self.submitted.is_multiple_of(10);
        let job = |lease: &str| json!({ "lease": format!("{lease}-{}", self.submitted), "data": body["data"] });
        match self.fault {
            Fault::RefusesEveryTenth if is_tenth => return (429, Value::Null),
            Fault::LosesEveryTenth if is_tenth => {}
            Fault::HandsOutTwiceEveryTenth if is_tenth => self.waiting.extend([job("stale"), job("lease")]),
            _ => self.waiting.push_back(job("lease")),
        }
        (202, json!({ "jobId": self.submitted.to_string(), "status": "queued" }))
    }

    /// At once, however long the worker would wait.
    fn claim(&mut self, limit: &Value) -> Vec<Value> {
        let limit = limit.as_u64().unwrap_or(0) as usize;
        let count = limit.min(self.waiting.len());
        self.waiting.drain(..count).collect()
    }
}

/// Head and body of the next request; an error at the end of the connection.
pub(super) fn request(stream: &mut BufReader<TcpStream>) -> io::Result<(String, String)> {
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let start = head.len();
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(bytes) = head[start..].strip_prefix("Content-Length: ") {
            length = bytes.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, String::from_utf8(body).unwrap()))
}
