//! Draws one free number from a range: a few random tries, then a walk from a random start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use proximity_domain::Cidr;
use rand::Rng as _;

use super::Empty;

/// Random tries before the range is walked; with half of it free, all of them fail once in 2^32.
const TRIES: u32 = 32;
/// The longest walk; a larger range is only ever full in its first part.
const WALK: u128 = 1 << 17;

/// What one number is.
pub(super) enum Seen<T> {
    Free(T),
    Taken,
    InFlight,
}

/// A free number between both ends.
pub(super) fn free<T>(
    first: u128,
    last: u128,
    mut look: impl FnMut(u128) -> Seen<T>,
) -> Result<T, Empty> {
    if first > last {
        return Err(Empty::Full);
    }
    let mut rng = rand::rng();
    for _ in 0..TRIES {
        if let Seen::Free(value) = look(rng.random_range(first..=last)) {
            return Ok(value);
        }
    }
    let count = (last - first).saturating_add(1).min(WALK);
    let start = rng.random_range(0..count);
    let mut empty = Empty::Full;
    for step in 0..count {
        match look(first + (start + step) % count) {
            Seen::Free(value) => return Ok(value),
            Seen::InFlight => empty = Empty::Contended,
            Seen::Taken => {}
        }
    }
    Err(empty)
}

/// The numbers of a subnet's addresses; of a large one the first part, which is plenty.
pub(super) fn hosts(subnet: Cidr) -> RangeInclusive<u128> {
    let net = subnet.net();
    let bits = u32::from(net.max_prefix_len() - net.prefix_len());
    0..=(1_u128 << bits.min(17)) - 1
}

/// The address of a number of [`hosts`].
pub(super) fn address(subnet: Cidr, number: u128) -> IpAddr {
    match subnet.net().network() {
        IpAddr::V4(base) => {
            let offset = u32::try_from(number).unwrap_or_default();
            IpAddr::V4(Ipv4Addr::from_bits(base.to_bits().saturating_add(offset)))
        }
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from_bits(base.to_bits().saturating_add(number))),
    }
}
