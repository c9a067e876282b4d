//! The peer of `--peers`: nginx with Nchan from the system's packages, a server of its own with one channel per stream.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::crowd::until;
use crate::load_test::client;
use crate::load_test::folder::Folder;
use crate::load_test::redis::free_port;
use crate::shell;

/// Where Debian's package puts the module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// A running nginx; dropping it stops it.
pub(super) struct Nchan {
    pub(super) port: u16,
    child: Child,
    _folder: Folder,
}

impl Nchan {
    pub(super) fn start(workers: usize) -> Result<Self> {
        install()?;
        let (folder, port) = (Folder::new("nchan")?, free_port()?);
        let configuration = folder.path().join("nginx.conf");
        std::fs::write(&configuration, text(workers, port, folder.path()))?;
        let child = Command::new("nginx")
            .arg("-p")
            .arg(folder.path())
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start nginx")?;
        let nchan = Self { port, child, _folder: folder };
        let is_up = until(Duration::from_secs(10), || TcpStream::connect(("127.0.0.1", port)).is_ok());
        ensure!(is_up, "nginx does not listen on port {port}");
        println!("load-test: started nginx with Nchan on port {port}, {workers} worker(s)");
        Ok(nchan)
    }

    /// The version of the package.
    pub(super) fn version() -> String {
        let said = shell::line_of("dpkg-query", &["--show", "--showformat=${Version}", "libnginx-mod-nchan"]);
        said.unwrap_or_default()
    }

    /// Its process and those of its workers.
    pub(super) fn processes(&self) -> Vec<u32> {
        let master = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        children.chain([master]).collect()
    }
}

impl Drop for Nchan {
    /// Asks the master, which takes its workers along.
    fn drop(&mut self) {
        let _ = shell::show(shell::command("kill", &["-TERM", &self.child.id().to_string()]));
        until(Duration::from_secs(10), || !matches!(self.child.try_wait(), Ok(None)));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Buffers as long as a burst needs, no log of accesses, no limit that would get in the way.
fn text(workers: usize, port: u16, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "load_module {MODULE};\n\
         worker_processes {workers};\n\
         daemon off;\n\
         pid {folder}/nginx.pid;\n\
         error_log {folder}/error.log warn;\n\
         worker_rlimit_nofile 20000;\n\
         events {{ worker_connections 20000; }}\n\
         http {{\n\
         \x20 access_log off;\n\
         \x20 keepalive_requests 100000000;\n\
         \x20 client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;\n\
         \x20 uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n\
         \x20 nchan_shared_memory_size 256M;\n\
         \x20 nchan_message_buffer_length 10000;\n\
         \x20 server {{\n\
         \x20   listen 127.0.0.1:{port} backlog=4096;\n\
         \x20   location ~ ^/pub/(\\S+)$ {{ nchan_publisher; nchan_channel_id $1; }}\n\
         \x20   location ~ ^/sub/(\\S+)$ {{\n\
         \x20     nchan_subscriber eventsource; nchan_channel_id $1; nchan_subscriber_first_message newest;\n\
         \x20   }}\n\
         \x20 }}\n\
         }}\n"
    )
}

fn install() -> Result<()> {
    if Path::new(MODULE).exists() && shell::line_of("nginx", &["-v"]).is_some() {
        return Ok(());
    }
    let is_root = shell::line_of("id", &["-u"]).as_deref() == Some("0");
    let lines = ["apt-get update --quiet", "apt-get install --yes --no-install-recommends nginx libnginx-mod-nchan"];
    if shell::line_of("apt-get", &["--version"]).is_none() || !is_root {
        bail!("--peers wants nginx with Nchan; please run `sudo {}` and then this again", lines[1]);
    }
    let had_nginx = shell::line_of("nginx", &["-v"]).is_some();
    println!("nginx with Nchan is missing (--peers measures it beside us): installing it with apt-get");
    for line in lines {
        println!("  {line}");
        let mut command = shell::command("sh", &["-c", line]);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        ensure!(shell::show(command)?, "`{line}` failed");
    }
    if !had_nginx {
        let line = "if [ -d /run/systemd/system ]; then systemctl disable --now nginx; fi";
        println!("Debian's package starts a service on port 80, which nobody here wants:\n  {line}");
        ensure!(shell::show(shell::command("sh", &["-c", line]))?, "`{line}` failed");
    }
    ensure!(Path::new(MODULE).exists(), "the packages are installed, but there is no {MODULE}");
    Ok(())
}

/// A connection that publishes. Nchan has no request for many messages, so a burst is pipelined: all requests leave in
/// one write.
pub(super) struct Pipe {
    connection: BufReader<TcpStream>,
}

impl Pipe {
    pub(super) fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { connection: BufReader::new(stream) })
    }

    pub(super) fn post(&mut self, channel: &str, messages: &[String]) -> io::Result<()> {
        let request = |message: &String| {
            let length = message.len();
            format!("POST /pub/{channel} HTTP/1.1\r\nHost: nchan\r\nContent-Length: {length}\r\n\r\n{message}")
        };
        self.connection.get_mut().write_all(messages.iter().map(request).collect::<String>().as_bytes())?;
        for _ in messages {
            let (answer, _) = client::read(&mut self.connection)?;
            if !(200..300).contains(&answer.status) {
                return Err(io::Error::other(answer.status.to_string()));
            }
        }
        Ok(())
    }
}
