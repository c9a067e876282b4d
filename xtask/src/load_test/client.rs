//! The least HTTP/1.1 client that keeps its connection: one request at a time, bodies by length or in chunks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// A claim may wait 30 s by the protocol; anything beyond twice that is a server that has gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// 64 MiB: a claim of 1000 jobs of 64 KiB.
const BODY_MAX: u64 = 64 << 20;

/// 64 KiB: a header section beyond this is not from our server.
const HEAD_MAX: u64 = 64 << 10;

/// One connection to one server, opened when needed and again after it was lost.
pub(super) struct Client {
    address: String,
    token: Option<String>,
    connection: Option<BufReader<TcpStream>>,
}

/// A status and a body; headers are not kept.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `data` of the success envelope; `Null` where there is none.
    pub(super) fn data(&self) -> Value {
        let mut body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["data"].take()
    }
}

impl Client {
    pub(super) fn new(address: &str, token: Option<String>) -> Self {
        Self { address: address.to_owned(), token, connection: None }
    }

    pub(super) fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.request("GET", path, "")
    }

    pub(super) fn post(&mut self, path: &str, body: &Value) -> io::Result<Answer> {
        self.request("POST", path, &body.to_string())
    }

    /// A body that is JSON already.
    pub(super) fn post_text(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        self.request("POST", path, body)
    }

    /// Sends once and never again: after an error the caller does not know whether the server acted.
    fn request(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open()?,
        };
        let authorization = self.token.iter().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.address,
            authorization.collect::<String>(),
            body.len()
        );
        connection.get_mut().write_all([head.as_bytes(), body.as_bytes()].concat().as_slice())?;
        let (answer, stays_open) = read(&mut connection)?;
        self.connection = stays_open.then_some(connection);
        Ok(answer)
    }

    fn open(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(BufReader::new(stream))
    }
}

/// How the end of a body is told.
enum Length {
    Bytes(u64),
    Chunks,
    UntilClose,
}

struct Head {
    status: u16,
    length: Length,
    stays_open: bool,
}

/// Reads one answer; tells as well whether the connection can carry another.
pub(super) fn read(connection: &mut impl BufRead) -> io::Result<(Answer, bool)> {
    let head = loop {
        let head = read_head(connection)?;
        // 1xx only announces the answer.
        if head.status >= 200 {
            break head;
        }
    };
    let mut body = Vec::new();
    match head.length {
        Length::Bytes(bytes) => read_exactly(connection, bytes, &mut body)?,
        Length::Chunks => read_chunks(connection, &mut body)?,
        Length::UntilClose => drop(connection.take(BODY_MAX).read_to_end(&mut body)?),
    }
    Ok((Answer { status: head.status, body }, head.stays_open))
}

fn read_head(connection: &mut impl BufRead) -> io::Result<Head> {
    let first = read_line(connection)?;
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| broken("the answer does not begin with a status"))?;
    let without_body = status < 200 || matches!(status, 204 | 304);
    let mut head =
        Head { status, length: if without_body { Length::Bytes(0) } else { Length::UntilClose }, stays_open: true };
    loop {
        let line = read_line(connection)?;
        let Some((name, value)) = line.split_once(':') else {
            head.stays_open &= !matches!(head.length, Length::UntilClose);
            return Ok(head);
        };
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", bytes) if !without_body => {
                head.length = Length::Bytes(bytes.parse().map_err(|_| broken("Content-Length is not a number"))?);
            }
            ("transfer-encoding", "chunked") => head.length = Length::Chunks,
            ("connection", value) if value.eq_ignore_ascii_case("close") => head.stays_open = false,
            _ => {}
        }
    }
}

fn read_chunks(connection: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(connection)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let bytes = u64::from_str_radix(digits, 16).map_err(|_| broken("a chunk without a length"))?;
        if bytes == 0 {
            while !read_line(connection)?.is_empty() {}
            return Ok(());
        }
        read_exactly(connection, bytes, body)?;
        read_line(connection)?;
    }
}

fn read_exactly(connection: &mut impl BufRead, bytes: u64, body: &mut Vec<u8>) -> io::Result<()> {
    if body.len() as u64 + bytes > BODY_MAX {
        return Err(broken("the body is larger than 64 MiB"));
    }
    if connection.take(bytes).read_to_end(body)? as u64 == bytes { Ok(()) } else { Err(closed()) }
}

/// One line without its end; an end of file instead is an error.
fn read_line(connection: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if connection.take(HEAD_MAX).read_line(&mut line)? == 0 || !line.ends_with('\n') {
        return Err(closed());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use serde_json::json;

    use super::super::fake;
    use super::*;

    /// Accepts as many connections as there are lists and answers each request with the next text of its list.
    fn server(connections: Vec<Vec<&'static str>>) -> (Client, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(&listener.local_addr().unwrap().to_string(), Some("secret".into()));
        let served = thread::spawn(move || {
            let mut requests = Vec::new();
            for answers in connections {
                let mut stream = BufReader::new(listener.accept().unwrap().0);
                for answer in answers {
                    let (head, body) = fake::request(&mut stream).unwrap();
                    requests.push(head + &body);
                    stream.get_mut().write_all(answer.as_bytes()).unwrap();
                }
            }
            requests
        });
        (client, served)
    }

    #[test]
    fn one_connection_carries_many_requests() {
        let (mut client, served) = server(vec![vec![
            "HTTP/1.1 202 Accepted\r\ncontent-length: 35\r\n\r\n{\"success\":true,\"data\":{\"n\": \"é\"}}",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.0 503 Busy\r\n\r\nuntil the end",
        ]]);
        let answer = client.post("/job", &json!({"a": 1})).unwrap();
        assert_eq!((answer.status, answer.data()), (202, json!({"n": "é"})));
        assert_eq!(client.get("/").unwrap().text(), "abcde");
        assert_eq!(client.get("/").unwrap().status, 204);
        let answer = client.get("/").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (503, "until the end"));
        let requests = served.join().unwrap();
        assert!(requests[0].starts_with("POST /job HTTP/1.1\r\nHost: 127.0.0.1:"), "{}", requests[0]);
        assert!(requests[0].contains("\r\nAuthorization: Bearer secret\r\n"), "{}", requests[0]);
        assert!(requests[0].ends_with("\r\n\r\n{\"a\":1}"), "{}", requests[0]);
    }

    #[test]
    fn a_closed_connection_is_opened_again_for_the_next_request() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
        let (mut client, served) = server(vec![vec![closing], vec![ok]]);
        assert_eq!(client.get("/").unwrap().text(), "ok");
        assert_eq!(client.get("/").unwrap().text(), "ok");
        served.join().unwrap();
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_error_and_not_a_short_body() {
        for half in ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "HTTP/1.1 200", "nonsense\r\n\r\n", ""] {
            let (mut client, served) = server(vec![vec![half], vec![]]);
            drop(client.get("/").unwrap_err());
            // The second accept of the server ends with this.
            drop(TcpStream::connect(&client.address).unwrap());
            served.join().unwrap();
        }
    }
}
