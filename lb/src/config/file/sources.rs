//! `vip.sources`: clients that go to a pool of their own.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use lb_abi::bounds::SOURCE_PREFIXES_MAX;

use super::{
    address,
    pool::reference,
    reader::{At, Fault, Table, Value},
    schema,
};

/// What was read of it: prefixes that are one each, with their pools.
#[derive(Default)]
pub(super) struct SourcesDraft {
    pub(super) pools: Vec<Option<At<Arc<str>>>>,
    prefixes: Vec<Option<IpNet>>,
}

impl SourcesDraft {
    pub(super) fn read(vip: &Table<'_>) -> Self {
        let mut this = Self::default();
        let Some(value) = vip.value("sources") else { return this };
        let rule = "must be an array of prefixes and pools, such as [{ prefix = \"198.51.100.0/24\", pool = \"blue\" }]";
        let items = value.items_or_none(rule).unwrap_or_default();
        if items.len() > SOURCE_PREFIXES_MAX as usize {
            value.fault(Fault::new(format!("must be at most {SOURCE_PREFIXES_MAX} prefixes")));
            return this;
        }
        let mut seen = std::collections::HashSet::new();
        for item in &items {
            let Some((prefix, pool)) = read(item) else { continue };
            if prefix.is_some_and(|prefix| !seen.insert(prefix)) {
                item.fault(Fault::new("this prefix is listed already"));
            }
            this.prefixes.push(prefix);
            this.pools.push(pool);
        }
        this
    }

    /// `None` only where a problem was reported.
    pub(super) fn build(self) -> Option<BTreeMap<IpNet, Arc<str>>> {
        self.prefixes.into_iter().zip(self.pools).map(|(prefix, pool)| Some((prefix?, pool?.value))).collect()
    }
}

type Source = (Option<IpNet>, Option<At<Arc<str>>>);

fn read(item: &Value<'_>) -> Option<Source> {
    let table = item.table(&schema::SOURCE)?;
    let rule = "must be a prefix, such as \"198.51.100.0/24\"";
    let prefix = table.required("prefix", rule).and_then(|value| value.parsed(rule, prefix));
    let pool = reference(table.required("pool", "must be the name of a pool"), "pool");
    Some((prefix.map(|at| at.value), pool))
}

fn prefix(text: &str) -> Result<IpNet, Fault> {
    match address::prefix(text)? {
        net if net.prefix_len() == 0 => {
            Err(Fault::new("is every client: that is what the VIP's own `pool` is for"))
        }
        net => Ok(net),
    }
}
