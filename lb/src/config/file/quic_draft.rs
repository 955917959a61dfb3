//! `vip.quic`: by which keys connection ids are told.

use std::collections::BTreeMap;

use super::{
    process::file_reference,
    reader::{At, Fault, Table},
    schema,
};
use crate::config::Quic;

/// What was read of `vip.quic`.
pub(super) struct QuicDraft {
    pub(super) keys: BTreeMap<u8, std::path::PathBuf>,
    /// For messages about the whole of it.
    pub(super) place: At<()>,
}

impl QuicDraft {
    /// `None` also where a problem was reported.
    pub(super) fn read(vip: &Table<'_>) -> Option<Self> {
        let value = vip.value("quic")?;
        let table = value.table(&schema::QUIC)?;
        let rule = "ids are checked by keys, such as { 0 = \"file:quic-0.key\" }";
        let keys = table.required("keys", rule)?;
        let given = keys.table(&schema::QUIC_KEYS)?;
        if given.is_empty() {
            keys.fault(Fault::new(format!("must not be empty: {rule}")));
        }
        let read = |(name, value): (
            &serde_spanned::Spanned<std::borrow::Cow<'_, str>>,
            super::reader::Value<'_>,
        )| {
            let name: &str = name.get_ref();
            let config = schema::QUIC_KEYS.supported_names().position(|known| known == name)? as u8;
            let file = value
                .parsed_secret("a key is given by reference, as in \"file:quic-0.key\"", file_reference)?;
            Some((config, file))
        };
        let keys: BTreeMap<_, _> = given.entries().filter_map(read).collect();
        // Of keys that cannot be read that is said, and nothing else.
        (!keys.is_empty()).then(|| Self { keys, place: value.at(()) })
    }

    pub(super) fn build(self) -> Quic {
        Quic { keys: self.keys }
    }
}
