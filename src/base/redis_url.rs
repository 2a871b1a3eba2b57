//! Where a Redis is, as an operator writes it: one server, one behind Sentinels, or a Cluster.

use std::fmt;
use std::path::PathBuf;

/// The port of a server when none is written.
const PORT: u16 = 6379;
/// The port of a Sentinel when none is written.
const SENTINEL_PORT: u16 = 26379;

/// A Redis. `Debug` hides its secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Where it is.
    pub place: Place,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Who signs in; `None`: the default user.
    pub user: Option<String>,
    /// With what. A secret.
    pub password: Option<String>,
    /// The number of the database; 0 in a Cluster.
    pub database: u16,
    /// Whether the third version of the protocol is spoken.
    pub resp3: bool,
}

/// Where a Redis is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// One server.
    Server(Host),
    /// One server on this machine, by its socket.
    Socket(PathBuf),
    /// The master that Sentinels know by a name.
    Sentinel {
        /// The Sentinels, at least one.
        sentinels: Vec<Host>,
        /// What they call it.
        master: String,
        /// Who signs in with them; `None`: the default user.
        user: Option<String>,
        /// With what; `None`: they ask for nothing. A secret.
        password: Option<String>,
    },
    /// Some of the servers of a Cluster, at least one; the others are found through them.
    Cluster(Vec<Host>),
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host {
    /// A name or an IP address, without brackets.
    pub name: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port } = self;
        if name.contains(':') { write!(f, "[{name}]:{port}") } else { write!(f, "{name}:{port}") }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisUrl(***)")
    }
}

/// What is wrong with an address; never shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Not one of the known forms.
    #[error(
        "write redis://[user[:password]@]host[:port][/database], rediss:// for TLS, redis+unix:///path/to/socket, \
         redis+sentinel://host,host/master or redis+cluster://host,host; a password's `@`, `/` and `:` as %40, %2F and %3A"
    )]
    Form,
    /// Sentinels, and no name to ask them for.
    #[error("name the master that the Sentinels watch: redis+sentinel://host,host/master[/database]")]
    Master,
    /// A Cluster has one database.
    #[error("a Cluster has no databases to choose from: leave the number out")]
    Database,
    /// A parameter that means nothing here.
    #[error(
        "after \"?\" there may be protocol=resp3, for a socket db=NUMBER, user=NAME and pass=PASSWORD, and for Sentinels \
         sentinel_user=NAME and sentinel_password=PASSWORD"
    )]
    Parameter,
}

impl RedisUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// When it is not one; the text says what would be right.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let (scheme, rest) = text.split_once("://").ok_or(Wrong::Form)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut url = match scheme {
            "redis" | "rediss" => server(rest)?,
            "redis+unix" | "unix" => socket(rest)?,
            "redis+sentinel" | "rediss+sentinel" => sentinel(rest)?,
            "redis+cluster" | "rediss+cluster" => cluster(rest)?,
            _ => return Err(Wrong::Form),
        };
        url.tls = scheme.starts_with("rediss");
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            url.parameter(parameter)?;
        }
        Ok(url)
    }

    fn at(place: Place, authority: Authority) -> Self {
        let Authority { user, password, .. } = authority;
        Self { place, tls: false, user, password, database: 0, resp3: false }
    }

    fn parameter(&mut self, parameter: &str) -> Result<(), Wrong> {
        let (name, value) = parameter.split_once('=').ok_or(Wrong::Parameter)?;
        let value = decoded(value).ok_or(Wrong::Parameter)?;
        match (name, &mut self.place) {
            ("protocol", _) if value == "resp3" || value == "3" => self.resp3 = true,
            ("protocol", _) if value == "resp2" || value == "2" => self.resp3 = false,
            ("db", Place::Socket(_)) => self.database = value.parse().map_err(|_| Wrong::Parameter)?,
            ("user", Place::Socket(_)) => self.user = Some(value),
            ("pass", Place::Socket(_)) => self.password = Some(value),
            ("sentinel_user", Place::Sentinel { user, .. }) => *user = Some(value),
            ("sentinel_password", Place::Sentinel { password, .. }) => *password = Some(value),
            _ => return Err(Wrong::Parameter),
        }
        Ok(())
    }
}

fn server(rest: &str) -> Result<RedisUrl, Wrong> {
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let authority = authority_of(authority, PORT)?;
    let [host] = <[Host; 1]>::try_from(authority.hosts.clone()).map_err(|_| Wrong::Form)?;
    Ok(RedisUrl { database: number(database)?, ..RedisUrl::at(Place::Server(host), authority) })
}

fn socket(path: &str) -> Result<RedisUrl, Wrong> {
    if !path.starts_with('/') || path.len() < 2 {
        return Err(Wrong::Form);
    }
    let path = decoded(path).ok_or(Wrong::Form)?;
    Ok(RedisUrl::at(Place::Socket(path.into()), Authority::default()))
}

fn sentinel(rest: &str) -> Result<RedisUrl, Wrong> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (master, database) = path.split_once('/').unwrap_or((path, ""));
    let master = decoded(master).filter(|master| !master.is_empty()).ok_or(Wrong::Master)?;
    let authority = authority_of(authority, SENTINEL_PORT)?;
    let sentinels = authority.hosts.clone();
    let place = Place::Sentinel { sentinels, master, user: None, password: None };
    Ok(RedisUrl { database: number(database)?, ..RedisUrl::at(place, authority) })
}

fn cluster(rest: &str) -> Result<RedisUrl, Wrong> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if number(path)? != 0 {
        return Err(Wrong::Database);
    }
    let authority = authority_of(authority, PORT)?;
    Ok(RedisUrl::at(Place::Cluster(authority.hosts.clone()), authority))
}

#[derive(Default)]
struct Authority {
    user: Option<String>,
    password: Option<String>,
    hosts: Vec<Host>,
}

/// `[user[:password]@]host[:port][,host[:port]…]`
fn authority_of(text: &str, port: u16) -> Result<Authority, Wrong> {
    let (who, hosts) = text.rsplit_once('@').unwrap_or(("", text));
    let (user, password) = who.split_once(':').map_or((who, None), |(user, password)| (user, Some(password)));
    let word =
        |text: &str| decoded(text).map(|word| Some(word).filter(|word| !word.is_empty())).ok_or(Wrong::Form);
    Ok(Authority {
        user: word(user)?,
        password: word(password.unwrap_or_default())?,
        hosts: hosts.split(',').map(|host| host_of(host, port)).collect::<Result<_, _>>()?,
    })
}

fn host_of(text: &str, port: u16) -> Result<Host, Wrong> {
    let (name, written) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            address.parse::<std::net::Ipv6Addr>().map_err(|_| Wrong::Form)?;
            (
                address,
                rest.strip_prefix(':')
                    .map_or_else(|| rest.is_empty().then_some(""), Some)
                    .ok_or(Wrong::Form)?,
            )
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let right =
        !name.is_empty() && (text.starts_with('[') || name.chars().all(plain)) && !text.ends_with(':');
    if !right {
        return Err(Wrong::Form);
    }
    let port = match written {
        "" => port,
        written => written.parse().ok().filter(|port| *port > 0).ok_or(Wrong::Form)?,
    };
    Ok(Host { name: name.to_owned(), port })
}

/// Nothing is 0.
fn number(text: &str) -> Result<u16, Wrong> {
    if text.is_empty() { Ok(0) } else { text.parse().map_err(|_| Wrong::Form) }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok().filter(|two| !two.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16) -> Host {
        Host { name: name.into(), port }
    }

    fn plain(place: Place) -> RedisUrl {
        RedisUrl { place, tls: false, user: None, password: None, database: 0, resp3: false }
    }

    #[test]
    fn one_server_is_named_by_host_port_user_and_database() {
        let with = |user: Option<&str>, password: Option<&str>, database| RedisUrl {
            user: user.map(Into::into),
            password: password.map(Into::into),
            database,
            ..plain(Place::Server(host("h", 6379)))
        };
        for (text, expected) in [
            ("redis://h", with(None, None, 0)),
            ("redis://h/", with(None, None, 0)),
            ("redis://h:6379/3", with(None, None, 3)),
            ("redis://:p@h", with(None, Some("p"), 0)),
            ("redis://u@h", with(Some("u"), None, 0)),
            ("redis://u:p%40%2f:@h", with(Some("u"), Some("p@/:"), 0)),
            ("redis://[::1]:1", plain(Place::Server(host("::1", 1)))),
            ("redis://[::1]", plain(Place::Server(host("::1", 6379)))),
            ("rediss://h", RedisUrl { tls: true, ..with(None, None, 0) }),
            ("redis://h?protocol=resp3", RedisUrl { resp3: true, ..with(None, None, 0) }),
        ] {
            assert!(RedisUrl::parse(text) == Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_socket_is_named_by_its_path() {
        let socket = plain(Place::Socket("/run/redis.sock".into()));
        assert!(RedisUrl::parse("redis+unix:///run/redis.sock") == Ok(socket.clone()));
        let with = RedisUrl { database: 2, user: Some("u".into()), password: Some("p".into()), ..socket };
        assert!(RedisUrl::parse("redis+unix:///run/redis.sock?db=2&user=u&pass=p") == Ok(with));
    }

    #[test]
    fn sentinels_are_named_with_what_they_watch() {
        let sentinels = vec![host("a", 26379), host("b", 1)];
        let place = |user: Option<&str>, password: Option<&str>| Place::Sentinel {
            sentinels: sentinels.clone(),
            master: "main".into(),
            user: user.map(Into::into),
            password: password.map(Into::into),
        };
        let url = RedisUrl::parse("redis+sentinel://:p@a,b:1/main/4");
        assert!(url == Ok(RedisUrl { password: Some("p".into()), database: 4, ..plain(place(None, None)) }));
        let url = RedisUrl::parse("rediss+sentinel://a,b:1/main?sentinel_user=s&sentinel_password=t");
        assert!(url == Ok(RedisUrl { tls: true, ..plain(place(Some("s"), Some("t"))) }));
    }

    #[test]
    fn a_cluster_is_named_by_some_of_its_servers() {
        let url = RedisUrl::parse("redis+cluster://u:p@a:1,b");
        let place = Place::Cluster(vec![host("a", 1), host("b", 6379)]);
        assert!(url == Ok(RedisUrl { user: Some("u".into()), password: Some("p".into()), ..plain(place) }));
        assert!(RedisUrl::parse("rediss+cluster://a").is_ok_and(|url| url.tls));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("", Wrong::Form),
            ("redis:h", Wrong::Form),
            ("http://h", Wrong::Form),
            ("redis://", Wrong::Form),
            ("redis://:6379", Wrong::Form),
            ("redis://h:x", Wrong::Form),
            ("redis://h:", Wrong::Form),
            ("redis://h:0", Wrong::Form),
            ("redis://h:70000", Wrong::Form),
            ("redis://h/x", Wrong::Form),
            ("redis://a,b", Wrong::Form),
            ("redis://h h", Wrong::Form),
            ("redis://[::g]", Wrong::Form),
            ("redis://[::1", Wrong::Form),
            ("redis://u:%4@h", Wrong::Form),
            ("redis://u:%+1@h", Wrong::Form),
            ("redis+unix://run/redis.sock", Wrong::Form),
            ("redis+sentinel://a", Wrong::Master),
            ("redis+sentinel://a/", Wrong::Master),
            ("redis+sentinel://a/main/x", Wrong::Form),
            ("redis+cluster://a/1", Wrong::Database),
            ("redis+cluster://a,", Wrong::Form),
            ("redis://h?db=1", Wrong::Parameter),
            ("redis://h?protocol=4", Wrong::Parameter),
            ("redis://h?x", Wrong::Parameter),
        ] {
            assert!(RedisUrl::parse(text) == Err(why), "{text}: {:?}", RedisUrl::parse(text).err());
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let url = RedisUrl::parse("redis+sentinel://u:s3cret@h/m?sentinel_password=s4cret");
        assert_eq!(format!("{url:?}"), "Ok(RedisUrl(***))");
    }
}
