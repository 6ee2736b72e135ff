//! Addresses and CIDR blocks. An IPv4 address inside IPv6 is the IPv4 address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::fault::{BadValue, Excerpt};

/// Bits of an IPv6 address before the IPv4 address that is mapped into it.
const MAPPED: u8 = 96;

/// An address as it is compared: family and bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    six: bool,
    bits: u128,
}

impl Address {
    pub(crate) fn new(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(four) => Self {
                six: false,
                bits: u32::from(four).into(),
            },
            IpAddr::V6(six) => Self {
                six: true,
                bits: six.into(),
            },
        }
    }

    fn masked(self, length: u8) -> u128 {
        let width: u32 = if self.six { 128 } else { 32 };
        let cut = width.saturating_sub(u32::from(length));
        self.bits
            .checked_shr(cut)
            .and_then(|bits| bits.checked_shl(cut))
            .unwrap_or(0)
    }
}

/// An address or a CIDR block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    six: bool,
    length: u8,
    bits: u128,
}

impl Block {
    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = Address::new(address);
        address.six == self.six && address.masked(self.length) == self.bits
    }
}

impl FromStr for Block {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = || BadValue::Address(Excerpt::of(text));
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| bad())?;
        let width: u8 = if written.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => width,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|l| *l <= width).ok_or_else(bad)?
            }
            Some(_) => return Err(bad()),
        };
        let folded = Address::new(written);
        let (address, length) = match (written.is_ipv6() && !folded.six, length.checked_sub(MAPPED)) {
            (true, Some(inner)) => (folded, inner),
            // A block that only begins with the mapped prefix is one of IPv6.
            (true, None) => match written {
                IpAddr::V6(six) => (
                    Address {
                        six: true,
                        bits: six.into(),
                    },
                    length,
                ),
                IpAddr::V4(_) => return Err(bad()),
            },
            (false, _) => (folded, length),
        };
        Ok(Self {
            six: address.six,
            length,
            bits: address.masked(length),
        })
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.six {
            write!(f, "{}/{}", std::net::Ipv6Addr::from(self.bits), self.length)
        } else {
            let four = u32::try_from(self.bits).unwrap_or_default();
            write!(f, "{}/{}", std::net::Ipv4Addr::from(four), self.length)
        }
    }
}

/// Blocks by family and length, each with a value: every block an address lies in, by one search per length.
#[derive(Clone, Debug)]
pub(crate) struct BlockMap<T>(Vec<Length<T>>);

#[derive(Clone, Debug)]
struct Length<T> {
    six: bool,
    length: u8,
    blocks: Vec<(u128, T)>,
}

impl<T> BlockMap<T> {
    pub(crate) fn new(mut blocks: Vec<(Block, T)>) -> Self {
        blocks.sort_by_key(|(block, _)| *block);
        let mut lengths: Vec<Length<T>> = Vec::new();
        for (block, value) in blocks {
            match lengths.last_mut() {
                Some(last) if (last.six, last.length) == (block.six, block.length) => {
                    last.blocks.push((block.bits, value));
                }
                _ => lengths.push(Length {
                    six: block.six,
                    length: block.length,
                    blocks: vec![(block.bits, value)],
                }),
            }
        }
        Self(lengths)
    }

    /// Shows `visit` the values of all blocks that hold the address, until it says true. True if it did.
    pub(crate) fn search(&self, address: Address, visit: &mut impl FnMut(&T) -> bool) -> bool {
        self.0
            .iter()
            .filter(|length| length.six == address.six)
            .filter_map(|length| {
                let bits = address.masked(length.length);
                let place = length.blocks.binary_search_by_key(&bits, |(b, _)| *b).ok()?;
                length.blocks.get(place)
            })
            .any(|(_, value)| visit(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(block: &str, address: &str) -> bool {
        block.parse::<Block>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_block_holds_its_addresses_and_no_others() {
        for (block, inside, outside) in [
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.9.9.9/8", "10.0.0.0", "9.255.255.255"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "fd00::1", "10.0.0.1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("fd00::1", "fd00::1", "fd00::2"),
        ] {
            assert!(holds(block, inside), "{block} {inside}");
            assert!(!holds(block, outside), "{block} {outside}");
        }
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address_on_either_side() {
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(holds("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(holds("::ffff:10.1.2.3", "10.1.2.3"));
        assert!(!holds("::ffff:10.0.0.0/104", "11.1.2.3"));
        assert!(!holds("::ffff:0.0.0.0/90", "10.1.2.3"));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in [
            "",
            "10.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "fd00::/129",
            "10.0.0.0/8/8",
            " 10.0.0.1",
            "10.0.0.01",
            "fe80::1%eth0",
            "*",
            "10.0.0.*",
        ] {
            assert!(text.parse::<Block>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_map_finds_every_block_of_every_length() {
        let texts = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "fd00::/8", "0.0.0.0/0"];
        let map = BlockMap::new(texts.iter().map(|t| (t.parse().unwrap(), *t)).collect());
        let found = |address: &str| {
            let mut found = Vec::new();
            map.search(Address::new(address.parse().unwrap()), &mut |t| {
                found.push(*t);
                false
            });
            found
        };
        assert_eq!(
            found("10.1.2.3"),
            ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3"]
        );
        assert_eq!(found("::ffff:10.2.0.0"), ["0.0.0.0/0", "10.0.0.0/8"]);
        assert_eq!(found("fd12::"), ["fd00::/8"]);
        assert!(found("::1").is_empty());
    }
}
