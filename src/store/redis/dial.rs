//! Opening a connection to a Redis: a socket, TLS, who we are; and asking Sentinels where it is.

use std::path::Path;
use std::pin::Pin;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, Value};
use openssl::ssl::{Ssl, SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use tokio::net::{TcpStream, UnixStream};
use tokio_openssl::SslStream;

use super::{CHANNEL, Failure};
use crate::base::redis_url::{Host, Place, RedisUrl};
use crate::plan::{self, RedisTls};

/// How connections are made.
pub struct Dialer {
    pub url: RedisUrl,
    password_file: Option<std::path::PathBuf>,
    tls: RedisTls,
}

/// The user and password of a sign-in.
#[derive(Default)]
struct Who {
    user: Option<String>,
    password: Option<String>,
}

impl Dialer {
    /// Looks at all it will need, so that what is wrong is told at the start; connects nowhere.
    ///
    /// # Errors
    /// When the address does not read, or a file it needs cannot be read; the text holds no secret.
    pub fn new(plan: &plan::Redis) -> Result<Self, String> {
        let url = RedisUrl::parse(&plan.url).map_err(|wrong| format!("url: {wrong}"))?;
        let dialer = Self { url, password_file: plan.password_file.clone(), tls: plan.tls.clone() };
        if let Some(file) = &dialer.password_file {
            read_password(file).map_err(|error| format!("password_file: {}: {error}", file.display()))?;
        }
        if dialer.url.tls {
            connector(&dialer.tls)?;
        }
        Ok(dialer)
    }

    /// Connects to a server and signs in. The server of [`Place::Socket`] has no host.
    pub async fn open(&self, host: Option<&Host>) -> Result<MultiplexedConnection, Failure> {
        self.speak(host, self.who()?, self.url.database).await
    }

    /// Asks the Sentinels, one after the other, where the master is.
    pub async fn master(&self) -> Result<Host, Failure> {
        let Place::Sentinel { sentinels, master, user, password } = &self.url.place else {
            return Err(Failure::Connection);
        };
        let mut ask = ::redis::cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg(master);
        for sentinel in sentinels {
            let who = Who { user: user.clone(), password: password.clone() };
            let told = tokio::time::timeout(super::SENTINEL, async {
                let mut connection = self.speak(Some(sentinel), who, 0).await?;
                ask.query_async::<Value>(&mut connection).await.map_err(|e| Failure::of(&e))
            });
            if let Ok(Ok(Value::Array(words))) = told.await
                && let Some(host) = host_of(&words)
            {
                return Ok(host);
            }
        }
        Err(Failure::Connection)
    }

    fn who(&self) -> Result<Who, Failure> {
        let password = match &self.password_file {
            // Read anew each time: passwords are changed in the file first, and connections made after.
            Some(file) => Some(read_password(file).map_err(|_| Failure::Connection)?),
            None => self.url.password.clone(),
        };
        Ok(Who { user: self.url.user.clone(), password })
    }

    async fn speak(
        &self,
        host: Option<&Host>,
        who: Who,
        database: u16,
    ) -> Result<MultiplexedConnection, Failure> {
        match (host, &self.url.place) {
            (Some(host), _) => {
                let stream = TcpStream::connect((host.name.as_str(), host.port)).await;
                let stream = stream.map_err(|_| Failure::Connection)?;
                // A multiplexed connection writes many small commands: held back until the last is acknowledged, each would wait up to 40 ms.
                stream.set_nodelay(true).map_err(|_| Failure::Connection)?;
                if self.url.tls {
                    self.sign_in(self.shake_hands(stream, &host.name).await?, who, database).await
                } else {
                    self.sign_in(stream, who, database).await
                }
            }
            (None, Place::Socket(path)) => {
                let stream = UnixStream::connect(path).await.map_err(|_| Failure::Connection)?;
                self.sign_in(stream, who, database).await
            }
            (None, _) => Err(Failure::Connection),
        }
    }

    async fn shake_hands(&self, stream: TcpStream, host: &str) -> Result<SslStream<TcpStream>, Failure> {
        let name = self.tls.name.as_deref().unwrap_or(host);
        let ssl = connector(&self.tls)
            .ok()
            .and_then(|connector| self.session(&connector, name))
            .ok_or(Failure::Tls)?;
        let mut stream = SslStream::new(ssl, stream).map_err(|_| Failure::Tls)?;
        match Pin::new(&mut stream).connect().await {
            Ok(()) => Ok(stream),
            Err(error) => {
                tracing::debug!(%error, "TLS to Redis");
                Err(Failure::Tls)
            }
        }
    }

    fn session(&self, connector: &SslConnector, name: &str) -> Option<Ssl> {
        let configuration = connector.configure().ok()?;
        configuration.verify_hostname(!self.tls.insecure).into_ssl(name).ok()
    }

    async fn sign_in<S>(&self, stream: S, who: Who, database: u16) -> Result<MultiplexedConnection, Failure>
    where
        S: Unpin + tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
    {
        let protocol = if self.url.resp3 { ProtocolVersion::RESP3 } else { ProtocolVersion::RESP2 };
        let mut info = RedisConnectionInfo::default().set_db(i64::from(database)).set_protocol(protocol);
        // A name for the list of clients would need a permission of its own, under another name in every version.
        info = info.set_skip_set_lib_name();
        if let Some(user) = who.user {
            info = info.set_username(user);
        }
        if let Some(password) = who.password {
            info = info.set_password(password);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(CHANNEL);
        let opened = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (connection, driver) = opened.map_err(|e| Failure::of(&e))?;
        // Ends with the last handle of the connection.
        tokio::spawn(driver);
        Ok(connection)
    }
}

fn read_password(file: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(file).map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Made anew for every connection, so that certificates that were renewed are used.
fn connector(tls: &RedisTls) -> Result<SslConnector, String> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| format!("tls.{what}: {error}");
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(|e| wrong("ca", &e))?;
    match &tls.ca {
        Some(file) => builder.set_ca_file(file).map_err(|e| wrong("ca", &e))?,
        // An OpenSSL that was built along knows only the folders of the machine it was built on.
        None => {
            let found = openssl_probe::probe();
            if let Some(file) = found.cert_file {
                builder.set_ca_file(file).map_err(|e| wrong("ca", &e))?;
            }
        }
    }
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
        builder.set_certificate_chain_file(certificate).map_err(|e| wrong("cert", &e))?;
        builder.set_private_key_file(key, SslFiletype::PEM).map_err(|e| wrong("key", &e))?;
        builder.check_private_key().map_err(|e| wrong("key", &e))?;
    }
    if tls.insecure {
        builder.set_verify(SslVerifyMode::NONE);
    }
    Ok(builder.build())
}

/// A host and a port as two words.
fn host_of(words: &[Value]) -> Option<Host> {
    let [Value::BulkString(name), Value::BulkString(port)] = words else { return None };
    let port = std::str::from_utf8(port).ok()?.parse().ok()?;
    Some(Host { name: String::from_utf8(name.clone()).ok()?, port })
}
