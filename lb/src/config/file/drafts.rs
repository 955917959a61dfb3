//! What was read of a file, table by table, before it is known whether it agrees.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    listener::ListenerDraft, pool::PoolDraft, reader::At, route::RouteDraft, tls::TlsDraft, unread::Unread,
    vip::VipDraft,
};

/// Everything named, as it was read.
pub(super) struct Drafts {
    pub(super) vips: Vec<VipDraft>,
    pub(super) listeners: Vec<ListenerDraft>,
    pub(super) routes: Vec<RouteDraft>,
    pub(super) tls: Vec<TlsDraft>,
    pub(super) pools: Vec<PoolDraft>,
    pub(super) admin_http: Option<At<SocketAddr>>,
    pub(super) admin_socket: PathBuf,
    pub(super) has_xdp: bool,
    pub(super) has_programs: bool,
    /// Routes beside those.
    pub(super) unread: Unread,
}
