//! Names of backends that stand for nothing now, or not for all that they should: what `lb check --resolve` warns of.

use std::path::Path;

use super::{names::Names, random::random};
use crate::{
    config::{Config, Problem},
    names::Condition,
};

/// Looks every name up once, as a start would, and waits as long.
///
/// # Errors
/// getrandom(2).
pub fn unresolved(config: &Config, file: &Path) -> anyhow::Result<Vec<Problem>> {
    let mut names = Names::of(config, random()?);
    names.look_up_first();
    let mut problems = Vec::new();
    for name in names.show().iter() {
        let message = match name.condition {
            Condition::Good => continue,
            Condition::Unasked => "no answer has come in time".to_owned(),
            Condition::Partial(failure) => format!("resolves in part only: {}", failure.name()),
            condition => format!("does not resolve: {}", condition.name()),
        };
        for pool in &name.pools {
            let key = format!("pool.{pool}.backends");
            problems.push(Problem::warning(file, key, &name.name, message.clone()));
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::parse, control::names::tests::server};

    #[test]
    fn names_that_nobody_knows_are_warned_of() {
        let server = server(|name| name == b'a');
        let config = |backends: &str| {
            let text = format!(
                "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"http\"\npool = \"p\"\n\
                 [dns]\nservers = [\"{server}\"]\nfamilies = [\"ipv4\"]\n[pool.p]\nbackends = [{backends}]\n\
                 [pool.q]\nbackends = [\"b.internal:80\"]\n"
            );
            parse("f", &text).unwrap().config
        };
        let said = |backends| {
            let problems = unresolved(&config(backends), Path::new("f")).unwrap();
            problems.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let of_q = "f: warning: pool.q.backends = \"b.internal:80\": does not resolve: no-name".to_owned();
        assert_eq!(said("\"a.internal:80\", \"10.0.0.1:80\""), std::slice::from_ref(&of_q));
        assert_eq!(said("\"b.internal:80\""), [of_q.replace("pool.q", "pool.p"), of_q]);
    }
}
