//! Files of certificates: what is wrong with them, what is used on, what changes.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{
    CertificateParams, CertificateRevocationListParams, CertifiedIssuer, KeyIdMethod, KeyPair, date_time_ymd,
};

use super::*;
use crate::{admin::fixture::TemporaryDirectory, config::parse};

const CONFIG: &str = r#"
version = 1
[listener.web]
bind = ["127.0.0.1:443"]
protocol = "http"
pool = "p"
tls = ["a", "b"]
[listener.relay]
bind = ["127.0.0.1:444"]
protocol = "tcp"
pool = "p"
tls = ["b"]
[tls.a]
certificate = "a.pem"
key = "a.key"
[tls.b]
certificate = "b.pem"
key = "b.key"
default = true
[pool.p]
backends = ["10.0.0.1:443"]
tls = { ca = "file:b.pem", sni = "b.example" }
"#;

/// A directory with a certificate and its key for each of `a` and `b`.
struct Files(TemporaryDirectory);

impl Files {
    fn new(name: &str) -> Self {
        let files = Self(TemporaryDirectory::new(&format!("certificates-{name}")));
        fs::create_dir_all(&*files.0).unwrap();
        files.issue("a", &["a.example"], 4000);
        files.issue("b", &["b.example"], 4000);
        files
    }

    fn issue(&self, file: &str, names: &[&str], until: i32) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let (mut params, key) = (CertificateParams::new(names).unwrap(), KeyPair::generate().unwrap());
        params.not_after = date_time_ymd(until, 1, 1);
        self.write(&format!("{file}.pem"), params.self_signed(&key).unwrap().pem().as_bytes());
        self.write(&format!("{file}.key"), key.serialize_pem().as_bytes());
    }

    fn write(&self, file: &str, content: &[u8]) {
        fs::write(self.0.join(file), content).unwrap();
    }

    fn read(&self, before: &Certificates, text: &str, mode: Mode) -> (Certificates, Vec<String>) {
        let (loaded, misfits) = before.read(&config(text), &self.0, mode);
        (loaded, misfits.iter().map(ToString::to_string).collect())
    }
}

fn config(text: &str) -> Config {
    parse("test", text).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn none() -> Certificates {
    Certificates::none(None).unwrap()
}

#[test]
fn what_is_wrong_is_named_by_key_and_file() {
    let files = Files::new("wrong");
    let said = || files.read(&none(), CONFIG, Mode::Whole).1;
    assert_eq!(said(), [""; 0]);
    let good = |file: &str| fs::read(files.0.join(file)).unwrap();
    let (a_pem, a_key, b_key) = (good("a.pem"), good("a.key"), good("b.key"));
    files.write("a.key", &b_key);
    assert_eq!(said(), ["tls.a.key: a.key: is not the key of the certificate (certificate: a.pem)"]);
    files.write("a.key", b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n");
    files.write("b.pem", b"");
    assert_eq!(
        said(),
        [
            "tls.a.key: a.key: is no PEM: a section has no end (certificate: a.pem)",
            "tls.b.certificate: b.pem: holds no certificate in PEM",
            "pool.p.tls.ca: b.pem: holds no certificate in PEM",
        ]
    );
    files.write("a.key", &a_key);
    files.issue("b", &["b.example", "A.Example"], 4000);
    let clash = "listener.web.tls: tls.a and tls.b both have the name a.example; keys of several types stand in one entry, and `names` says which names an entry has";
    assert_eq!(said(), [clash]);
    files.issue("b", &[], 4000);
    assert_eq!(said(), [""; 0]);
    let nameless = CONFIG.replace("default = true", "");
    assert_eq!(
        files.read(&none(), &nameless, Mode::Whole).1,
        ["tls.b.certificate: b.pem: is for no name, and tls.default is not set: no client would ever get it"]
    );
    files.write("a.pem", &vec![b'\n'; (1 << 20) + 1]);
    assert_eq!(said(), ["tls.a.certificate: a.pem: is larger than 1 MiB"]);
    files.write("a.pem", &a_pem);
    let outside = CONFIG.replace("\"a.pem\"", "\"link\"");
    std::os::unix::fs::symlink("/etc/hostname", files.0.join("link")).unwrap();
    assert_eq!(files.read(&none(), &outside, Mode::Whole).1.len(), 1);
}

#[test]
fn what_has_not_changed_is_used_on() {
    let files = Files::new("used-on");
    let (first, _) = files.read(&none(), CONFIG, Mode::Whole);
    let (again, _) = files.read(&first, CONFIG, Mode::Whole);
    assert!(!again.differs(&first) && again.swapped(&first).is_empty());
    files.issue("a", &["a.example"], 4000);
    let (next, _) = files.read(&first, CONFIG, Mode::Whole);
    assert_eq!(next.swapped(&first), ["tls.a"]);
    let same =
        |listener: &str| Arc::ptr_eq(&next.parts.listeners[listener], &first.parts.listeners[listener]);
    assert!(!same("web") && same("relay"));
    assert!(Arc::ptr_eq(&next.parts.pools["p"], &first.parts.pools["p"]));
    assert_eq!(next.parts.listeners["web"].protocols(), [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert!(next.parts.listeners["relay"].protocols().is_empty());
    // The settings count as the files do.
    let (other, _) =
        files.read(&next, &CONFIG.replace("default = true", "profile = \"modern\""), Mode::Whole);
    assert_eq!(other.swapped(&next), ["tls.b"]);
}

#[test]
fn the_old_pair_goes_on_while_the_new_one_is_no_pair() {
    let files = Files::new("no-pair");
    let (first, _) = files.read(&none(), CONFIG, Mode::Whole);
    let old_key = fs::read(files.0.join("a.key")).unwrap();
    files.issue("a", &["a.example"], 4000);
    let new_key = fs::read(files.0.join("a.key")).unwrap();
    files.write("a.key", &old_key);
    files.issue("b", &["b.example", "c.example"], 4000);
    let (kept, misfits) = files.read(&first, CONFIG, Mode::KeepOld);
    assert_eq!(misfits, ["tls.a.key: a.key: is not the key of the certificate (certificate: a.pem)"]);
    assert_eq!(kept.swapped(&first), ["tls.b", "pool.p.tls"]);
    let entry =
        |loaded: &Certificates, name| loaded.parts.listeners["web"].entry(Some(name)).unwrap().clone();
    assert!(Arc::ptr_eq(&entry(&kept, "a.example"), &entry(&first, "a.example")));
    assert_eq!(&**entry(&kept, "c.example").name(), "b");
    files.write("a.key", &new_key);
    let (next, misfits) = files.read(&kept, CONFIG, Mode::KeepOld);
    assert_eq!((misfits.len(), next.swapped(&kept)), (0, vec!["tls.a".to_owned()]));
    // Names that clash: no listener of them changes.
    files.issue("b", &["a.example"], 4000);
    let (clashed, misfits) = files.read(&next, CONFIG, Mode::KeepOld);
    assert_eq!(misfits.len(), 1);
    assert!(Arc::ptr_eq(&clashed.parts.listeners["web"], &next.parts.listeners["web"]));
}

#[test]
fn tickets_open_where_the_same_is_asked_of_clients() {
    let files = Files::new("tickets");
    files.write("tickets", &[7; 80]);
    let shared = CONFIG.replace("key = \"a.key\"", "key = \"a.key\"\ntickets = \"file:tickets\"");
    let asking = format!("{shared}[tls.a.client_auth]\nca = \"file:b.pem\"\nmode = \"required\"\n");
    let (one, _) = files.read(&none(), &shared, Mode::Whole);
    let (other, _) = files.read(&none(), &shared, Mode::Whole);
    let ticket = seal(&one, "a");
    assert!(open(&other, "a", &ticket), "another box");
    assert!(!open(&other, "b", &ticket), "another entry");
    let (asking, misfits) = files.read(&none(), &asking, Mode::Whole);
    assert_eq!(misfits, [""; 0]);
    assert!(!open(&asking, "a", &ticket), "whoever was not asked");
    // Keys that are made here go from process to process, and open for a turn after they sealed.
    let ticket = seal(&one, "b");
    assert!(!open(&other, "b", &ticket), "each makes its own");
    let heir = Certificates::none(Some(one.keys().clone())).unwrap();
    let (mut heir, _) = files.read(&heir, &shared, Mode::Whole);
    assert!(open(&heir, "b", &ticket));
    for opens in [true, false] {
        heir.rotate().unwrap();
        assert_eq!(open(&heir, "b", &ticket), opens);
    }
    assert!(open(&heir, "a", &seal(&one, "a")), "a file's keys stay");
    files.write("tickets", &[7; 79]);
    assert_eq!(
        files.read(&none(), &shared, Mode::Whole).1,
        ["tls.a.tickets: tickets: holds no keys: each has 80 bytes, or each has 48"]
    );
}

fn seal(certificates: &Certificates, entry: &str) -> Vec<u8> {
    certificates.entries[entry].made.tickets().seal(b"session").unwrap()
}

fn open(certificates: &Certificates, entry: &str, ticket: &[u8]) -> bool {
    certificates.entries[entry].made.tickets().open(ticket).is_some()
}

#[test]
fn what_expires_is_warned_of_and_no_error() {
    let files = Files::new("expired");
    files.issue("a", &["a.example"], 2001);
    let problems = check(&config(CONFIG), &files.0, Path::new("lb.toml")).unwrap();
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["lb.toml: warning: tls.a: a.pem has expired at 2001-01-01T00:00:00Z"]);
    files.write("b.key", b"");
    let problems = check(&config(CONFIG), &files.0, Path::new("lb.toml")).unwrap();
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(said[0], "lb.toml: tls.b.key: b.key: holds no private key in PEM (certificate: b.pem)");
}

#[test]
fn lists_that_are_out_of_date_are_warned_of() {
    let files = Files::new("lists");
    let issuer =
        CertifiedIssuer::self_signed(CertificateParams::new([]).unwrap(), KeyPair::generate().unwrap());
    let issuer = issuer.unwrap();
    let list = |until: i32| {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2001, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&issuer).unwrap().pem().unwrap()
    };
    let auth = "[tls.a.client_auth]\nca = \"file:b.pem\"\nmode = \"optional\"\ncrl = \"file:gone.pem\"\n";
    let asking = config(&format!("{CONFIG}{auth}"));
    let said = || -> Vec<_> {
        let problems = check(&asking, &files.0, Path::new("lb.toml")).unwrap();
        problems.iter().map(ToString::to_string).collect()
    };
    files.write("gone.pem", list(4000).as_bytes());
    assert_eq!(said(), [""; 0]);
    // The first of several counts.
    files.write("gone.pem", (list(4000) + &list(2002)).as_bytes());
    let why = "gone.pem is out of date since 2002-01-01T00:00:00Z: it should have been followed by another";
    assert_eq!(said(), [format!("lb.toml: warning: tls.a: {why}")]);
}

#[test]
fn an_answer_of_an_authority_is_shown_until_it_is_old() {
    let files = Files::new("staples");
    let asking = CONFIG.replace("key = \"a.key\"", "key = \"a.key\"\nocsp = \"fetch\"");
    let misfits = files.read(&none(), &asking, Mode::Whole).1;
    assert_eq!(misfits, ["tls.a.ocsp: a.pem: names no responder of OCSP that is asked by http"]);
    // A list of one, id-ad-ocsp and a URI.
    let url = b"http://a/";
    let head = [0x30, 23, 0x30, 21, 6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 0x86, 9];
    let access = [&head[..], url].concat();
    let (mut params, key) =
        (CertificateParams::new(["a.example".to_owned()]).unwrap(), KeyPair::generate().unwrap());
    params.custom_extensions =
        vec![rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access)];
    let own = params.self_signed(&key).unwrap().pem();
    files.write("a.pem", own.repeat(2).as_bytes());
    files.write("a.key", key.serialize_pem().as_bytes());
    let (mut first, misfits) = files.read(&none(), &asking, Mode::Whole);
    assert_eq!(misfits, [""; 0]);
    let shown = |loaded: &Certificates| loaded.views(&Staples::default()).certificates[0].staple.clone();
    assert_eq!(shown(&first).unwrap().next_update, None);
    let (of, asked) = first.asked().next().unwrap();
    assert_eq!((&*asked.at, asked.question.responder().to_string()), ("tls.a", "http://a/".to_owned()));
    let (_, der) = crate::tls::ocsp::tests::asked_at("http://a/");
    let staple = Staple::read(&der).unwrap();
    let end = staple.next_update.unwrap();
    first.put_staples(vec![(of, staple)]);
    let (mut next, _) = files.read(&first, &asking, Mode::KeepOld);
    assert_eq!(
        (next.swapped(&first), shown(&next).unwrap().next_update),
        (vec!["tls.a".to_owned()], Some(end))
    );
    assert!(open(&next, "a", &seal(&first, "a")), "sessions go on");
    // It goes on with its file alone.
    let (other, _) = files.read(&next, CONFIG, Mode::Whole);
    assert_eq!(shown(&other), None);
    assert!(!next.drop_staples(end - 1) && next.drop_staples(end));
    let (last, _) = files.read(&next, &asking, Mode::KeepOld);
    assert_eq!(shown(&last).unwrap().next_update, None);
}

#[test]
fn files_are_read_again_once_they_are_still() {
    let files = Files::new("watch");
    let config = config(CONFIG);
    let mut watch = Watch::new(&config, &files.0);
    let look = |watch: &mut Watch| {
        watch.make_due();
        watch.look(&config, &files.0)
    };
    // What is fresh is read once more, until its stamp can be relied on.
    assert!(look(&mut watch));
    let deadline = Instant::now() + Duration::from_secs(60);
    while look(&mut watch) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    files.issue("a", &["a.example"], 4000);
    assert!(!look(&mut watch));
    fs::remove_file(files.0.join("b.key")).unwrap();
    assert!(!look(&mut watch));
    assert!(look(&mut watch));
    let mut watch = Watch::new(&config, &files.0);
    assert!(!watch.look(&config, &files.0), "not yet");
}

#[test]
fn what_checks_go_by_is_swapped_where_its_file_changes() {
    let files = Files::new("checks");
    let checked = CONFIG.to_owned() + "health = { https = \"/\", ca = \"file:ca.pem\" }\n";
    let pem = |file: &str| fs::read(files.0.join(file)).unwrap();
    files.write("ca.pem", &pem("a.pem"));
    let (first, misfits) = files.read(&none(), &checked, Mode::Whole);
    assert_eq!(misfits, [""; 0]);
    let (same, _) = files.read(&first, &checked, Mode::KeepOld);
    assert!(Arc::ptr_eq(&first.check("p").unwrap(), &same.check("p").unwrap()));
    files.write("ca.pem", b"");
    let (kept, misfits) = files.read(&first, &checked, Mode::KeepOld);
    assert_eq!(misfits, ["pool.p.health.ca: ca.pem: holds no certificate in PEM"]);
    assert_eq!(kept.swapped(&first), [""; 0]);
    files.write("ca.pem", &pem("b.pem"));
    let (next, _) = files.read(&kept, &checked, Mode::KeepOld);
    assert_eq!(next.swapped(&kept), ["pool.p.health"]);
    assert!(!next.differs(&kept), "no worker hears of it");
    assert!(next.check("other").is_none());
}
