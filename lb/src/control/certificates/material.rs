//! What references lead to, read whole, with a digest of all of it.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::{
    super::{
        secret::open_beneath,
        staples::{FileDigest, Staples},
    },
    HTTP1, Misfit,
};
use crate::{
    admin::certificates::{CertificateView, StapleView},
    config::{CertificateFiles, CheckKind, CheckTrust, ClientAuth, Ocsp, PoolTls, Tls, TlsCheck},
    tls::{
        Certificate, CertificateName, Clients, EarlyData, Entry, Flaw, Parts, Sessions, TicketKeys, Tickets,
        Trust, Upstream, Wiped, next_update,
        ocsp::{Question, Staple},
        revocations,
    },
};

/// Longest file: authorities that a host trusts take a quarter of it.
const BYTES_MAX: u64 = 1 << 20;

/// Of a config and of every byte that it refers to.
pub(super) type Whole = [u8; 32];

/// What was made of it.
#[derive(Debug)]
pub(super) struct Known<T> {
    pub(super) digest: Whole,
    pub(super) made: Arc<T>,
    /// What is shown.
    pub(super) certificates: Vec<Shown>,
    /// Lists of what is not good any more, and when each is to be followed by another.
    pub(super) lists: Vec<(PathBuf, Option<i64>)>,
    /// Its tickets are made with keys of a file.
    pub(super) has_own_keys: bool,
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        Self {
            digest: self.digest,
            made: self.made.clone(),
            certificates: self.certificates.clone(),
            lists: self.lists.clone(),
            has_own_keys: self.has_own_keys,
        }
    }
}

/// A certificate that is shown, and what goes with it.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) file: PathBuf,
    pub(super) certificate: Certificate,
    /// The answer of OCSP that is shown with it.
    pub(super) staple: Option<Staple>,
    /// Where that comes from, where it is asked for.
    pub(super) asked: Option<(FileDigest, Arc<Question>)>,
}

impl Shown {
    /// `staples`: what is known of those that are asked for.
    pub(super) fn view(&self, table: &'static str, name: &Arc<str>, staples: &Staples) -> CertificateView {
        let staple = match (&self.asked, &self.staple) {
            (None, None) => None,
            (None, Some(staple)) => Some(StapleView::of_file(staple.next_update)),
            (Some((of, _)), staple) => {
                let (failure, fetches) = staples.told(of);
                let next_update = staple.as_ref().and_then(|staple| staple.next_update);
                Some(StapleView { is_fetched: true, next_update, failure, fetches })
            }
        };
        CertificateView { staple, ..CertificateView::new(table, name, &self.file, &self.certificate) }
    }
}

/// Where something is read.
pub(super) struct Reading<'r> {
    /// The table that refers to it.
    pub(super) at: String,
    /// Files lie beneath.
    pub(super) directory: &'r Path,
    /// Answers of OCSP that were fetched, by the content of the certificates' files.
    pub(super) staples: &'r BTreeMap<FileDigest, Staple>,
}

impl Reading<'_> {
    fn misfit(&self, key: &str, path: &Path, what: impl std::fmt::Display) -> Misfit {
        Misfit { at: format!("{}.{key}", self.at), message: format!("{}: {what}", path.display()) }
    }

    fn whole(&self, message: String) -> Misfit {
        Misfit { at: self.at.clone(), message }
    }

    fn file(&self, key: &str, path: &Path) -> Result<Wiped, Misfit> {
        let read = open_beneath(self.directory, path).and_then(|file| {
            // With room for all of it: what grows leaves copies behind.
            let len = file.metadata()?.len().min(BYTES_MAX) as usize;
            let mut content = Vec::with_capacity(len + 1);
            file.take(BYTES_MAX + 1).read_to_end(&mut content)?;
            Ok(content)
        });
        match read {
            Ok(content) if content.len() as u64 > BYTES_MAX => {
                Err(self.misfit(key, path, format!("is larger than {} MiB", BYTES_MAX >> 20)))
            }
            Ok(content) => Ok(Wiped::from(content)),
            Err(error) => Err(self.misfit(key, path, error)),
        }
    }
}

/// Files of one certificate.
struct Pair {
    certificate: Wiped,
    key: Wiped,
    ocsp: Option<Wiped>,
    /// That is fetched, for this.
    asked: Option<FileDigest>,
}

/// What was read for an entry or a pool.
pub(super) struct Material {
    pub(super) digest: Whole,
    pairs: Vec<Pair>,
    /// Authorities.
    ca: Option<Wiped>,
    crl: Vec<Wiped>,
    tickets: Option<Wiped>,
    /// Those of the host, where they count.
    host: Option<Trust>,
}

/// Authorities that this host trusts, read once.
#[derive(Default)]
pub(super) struct Host(Option<Trust>);

impl Host {
    fn trust(&mut self) -> Result<Trust, String> {
        match &self.0 {
            Some(trust) => Ok(trust.clone()),
            None => Ok(self.0.insert(Trust::of_host()?).clone()),
        }
    }
}

impl Material {
    pub(super) fn of_entry(reading: &Reading<'_>, tls: &Tls) -> Result<Self, Misfit> {
        let pairs = tls.certificates.iter().map(|files| Pair::read(reading, files));
        let clients = tls.client_auth.as_ref();
        let ca = clients.map(|clients| reading.file("client_auth.ca", &clients.ca)).transpose()?;
        let crl = clients.map_or(&[][..], |clients| &clients.crl).iter();
        let crl = crl.map(|path| reading.file("client_auth.crl", path)).collect::<Result<_, _>>()?;
        let tickets = tls.tickets.as_ref().map(|path| reading.file("tickets", path)).transpose()?;
        Ok(Self { digest: [0; 32], pairs: pairs.collect::<Result<_, _>>()?, ca, crl, tickets, host: None }
            .digested(tls))
    }

    pub(super) fn of_pool(reading: &Reading<'_>, tls: &PoolTls, host: &mut Host) -> Result<Self, Misfit> {
        let pairs = tls.certificate.iter().map(|files| Pair::read(reading, files));
        let pairs = pairs.collect::<Result<_, _>>()?;
        Ok(Self { pairs, ..Self::of_trust(reading, &tls.trust, host)? }.digested(tls))
    }

    /// `kind` speaks TLS as `tls` says.
    pub(super) fn of_check(
        reading: &Reading<'_>,
        kind: &CheckKind,
        tls: &TlsCheck,
        host: &mut Host,
    ) -> Result<Self, Misfit> {
        Ok(Self::of_trust(reading, &tls.trust, host)?.digested(&(protocols(kind), tls)))
    }

    fn of_trust(reading: &Reading<'_>, trust: &CheckTrust, host: &mut Host) -> Result<Self, Misfit> {
        let (ca, host) = match trust {
            CheckTrust::Anyone => (None, None),
            CheckTrust::File(path) => (Some(reading.file("ca", path)?), None),
            CheckTrust::Host => {
                let at = format!("{}.verify", reading.at);
                (None, Some(host.trust().map_err(|message| Misfit { at, message })?))
            }
        };
        Ok(Self { digest: [0; 32], pairs: Vec::new(), ca, crl: Vec::new(), tickets: None, host })
    }

    /// With the digest of it, and of the config that names it.
    fn digested(self, config: &impl Debug) -> Self {
        let mut hash = Context::new(&SHA256);
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(format!("{config:?}").as_bytes());
        for pair in &self.pairs {
            let ocsp = pair.ocsp.as_ref().map_or(&[][..], Wiped::bytes);
            [pair.certificate.bytes(), pair.key.bytes(), ocsp].into_iter().for_each(&mut add);
        }
        let others = self.ca.iter().chain(&self.crl).chain(&self.tickets);
        others.for_each(|content| add(content.bytes()));
        self.host.iter().flat_map(Trust::parts).for_each(&mut add);
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        Self { digest, ..self }
    }

    pub(super) fn entry(
        &self,
        reading: &Reading<'_>,
        name: &Arc<str>,
        tls: &Tls,
        keys: &TicketKeys,
        former: Option<&Entry>,
    ) -> Result<Known<Entry>, Misfit> {
        let certificates = self.certificates(reading, &tls.certificates)?;
        let own = tls.tickets.as_ref().zip(self.tickets.as_ref()).map(|(path, content)| {
            TicketKeys::of_file(content.bytes()).map_err(|why| reading.misfit("tickets", path, why))
        });
        let own = own.transpose()?;
        let tickets = Tickets::new(self.ticket_context(name, tls), own.as_ref().unwrap_or(keys));
        let mut lists = Vec::new();
        let clients = tls.client_auth.as_ref().map(|clients| self.clients(reading, clients, &mut lists));
        let clients = clients.transpose()?;
        let names = tls.names.iter().map(|name| CertificateName::of(&name.to_string())).collect::<Vec<_>>();
        let parts = Parts {
            name: name.clone(),
            certificates: certificates.iter().map(|one| one.certificate.clone()).collect(),
            names: (!names.is_empty()).then_some(names),
            is_default: tls.default,
            profile: tls.profile,
            clients,
            tickets: tickets.map_err(|message| reading.whole(message))?,
            early_data: tls.early_data.map(|bytes_max| {
                let former = former.and_then(Entry::early_data).map(|early| &early.sessions);
                EarlyData { bytes_max, sessions: Sessions::or_former(former, self.ticket_context(name, tls)) }
            }),
        };
        let entry = Entry::new(parts).map_err(|message| reading.whole(message))?;
        if entry.names().is_empty() && !entry.is_default() {
            let path = tls.certificates.first().map_or(Path::new(""), |files| &files.certificate);
            let why = "is for no name, and tls.default is not set: no client would ever get it";
            return Err(reading.misfit("certificate", path, why));
        }
        let (digest, has_own_keys) = (self.digest, own.is_some());
        Ok(Known { digest, made: Arc::new(entry), certificates, lists, has_own_keys })
    }

    pub(super) fn upstream(&self, reading: &Reading<'_>, tls: &PoolTls) -> Result<Known<Upstream>, Misfit> {
        let certificates = self.certificates(reading, tls.certificate.as_slice())?;
        let trust = self.trust(reading, &tls.trust)?;
        let protocols: Vec<&[u8]> = tls.alpn.iter().map(|name| name.as_bytes()).collect();
        let shown = certificates.first().map(|one| &one.certificate);
        let made = Upstream::new(trust, tls.sni.as_deref(), shown, &protocols);
        let made = Arc::new(made.map_err(|message| reading.whole(message))?);
        Ok(Known { digest: self.digest, made, certificates, lists: Vec::new(), has_own_keys: false })
    }

    /// For checks: each probe says by itself whom it asks.
    pub(super) fn check(
        &self,
        reading: &Reading<'_>,
        kind: &CheckKind,
        tls: &TlsCheck,
    ) -> Result<Known<Upstream>, Misfit> {
        let made = Upstream::new(self.trust(reading, &tls.trust)?, None, None, protocols(kind));
        let made = Arc::new(made.map_err(|message| reading.whole(message))?.without_resumption());
        let (certificates, lists) = (Vec::new(), Vec::new());
        Ok(Known { digest: self.digest, made, certificates, lists, has_own_keys: false })
    }

    fn trust(&self, reading: &Reading<'_>, trust: &CheckTrust) -> Result<Trust, Misfit> {
        match (trust, &self.ca, &self.host) {
            (CheckTrust::File(path), Some(content), _) => {
                Trust::of_pem(content.bytes()).map_err(|why| reading.misfit("ca", path, why))
            }
            (CheckTrust::Host, _, Some(host)) => Ok(host.clone()),
            _ => Ok(Trust::Anyone),
        }
    }

    fn certificates(&self, reading: &Reading<'_>, files: &[CertificateFiles]) -> Result<Vec<Shown>, Misfit> {
        self.pairs.iter().zip(files).map(|(pair, files)| pair.shown(reading, files)).collect()
    }

    /// `lists` gets what lists there are.
    fn clients(
        &self,
        reading: &Reading<'_>,
        clients: &ClientAuth,
        lists: &mut Vec<(PathBuf, Option<i64>)>,
    ) -> Result<Clients, Misfit> {
        let ca = self.ca.as_ref().map_or(&[][..], Wiped::bytes);
        let trust = Trust::of_pem(ca).map_err(|why| reading.misfit("client_auth.ca", &clients.ca, why))?;
        let mut revoked = Vec::new();
        for (content, path) in self.crl.iter().zip(&clients.crl) {
            let read = revocations(content.bytes());
            let read = read.map_err(|why| reading.misfit("client_auth.crl", path, why))?;
            lists.push((path.clone(), next_update(&read)));
            revoked.extend(read);
        }
        Ok(Clients { trust, is_required: clients.is_required, revoked, fields: clients.headers.clone() })
    }

    /// What tickets are kept apart by: whose they are, and what was asked of whoever has one.
    fn ticket_context(&self, name: &str, tls: &Tls) -> Vec<u8> {
        let mut hash = Context::new(&SHA256);
        for content in self.ca.iter().chain(&self.crl) {
            hash.update(&(content.bytes().len() as u64).to_le_bytes());
            hash.update(content.bytes());
        }
        let mode = match &tls.client_auth {
            None => 0,
            Some(clients) => 1 + u8::from(clients.is_required),
        };
        let digest = hash.finish();
        name.bytes().chain([0, mode]).chain(digest.as_ref().iter().copied()).collect()
    }
}

fn of_file(content: &[u8]) -> FileDigest {
    let mut of = [0; 32];
    of.copy_from_slice(digest(&SHA256, content).as_ref());
    of
}

/// What a check offers to speak within.
const fn protocols(kind: &CheckKind) -> &'static [&'static [u8]] {
    match kind {
        CheckKind::Http(_) => HTTP1,
        CheckKind::Grpc(_) => &[b"h2"],
        _ => &[],
    }
}

impl Pair {
    fn read(reading: &Reading<'_>, files: &CertificateFiles) -> Result<Self, Misfit> {
        let certificate = reading.file("certificate", &files.certificate)?;
        let key = reading.file("key", &files.key)?;
        let (ocsp, asked) = match &files.ocsp {
            None => (None, None),
            Some(Ocsp::File(path)) => (Some(reading.file("ocsp", path)?), None),
            Some(Ocsp::Fetch) => {
                let of = of_file(certificate.bytes());
                let staple = reading.staples.get(&of).map(|staple| Wiped::from(staple.der.clone()));
                (staple, Some(of))
            }
        };
        Ok(Self { certificate, key, ocsp, asked })
    }

    fn shown(&self, reading: &Reading<'_>, files: &CertificateFiles) -> Result<Shown, Misfit> {
        let ocsp = self.ocsp.as_ref().map(|staple| staple.bytes().to_vec());
        let staple = ocsp.as_deref().and_then(Staple::read);
        let path = files.ocsp.as_ref().and_then(Ocsp::file);
        if let (None, Some(path)) = (&staple, path) {
            return Err(reading.misfit("ocsp", path, "is no answer of OCSP in DER"));
        }
        let read = Certificate::of_pem(self.certificate.bytes(), self.key.bytes(), ocsp);
        let certificate = read.map_err(|flaw| match &flaw {
            Flaw::Certificate(why) => reading.misfit("certificate", &files.certificate, why),
            Flaw::Key(why) => {
                let of = files.certificate.display();
                reading.misfit("key", &files.key, format!("{why} (certificate: {of})"))
            }
        })?;
        let asked = self.asked.map(|of| match Question::of_pem(self.certificate.bytes()) {
            Ok(question) => Ok((of, Arc::new(question))),
            Err(why) => Err(reading.misfit("ocsp", &files.certificate, why)),
        });
        Ok(Shown { file: files.certificate.clone(), certificate, staple, asked: asked.transpose()? })
    }
}
