//! The shared store: an address, and what it takes to be let in.

use crate::base::redis_url::RedisUrl;
use crate::config::file::{RedisTable, RedisTlsTable, time};
use crate::config::problem::Problem;
use crate::config::read::Reader;
use crate::plan::{Redis, RedisTls};

/// `Some(None)`: no Redis was asked for.
pub fn redis(table: &RedisTable, reader: &mut Reader<'_>) -> Option<Option<Redis>> {
    let url = table.url.value();
    let read = url.and_then(|url| RedisUrl::parse(url.0.as_deref()?).ok());
    if let Some(read) = &read {
        two_passwords(table, read, reader);
        tls_in_vain(table, read, reader);
    }
    half_a_certificate(table.tls.value()?, reader);
    let (timeout, prefix) = (time(&table.timeout)?, table.prefix.value()?);
    let (trust, tls) = (time(&table.trust)?, tls(table.tls.value()?)?);
    let password_file = table.password_file.optional()?.map(|file| file.0.clone().into());
    Some(url?.0.clone().map(|url| Redis {
        url,
        timeout,
        prefix: prefix.0.clone(),
        trust,
        password_file,
        tls,
    }))
}

fn tls(table: &RedisTlsTable) -> Option<RedisTls> {
    Some(RedisTls {
        ca: table.ca.optional()?.map(|file| file.0.clone().into()),
        certificate: table.cert.optional()?.map(|file| file.0.clone().into()),
        key: table.key.optional()?.map(|file| file.0.clone().into()),
        name: table.name.optional()?.map(|name| name.0.clone()),
        insecure: *table.insecure.value()?,
    })
}

fn two_passwords(table: &RedisTable, url: &RedisUrl, reader: &mut Reader<'_>) {
    if url.password.is_some() && !table.password_file.is_absent() {
        reader.report(
            Problem::of(&table.password_file.spot, "the url holds a password already")
                .help("leave one of the two out"),
        );
    }
}

/// Who writes of certificates believes the connection is encrypted.
fn tls_in_vain(table: &RedisTable, url: &RedisUrl, reader: &mut Reader<'_>) {
    let written = table.tls.value().is_some_and(|tls| {
        let files = [&tls.ca, &tls.cert, &tls.key];
        files.iter().any(|file| !file.is_absent())
            || !tls.name.is_absent()
            || tls.insecure.value().is_some_and(|insecure| *insecure)
    });
    if written && !url.tls {
        reader.report(
            Problem::of(&table.tls.spot, "the url does not ask for TLS")
                .help("write rediss://, rediss+sentinel:// or rediss+cluster://, or remove tls"),
        );
    }
}

fn half_a_certificate(tls: &RedisTlsTable, reader: &mut Reader<'_>) {
    let (alone, missing) = match (tls.cert.is_absent(), tls.key.is_absent()) {
        (false, true) => (&tls.cert, "key"),
        (true, false) => (&tls.key, "cert"),
        _ => return,
    };
    reader.report(
        Problem::of(
            &alone.spot,
            format!("a certificate and its key come together, and there is no {missing}"),
        )
        .help(format!("add {missing} = \"FILE\", in PEM")),
    );
}
