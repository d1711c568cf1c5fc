//! The section `[jetstream]`, as the JetStream store wants it.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{JetStreamSection, Secret, StoreConfig};
use crate::error::Invalid;
use crate::{Credentials, Error, JetStreamConfig, ReadMode, Tls};

impl StoreConfig {
    /// What the section says to the JetStream store.
    ///
    /// Errors: [`Error::Invalid`] for two ways to say who we are, for half of one, and for a text
    /// that is empty.
    pub fn jetstream(&self) -> Result<JetStreamConfig, Error> {
        let section = &self.jetstream;
        section.check_filled()?;
        let secret = |secret: &Secret| secret.reveal().to_owned();
        let mut ways = Vec::new();
        match (&section.user, &section.password) {
            (Some(user), Some(password)) => ways
                .push(Credentials::UserPassword { user: user.clone(), password: secret(password) }),
            (None, None) => {}
            _ => return Err(half("user", "password")),
        }
        ways.extend(section.token.as_ref().map(|token| Credentials::Token(secret(token))));
        ways.extend(section.nkey_seed.as_ref().map(|seed| Credentials::Nkey(secret(seed))));
        ways.extend(section.credentials_file.clone().map(Credentials::File));
        if ways.len() > 1 {
            let problem = "are given in more than one way; keep one of user and password, token, \
                           nkey_seed, credentials_file";
            return Err(Invalid::new("credentials", problem).into());
        }
        let client = match (&section.tls_cert_file, &section.tls_key_file) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(half("tls_cert_file", "tls_key_file")),
        };
        let ca_file = section.tls_ca_file.clone();
        let tls = (ca_file.is_some() || client.is_some()).then_some(Tls { ca_file, client });
        let read_mode = section.bounded_staleness_ms.map_or(ReadMode::Linearizable, |bound| {
            ReadMode::BoundedStaleness { bound: Duration::from_millis(bound) }
        });
        let config = JetStreamConfig {
            servers: section.servers.clone(),
            credentials: ways.pop().unwrap_or_default(),
            tls,
            prefix: section.prefix.clone(),
            replicas: section.replicas,
            op_timeout: self.op_timeout(),
            read_mode,
            ..JetStreamConfig::new(Vec::<String>::new())
        };
        config.check()?;
        Ok(config)
    }
}

impl JetStreamSection {
    /// What is given says something: an empty password is a variable that was not filled in.
    fn check_filled(&self) -> Result<(), Error> {
        let secret = |secret: &Option<Secret>| secret.as_ref().is_some_and(|s| s.0.is_empty());
        let path = |path: &Option<PathBuf>| path.as_ref().is_some_and(|p| p.as_os_str().is_empty());
        let empty = [
            ("servers", self.servers.iter().any(String::is_empty)),
            ("user", self.user.as_ref().is_some_and(String::is_empty)),
            ("password", secret(&self.password)),
            ("token", secret(&self.token)),
            ("nkey_seed", secret(&self.nkey_seed)),
            ("credentials_file", path(&self.credentials_file)),
            ("tls_ca_file", path(&self.tls_ca_file)),
            ("tls_cert_file", path(&self.tls_cert_file)),
            ("tls_key_file", path(&self.tls_key_file)),
        ];
        match empty.into_iter().find(|(_, empty)| *empty) {
            Some((field, _)) => {
                Err(Invalid::new(field, "holds an empty text; fill it in, or leave it out").into())
            }
            None => Ok(()),
        }
    }
}

fn half(a: &'static str, b: &'static str) -> Error {
    Invalid::new(a, format!("needs {b} beside it; one of the two is missing")).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::*;

    #[test]
    fn a_cluster() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config/cluster.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let config = StoreConfig::from_toml(&text).unwrap().jetstream().unwrap();
        assert_eq!((config.servers.len(), config.replicas), (3, 3));
        assert_eq!(config.op_timeout, Duration::from_secs(2));
        assert!(matches!(config.credentials, Credentials::File(_)));
        assert!(config.tls.is_some());
    }

    fn section(fields: &str) -> Result<JetStreamConfig, Error> {
        let text = format!("decentralized = true\n[jetstream]\n{fields}");
        StoreConfig::from_toml(&text).unwrap().jetstream()
    }

    #[test]
    fn both_halves_make_a_whole() {
        let config = section("user = \"u\"\npassword = \"p\"").unwrap();
        let Credentials::UserPassword { user, password } = config.credentials else { panic!() };
        assert_eq!((user.as_str(), password.as_str()), ("u", "p"));
        let tls = section("tls_cert_file = \"c\"\ntls_key_file = \"k\"").unwrap().tls.unwrap();
        assert_eq!(tls.client, Some(("c".into(), "k".into())));
        assert_eq!(tls.ca_file, None);
    }

    #[rstest]
    #[case("user = \"u\"", "invalid user: needs password beside it")]
    #[case("tls_key_file = \"k\"", "invalid tls_cert_file: needs tls_key_file beside it")]
    #[case(
        "token = \"t\"\nnkey_seed = \"s\"",
        "invalid credentials: are given in more than one way"
    )]
    #[case("replicas = 6", "invalid replicas: is 6; 1 to 5 are allowed")]
    #[case("servers = []", "invalid servers: is empty; name at least one")]
    #[case("servers = [\"\"]", "invalid servers: holds an empty text; fill it in, or leave it out")]
    #[case("token = \"\"", "invalid token: holds an empty text")]
    #[case("user = \"u\"\npassword = \"\"", "invalid password: holds an empty text")]
    #[case("tls_ca_file = \"\"", "invalid tls_ca_file: holds an empty text")]
    fn sections_that_do_not_fit(#[case] fields: &str, #[case] expected: &str) {
        let error = section(fields).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
