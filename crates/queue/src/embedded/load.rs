//! Reading many records: one thread reads from the disk while another makes sense of what it read.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tidegate_store::{Store, Table};

use crate::Error;

/// Bytes in one piece: large enough that handing it over costs nothing per record.
const PIECE_BYTES: usize = 1 << 18;
/// Pieces read ahead at most.
const AHEAD: usize = 8;

/// Records, one after the other, with the ends of each key and value.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    ends: Vec<(usize, usize)>,
}

impl Piece {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((key_end, self.bytes.len()));
    }
}

/// Calls `each` with the keys that start with `prefix`, in order.
pub(super) fn read_ahead(
    store: &Store,
    table: Table,
    prefix: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let (send, receive) = sync_channel(AHEAD);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || read(store, table, prefix, &send));
        // Given up early, the receiver is dropped and the reader stops.
        let used = use_pieces(receive, &mut each);
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        used.and(read)
    })
}

fn read(store: &Store, table: Table, prefix: &[u8], send: &SyncSender<Piece>) -> Result<(), Error> {
    let mut piece = Piece::default();
    store.scan(table, prefix, |key, value| {
        piece.push(key, value);
        let full = piece.bytes.len() >= PIECE_BYTES;
        Ok::<_, Error>(!full || send.send(std::mem::take(&mut piece)).is_ok())
    })?;
    // Nobody listens only after an error of their own.
    let _ = send.send(piece);
    Ok(())
}

fn use_pieces(receive: Receiver<Piece>, each: &mut impl FnMut(&[u8], &[u8]) -> Result<(), Error>) -> Result<(), Error> {
    for Piece { bytes, ends } in receive {
        let mut start = 0;
        for (key_end, end) in ends {
            each(&bytes[start..key_end], &bytes[key_end..end])?;
            start = end;
        }
    }
    Ok(())
}
