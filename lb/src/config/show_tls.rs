//! `[tls.NAME]` and `pool.tls` as they are written.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

use super::{
    CertificateFiles, CheckTrust, ClientAuth, Ocsp, PoolTls, Tls,
    show_key::{file_reference, put},
};

pub(super) fn tls(tls: &Tls) -> Value {
    let mut table = json!({ "profile": tls.profile });
    put_files(&mut table, &tls.certificates);
    let names: Vec<String> = tls.names.iter().map(ToString::to_string).collect();
    put(&mut table, "names", (!names.is_empty()).then_some(names));
    put(&mut table, "default", tls.default.then_some(true));
    put(&mut table, "client_auth", tls.client_auth.as_ref().map(client_auth));
    put(&mut table, "tickets", tls.tickets.as_deref().map(file_reference));
    put(&mut table, "early_data", tls.early_data.map(|_| true));
    put(&mut table, "early_data_bytes", tls.early_data.map(|bytes| format!("{bytes}B")));
    table
}

pub(super) fn pool_tls(tls: &PoolTls) -> Value {
    let mut table = json!({ "verify": tls.trust != CheckTrust::Anyone });
    if let CheckTrust::File(path) = &tls.trust {
        table["ca"] = json!(file_reference(path));
    }
    put(&mut table, "sni", tls.sni.as_deref());
    put_files(&mut table, tls.certificate.as_slice());
    put(
        &mut table,
        "alpn",
        (!tls.alpn.is_empty() && !tls.alpn.iter().any(|name| **name == *"h2")).then_some(&tls.alpn),
    );
    table
}

fn client_auth(clients: &ClientAuth) -> Value {
    let mode = if clients.is_required { "required" } else { "optional" };
    let mut table = json!({ "ca": file_reference(&clients.ca), "mode": mode });
    let lists: Vec<_> = clients.crl.iter().map(|path| file_reference(path)).collect();
    put(&mut table, "crl", (!lists.is_empty()).then_some(lists));
    let headers: BTreeMap<_, _> = clients.headers.iter().map(|(name, what)| (name.clone(), what)).collect();
    put(&mut table, "headers", (!headers.is_empty()).then_some(headers));
    table
}

fn ocsp(ocsp: &Ocsp) -> String {
    ocsp.file().map_or_else(|| "fetch".to_owned(), file_reference)
}

/// A string where there is one certificate, else arrays of the same length.
fn put_files(table: &mut Value, files: &[CertificateFiles]) {
    let plain = |path: &Path| path.display().to_string();
    match files {
        [] => {}
        [one] => {
            table["certificate"] = json!(plain(&one.certificate));
            table["key"] = json!(plain(&one.key));
            put(table, "ocsp", one.ocsp.as_ref().map(ocsp));
        }
        several => {
            let all = |path: fn(&CertificateFiles) -> &Path| -> Vec<String> {
                several.iter().map(|files| plain(path(files))).collect()
            };
            table["certificate"] = json!(all(|files| &files.certificate));
            table["key"] = json!(all(|files| &files.key));
            let staples: Option<Vec<String>> =
                several.iter().map(|files| files.ocsp.as_ref().map(ocsp)).collect();
            put(table, "ocsp", staples);
        }
    }
}
