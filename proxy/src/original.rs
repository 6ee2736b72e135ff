//! Where a redirected connection was going: what the kernel remembers of a REDIRECT rule.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{Ip6tOriginalDst, OriginalDst};
use tokio::net::TcpStream;

/// The address that the client dialled.
///
/// # Errors
/// The system's own, `ENOENT` for a connection that was not redirected.
pub fn destination(tcp: &TcpStream) -> io::Result<SocketAddr> {
    if tcp.local_addr()?.is_ipv4() || mapped(tcp)? {
        let found = getsockopt(tcp, OriginalDst)?;
        let address = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
        return Ok(SocketAddrV4::new(address, u16::from_be(found.sin_port)).into());
    }
    let found = getsockopt(tcp, Ip6tOriginalDst)?;
    let address = Ipv6Addr::from(found.sin6_addr.s6_addr);
    Ok(SocketAddrV6::new(address, u16::from_be(found.sin6_port), 0, 0).into())
}

/// An IPv4 connection on a socket for both.
fn mapped(tcp: &TcpStream) -> io::Result<bool> {
    Ok(match tcp.local_addr()? {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(address) => address.ip().to_ipv4_mapped().is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_was_not_redirected_has_no_other_destination() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let _client = client.unwrap();
        let (tcp, _) = accepted.unwrap();
        // Where connections are tracked the kernel answers with the address itself.
        if let Ok(found) = destination(&tcp) {
            assert_eq!(found, address);
        }
    }
}
