//! Lines to a server that are not what they could be.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

/// An address behind which is this server, over a line that carries so many bytes a second from it, on each connection.
pub async fn narrow(server: SocketAddr, pace: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("the address of a bound socket");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(server).await else { return };
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
                // So many bytes every 10 ms.
                let mut bytes = vec![0; (pace / 100).max(1)];
                while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
                    if to_client.write_all(&bytes[..count]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(10) * u32::from(count > 200)).await;
                }
            });
        }
    });
    address
}
