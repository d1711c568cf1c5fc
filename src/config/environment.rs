use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::str::FromStr;

use crate::Error;
use crate::config::StoreConfig;
use crate::error::Invalid;
use crate::secret::Secret;

impl StoreConfig {
    /// Overrides the settings for which there is a variable.
    pub(super) fn apply(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), Error> {
        for (name, value) in variables {
            if let Some(setting) = name.to_str().and_then(|name| name.strip_prefix("MEMBERSHIP_")) {
                self.set(setting, value)?;
            }
        }
        Ok(())
    }

    fn set(&mut self, setting: &str, value: OsString) -> Result<(), Error> {
        let Self { decentralized, op_timeout_ms, sqlite, jetstream } = self;
        let given = Given { setting, value };
        match setting {
            "DECENTRALIZED" => *decentralized = given.parsed("true or false")?,
            "OP_TIMEOUT_MS" => *op_timeout_ms = given.parsed("a number of milliseconds")?,
            "SQLITE_PATH" => sqlite.path = given.text()?.into(),
            "SQLITE_MUST_EXIST" => sqlite.must_exist = given.parsed("true or false")?,
            "SQLITE_MODE" => sqlite.mode = given.octal()?,
            "JETSTREAM_SERVERS" => {
                let urls = given.text()?;
                jetstream.servers = urls.split(',').map(|url| url.trim().to_owned()).collect();
            }
            // An empty prefix is legal.
            "JETSTREAM_PREFIX" => jetstream.prefix = given.any_text()?,
            "JETSTREAM_REPLICAS" => jetstream.replicas = given.parsed("a number from 1 to 5")?,
            "JETSTREAM_BOUNDED_STALENESS_MS" => {
                jetstream.bounded_staleness_ms = Some(given.parsed("a number of milliseconds")?);
            }
            "JETSTREAM_BUCKET_MAX_BYTES" => {
                jetstream.bucket_max_bytes = Some(given.parsed("a number of bytes")?);
            }
            "JETSTREAM_MUST_EXIST" => jetstream.must_exist = given.parsed("true or false")?,
            "JETSTREAM_DOMAIN" => jetstream.domain = Some(given.text()?),
            "JETSTREAM_API_PREFIX" => jetstream.api_prefix = Some(given.text()?),
            "JETSTREAM_INBOX_PREFIX" => jetstream.inbox_prefix = Some(given.text()?),
            "JETSTREAM_USER" => jetstream.user = Some(given.text()?),
            "JETSTREAM_PASSWORD" => jetstream.password = Some(Secret::new(given.text()?)),
            "JETSTREAM_TOKEN" => jetstream.token = Some(Secret::new(given.text()?)),
            "JETSTREAM_NKEY_SEED" => jetstream.nkey_seed = Some(Secret::new(given.text()?)),
            "JETSTREAM_CREDENTIALS_FILE" => {
                jetstream.credentials_file = Some(given.text()?.into());
            }
            "JETSTREAM_TLS_CA_FILE" => jetstream.tls_ca_file = Some(given.text()?.into()),
            "JETSTREAM_TLS_CERT_FILE" => jetstream.tls_cert_file = Some(given.text()?.into()),
            "JETSTREAM_TLS_KEY_FILE" => jetstream.tls_key_file = Some(given.text()?.into()),
            "JETSTREAM_TLS_HANDSHAKE_FIRST" => {
                jetstream.tls_handshake_first = given.parsed("true or false")?;
            }
            _ if is_of_a_service(setting, &given.value) => {}
            // An unknown variable of a section is probably misspelt. Such a variable is refused.
            // Otherwise its setting would silently not be applied. Variables with other names may
            // belong to other programs.
            _ if setting.starts_with("JETSTREAM_") || setting.starts_with("SQLITE_") => {
                return Err(given.wrong("is no setting there is; check its spelling, or unset it"));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether an orchestrator set the variable for a service called `membership-jetstream…` or
/// `membership-sqlite…`.
///
/// Kubernetes and Docker set such variables in every container beside that service:
/// `…_SERVICE_HOST`, `…_SERVICE_PORT`, `…_PORT`, `…_PORT_4222_TCP_ADDR` and so on. The value must
/// look like theirs, too: otherwise a user's mistake such as `MEMBERSHIP_JETSTREAM_PORT=4222` would
/// be ignored.
fn is_of_a_service(setting: &str, value: &OsStr) -> bool {
    let Some(value) = value.to_str() else { return false };
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    let is_protocol = |text: &str| ["tcp", "udp", "sctp"].contains(&text);
    let is_url = |text: &str| text.split_once("://").is_some_and(|(scheme, _)| is_protocol(scheme));
    if setting.ends_with("_SERVICE_HOST") {
        return value.parse::<IpAddr>().is_ok();
    }
    if let Some((_, name)) = setting.split_once("_SERVICE_PORT") {
        return (name.is_empty() || name.starts_with('_')) && is_number(value);
    }
    // The service's name may contain `_PORT_` itself, so each occurrence of `_PORT_` is tried as
    // the end of the name.
    let at_port = setting.match_indices("_PORT").map(|(at, port)| setting.get(at + port.len()..));
    at_port.flatten().any(|rest| match rest.strip_prefix('_').map(|rest| rest.split('_')) {
        None => rest.is_empty() && is_url(value),
        Some(mut parts) => {
            parts.next().is_some_and(is_number)
                && parts.next().is_some_and(|name| is_protocol(&name.to_lowercase()))
                && match (parts.next(), parts.next()) {
                    (None, _) => is_url(value),
                    (Some("PROTO"), None) => is_protocol(value),
                    (Some("PORT"), None) => is_number(value),
                    (Some("ADDR"), None) => value.parse::<IpAddr>().is_ok(),
                    _ => false,
                }
        }
    })
}

/// A variable and its value. Errors show the value only if it cannot be a secret.
struct Given<'a> {
    setting: &'a str,
    value: OsString,
}

impl Given<'_> {
    fn any_text(self) -> Result<String, Error> {
        let Self { setting, value } = self;
        value.into_string().map_err(|value| Given { setting, value }.wrong("is no UTF-8"))
    }

    fn text(self) -> Result<String, Error> {
        if self.value.is_empty() {
            return Err(self.wrong("is set to nothing; unset it, or give it a value"));
        }
        self.any_text()
    }

    fn parsed<T: FromStr>(self, expected: &str) -> Result<T, Error> {
        let setting = self.setting;
        let text = self.text()?;
        text.parse().map_err(|_| wrong(setting, &format!("is {text:?}; it takes {expected}")))
    }

    fn octal(self) -> Result<u32, Error> {
        let setting = self.setting;
        let text = self.text()?;
        u32::from_str_radix(&text, 8)
            .map_err(|_| wrong(setting, &format!("is {text:?}; it takes octal digits, as 0640")))
    }

    fn wrong(&self, problem: &str) -> Error {
        wrong(self.setting, problem)
    }
}

fn wrong(setting: &str, problem: &str) -> Error {
    Invalid::new("environment", format!("MEMBERSHIP_{setting} {problem}")).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use rstest::rstest;

    use super::*;

    fn applied(variables: &[(&str, &str)]) -> Result<StoreConfig, Error> {
        let mut config = StoreConfig::default();
        config.apply(variables.iter().map(|(name, value)| (name.into(), value.into())))?;
        Ok(config)
    }

    #[cfg(feature = "toml")]
    #[test]
    fn variables_replace_what_was_there() {
        let config = applied(&[
            ("MEMBERSHIP_DECENTRALIZED", "true"),
            ("MEMBERSHIP_OP_TIMEOUT_MS", "700"),
            ("MEMBERSHIP_SQLITE_PATH", "/m.db"),
            ("MEMBERSHIP_SQLITE_MUST_EXIST", "true"),
            ("MEMBERSHIP_SQLITE_MODE", "0640"),
            ("MEMBERSHIP_JETSTREAM_SERVERS", "nats://a, nats://b"),
            ("MEMBERSHIP_JETSTREAM_PREFIX", ""),
            ("MEMBERSHIP_JETSTREAM_REPLICAS", "2"),
            ("MEMBERSHIP_JETSTREAM_USER", "u"),
            ("MEMBERSHIP_JETSTREAM_PASSWORD", "p"),
            ("MEMBERSHIP_JETSTREAM_TOKEN", "t"),
            ("MEMBERSHIP_JETSTREAM_NKEY_SEED", "s"),
            ("MEMBERSHIP_JETSTREAM_CREDENTIALS_FILE", "c"),
            ("MEMBERSHIP_JETSTREAM_TLS_CA_FILE", "ca"),
            ("MEMBERSHIP_JETSTREAM_TLS_CERT_FILE", "cert"),
            ("MEMBERSHIP_JETSTREAM_TLS_KEY_FILE", "key"),
            ("MEMBERSHIP_JETSTREAM_BOUNDED_STALENESS_MS", "500"),
            ("MEMBERSHIP_JETSTREAM_BUCKET_MAX_BYTES", "1048576"),
            ("MEMBERSHIP_JETSTREAM_MUST_EXIST", "true"),
            ("MEMBERSHIP_JETSTREAM_DOMAIN", "d"),
            ("MEMBERSHIP_JETSTREAM_API_PREFIX", "a"),
            ("MEMBERSHIP_JETSTREAM_INBOX_PREFIX", "i"),
            ("MEMBERSHIP_JETSTREAM_TLS_HANDSHAKE_FIRST", "true"),
        ])
        .unwrap();
        let text = r#"
            decentralized = true
            op_timeout_ms = 700
            sqlite = { path = "/m.db", must_exist = true, mode = 0o640 }
            [jetstream]
            servers = ["nats://a", "nats://b"]
            prefix = ""
            replicas = 2
            user = "u"
            password = "p"
            token = "t"
            nkey_seed = "s"
            credentials_file = "c"
            tls_ca_file = "ca"
            tls_cert_file = "cert"
            tls_key_file = "key"
            bounded_staleness_ms = 500
            bucket_max_bytes = 1048576
            must_exist = true
            domain = "d"
            api_prefix = "a"
            inbox_prefix = "i"
            tls_handshake_first = true
        "#;
        assert_eq!(config, StoreConfig::from_toml(text).unwrap());
    }

    #[rstest]
    #[case::no_bool("DECENTRALIZED", "yes", "is \"yes\"; it takes true or false")]
    #[case::no_number("OP_TIMEOUT_MS", "5s", "is \"5s\"; it takes a number of milliseconds")]
    #[case::too_many("JETSTREAM_REPLICAS", "300", "is \"300\"; it takes a number from 1 to 5")]
    #[case::empty("DECENTRALIZED", "", "is set to nothing; unset it, or give it a value")]
    #[case::no_path("SQLITE_PATH", "", "is set to nothing; unset it, or give it a value")]
    #[case::no_server("JETSTREAM_SERVERS", "", "is set to nothing; unset it, or give it a value")]
    #[case::no_secret("JETSTREAM_TOKEN", "", "is set to nothing; unset it, or give it a value")]
    #[case::no_flag("JETSTREAM_MUST_EXIST", "1", "is \"1\"; it takes true or false")]
    #[case::no_mode("SQLITE_MODE", "rw", "is \"rw\"; it takes octal digits, as 0640")]
    #[case::no_must("SQLITE_MUST_EXIST", "1", "is \"1\"; it takes true or false")]
    #[case::slip(
        "JETSTREAM_SERVER",
        "a",
        "is no setting there is; check its spelling, or unset it"
    )]
    #[case::slip_too("SQLITE_FILE", "a", "is no setting there is; check its spelling, or unset it")]
    fn a_wrong_variable_is_named(#[case] name: &str, #[case] value: &str, #[case] problem: &str) {
        let name = format!("MEMBERSHIP_{name}");
        let error = applied(&[(&name, value)]).unwrap_err().to_string();
        assert_eq!(error, format!("invalid environment: {name} {problem}"));
    }

    #[test]
    fn what_is_no_text_is_not_taken_for_unset() {
        let variable = ("MEMBERSHIP_JETSTREAM_TOKEN".into(), OsString::from_vec(vec![0xff]));
        let error = StoreConfig::default().apply([variable]).unwrap_err().to_string();
        assert_eq!(error, "invalid environment: MEMBERSHIP_JETSTREAM_TOKEN is no UTF-8");
    }

    #[rstest]
    #[case("JETSTREAM_SERVICE_HOST", "10.96.0.1")]
    #[case("JETSTREAM_SERVICE_HOST", "fd00::1")]
    #[case("JETSTREAM_SERVICE_PORT", "4222")]
    #[case("JETSTREAM_SERVICE_PORT_CLIENT", "4222")]
    #[case("JETSTREAM_PORT", "tcp://10.96.0.1:4222")]
    #[case("JETSTREAM_PORT_4222_TCP", "tcp://10.96.0.1:4222")]
    #[case("JETSTREAM_PORT_4222_TCP_PROTO", "tcp")]
    #[case("JETSTREAM_PORT_4222_TCP_PORT", "4222")]
    #[case("JETSTREAM_PORT_4222_TCP_ADDR", "10.96.0.1")]
    #[case("JETSTREAM_PORT_4222_UDP", "udp://[fd00::1]:4222")]
    #[case("JETSTREAM_HEADLESS_SERVICE_HOST", "10.96.0.1")]
    #[case("JETSTREAM_PORT_A_PORT_4222_TCP", "tcp://10.96.0.1:4222")]
    #[case("SQLITE_BACKUP_SERVICE_PORT", "80")]
    fn what_an_orchestrator_sets_for_a_service_is_no_setting(
        #[case] name: &str,
        #[case] value: &str,
    ) {
        let set = |value| applied(&[(&format!("MEMBERSHIP_{name}"), value)]);
        assert_eq!(set(value), Ok(StoreConfig::default()));
        // With a value that an orchestrator would not set, the same name counts as a misspelt
        // setting.
        let error = set("tcp-ish").unwrap_err().to_string();
        assert!(error.contains("is no setting there is; check its spelling"), "{error}");
        assert!(!error.contains("tcp-ish"), "{error}");
    }

    #[rstest]
    #[case("JETSTREAM_PORT", "4222")]
    #[case("JETSTREAM_HOST", "10.96.0.1")]
    #[case("JETSTREAM_SERVICE", "10.96.0.1")]
    #[case("JETSTREAM_SERVICE_PORTS", "4222")]
    #[case("JETSTREAM_PORTS", "tcp://10.96.0.1:4222")]
    #[case("JETSTREAM_PORT_CLIENT", "tcp://10.96.0.1:4222")]
    #[case("JETSTREAM_PORT_4222", "tcp://10.96.0.1:4222")]
    #[case("JETSTREAM_PORT_4222_TCP_NAME", "10.96.0.1")]
    #[case("JETSTREAM_PORT_4222_TCP_ADDR_X", "10.96.0.1")]
    #[case("JETSTREAM_PORT_4222_TCPP", "tcp://10.96.0.1:4222")]
    fn what_only_resembles_it_is_a_slip(#[case] name: &str, #[case] value: &str) {
        let error = applied(&[(&format!("MEMBERSHIP_{name}"), value)]).unwrap_err().to_string();
        assert!(error.ends_with("is no setting there is; check its spelling, or unset it"));
    }

    #[test]
    fn what_others_set_is_theirs() {
        let theirs = [("MEMBERSHIP_SEED", "1"), ("PATH", ""), ("MEMBERSHIP_NATS_URL", "")];
        assert_eq!(applied(&theirs), Ok(StoreConfig::default()));
    }
}
