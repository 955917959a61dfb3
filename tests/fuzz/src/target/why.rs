//! Questions of `lb why`: a mistake has its place, and what is understood can be said back and means the same.

use lb::model::Question;

use super::Target;

/// See the module.
pub const TARGET: Target = Target { name: "why", run, seeds, words };

fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match text.parse::<Question>() {
        Ok(question) => {
            let said = question.to_string();
            assert_eq!(said.parse().as_ref(), Ok(&question), "{said:?} of {text:?}");
            assert_eq!(question.source.is_ipv4(), question.destination.is_ipv4());
        }
        Err(error) => {
            let end = text.chars().count() + 1;
            assert!((1..=end).contains(&error.column), "{text:?}: {error:?}");
            assert!(error.width >= 1 && error.column + error.width <= end + 1, "{text:?}: {error:?}");
            assert!(!error.message.is_empty());
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    [
        "tcp 198.51.100.7:1234 -> 192.0.2.53:53",
        " tcp  [2001:db8::7]:1->[2001:db8::1]:443\tflags=syn interface=eth0.7",
        "udp 10.0.0.1:0 -> 10.0.0.2:65535 ttl=1 length=1500",
        "icmp [::1] -> 2001:db8::1",
        "tcp 1.1.1.1:1 -> 2.2.2.2:2 flags=ack+syn|fin",
        "tcp 1.1.1.1:1 -> 2.2.2.2:2 flags=none ttl=1 ttl=2",
        "tcp [::ffff:1.1.1.1]:1 -> [::1]:2",
        "tcp ä:1 -> 2.2.2.2:2",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn words() -> Vec<Vec<u8>> {
    [
        "tcp ",
        "udp ",
        "icmp ",
        "->",
        " -> ",
        "1.2.3.4",
        ":1",
        "[::1]",
        "::1",
        "::ffff:1.2.3.4",
        " flags=",
        "syn",
        "ack",
        "none",
        ",",
        " ttl=",
        " length=",
        " interface=",
        "3400",
        "255",
        "\u{3000}",
        "ä",
        "%1",
    ]
    .map(|word| word.as_bytes().to_vec())
    .to_vec()
}
