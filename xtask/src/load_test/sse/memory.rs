//! What processes and sockets cost, as the kernel counts it. Linux only; elsewhere there is nothing to tell.

use std::time::Duration;

use crate::shell;

/// Ticks per second in `/proc/<pid>/stat`, the same on every Linux we know.
const TICKS: f64 = 100.0;

/// Bytes.
const PAGE: u64 = 4096;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) resident: u64,
    /// Written by it and shared with nobody.
    pub(super) private: u64,
}

impl Memory {
    pub(super) fn of(pid: u32) -> Option<Self> {
        Self::read(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
            Some(kibibytes << 10)
        };
        Some(Self { resident: field("Rss:")?, private: field("Private_Dirty:")? })
    }

    /// What it has grown by since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        let Self { resident, private } = self;
        Self { resident: resident.saturating_sub(before.resident), private: private.saturating_sub(before.private) }
    }
}

/// Time all threads of a process have spent on a core.
pub(super) fn cpu(pid: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in brackets and may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some(Duration::from_secs_f64((ticks()? + ticks()?) / TICKS))
}

/// Memory that the kernel of this machine holds for its own objects (a connection is two sockets, two files and their
/// watches) and for bytes on their way through TCP.
pub(super) fn of_kernel() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/net/sockstat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("TCP: "))?;
    let pages: u64 = line.split_once("mem ")?.1.split_whitespace().next()?.parse().ok()?;
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("SUnreclaim:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(pages * PAGE + (kibibytes << 10))
}

/// Memory of each connection of the server on `port`, on its side, largest first; `None` without `ss`.
pub(super) fn of_connections(port: u16) -> Option<Vec<u64>> {
    let port = format!("sport = :{port}");
    let said = shell::line_of("ss", &["-tmnH", "state", "established", &port])?;
    let mut all: Vec<u64> = said.lines().filter_map(socket).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    Some(all)
}

/// Of `skmem:(r0,rb131072,t0,tb32768,f4096,w20480,o0,bl0,d0)`: what waits to be read and written, and what is reserved.
fn socket(line: &str) -> Option<u64> {
    let fields = line.split_once("skmem:(")?.1.split_once(')')?.0;
    let of = |field: &str| {
        let name = field.trim_end_matches(|c: char| c.is_ascii_digit());
        matches!(name, "r" | "f" | "w" | "o" | "bl").then(|| field[name.len()..].parse::<u64>().ok()).flatten()
    };
    Some(fields.split(',').filter_map(of).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_from_its_rollup() {
        let text = "55d-7ff ---p 00000000 00:00 0 [rollup]\nRss:   1024 kB\nPss:  1000 kB\nPrivate_Dirty:   512 kB\n";
        assert_eq!(Memory::read(text), Some(Memory { resident: 1 << 20, private: 512 << 10 }));
        assert_eq!(Memory::read("Rss: much"), None);
    }

    #[test]
    fn a_socket_is_charged_with_what_it_holds_and_not_with_its_limits() {
        let line = "\t skmem:(r100,rb131072,t7,tb46080,f4096,w20000,o3,bl1,d9) cubic";
        assert_eq!(socket(line), Some(100 + 4096 + 20_000 + 3 + 1));
        assert_eq!(socket("0 0 127.0.0.1:80 127.0.0.1:4711"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_has_worked() {
        let pid = std::process::id();
        assert!(Memory::of(pid).is_some_and(|memory| memory.resident > 0));
        assert!(cpu(pid).is_some());
        assert!(of_kernel().is_some());
    }
}
