//! Secured listeners: something to show, and nothing that would be ignored.

use http::HeaderValue;

use crate::config::file::{CertificateTable, HstsTable, ListenTable, TlsTable, time};
use crate::config::kind::{ClientAuth, OrOff};
use crate::config::problem::Problem;
use crate::config::read::Reader;
use crate::plan::listen::{Certificate, Clients, Tls};

/// `Some(None)`: it is not secured.
pub fn of(table: &ListenTable, reader: &mut Reader<'_>) -> Option<Option<Tls>> {
    let OrOff::On(tls) = table.tls.value()? else { return Some(None) };
    let (certificates, clients) = (certificates(tls, reader), clients(tls, reader));
    let hsts = match tls.hsts.value() {
        Some(OrOff::On(table)) => hsts(table, reader).map(Some),
        Some(OrOff::Off) => Some(None),
        None => None,
    };
    Some(Some(Tls {
        certificates: certificates?,
        profile: *tls.profile.value()?,
        clients: clients?,
        unknown_names: *tls.unknown_names.value()?,
        tickets: *tls.session_tickets.value()?,
        handshake_timeout: time(&tls.handshake_timeout)?,
        reload: time(&tls.reload)?,
        hsts: hsts?,
    }))
}

/// `Some(None)`: nobody is sent elsewhere.
pub fn https_port(table: &ListenTable, reader: &mut Reader<'_>) -> Option<Option<u16>> {
    let Some(port) = table.https_port.optional()? else { return Some(None) };
    if matches!(table.tls.value()?, OrOff::On(_)) {
        reader.report(
            Problem::of(&table.https_port.spot, "every request of this listener comes over TLS already")
                .also(&table.tls.spot, "here")
                .help("write it at the listener without TLS"),
        );
        return None;
    }
    Some(Some(port.as_u16()))
}

fn certificates(table: &TlsTable, reader: &mut Reader<'_>) -> Option<Vec<Certificate>> {
    let list = table.certificates.value()?;
    if list.items.is_empty() && list.complete {
        reader.report(
            Problem::of(&table.certificates.spot, "there is no certificate")
                .help("name at least one, like [{ cert = \"example.pem\", key = \"example.key\" }]"),
        );
        return None;
    }
    list.all()?.map(certificate).collect()
}

fn certificate(table: &CertificateTable) -> Option<Certificate> {
    Some(Certificate {
        cert: table.cert.value()?.0.clone(),
        key: table.key.value()?.0.clone(),
        ocsp: table.ocsp.optional()?.map(|path| path.0.clone()),
    })
}

fn clients(table: &TlsTable, reader: &mut Reader<'_>) -> Option<Clients> {
    let auth = *table.client_auth.value()?;
    match table.client_ca.optional()? {
        Some(roots) if auth == ClientAuth::Required => Some(Clients::Required(roots.0.clone())),
        Some(roots) => Some(Clients::Optional(roots.0.clone())),
        None if table.client_auth.written => {
            reader.report(
                Problem::of(&table.client_auth.spot, "no certificate of a client could be verified")
                    .help("name the roots they lead to, like client_ca = \"clients-ca.pem\""),
            );
            None
        }
        None => Some(Clients::Anyone),
    }
}

fn hsts(table: &HstsTable, reader: &mut Reader<'_>) -> Option<HeaderValue> {
    let (age, subdomains, preload) =
        (time(&table.max_age)?, *table.subdomains.value()?, *table.preload.value()?);
    // The lists take no name for less than a year, nor without the names below it.
    if preload && (!subdomains || age.as_secs() < 31_536_000) {
        reader.report(
            Problem::of(
                &table.preload.spot,
                "the lists of browsers want a year at least, and all names below",
            )
            .help("write max_age = \"365d\" or more and subdomains = true, or leave preload out"),
        );
        return None;
    }
    let more = [(subdomains, "; includeSubDomains"), (preload, "; preload")];
    let more: String = more.into_iter().filter(|(on, _)| *on).map(|(_, word)| word).collect();
    HeaderValue::try_from(format!("max-age={}{more}", age.as_secs())).ok()
}
