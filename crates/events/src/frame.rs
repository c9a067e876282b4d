//! Events as server-sent events, framed once for all listeners.
//! See <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use bytes::Bytes;

use crate::event::RESERVED_TYPES;
use crate::{Event, EventId};

/// A comment, so that proxies see that somebody is alive.
pub(crate) const HEARTBEAT: &[u8] = b":\n\n";

/// Frames of consecutive events in one stretch of bytes.
#[derive(Debug)]
pub(crate) struct Frames {
    pub(crate) bytes: Bytes,
    /// One per event.
    pub(crate) marks: Box<[Mark]>,
}

/// Where an event's frame lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// Where it begins, with its line `id`.
    pub(crate) start: u32,
    /// Where the rest begins, for listeners that write an id of their own.
    pub(crate) body: u32,
    /// Where it ends.
    pub(crate) end: u32,
}

impl Frames {
    pub(crate) fn of(events: &[Event]) -> Self {
        let room = events.iter().map(|event| event.data.len() + 96).sum();
        let (mut bytes, mut marks) = (Vec::with_capacity(room), Vec::with_capacity(events.len()));
        for event in events {
            let start = bytes.len() as u32;
            put_id(&mut bytes, event.id);
            let body = bytes.len() as u32;
            put_body(&mut bytes, event);
            marks.push(Mark { start, body, end: bytes.len() as u32 });
        }
        Self { bytes: bytes.into(), marks: marks.into() }
    }
}

fn put_id(bytes: &mut Vec<u8>, id: EventId) {
    let mut digits = itoa::Buffer::new();
    bytes.extend_from_slice(b"id: ");
    bytes.extend_from_slice(digits.format(id.ms).as_bytes());
    bytes.push(b'-');
    bytes.extend_from_slice(digits.format(id.seq).as_bytes());
    bytes.push(b'\n');
}

fn put_body(bytes: &mut Vec<u8>, event: &Event) {
    // What others wrote to a stream must not pass for a word of ours.
    if let Some(kind) = event.kind.as_ref().filter(|kind| !RESERVED_TYPES.contains(&&kind[..])) {
        bytes.extend_from_slice(b"event: ");
        // Of foreign entries nobody has checked the type.
        bytes.extend(kind.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
        bytes.push(b'\n');
    }
    put_data(bytes, &event.data);
    bytes.push(b'\n');
}

/// Every line of the data has its own `data: `; all three ends of line of the standard count.
pub(crate) fn put_data(bytes: &mut Vec<u8>, data: &[u8]) {
    let mut rest = data;
    loop {
        bytes.extend_from_slice(b"data: ");
        let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            bytes.extend_from_slice(rest);
            bytes.push(b'\n');
            return;
        };
        bytes.extend_from_slice(&rest[..end]);
        bytes.push(b'\n');
        let is_pair = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(is_pair)..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewEvent;

    fn framed(event: NewEvent) -> String {
        let event = Event::new(EventId { ms: 7, seq: 1 }, event);
        String::from_utf8(Frames::of(&[event]).bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_frame_has_id_type_and_data() {
        assert_eq!(framed(NewEvent::new("{}").kind("made")), "id: 7-1\nevent: made\ndata: {}\n\n");
        assert_eq!(framed(NewEvent::new("1")), "id: 7-1\ndata: 1\n\n");
    }

    #[test]
    fn nobody_but_us_tells_of_gaps() {
        assert_eq!(framed(NewEvent::new("1").kind("gap")), "id: 7-1\ndata: 1\n\n");
    }

    #[test]
    fn every_end_of_line_in_the_data_is_kept_apart() {
        assert_eq!(
            framed(NewEvent::new("[\n1,\r\n2,\r3]\n")),
            "id: 7-1\ndata: [\ndata: 1,\ndata: 2,\ndata: 3]\ndata: \n\n"
        );
    }

    #[test]
    fn marks_cut_frames_apart() {
        let events: Vec<_> =
            (0..3).map(|seq| Event::new(EventId { ms: 1, seq }, NewEvent::new(format!("{seq}")))).collect();
        let frames = Frames::of(&events);
        let cut = |mark: &Mark| &frames.bytes[mark.body as usize..mark.end as usize];
        assert_eq!(frames.marks.iter().map(cut).collect::<Vec<_>>(), [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]);
        assert_eq!(frames.marks[1].start, frames.marks[0].end);
    }
}
