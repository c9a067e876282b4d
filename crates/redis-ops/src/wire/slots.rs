//! Where keys live in a cluster: hash slots, and the table from slots to nodes.

use bytes::Bytes;

use crate::config::Address;
use crate::error::Error;
use crate::value::Value;

/// How many slots a cluster has.
pub(crate) const SLOTS: usize = 16384;

/// The slot of a key; of the part between the first `{` and the next `}` where that is not empty.
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    crc16(hashed(key)) % SLOTS as u16
}

fn hashed(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|&byte| byte == b'}') {
        Some(0) | None => key,
        Some(close) => &rest[..close],
    }
}

/// CRC16-XMODEM, as the cluster specification wants it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, &byte| (crc << 8) ^ CRC_TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

const CRC_TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// Who owns which slots, as numbers into `primaries`.
#[derive(Clone, Debug)]
pub(crate) struct SlotMap {
    owners: Box<[u16]>,
    pub(crate) primaries: Vec<Address>,
}

/// No owner known.
const NOBODY: u16 = u16::MAX;

impl SlotMap {
    /// The owner of a slot, if one is known.
    pub(crate) fn owner(&self, slot: u16) -> Option<usize> {
        self.owners.get(usize::from(slot)).filter(|&&owner| owner != NOBODY).map(|&owner| usize::from(owner))
    }
}

/// Reads `CLUSTER SLOTS`: `[[first, last, [host, port, id, …], replica…], …]`. A node without a host is the one that
/// was asked, which is `asked`.
pub(crate) fn parse_slots(reply: Value, asked: &str) -> Result<SlotMap, Error> {
    let mut map = SlotMap { owners: vec![NOBODY; SLOTS].into(), primaries: Vec::new() };
    for range in reply.into_array()? {
        let mut fields = range.into_array()?.into_iter();
        let mut field = || fields.next().unwrap_or(Value::Nil);
        let (first, last) = (field().as_int()?, field().as_int()?);
        let mut node = field().into_array()?.into_iter();
        let host = node.next().unwrap_or(Value::Nil).into_bytes_or_nil()?;
        let port = node.next().unwrap_or(Value::Nil).as_int()?;
        let address = Address { host: host_or(host, asked), port: u16::try_from(port).unwrap_or(0) };
        let owner = map.primaries.iter().position(|known| *known == address).unwrap_or_else(|| {
            map.primaries.push(address);
            map.primaries.len() - 1
        });
        let slots = usize::try_from(first).unwrap_or(SLOTS)..=usize::try_from(last).unwrap_or(0);
        map.owners.get_mut(slots).unwrap_or_default().fill(owner as u16);
    }
    match map.primaries.is_empty() {
        true => Err(Error::not_connected("the cluster has assigned no slots yet")),
        false => Ok(map),
    }
}

fn host_or(host: Option<Bytes>, asked: &str) -> String {
    match host {
        Some(host) if !host.is_empty() && &host[..] != b"?" => String::from_utf8_lossy(&host).into_owned(),
        _ => asked.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % 16384);
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
    }

    #[test]
    fn a_table_names_the_owner_of_each_slot_and_nobody_where_there_is_none() {
        let node = |host: &str, port| {
            Value::Array(vec![Value::Bytes(Bytes::copy_from_slice(host.as_bytes())), Value::Int(port)])
        };
        let range = |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let reply =
            Value::Array(vec![range(0, 99, node("a", 1)), range(200, 299, node("", 2)), range(300, 300, node("a", 1))]);
        let map = parse_slots(reply, "asked").unwrap();
        assert_eq!(map.primaries[1], Address { host: "asked".into(), port: 2 });
        assert_eq!([map.owner(99), map.owner(100), map.owner(250), map.owner(300)], [Some(0), None, Some(1), Some(0)]);
    }
}
