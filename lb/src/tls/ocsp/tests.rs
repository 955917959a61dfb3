use proptest::prelude::*;
use rcgen::{
    CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, KeyPair, SigningKey, date_time_ymd,
};

use super::{
    answer::SHA1,
    der::{BIT_STRING, ENUMERATED, INTEGER, OBJECT, OCTET_STRING, Reader, SEQUENCE, TIME, explicit, write},
    *,
};
use crate::tls::certificate::tests::Authority;

/// 2026-01-01T00:00:00Z.
const NOW: i64 = 1_767_225_600;
const BEFORE: &[u8] = b"20251231000000Z";
const AFTER: &[u8] = b"20260103000000Z";
const GOOD: &[u8] = &[0x80, 0];

/// A certificate whose authority answers at a URL, in PEM.
fn leaf(authority: &Authority, url: &str) -> String {
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let ocsp = write(OBJECT, &[&[0x2b, 6, 1, 5, 5, 7, 0x30, 1]]);
    let access = write(SEQUENCE, &[&write(SEQUENCE, &[&ocsp, &write(0x86, &[url.as_bytes()])])]);
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access)];
    params.serial_number = Some(vec![0x12, 0x34].into());
    params.signed_by(&KeyPair::generate().unwrap(), &authority.0).unwrap().pem()
}

fn question(authority: &Authority) -> Question {
    let chain = leaf(authority, "http://ocsp.example/") + &authority.0.pem();
    Question::of_pem(chain.as_bytes()).unwrap()
}

/// A question that is asked at this URL, and an answer that is good until 2999.
pub(crate) fn asked_at(url: &str) -> (Question, Vec<u8>) {
    let authority = Authority::new("ours");
    let chain = leaf(&authority, url) + &authority.0.pem();
    let question = Question::of_pem(chain.as_bytes()).unwrap();
    let written = Written { next_update: Some(b"29990101000000Z"), ..Written::default() };
    let answer = written.by(&question, authority.0.key());
    (question, answer)
}

/// An answer about what `question` asks about.
struct Written<'w> {
    status: &'w [u8],
    this_update: &'w [u8],
    next_update: Option<&'w [u8]>,
    serial: &'w [u8],
    certificates: Vec<Vec<u8>>,
}

impl Default for Written<'_> {
    fn default() -> Self {
        Self {
            status: GOOD,
            this_update: BEFORE,
            next_update: Some(AFTER),
            serial: &[0x12, 0x34],
            certificates: Vec::new(),
        }
    }
}

impl Written<'_> {
    fn by(&self, question: &Question, signer: &impl SigningKey) -> Vec<u8> {
        // What is asked: a list of one, in what would be signed, in the whole.
        let request = question.request();
        let mut inside = Reader(&request);
        for _ in 0..4 {
            inside = inside.of(SEQUENCE).unwrap().inside();
        }
        let mut id = inside.of(SEQUENCE).unwrap().inside();
        let (hash, name, key) = (id.any().unwrap(), id.any().unwrap(), id.any().unwrap());
        let serial = write(INTEGER, &[self.serial]);
        let id = write(SEQUENCE, &[hash.whole, name.whole, key.whole, &serial]);
        let next = self.next_update.map(|next| write(explicit(0), &[&write(TIME, &[next])]));
        let next = next.unwrap_or_default();
        let about = write(SEQUENCE, &[&id, self.status, &write(TIME, &[self.this_update]), &next]);
        let who = write(explicit(2), &[&write(OCTET_STRING, &[b"who"])]);
        let data = write(SEQUENCE, &[&who, &write(TIME, &[BEFORE]), &write(SEQUENCE, &[&about])]);
        let algorithm = write(SEQUENCE, &[&write(OBJECT, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]])]);
        let signature = write(BIT_STRING, &[&[0], &signer.sign(&data).unwrap()]);
        let certificates = write(explicit(0), &[&write(SEQUENCE, &[&self.certificates.concat()])]);
        let basic = write(SEQUENCE, &[&data, &algorithm, &signature, &certificates]);
        let kind = write(OBJECT, &[&[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1]]);
        let bytes = write(SEQUENCE, &[&kind, &write(OCTET_STRING, &[&basic])]);
        write(SEQUENCE, &[&write(ENUMERATED, &[&[0]]), &write(explicit(0), &[&bytes])])
    }
}

#[test]
fn who_is_asked_stands_in_the_certificate() {
    let authority = Authority::new("ours");
    let ask = |url: &str| Question::of_pem((leaf(&authority, url) + &authority.0.pem()).as_bytes());
    for (url, host, port, authority, path) in [
        ("http://ocsp.example", "ocsp.example", 80, "ocsp.example", "/"),
        ("http://ocsp.example:8080/a/b?c", "ocsp.example", 8080, "ocsp.example:8080", "/a/b?c"),
        ("http://[2001:db8::1]:81/", "2001:db8::1", 81, "[2001:db8::1]:81", "/"),
    ] {
        let question = ask(url).unwrap();
        let Responder { host: of, port: at, authority: by, path: to } = question.responder();
        assert_eq!((&**of, *at, &**by, &**to), (host, port, authority, path), "{url}");
    }
    let none = "names no responder of OCSP that is asked by http";
    for url in ["https://ocsp.example/", "ldap://a", "http:///a", "http://a@b/", "\r\n"] {
        assert_eq!(ask(url).unwrap_err(), none, "{url}");
    }
    let (plain, _) = authority.issue(&["a.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
    assert_eq!(Question::of_pem((plain + &authority.0.pem()).as_bytes()).unwrap_err(), none);
    let alone = Question::of_pem(leaf(&authority, "http://a/").as_bytes()).unwrap_err();
    assert_eq!(alone, "holds no certificate of its issuer, by which its state is asked for");
}

#[test]
fn what_is_good_and_of_the_issuer_may_be_shown() {
    let authority = Authority::new("ours");
    let question = question(&authority);
    let der = Written::default().by(&question, authority.0.key());
    let staple = question.judge(&der, NOW).unwrap();
    let (this_update, next_update) = (NOW - 24 * 3600, Some(NOW + 48 * 3600));
    assert_eq!(staple, Staple { der: der.clone(), this_update, next_update });
    assert_eq!(Staple::read(&der), Some(staple));
    for (written, why) in [
        (
            Written {
                status: &[
                    0xa1, 17, 24, 15, b'2', b'0', b'2', b'5', b'1', b'2', b'3', b'1', b'0', b'0', b'0', b'0',
                    b'0', b'0', b'Z',
                ],
                ..Written::default()
            },
            Unusable::Revoked,
        ),
        (Written { status: &[0x82, 0], ..Written::default() }, Unusable::Unknown),
        (Written { serial: &[0x12, 0x35], ..Written::default() }, Unusable::OfAnother),
        (Written { next_update: None, ..Written::default() }, Unusable::Endless),
        (Written { next_update: Some(b"20260101000000Z"), ..Written::default() }, Unusable::Late),
        (Written { this_update: b"20260101000501Z", ..Written::default() }, Unusable::Early),
        (Written { this_update: b"tomorrow", ..Written::default() }, Unusable::Malformed),
    ] {
        assert_eq!(question.judge(&written.by(&question, authority.0.key()), NOW), Err(why));
    }
    let other = Authority::new("ours");
    let forged = Written::default().by(&question, other.0.key());
    assert_eq!(question.judge(&forged, NOW), Err(Unusable::Signature));
    // Good, but of another issuer with the same name.
    let stranger = self::question(&other);
    assert_eq!(stranger.judge(&der, NOW), Err(Unusable::OfAnother));
    assert_eq!(
        question.judge(&write(SEQUENCE, &[&write(ENUMERATED, &[&[3]])]), NOW),
        Err(Unusable::Unsuccessful(3))
    );
    assert_eq!(Unusable::Unsuccessful(3).to_string(), "says that it cannot answer: try later");
    assert_eq!(question.judge(b"<html>", NOW), Err(Unusable::Malformed));
}

#[test]
fn others_may_sign_whom_the_issuer_says_so_of() {
    let (authority, other) = (Authority::new("ours"), Authority::new("ours"));
    let question = question(&authority);
    let key = KeyPair::generate().unwrap();
    let judge = |by: &Authority, usage: &[ExtendedKeyUsagePurpose], until: i32| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = usage.to_vec();
        params.not_after = date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &by.0).unwrap().der().to_vec();
        let written = Written { certificates: vec![certificate], ..Written::default() };
        question.judge(&written.by(&question, &key), NOW).map(drop)
    };
    let signs = [ExtendedKeyUsagePurpose::OcspSigning];
    assert_eq!(judge(&authority, &signs, 4000), Ok(()));
    assert_eq!(judge(&authority, &[ExtendedKeyUsagePurpose::ServerAuth], 4000), Err(Unusable::Signature));
    assert_eq!(judge(&authority, &[], 4000), Err(Unusable::Signature));
    assert_eq!(judge(&authority, &signs, 2025), Err(Unusable::Signature), "it has expired");
    assert_eq!(judge(&other, &signs, 4000), Err(Unusable::Signature), "of another issuer of this name");
}

#[test]
fn a_request_is_what_responders_read() {
    let question = question(&Authority::new("ours"));
    let request = question.request();
    let mut all = Reader(&request);
    let mut inside = all.of(SEQUENCE).unwrap().inside();
    assert!(all.any().is_none(), "one value, of the right length");
    for _ in 0..3 {
        inside = inside.of(SEQUENCE).unwrap().inside();
    }
    let mut id = inside.of(SEQUENCE).unwrap().inside();
    let hash = id.of(SEQUENCE).unwrap().inside().of(OBJECT).unwrap().content;
    let (name, key) = (id.of(OCTET_STRING).unwrap().content, id.of(OCTET_STRING).unwrap().content);
    let serial = id.of(INTEGER).unwrap().content;
    assert_eq!((hash, name.len(), key.len(), serial), (SHA1, 20, 20, &[0x12, 0x34][..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_touched_answer_is_never_good(at: prop::sample::Index, bit in 0..8_u32, cut: prop::sample::Index) {
        let authority = Authority::new("ours");
        let question = question(&authority);
        let mut der = Written::default().by(&question, authority.0.key());
        let signed_from = der.windows(3).position(|bytes| bytes == b"who").unwrap();
        prop_assert!(question.judge(&der[..cut.index(der.len())], NOW).is_err());
        let touched = signed_from + at.index(der.len() - signed_from);
        der[touched] ^= 1 << bit;
        // Nothing behind it is without meaning, but what no one looks at: the empty list of certificates.
        if touched < der.len() - 4 {
            prop_assert!(question.judge(&der, NOW).is_err(), "byte {touched}");
        }
        _ = Staple::read(&der);
    }
}
