//! Networks: an address and how many of its bits count. Pure.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A network: an address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Network {
    /// Any address in it.
    pub address: IpAddr,
    /// Bits that count: at most 32 or 128.
    pub bits: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        if self.bits == whole {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.bits)
        }
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    /// `10.0.0.0/8`, `2001:db8::/32`, or an address alone. Bits beyond the length must be zero: anything else is a slip.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, bits)| (a, Some(bits)));
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("`{text}` is neither an address nor a network such as 10.0.0.0/8"))?;
        let (written, address) = (address, address.to_canonical());
        // An address of IPv4 that is written as one of IPv6 is one of IPv4 in every packet.
        let mapped = written.is_ipv6() && address.is_ipv4();
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits.map(str::parse::<u8>) {
            None => whole,
            Some(Ok(bits)) if mapped && (96..=128).contains(&bits) => bits - 96,
            Some(Ok(bits)) if !mapped && bits <= whole => bits,
            Some(_) if mapped => return Err(format!("`{text}`: the length must be from 96 to 128")),
            Some(_) => return Err(format!("`{text}`: the length must be from 0 to {whole}")),
        };
        let network = Self { address, bits };
        if network.first() == address {
            Ok(network)
        } else {
            Err(format!("`{text}` is not a network: did you mean {}/{bits}?", network.first()))
        }
    }
}

impl Network {
    /// The same with all bits beyond the length zero.
    #[cfg(test)]
    pub(crate) fn whole(self) -> Self {
        Self { address: self.first(), bits: self.bits }
    }

    /// The address with all bits beyond the length zero.
    pub(super) fn first(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4((u32::from(address) & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V6((u128::from(address) & mask).into())
            }
        }
    }

    /// One address.
    pub fn single(address: IpAddr) -> Self {
        Self { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether it holds one address only.
    pub fn is_single(&self) -> bool {
        *self == Self::single(self.address)
    }

    /// Whether all of another lies in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.bits <= other.bits && self.contains(other.address)
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Self { address, bits: self.bits }.first() == self.first()
    }
}
