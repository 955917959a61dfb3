//! Which versions, key exchanges and ciphers are spoken.

use rustls::{
    SupportedProtocolVersion,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{
            self,
            kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768},
        },
    },
    version::{TLS12, TLS13},
};

use crate::config::TlsProfile;

/// Versions, the newest first.
static VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// Versions of a profile.
pub(super) fn versions(profile: TlsProfile) -> &'static [&'static SupportedProtocolVersion] {
    match profile {
        TlsProfile::Default | TlsProfile::Compatible => &VERSIONS,
        TlsProfile::Modern => &VERSIONS[..1],
    }
}

/// Suites and key exchanges. The one that holds against quantum computers stands first.
pub(super) fn provider(profile: TlsProfile) -> CryptoProvider {
    let default = aws_lc_rs::default_provider();
    match profile {
        TlsProfile::Default | TlsProfile::Modern => {
            CryptoProvider { kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1], ..default }
        }
        TlsProfile::Compatible => CryptoProvider {
            cipher_suites: aws_lc_rs::ALL_CIPHER_SUITES.to_vec(),
            kx_groups: aws_lc_rs::ALL_KX_GROUPS.to_vec(),
            ..default
        },
    }
}
