//! One server for a whole test program.

use tokio::sync::OnceCell;

use crate::server::Server;

/// A plain server that all tests of this program share; started by the first caller, ended by the watchdog after the
/// program. Tests keep apart by their key names; who pauses, kills, wipes or counts commands starts their own.
///
/// # Panics
/// When there is no Redis to be found, or it does not start.
pub async fn shared() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_init(Server::start).await
}
