//! Values from pools: VMIDs, ports and addresses are picked at random among the free ones.
//!
//! The view says what is free, the log decides: a pick that someone else won costs another pick, not
//! a failed attempt. Only a pool that was seen full is exhausted.

mod flight;
mod pick;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use proximity_domain::{LeaseKey, NetworkSettings, Port, PortPool, Vmid};
use proximity_eventstore::Store;
use tokio::sync::Mutex;

pub use flight::Flight;
pub use view::{Promise, View};

use crate::agreed::{Picks, changed};
use crate::error::Error;
use crate::ports::ClusterView;
use flight::InFlight;

/// The ranges that values are picked from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRanges {
    pub public_ports: RangeInclusive<u16>,
    pub internal_ports: RangeInclusive<u16>,
    pub vmids: RangeInclusive<u32>,
}

impl Default for PoolRanges {
    fn default() -> Self {
        Self {
            public_ports: 8100..=8999,
            internal_ports: 9100..=9999,
            vmids: Vmid::MIN.get()..=Vmid::MAX.get(),
        }
    }
}

/// How many free numbers a VMID is drawn from: enough that racers seldom meet, few enough that the
/// numbers stay short.
const VMID_WINDOW: u32 = 10_000;

/// All pools of an installation.
pub struct Pools {
    store: Store,
    ranges: PoolRanges,
    view: Mutex<View>,
    in_flight: InFlight,
}

/// What a deployment was given; nobody else in this process is given the same while this lives.
pub struct Picked {
    pub vmid: Vmid,
    pub public_port: Port,
    pub internal_port: Port,
    pub address: Option<std::net::IpAddr>,
    /// A plan that was agreed on had picked it before.
    pub agreed: bool,
    /// Keeps the values from other picks.
    _flights: Vec<Flight>,
}

/// A number alone, for a second container of an application.
pub struct PickedVmid {
    pub vmid: Vmid,
    /// Keeps it from other picks.
    _flight: Vec<Flight>,
}

/// A pool that has nothing to give.
enum Empty {
    /// Everything is held.
    Full,
    /// What is not held is being leased by others at this moment.
    Contended,
}

impl Pools {
    pub fn new(store: Store, ranges: PoolRanges) -> Self {
        Self { store, ranges, view: Mutex::default(), in_flight: InFlight::default() }
    }

    /// The ranges in force.
    pub fn ranges(&self) -> &PoolRanges {
        &self.ranges
    }

    /// What running deployments were promised, by node.
    pub async fn promises(&self) -> Result<Vec<Promise>, Error> {
        let mut view = self.view.lock().await;
        view.catch_up(&self.store).await?;
        Ok(view.promises())
    }

    /// A free VMID of the cluster, a free port of each pool and, in static mode, a free address; or what
    /// a plan that was agreed on has picked.
    pub async fn pick(
        &self,
        cluster: &ClusterView,
        network: Option<&NetworkSettings>,
        agreed: Option<&Picks>,
    ) -> Result<Picked, Error> {
        let mut view = self.view.lock().await;
        view.catch_up(&self.store).await?;
        if let Some(picks) = agreed {
            return self.again(&view, cluster, picks, network.is_some()).ok_or_else(changed);
        }
        let mut flights = Vec::new();
        let vmid = self.vmid(&view, cluster, &mut flights).map_err(Empty::no_vmid)?;
        let ports = |pool, range: &RangeInclusive<u16>, flights: &mut Vec<Flight>| {
            self.port(&view, pool, range, flights)
                .map_err(|empty| empty.refusal("ports.exhausted", "no port is free in the range"))
        };
        let public_port = ports(PortPool::Public, &self.ranges.public_ports, &mut flights)?;
        let internal_port = ports(PortPool::Internal, &self.ranges.internal_ports, &mut flights)?;
        let address = match network {
            Some(network) => {
                let none = "no address of the subnet is free";
                let picked = self.address(&view, cluster, network, &mut flights);
                Some(picked.map_err(|empty| empty.refusal("addresses.exhausted", none))?)
            }
            None => None,
        };
        let agreed = false;
        Ok(Picked { vmid, public_port, internal_port, address, agreed, _flights: flights })
    }

    /// A free VMID of the cluster; or that of a plan that was agreed on.
    pub async fn pick_vmid(
        &self,
        cluster: &ClusterView,
        agreed: Option<&Picks>,
    ) -> Result<PickedVmid, Error> {
        let mut view = self.view.lock().await;
        view.catch_up(&self.store).await?;
        if let Some(picks) = agreed {
            let vmid = picks.vmid.ok_or_else(changed)?;
            let flight = self.vmid_again(&view, cluster, vmid).ok_or_else(changed)?;
            return Ok(PickedVmid { vmid, _flight: vec![flight] });
        }
        let mut flight = Vec::new();
        let vmid = self.vmid(&view, cluster, &mut flight).map_err(Empty::no_vmid)?;
        Ok(PickedVmid { vmid, _flight: flight })
    }

    /// A number that was picked before, if it is free still.
    fn vmid_again(&self, view: &View, cluster: &ClusterView, vmid: Vmid) -> Option<Flight> {
        let taken =
            view.vmids(&cluster.cluster).contains(&vmid.get()) || cluster.guests.contains(&vmid);
        let free = self.ranges.vmids.contains(&vmid.get()) && !taken;
        free.then(|| self.in_flight.reserve(LeaseKey::Vmid(cluster.cluster.clone(), vmid)))?
    }

    /// What was picked before, if it is free still; the log decides about it as about any other.
    fn again(
        &self,
        view: &View,
        cluster: &ClusterView,
        picks: &Picks,
        is_static: bool,
    ) -> Option<Picked> {
        let (vmid, public_port, internal_port) =
            (picks.vmid?, picks.public_port?, picks.internal_port?);
        let in_range = self.ranges.public_ports.contains(&public_port.get())
            && self.ranges.internal_ports.contains(&internal_port.get());
        let address = if is_static { Some(picks.address?) } else { None };
        let keys = [
            Some(LeaseKey::Port(PortPool::Public, public_port)),
            Some(LeaseKey::Port(PortPool::Internal, internal_port)),
            address.map(|address| LeaseKey::Address(cluster.cluster.clone(), address)),
        ];
        let mut flights = vec![self.vmid_again(view, cluster, vmid)?];
        for key in keys.into_iter().flatten() {
            if !in_range || view.is_taken(&key) {
                return None;
            }
            flights.push(self.in_flight.reserve(key)?);
        }
        let agreed = true;
        Some(Picked { vmid, public_port, internal_port, address, agreed, _flights: flights })
    }

    fn vmid(
        &self,
        view: &View,
        cluster: &ClusterView,
        flights: &mut Vec<Flight>,
    ) -> Result<Vmid, Empty> {
        let used = view.vmids(&cluster.cluster);
        let guests: BTreeSet<u32> = cluster.guests.iter().map(|vmid| vmid.get()).collect();
        let is_taken = |number: u32| used.contains(&number) || guests.contains(&number);
        let (first, last) = (*self.ranges.vmids.start(), *self.ranges.vmids.end());
        // As many beyond the window as are taken: then at least the window's number is free in it.
        let taken = u32::try_from(used.len() + guests.len()).unwrap_or(u32::MAX);
        let end = first.saturating_add(VMID_WINDOW).saturating_add(taken).min(last);
        let picked = pick::free(u128::from(first), u128::from(end), |number| {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            if is_taken(number) {
                return pick::Seen::Taken;
            }
            let Ok(vmid) = Vmid::try_from(i64::from(number)) else { return pick::Seen::Taken };
            match self.in_flight.reserve(LeaseKey::Vmid(cluster.cluster.clone(), vmid)) {
                Some(flight) => pick::Seen::Free((vmid, flight)),
                None => pick::Seen::InFlight,
            }
        });
        Self::keep(picked, flights)
    }

    fn port(
        &self,
        view: &View,
        pool: PortPool,
        range: &RangeInclusive<u16>,
        flights: &mut Vec<Flight>,
    ) -> Result<Port, Empty> {
        let picked = pick::free(u128::from(*range.start()), u128::from(*range.end()), |number| {
            let port = i64::try_from(number).map(Port::try_from);
            let Ok(Ok(port)) = port else { return pick::Seen::Taken };
            let key = LeaseKey::Port(pool, port);
            if view.is_taken(&key) {
                return pick::Seen::Taken;
            }
            match self.in_flight.reserve(key) {
                Some(flight) => pick::Seen::Free((port, flight)),
                None => pick::Seen::InFlight,
            }
        });
        Self::keep(picked, flights)
    }

    fn address(
        &self,
        view: &View,
        cluster: &ClusterView,
        network: &NetworkSettings,
        flights: &mut Vec<Flight>,
    ) -> Result<std::net::IpAddr, Empty> {
        let subnet = network.subnet();
        let spoken_for =
            [Some(network.gateway()), Some(network.dns_primary()), network.dns_secondary()];
        let hosts = pick::hosts(subnet);
        let picked = pick::free(*hosts.start(), *hosts.end(), |number| {
            let address = pick::address(subnet, number);
            let key = LeaseKey::Address(cluster.cluster.clone(), address);
            if !subnet.allows_host(address)
                || spoken_for.contains(&Some(address))
                || view.is_taken(&key)
            {
                return pick::Seen::Taken;
            }
            match self.in_flight.reserve(key) {
                Some(flight) => pick::Seen::Free((address, flight)),
                None => pick::Seen::InFlight,
            }
        });
        Self::keep(picked, flights)
    }

    fn keep<T>(picked: Result<(T, Flight), Empty>, flights: &mut Vec<Flight>) -> Result<T, Empty> {
        picked.map(|(value, flight)| {
            flights.push(flight);
            value
        })
    }
}

impl Empty {
    fn no_vmid(self) -> Error {
        self.refusal("vmids.exhausted", "no VMID is free in the range")
    }

    fn refusal(self, code: &'static str, detail: &'static str) -> Error {
        match self {
            Self::Full => Error::conflict(code, detail),
            Self::Contended => Error::Unavailable {
                code: "pools.contended",
                detail: "the last free values are being given away right now; try again".to_owned(),
                retry_after: std::time::Duration::from_secs(1),
            },
        }
    }
}
