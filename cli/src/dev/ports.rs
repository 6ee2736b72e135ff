//! Ports of loopback that the system chose, known before who listens there is started. A socket that is bound
//! and does not listen holds the port: nobody is given it by chance, and a server that binds it by name, with
//! `SO_REUSEADDR` as servers do, gets it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port that is held until this is dropped.
#[derive(Debug)]
pub struct HeldPort {
    _socket: TcpSocket,
    address: SocketAddr,
}

impl HeldPort {
    /// A free port.
    ///
    /// # Errors
    /// When the system has none.
    pub fn hold() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = socket.local_addr()?;
        Ok(Self {
            _socket: socket,
            address,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_held_port_is_for_who_asks_for_it_by_name_again_and_again() {
        let port = HeldPort::hold().unwrap();
        let others: Vec<HeldPort> = (0..64).map(|_| HeldPort::hold().unwrap()).collect();
        assert!(others.iter().all(|other| other.address() != port.address()));
        for _ in 0..2 {
            let listener = tokio::net::TcpListener::bind(port.address()).await.unwrap();
            let (client, server) =
                tokio::join!(tokio::net::TcpStream::connect(port.address()), listener.accept());
            assert_eq!(client.unwrap().local_addr().unwrap(), server.unwrap().1);
        }
    }
}
