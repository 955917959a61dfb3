//! Newtypes for indexes, so that one is never taken for another.

macro_rules! ids {
    ($($(#[doc = $doc:literal])+ $name:ident($inner:ty);)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
            #[derive(serde::Serialize, serde::Deserialize)]
            #[serde(transparent)]
            pub struct $name(pub $inner);

            impl $name {
                /// As an index.
                pub const fn index(self) -> usize {
                    self.0 as usize
                }
            }

            impl std::fmt::Display for $name {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    self.0.fmt(f)
                }
            }
        )+
    };
}

ids! {
    /// One server address in one pool. Stable over generations; 0 is never given out; never reused while
    /// anything may still name it.
    BackendId(u16);
    /// Number of a config, counted up from 1.
    Generation(u64);
    /// A listener. Stable over generations as long as its name stays.
    ListenerId(u16);
    /// The sockets of one address, one for each worker. Never given twice by one process.
    GroupId(u32);
    /// A pool, by its place in the snapshot.
    PoolId(u16);
    /// A route, by its place in the snapshot.
    RouteId(u16);
    /// A VIP, by its place in the config.
    VipId(u16);
    /// A worker, counted from 0.
    WorkerId(u16);
}
