//! How instances are spoken to: names that certificates can be for, keys that have certificates.

use crate::config::file::{UpstreamTable, UpstreamTlsTable};
use crate::config::kind::OrOff;
use crate::config::problem::Problem;
use crate::config::read::Reader;
use crate::plan::listen::Certificate;
use crate::plan::onward::Tls;

/// `Some(None)`: in the clear.
pub fn tls(table: &UpstreamTable, reader: &mut Reader<'_>) -> Option<Option<Tls>> {
    let OrOff::On(tls) = table.tls.value()? else { return Some(None) };
    let own = own(tls, reader);
    let verify = *tls.verify.value()?;
    let sni = tls.sni.optional()?.map(|name| name.0.clone());
    if verify && sni.is_none() {
        named(table, reader)?;
    }
    Some(Some(Tls { sni, ca: tls.ca.optional()?.map(|path| path.0.clone()), verify, own: own? }))
}

/// A certificate is for a name; an instance known by its address alone has none.
fn named(table: &UpstreamTable, reader: &mut Reader<'_>) -> Option<()> {
    let servers = table.servers.value()?;
    for (_, server) in &servers.items {
        let Some(addr) = server.0.addr.value() else { continue };
        if addr.0.parse::<std::net::SocketAddr>().is_ok() {
            reader.report(
                Problem::of(&server.0.addr.spot, "there is no name that its certificate could be for")
                    .also(&table.tls.spot, "verified here")
                    .help("write the name in the certificate, like tls = { sni = \"api.internal\" }"),
            );
            return None;
        }
    }
    Some(())
}

/// `Some(None)`: we show none.
fn own(tls: &UpstreamTlsTable, reader: &mut Reader<'_>) -> Option<Option<Certificate>> {
    match (tls.cert.optional()?, tls.key.optional()?) {
        (Some(cert), Some(key)) => {
            Some(Some(Certificate { cert: cert.0.clone(), key: key.0.clone(), ocsp: None }))
        }
        (None, None) => Some(None),
        (cert, _) => {
            let (there, missing) = if cert.is_some() { (&tls.cert, "key") } else { (&tls.key, "cert") };
            reader.report(
                Problem::of(&there.spot, format!("`{missing}` is missing beside it"))
                    .help("a certificate and its key go together"),
            );
            None
        }
    }
}
