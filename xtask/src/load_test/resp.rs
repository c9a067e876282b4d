//! The least Redis client: one command at a time on a connection of its own, written to measure and to look.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Ours are small commands; a Redis that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command; its reply as text, the items of a list one per line.
    pub(super) fn ask(&mut self, words: &[&str]) -> io::Result<String> {
        let mut command = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| command += &format!("${}\r\n{word}\r\n", word.len()));
        self.stream.get_mut().write_all(command.as_bytes())?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<String> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
        match kind {
            "+" | ":" => Ok(rest.to_owned()),
            "$" => match usize::try_from(number(rest)?) {
                Ok(bytes) => self.text(bytes),
                Err(_) => Ok(String::new()),
            },
            "*" => {
                (0..number(rest)?).map(|_| self.reply()).collect::<io::Result<Vec<_>>>().map(|items| items.join("\n"))
            }
            _ => Err(io::Error::other(rest.to_owned())),
        }
    }

    fn text(&mut self, bytes: usize) -> io::Result<String> {
        let mut text = vec![0; bytes + 2];
        self.stream.read_exact(&mut text)?;
        text.truncate(bytes);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

fn number(text: &str) -> io::Result<i64> {
    text.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The value of `name:value` in the reply to `INFO`.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn replies_of_every_kind_are_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"+OK\r\n:7\r\n$4\r\na\r\nb\r\n$-1\r\n*2\r\n$1\r\nx\r\n:1\r\n-ERR no\r\n").unwrap();
            let mut asked = [0; 6 * 14];
            stream.read_exact(&mut asked).unwrap();
            asked
        });
        let mut connection = Connection::open(port).unwrap();
        let mut ask = || connection.ask(&["PING"]);
        assert_eq!([(); 5].map(|()| ask().unwrap()), ["OK", "7", "a\r\nb", "", "x\n1"]);
        assert_eq!(ask().unwrap_err().to_string(), "ERR no");
        assert!(server.join().unwrap().starts_with(b"*1\r\n$4\r\nPING\r\n*1"));
    }

    #[test]
    fn a_field_of_info_is_found_by_its_whole_name() {
        let info = "# CPU\r\nused_cpu_sys_children:9\r\nused_cpu_sys:1.5\r\n";
        assert_eq!(field(info, "used_cpu_sys"), Some("1.5"));
        assert_eq!(field(info, "used_cpu"), None);
    }
}
