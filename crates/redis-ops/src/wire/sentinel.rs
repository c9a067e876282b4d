//! Whom the Sentinels call the primary.

use super::dial::{Dialer, Login, exchange};
use super::stream::Stream;
use crate::config::{Address, Topology};
use crate::error::Error;

/// Asks one Sentinel after the other.
pub(crate) async fn find_primary(dialer: &Dialer) -> Result<Address, Error> {
    let Topology::Sentinel { addresses, service, username, password } = &dialer.config.topology else {
        return Err(Error::Unusable("there are no Sentinels to ask".into()));
    };
    let login = Login { username: username.as_deref(), password: password.as_ref(), database: 0 };
    let mut failure = Error::not_connected("there are no Sentinels to ask");
    for address in addresses {
        match ask(dialer, address, login, service).await {
            Ok(primary) => return Ok(primary),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn ask(dialer: &Dialer, address: &Address, login: Login<'_>, service: &str) -> Result<Address, Error> {
    let mut stream = dialer.dial_with(address, login).await?;
    let request: [&[u8]; 3] = [b"SENTINEL", b"get-master-addr-by-name", service.as_bytes()];
    let asking = tokio::time::timeout(dialer.config.connect_timeout, exchange(&mut stream, &request));
    let reply = asking.await.map_err(|_| Error::not_connected(format!("Sentinel {address} does not answer")))??;
    if reply.is_nil() {
        return Err(Error::not_connected(format!("Sentinel {address} knows no service of that name")));
    }
    let mut fields = reply.into_array()?.into_iter();
    let (Some(host), Some(port)) = (fields.next(), fields.next()) else {
        return Err(Error::not_connected(format!("Sentinel {address} gave no address")));
    };
    let port = u16::try_from(port.as_int()?).map_err(|_| Error::not_connected("a Sentinel gave no port"))?;
    Ok(Address { host: host.as_str()?.to_owned(), port })
}

/// During a failover Sentinels may still name the old primary; it must say itself that it is one.
pub(crate) async fn check_primary(stream: &mut Stream, address: &Address) -> Result<(), Error> {
    let role = exchange(stream, &[b"ROLE"]).await?.into_array()?;
    match role.first().map(crate::value::Value::as_str) {
        Some(Ok("master")) => Ok(()),
        _ => Err(Error::not_connected(format!("{address} is no primary (any more)"))),
    }
}
