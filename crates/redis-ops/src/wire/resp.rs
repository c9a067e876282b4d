//! RESP: requests to bytes, bytes to replies and pushes. RESP2, and the types that RESP3 adds.
//!
//! Nothing in a reply is ever guessed from its contents: what a user stored cannot be mistaken for a redirection, a
//! message or an error. A push is what comes under the type of pushes (`>`), and nothing else is one.
//!
//! | RESP3 | is read as |
//! |---|---|
//! | map `%` | one array: key, value, key, value |
//! | set `~` | an array |
//! | boolean `#` | 1 or 0 |
//! | big number `(` | its digits |
//! | verbatim `=` | the text without its `txt:` |
//! | blob error `!` | an error |

use bytes::{Buf, Bytes, BytesMut};

use crate::error::Error;
use crate::value::Value;

/// Deeper replies than this are no replies of Redis to us.
const DEPTH_MAX: usize = 32;
/// `proto-max-bulk-len` of Redis by default.
const BULK_MAX: usize = 512 * 1024 * 1024;
/// Shorter strings are copied, so that keeping one does not keep the read buffer.
const COPY_BELOW: usize = 256;
/// A line (integer, status, error, length) longer than this is garbage.
const LINE_MAX: usize = 64 * 1024;

/// What came is not RESP: the connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Garbage;

/// Appends one request.
pub(crate) fn encode<'a>(out: &mut BytesMut, parts: impl Iterator<Item = &'a [u8]> + Clone) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"*");
    out.extend_from_slice(digits.format(parts.clone().count()).as_bytes());
    out.extend_from_slice(b"\r\n");
    for part in parts {
        out.extend_from_slice(b"$");
        out.extend_from_slice(digits.format(part.len()).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// What came as a whole.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    /// The answer to a request; they come in the order of the requests.
    Reply(Result<Value, Error>),
    /// What nobody asked for; only a connection that said `HELLO 3` gets any.
    Push(Result<Value, Error>),
}

/// Reads replies as their bytes arrive; what was read once is not read again.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    open: Vec<Level>,
    /// An error inside an array makes the whole reply that error.
    inner_error: Option<Error>,
    /// What is open is a push.
    in_push: bool,
}

#[derive(Debug)]
struct Level {
    items: Vec<Value>,
    missing: usize,
}

enum Item {
    Value(Value),
    Error(Error),
    Array(usize),
    Push(usize),
}

impl Parser {
    /// The next whole reply in `input`, taken out of it; `None` when more bytes are needed. For connections that asked
    /// for no pushes: one is garbage there.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Result<Value, Error>>, Garbage> {
        match self.next_message(input)? {
            Some(Message::Reply(reply)) => Ok(Some(reply)),
            Some(Message::Push(_)) => Err(Garbage),
            None => Ok(None),
        }
    }

    /// The next whole reply or push in `input`, taken out of it; `None` when more bytes are needed.
    pub(crate) fn next_message(&mut self, input: &mut BytesMut) -> Result<Option<Message>, Garbage> {
        while let Some(mut item) = read_item(input)? {
            if let Item::Push(length) = item {
                // Pushes come between replies, never inside one.
                if !self.open.is_empty() {
                    return Err(Garbage);
                }
                self.in_push = true;
                item = Item::Array(length);
            }
            let value = match item {
                Item::Push(_) => return Err(Garbage),
                Item::Array(length) if length > 0 => {
                    if self.open.len() == DEPTH_MAX {
                        return Err(Garbage);
                    }
                    self.open.push(Level { items: Vec::with_capacity(length.min(1024)), missing: length });
                    continue;
                }
                Item::Array(_) => Value::Array(Vec::new()),
                Item::Value(value) => value,
                Item::Error(error) if self.open.is_empty() => return Ok(Some(Message::Reply(Err(error)))),
                Item::Error(error) => {
                    self.inner_error.get_or_insert(error);
                    Value::Nil
                }
            };
            if let Some(whole) = self.close(value) {
                let whole = self.inner_error.take().map_or(Ok(whole), Err);
                return Ok(Some(match std::mem::take(&mut self.in_push) {
                    true => Message::Push(whole),
                    false => Message::Reply(whole),
                }));
            }
        }
        Ok(None)
    }

    /// Puts a finished value where it belongs; gives the reply when that finished it.
    fn close(&mut self, mut value: Value) -> Option<Value> {
        while let Some(level) = self.open.last_mut() {
            level.items.push(value);
            level.missing -= 1;
            if level.missing > 0 {
                return None;
            }
            value = Value::Array(self.open.pop()?.items);
        }
        Some(value)
    }
}

/// One item, or the head of an array.
fn read_item(input: &mut BytesMut) -> Result<Option<Item>, Garbage> {
    let Some(end) = line_end(input)? else { return Ok(None) };
    let line = &input[1..end];
    let item = match input[0] {
        b':' => Item::Value(Value::Int(integer(line)?)),
        b'+' => Item::Value(Value::Bytes(status(line))),
        b'-' => Item::Error(Error::from_reply(&String::from_utf8_lossy(line))),
        b'*' if line == b"-1" => Item::Value(Value::Nil),
        b'*' | b'~' => Item::Array(length(line)?),
        b'%' => Item::Array(length(line)?.checked_mul(2).ok_or(Garbage)?),
        b'>' => Item::Push(length(line)?),
        b'$' if line == b"-1" => Item::Value(Value::Nil),
        b'$' | b'=' | b'!' => {
            let (kind, length) = (input[0], length(line)?);
            if length > BULK_MAX {
                return Err(Garbage);
            }
            return bulk(input, end + 2, length)?.map(|bytes| read_bulk(kind, bytes)).transpose();
        }
        b'_' if line.is_empty() => Item::Value(Value::Nil),
        b'#' if matches!(line, b"t" | b"f") => Item::Value(Value::Int(i64::from(line == b"t"))),
        b',' => Item::Value(Value::Double(parse(line)?)),
        b'(' if !line.is_empty() => Item::Value(Value::Bytes(Bytes::copy_from_slice(line))),
        _ => return Err(Garbage),
    };
    input.advance(end + 2);
    Ok(Some(item))
}

fn read_bulk(kind: u8, mut bytes: Bytes) -> Result<Item, Garbage> {
    match kind {
        b'!' => Ok(Item::Error(Error::from_reply(&String::from_utf8_lossy(&bytes)))),
        // `txt:` or `mkd:` says what kind of text it is.
        b'=' if bytes.get(3) != Some(&b':') => Err(Garbage),
        b'=' => {
            bytes.advance(4);
            Ok(Item::Value(Value::Bytes(bytes)))
        }
        _ => Ok(Item::Value(Value::Bytes(bytes))),
    }
}

fn bulk(input: &mut BytesMut, head: usize, length: usize) -> Result<Option<Bytes>, Garbage> {
    let whole = head + length + 2;
    if input.len() < whole {
        input.reserve(whole - input.len());
        return Ok(None);
    }
    if &input[head + length..whole] != b"\r\n" {
        return Err(Garbage);
    }
    let bytes = if length < COPY_BELOW {
        let copy = Bytes::copy_from_slice(&input[head..head + length]);
        input.advance(whole);
        copy
    } else {
        let mut bytes = input.split_to(whole).freeze();
        bytes.advance(head);
        bytes.truncate(length);
        bytes
    };
    Ok(Some(bytes))
}

/// Where the first line ends, without its `\r\n`.
fn line_end(input: &BytesMut) -> Result<Option<usize>, Garbage> {
    let window = &input[..input.len().min(LINE_MAX)];
    match window.iter().position(|&byte| byte == b'\n') {
        Some(at) if at >= 2 && input[at - 1] == b'\r' => Ok(Some(at - 1)),
        Some(_) => Err(Garbage),
        None if window.len() == LINE_MAX => Err(Garbage),
        None => Ok(None),
    }
}

fn integer(line: &[u8]) -> Result<i64, Garbage> {
    parse(line)
}

fn length(line: &[u8]) -> Result<usize, Garbage> {
    integer(line).and_then(|length| usize::try_from(length).map_err(|_| Garbage))
}

fn parse<T: std::str::FromStr>(line: &[u8]) -> Result<T, Garbage> {
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or(Garbage)
}

fn status(line: &[u8]) -> Bytes {
    match line {
        b"OK" => Bytes::from_static(b"OK"),
        b"PONG" => Bytes::from_static(b"PONG"),
        other => Bytes::copy_from_slice(other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> Value {
        Value::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn read(text: &str) -> Result<Option<Result<Value, Error>>, Garbage> {
        Parser::default().next(&mut BytesMut::from(text))
    }

    #[test]
    fn stored_text_is_never_taken_for_a_message_or_redirection() {
        for text in ["message", "subscribe", "MOVED 1 evil:1", "ASK 1 evil:1", "-ERR x"] {
            let reply = format!("*3\r\n${0}\r\n{text}\r\n$1\r\na\r\n$1\r\nb\r\n", text.len());
            assert_eq!(read(&reply), Ok(Some(Ok(Value::Array(vec![bytes(text), bytes("a"), bytes("b")])))));
            assert_eq!(read(&format!("${}\r\n{text}\r\n", text.len())), Ok(Some(Ok(bytes(text)))));
        }
    }

    #[test]
    fn an_error_inside_an_array_is_the_reply() {
        let reply = read("*2\r\n:1\r\n-OOM command not allowed\r\n").unwrap().unwrap();
        assert_eq!(reply.unwrap_err().code(), "OOM");
    }

    #[test]
    fn garbage_ends_the_connection_instead_of_being_read_on() {
        for text in ["?1\r\n", ":x\r\n", "$-2\r\n", "$1\r\nabc", "\r\n", "*-7\r\n", "+OK\n"] {
            assert_eq!(read(text), Err(Garbage), "{text:?}");
        }
        assert_eq!(read(&"*1\r\n".repeat(DEPTH_MAX + 1)), Err(Garbage));
    }

    #[test]
    fn the_types_of_resp3_are_read() {
        let reads = |text: &str| read(text).unwrap().unwrap().unwrap();
        assert_eq!(reads("_\r\n"), Value::Nil);
        assert_eq!((reads("#t\r\n"), reads("#f\r\n")), (Value::Int(1), Value::Int(0)));
        assert_eq!((reads(",1.5\r\n"), reads(",-inf\r\n")), (Value::Double(1.5), Value::Double(f64::NEG_INFINITY)));
        assert_eq!(reads("(3492890328409238509324850943850943825024385\r\n").as_str().unwrap().len(), 43);
        assert_eq!(reads("=8\r\ntxt:text\r\n"), bytes("text"));
        assert_eq!(reads("~2\r\n:1\r\n:2\r\n"), Value::Array(vec![Value::Int(1), Value::Int(2)]));
        assert_eq!(reads("%1\r\n+a\r\n%0\r\n"), Value::Array(vec![bytes("a"), Value::Array(Vec::new())]));
        assert_eq!(read("!7\r\nOOM bad\r\n").unwrap().unwrap().unwrap_err().code(), "OOM");
        for text in ["_1\r\n", "#x\r\n", ",x\r\n", "=3\r\ntxt\r\n", "(\r\n", "~-1\r\n", "%-1\r\n", ">-1\r\n", "!-1\r\n"]
        {
            assert_eq!(read(text), Err(Garbage), "{text:?}");
        }
        assert_eq!(read(&format!("%{}\r\n", u64::MAX)), Err(Garbage));
    }

    #[test]
    fn a_push_is_what_has_the_type_of_one_and_stands_between_replies() {
        let message = |text: &str| Parser::default().next_message(&mut BytesMut::from(text));
        let push = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n";
        let said = Value::Array(vec![bytes("invalidate"), Value::Array(vec![bytes("a")])]);
        assert_eq!(message(push), Ok(Some(Message::Push(Ok(said.clone())))));
        assert_eq!(message(&push.replacen('>', "*", 1)), Ok(Some(Message::Reply(Ok(said)))));
        assert_eq!(message(">0\r\n"), Ok(Some(Message::Push(Ok(Value::Array(Vec::new()))))));
        assert!(matches!(message(">1\r\n-ERR x\r\n"), Ok(Some(Message::Push(Err(_))))));
        assert_eq!(message(&format!("*2\r\n:1\r\n{push}")), Err(Garbage));
        assert_eq!(read(push), Err(Garbage), "nobody asked for pushes there");
    }

    fn replies() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_filter("equal to itself", |double| !double.is_nan()).prop_map(Value::Double),
            prop::collection::vec(any::<u8>(), 0..600).prop_map(|bytes| Value::Bytes(bytes.into())),
            Just(bytes("invalidate")),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Value::Array))
    }

    fn messages() -> impl Strategy<Value = Message> {
        prop_oneof![
            replies().prop_map(|value| Message::Reply(Ok(value))),
            prop::collection::vec(replies(), 0..6).prop_map(|values| Message::Push(Ok(Value::Array(values)))),
        ]
    }

    fn write(out: &mut Vec<u8>, value: &Value) {
        match value {
            Value::Nil => out.extend(b"$-1\r\n"),
            Value::Int(int) => out.extend(format!(":{int}\r\n").bytes()),
            Value::Double(double) => out.extend(format!(",{double}\r\n").bytes()),
            Value::Bytes(bytes) => {
                out.extend(format!("${}\r\n", bytes.len()).bytes());
                out.extend(bytes.iter());
                out.extend(b"\r\n");
            }
            Value::Array(items) => {
                out.extend(format!("*{}\r\n", items.len()).bytes());
                items.iter().for_each(|item| write(out, item));
            }
        }
    }

    proptest! {
        #[test]
        fn replies_and_pushes_survive_being_cut_anywhere_in_their_order(
            messages in prop::collection::vec(messages(), 1..5),
            step in 1_usize..97,
        ) {
            let mut bytes = Vec::new();
            for message in &messages {
                let start = bytes.len();
                let (Message::Reply(value) | Message::Push(value)) = message;
                write(&mut bytes, value.as_ref().unwrap());
                if matches!(message, Message::Push(_)) {
                    bytes[start] = b'>';
                }
            }
            let (mut parser, mut input, mut seen) = (Parser::default(), BytesMut::new(), Vec::new());
            for piece in bytes.chunks(step) {
                input.extend_from_slice(piece);
                while let Some(message) = parser.next_message(&mut input).unwrap() {
                    seen.push(message);
                }
            }
            prop_assert_eq!(seen, messages);
            prop_assert!(input.is_empty());
        }

        /// Whatever lies in a reply, also the bytes of a push, the reply is one reply.
        #[test]
        fn nothing_that_is_stored_becomes_a_push(values in prop::collection::vec(replies(), 0..4), in_array: bool) {
            let mut stored = b">2\r\n$10\r\ninvalidate\r\n".to_vec();
            write(&mut stored, &Value::Array(values));
            let stored = Value::Bytes(stored.into());
            let reply = if in_array { Value::Array(vec![bytes("invalidate"), stored]) } else { stored };
            let mut input = Vec::new();
            write(&mut input, &reply);
            let mut input = BytesMut::from(&input[..]);
            prop_assert_eq!(Parser::default().next_message(&mut input), Ok(Some(Message::Reply(Ok(reply)))));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut input = BytesMut::from(&bytes[..]);
            let mut parser = Parser::default();
            while let Ok(Some(_)) = parser.next_message(&mut input) {}
        }
    }
}
