//! One answer of server-sent events, read as its bytes come: the head, the body plain or in chunks, frames line by line.
//! Nothing is allocated for a frame; only a line that two reads share is put together.
//!
//! Lines end with `\n` or `\r\n`. (A lone `\r` would do by the standard; nobody we load writes one.)

use super::event_id::{EventId, number};

/// 4 MiB: several times the largest event a server takes by default.
const LINE_MAX: usize = 4 << 20;

/// What the publisher wrote into an event's data: `{"n":…,"at":…}`. Where an entry was added to Redis by hand, its fields are
/// texts and come in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Number of the event in its stream.
    pub(super) n: u64,
    /// When it was due, in microseconds of the run.
    pub(super) at: u64,
}

impl Mark {
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let (n, rest) = match data.strip_prefix(b"{\"n\":") {
            Some(rest) => number_or_text(rest)?,
            None => {
                let (at, rest) = number_or_text(data.strip_prefix(b"{\"at\":")?)?;
                let (n, _) = number_or_text(rest.strip_prefix(b",\"n\":")?)?;
                return Some(Self { n, at });
            }
        };
        let (at, _) = number_or_text(rest.strip_prefix(b",\"at\":")?)?;
        Some(Self { n, at })
    }
}

/// `7` or `"7"`, and what follows.
fn number_or_text(data: &[u8]) -> Option<(u64, &[u8])> {
    let (value, rest) = number(data.strip_prefix(b"\"").unwrap_or(data))?;
    Some((value, rest.strip_prefix(b"\"").unwrap_or(rest)))
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// An event; without a mark it is not ours.
    Event { id: Option<EventId>, mark: Option<Mark> },
    /// History that is missing: what comes after `from`, up to `to`. `None`: the frame does not say which.
    Gap { range: Option<(EventId, EventId)> },
    /// An id without data: where the listener is, and would come back to.
    Place(EventId),
    /// A line that only shows life.
    Comment,
    /// The server asks to come back after so many milliseconds.
    Retry(u64),
}

/// This is not an answer of server-sent events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

/// The state between two reads.
#[derive(Debug, Default)]
pub(super) struct Reading {
    stage: Stage,
    status: Option<u16>,
    is_chunked: bool,
    /// The begun line of the head or between chunks.
    wire: Vec<u8>,
    /// The begun line of the events.
    line: Vec<u8>,
    frame: Pending,
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    Head,
    Plain,
    ChunkSize,
    Chunk(usize),
    ChunkEnd,
    /// After the last chunk, or in the body of a refusal.
    Over,
}

/// The fields of a frame that has not ended.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    id: Option<EventId>,
    is_gap: bool,
    has_data: bool,
    mark: Option<Mark>,
    range: Option<(EventId, EventId)>,
}

impl Reading {
    /// The status, once the whole head is here.
    pub(super) fn status(&self) -> Option<u16> {
        self.status.filter(|_| !matches!(self.stage, Stage::Head))
    }

    /// Takes the next bytes; `each` gets every frame that ends in them.
    pub(super) fn feed(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Frame)) -> Result<(), Broken> {
        while !bytes.is_empty() {
            bytes = match self.stage {
                Stage::Head => self.head(bytes)?,
                Stage::Plain => {
                    self.body(bytes, each)?;
                    &[]
                }
                Stage::ChunkSize | Stage::ChunkEnd => self.between_chunks(bytes)?,
                Stage::Chunk(left) => {
                    let (now, rest) = bytes.split_at(left.min(bytes.len()));
                    self.body(now, each)?;
                    self.stage = if now.len() < left { Stage::Chunk(left - now.len()) } else { Stage::ChunkEnd };
                    rest
                }
                Stage::Over => &[],
            };
        }
        Ok(())
    }

    fn head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Broken> {
        let Some((line, rest)) = whole_line(&mut self.wire, bytes)? else { return Ok(&[]) };
        let Some(status) = self.status else {
            self.status = Some(status_of(&line).ok_or(Broken("the answer does not begin with a status"))?);
            return Ok(rest);
        };
        if line.is_empty() {
            self.stage = match (status, self.is_chunked) {
                (200, true) => Stage::ChunkSize,
                (200, false) => Stage::Plain,
                _ => Stage::Over,
            };
        } else if line.eq_ignore_ascii_case(b"transfer-encoding: chunked") {
            self.is_chunked = true;
        }
        Ok(rest)
    }

    fn between_chunks<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Broken> {
        let Some((line, rest)) = whole_line(&mut self.wire, bytes)? else { return Ok(&[]) };
        self.stage = match self.stage {
            Stage::ChunkEnd if line.is_empty() => Stage::ChunkSize,
            Stage::ChunkEnd => return Err(Broken("a chunk is longer than it says")),
            _ => match chunk_size(&line).ok_or(Broken("a chunk without a length"))? {
                0 => Stage::Over,
                size => Stage::Chunk(size),
            },
        };
        Ok(rest)
    }

    fn body(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Frame)) -> Result<(), Broken> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            if self.line.is_empty() {
                self.frame.line(&bytes[..end], each);
            } else {
                self.line.extend_from_slice(&bytes[..end]);
                self.frame.line(&self.line, each);
                self.line.clear();
            }
            bytes = &bytes[end + 1..];
        }
        if self.line.len() + bytes.len() > LINE_MAX {
            return Err(Broken("a line of more than 4 MiB"));
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }
}

impl Pending {
    fn line(&mut self, line: &[u8], each: &mut impl FnMut(Frame)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = memchr::memchr(b':', line) else {
            // Either the end of the frame, or a field without value, of which none matters.
            return if line.is_empty() {
                self.end(each);
            };
        };
        let value = &line[colon + 1..];
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"id" => self.id = EventId::parse(value),
            b"event" => self.is_gap = value == b"gap",
            b"data" if !self.has_data => {
                self.has_data = true;
                self.mark = Mark::parse(value);
                if self.mark.is_none() {
                    self.range = range(value);
                }
            }
            b"retry" => each(Frame::Retry(number(value).map_or(0, |(milliseconds, _)| milliseconds))),
            b"" => each(Frame::Comment),
            _ => {}
        }
    }

    /// By the standard a frame without data is no event, but its id counts.
    fn end(&mut self, each: &mut impl FnMut(Frame)) {
        let Self { id, is_gap, has_data, mark, range } = std::mem::take(self);
        match (has_data, is_gap, id) {
            (false, _, Some(id)) => each(Frame::Place(id)),
            (false, _, None) => {}
            (true, true, _) => each(Frame::Gap { range }),
            (true, false, id) => each(Frame::Event { id, mark }),
        }
    }
}

/// From `{"from":"1-0","to":"2-0",…}`, in any order of its members.
fn range(data: &[u8]) -> Option<(EventId, EventId)> {
    let member = |name: &[u8]| {
        let value = data.windows(name.len()).position(|window| window == name)? + name.len();
        let rest = &data[value..];
        EventId::parse(&rest[..memchr::memchr(b'"', rest)?])
    };
    Some((member(b"\"from\":\"")?, member(b"\"to\":\"")?))
}

/// A line without its end and what follows it; `None` when it goes on.
type Line<'a> = Option<(Vec<u8>, &'a [u8])>;

/// The next line, put together with what `begun` holds of it.
fn whole_line<'a>(begun: &mut Vec<u8>, bytes: &'a [u8]) -> Result<Line<'a>, Broken> {
    let end = memchr::memchr(b'\n', bytes);
    begun.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
    if begun.len() > 64 << 10 {
        return Err(Broken("a line of more than 64 KiB in the head"));
    }
    let Some(end) = end else { return Ok(None) };
    let mut line = std::mem::take(begun);
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some((line, &bytes[end + 1..])))
}

fn status_of(line: &[u8]) -> Option<u16> {
    let (status, _) = number(line.strip_prefix(b"HTTP/1.")?.get(2..)?)?;
    u16::try_from(status).ok()
}

fn chunk_size(line: &[u8]) -> Option<usize> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

    fn id(ms: u64) -> EventId {
        EventId { ms, seq: 1 }
    }

    fn event(ms: u64, n: u64) -> Frame {
        Frame::Event { id: Some(id(ms)), mark: Some(Mark { n, at: 10 * n }) }
    }

    /// The frames of an answer that arrives in pieces of `size` bytes.
    fn read(answer: &str, size: usize) -> Result<Vec<Frame>, Broken> {
        let (mut reading, mut frames) = (Reading::default(), Vec::new());
        for piece in answer.as_bytes().chunks(size) {
            reading.feed(piece, &mut |frame| frames.push(frame))?;
        }
        assert_eq!(reading.status(), Some(200));
        Ok(frames)
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut() {
        let body = ":\n\nid: 5-1\ndata: {\"n\":1,\"at\":10}\n\nretry: 1500\n\nid: 6-1\r\nevent: made\r\ndata: {\"n\":2,\"at\":20,\"p\":\"xxx\"}\r\n\
                    data: more\r\n\r\nid: 9-1\nevent: gap\ndata: {\"from\":\"6-1\",\"to\":\"9-1\",\"reason\":\"trimmed\"}\n\n\
                    id: 10-1\ndata: {\"other\":1}\n\nid: 11-1\n\n";
        let expected = [
            Frame::Comment,
            event(5, 1),
            Frame::Retry(1500),
            event(6, 2),
            Frame::Gap { range: Some((id(6), id(9))) },
            Frame::Event { id: Some(id(10)), mark: None },
            Frame::Place(id(11)),
        ];
        let (first, second) = body.split_at(61);
        let chunks = format!("{:x}\r\n{first}\r\n{:X};x=y\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
        let chunked = HEAD.replacen("\r\n", "\r\nTransfer-Encoding: chunked\r\n", 1) + &chunks;
        for size in (1..20).chain([1000]) {
            assert_eq!(read(&format!("{HEAD}{body}"), size).unwrap(), expected, "plain, {size}");
            assert_eq!(read(&chunked, size).unwrap(), expected, "chunked, {size}");
        }
    }

    #[test]
    fn a_mark_is_read_from_numbers_and_from_the_texts_of_an_entry() {
        let mark = Some(Mark { n: 7, at: 12 });
        for data in [r#"{"n":7,"at":12}"#, r#"{"n":7,"at":12,"p":"x"}"#, r#"{"at":"12","n":"7"}"#] {
            assert_eq!(Mark::parse(data.as_bytes()), mark, "{data}");
        }
        for data in ["", "{}", r#"{"n":7}"#, r#"{"n":"x","at":1}"#, r#"{"at":1,"p":2}"#] {
            assert_eq!(Mark::parse(data.as_bytes()), None, "{data}");
        }
    }

    #[test]
    fn a_frame_that_has_not_ended_is_not_told() {
        assert_eq!(read(&format!("{HEAD}id: 5-1\ndata: {{\"n\":1,\"at\":10}}\n"), 1000).unwrap(), []);
    }

    #[test]
    fn the_body_of_a_refusal_is_not_read_as_events() {
        let mut reading = Reading::default();
        let mut frames = Vec::new();
        let answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\ndata: x\n\n";
        reading.feed(&answer[..30], &mut |frame| frames.push(frame)).unwrap();
        assert_eq!(reading.status(), None, "the head has not ended");
        reading.feed(&answer[30..], &mut |frame| frames.push(frame)).unwrap();
        assert_eq!((reading.status(), frames), (Some(503), vec![]));
    }

    #[test]
    fn nonsense_is_an_error() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for answer in ["SSH-2.0\r\n\r\n", &format!("{chunked}zz\r\n"), &format!("{chunked}2\r\n:\n:\n\r\n")] {
            let mut reading = Reading::default();
            assert!(reading.feed(answer.as_bytes(), &mut |_| {}).is_err(), "{answer}");
        }
    }
}
