//! One connection through the proxy: two pipes that end together.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Shared;
use super::fault::{Ending, Toward};
use super::pipe::{End, Pipe};

/// After a cut each side is given this long to take what was sent and hang up; a system throws away what is on the way
/// when a socket is closed that holds unread bytes.
const HANG_UP: Duration = Duration::from_millis(200);

/// Serves one client until either side, a fault or `killed` ends it.
pub(super) async fn serve(mut client: TcpStream, shared: Arc<Shared>, mut killed: watch::Receiver<Ending>) {
    let connecting = TcpStream::connect(shared.target);
    let Ok(mut server) = connecting.await else {
        // As near to "refused" as a connection gets that is already accepted.
        let _ = client.set_zero_linger();
        return;
    };
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let ending = tokio::select! {
        biased;
        _ = killed.changed() => *killed.borrow(),
        ending = piped(&mut client, &mut server, &shared) => {
            if ending == Ending::Close {
                let _ = tokio::time::timeout(HANG_UP, hung_up(&mut client, &mut server)).await;
            }
            ending
        }
    };
    if ending == Ending::Reset {
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}

async fn piped(client: &mut TcpStream, server: &mut TcpStream, shared: &Arc<Shared>) -> Ending {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = Pipe::new(Toward::Server, shared).run(from_client, to_server);
    let down = Pipe::new(Toward::Client, shared).run(from_server, to_client);
    tokio::pin!(up, down);
    let other = tokio::select! {
        end = &mut up => match end {
            End::Finished => down.await,
            cut @ End::Cut(_) => cut,
        },
        end = &mut down => match end {
            End::Finished => up.await,
            cut @ End::Cut(_) => cut,
        },
    };
    match other {
        End::Finished => Ending::Close,
        End::Cut(ending) => ending,
    }
}

/// Says goodbye to both and waits until they have hung up as well.
async fn hung_up(client: &mut TcpStream, server: &mut TcpStream) {
    tokio::join!(drained(client), drained(server));
}

async fn drained(stream: &mut TcpStream) {
    let mut rest = [0; 4096];
    if stream.shutdown().await.is_ok() {
        while stream.read(&mut rest).await.is_ok_and(|length| length > 0) {}
    }
}
