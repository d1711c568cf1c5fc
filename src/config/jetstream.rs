//! Makes the JetStream store's configuration from the section `[jetstream]`.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::StoreConfig;
use crate::config::section::JetStreamSection;
use crate::error::Invalid;
use crate::secret::Secret;
use crate::{Credentials, Error, JetStreamConfig, ReadMode, Tls};

impl StoreConfig {
    /// Returns the JetStream store's configuration.
    ///
    /// Errors: [`Error::Invalid`] for more than one kind of credentials, for half of a pair (`user`
    /// and `password`, `tls_cert_file` and `tls_key_file`), for an empty text, and for a setting
    /// outside its limits.
    pub fn jetstream(&self) -> Result<JetStreamConfig, Error> {
        let section = &self.jetstream;
        section.check_filled()?;
        let mut ways = Vec::new();
        match (&section.user, &section.password) {
            (Some(user), Some(password)) => ways
                .push(Credentials::UserPassword { user: user.clone(), password: password.clone() }),
            (None, None) => {}
            _ => return Err(half("user", "password")),
        }
        ways.extend(section.token.clone().map(Credentials::Token));
        ways.extend(section.nkey_seed.clone().map(Credentials::Nkey));
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
        let handshake_first = section.tls_handshake_first;
        let tls = Tls { ca_file, client, handshake_first };
        let read_mode = section.bounded_staleness_ms.map_or(ReadMode::Linearizable, |bound| {
            ReadMode::BoundedStaleness { bound: Duration::from_millis(bound) }
        });
        let config = JetStreamConfig {
            servers: section.servers.clone(),
            credentials: ways.pop().unwrap_or_default(),
            tls: (tls != Tls::default()).then_some(tls),
            domain: section.domain.clone(),
            api_prefix: section.api_prefix.clone(),
            inbox_prefix: section.inbox_prefix.clone(),
            prefix: section.prefix.clone(),
            replicas: section.replicas,
            bucket_max_bytes: section.bucket_max_bytes,
            must_exist: section.must_exist,
            op_timeout: self.op_timeout(),
            read_mode,
        };
        config.check()?;
        Ok(config)
    }
}

impl JetStreamSection {
    /// Refuses empty texts: an empty password, for example, means that somebody forgot to fill in
    /// the variable.
    fn check_filled(&self) -> Result<(), Error> {
        let secret =
            |secret: &Option<Secret>| secret.as_ref().is_some_and(|s| s.reveal().is_empty());
        let text = |text: &Option<String>| text.as_ref().is_some_and(String::is_empty);
        let path = |path: &Option<PathBuf>| path.as_ref().is_some_and(|p| p.as_os_str().is_empty());
        let empty = [
            ("servers", self.servers.iter().any(String::is_empty)),
            ("domain", text(&self.domain)),
            ("api_prefix", text(&self.api_prefix)),
            ("inbox_prefix", text(&self.inbox_prefix)),
            ("user", text(&self.user)),
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
#[cfg(feature = "toml")]
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
        assert_eq!((user.as_str(), password.reveal()), ("u", "p"));
        let tls = section("tls_cert_file = \"c\"\ntls_key_file = \"k\"").unwrap().tls.unwrap();
        assert_eq!(tls.client, Some(("c".into(), "k".into())));
        assert_eq!((tls.ca_file, tls.handshake_first), (None, false));
    }

    #[test]
    fn each_setting_reaches_the_store() {
        let config = section(
            r#"
            domain = "hub"
            inbox_prefix = "_INBOX_app"
            bucket_max_bytes = 1048576
            must_exist = true
            tls_handshake_first = true
            "#,
        );
        let config = config.unwrap();
        assert_eq!(config.domain.as_deref(), Some("hub"));
        assert_eq!(config.inbox_prefix.as_deref(), Some("_INBOX_app"));
        assert_eq!((config.bucket_max_bytes, config.must_exist), (Some(1 << 20), true));
        assert_eq!(config.tls, Some(Tls { handshake_first: true, ..Tls::default() }));
        let config = section("api_prefix = \"JS.hub\"").unwrap();
        assert_eq!((config.api_prefix.as_deref(), config.tls), (Some("JS.hub"), None));
        assert!(!config.must_exist);
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
    #[case("domain = \"\"", "invalid domain: holds an empty text")]
    #[case("api_prefix = \"\"", "invalid api_prefix: holds an empty text")]
    #[case("inbox_prefix = \"\"", "invalid inbox_prefix: holds an empty text")]
    #[case("servers = [\"nats://u:22#p@a\"]", "invalid servers: hold no NATS URL as number 1")]
    fn sections_that_do_not_fit(#[case] fields: &str, #[case] expected: &str) {
        let error = section(fields).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
