//! What is wrong with a text of PEM.

use rustls::pki_types::pem;

/// In our own words: those of the error quote the text.
pub(super) const fn pem_flaw(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "holds no certificate in PEM",
        pem::Error::MissingSectionEnd { .. } => "is no PEM: a section has no end",
        pem::Error::IllegalSectionStart { .. } => "is no PEM: a section has no good beginning",
        pem::Error::Base64Decode(_) => "is no PEM: its base64 is broken",
        _ => "is no PEM",
    }
}
