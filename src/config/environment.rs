use std::str::FromStr;

use crate::Error;
use crate::config::{Secret, StoreConfig};
use crate::error::Invalid;

impl StoreConfig {
    /// Replaces what the environment names. `lookup` gives the value of a variable, if it is set.
    pub(super) fn apply(
        &mut self,
        lookup: impl Fn(&'static str) -> Option<String>,
    ) -> Result<(), Error> {
        let jetstream = &mut self.jetstream;
        replace(&mut self.decentralized, "MEMBERSHIP_DECENTRALIZED", &lookup)?;
        replace(&mut self.op_timeout_ms, "MEMBERSHIP_OP_TIMEOUT_MS", &lookup)?;
        replace(&mut self.sqlite.path, "MEMBERSHIP_SQLITE_PATH", &lookup)?;
        replace(&mut jetstream.prefix, "MEMBERSHIP_JETSTREAM_PREFIX", &lookup)?;
        replace(&mut jetstream.replicas, "MEMBERSHIP_JETSTREAM_REPLICAS", &lookup)?;
        if let Some(servers) = lookup("MEMBERSHIP_JETSTREAM_SERVERS") {
            jetstream.servers = servers.split(',').map(|url| url.trim().to_owned()).collect();
        }
        set(&mut jetstream.user, "MEMBERSHIP_JETSTREAM_USER", &lookup)?;
        set(&mut jetstream.credentials_file, "MEMBERSHIP_JETSTREAM_CREDENTIALS_FILE", &lookup)?;
        set(&mut jetstream.tls_ca_file, "MEMBERSHIP_JETSTREAM_TLS_CA_FILE", &lookup)?;
        set(&mut jetstream.tls_cert_file, "MEMBERSHIP_JETSTREAM_TLS_CERT_FILE", &lookup)?;
        set(&mut jetstream.tls_key_file, "MEMBERSHIP_JETSTREAM_TLS_KEY_FILE", &lookup)?;
        let bound = "MEMBERSHIP_JETSTREAM_BOUNDED_STALENESS_MS";
        set(&mut jetstream.bounded_staleness_ms, bound, &lookup)?;
        for (secret, name) in [
            (&mut jetstream.password, "MEMBERSHIP_JETSTREAM_PASSWORD"),
            (&mut jetstream.token, "MEMBERSHIP_JETSTREAM_TOKEN"),
            (&mut jetstream.nkey_seed, "MEMBERSHIP_JETSTREAM_NKEY_SEED"),
        ] {
            if let Some(text) = lookup(name) {
                *secret = Some(Secret::new(text));
            }
        }
        Ok(())
    }
}

fn parse<T: FromStr>(name: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| {
        let kind = std::any::type_name::<T>();
        Invalid::new(name, format!("is {text:?}, which is no {kind}")).into()
    })
}

fn replace<T: FromStr>(
    value: &mut T,
    name: &'static str,
    lookup: &impl Fn(&'static str) -> Option<String>,
) -> Result<(), Error> {
    if let Some(text) = lookup(name) {
        *value = parse(name, &text)?;
    }
    Ok(())
}

fn set<T: FromStr>(
    value: &mut Option<T>,
    name: &'static str,
    lookup: &impl Fn(&'static str) -> Option<String>,
) -> Result<(), Error> {
    if let Some(text) = lookup(name) {
        *value = Some(parse(name, &text)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(variables: &[(&str, &str)]) -> Result<StoreConfig, Error> {
        let mut config = StoreConfig::default();
        let find = |name: &str| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        config.apply(find)?;
        Ok(config)
    }

    #[test]
    fn variables_replace_what_was_there() {
        let config = applied(&[
            ("MEMBERSHIP_DECENTRALIZED", "true"),
            ("MEMBERSHIP_JETSTREAM_SERVERS", "nats://a, nats://b"),
            ("MEMBERSHIP_JETSTREAM_REPLICAS", "2"),
            ("MEMBERSHIP_JETSTREAM_TOKEN", "t"),
            ("MEMBERSHIP_JETSTREAM_BOUNDED_STALENESS_MS", "500"),
        ])
        .unwrap();
        assert!(config.decentralized);
        assert_eq!(config.jetstream.servers, ["nats://a", "nats://b"]);
        assert_eq!(config.jetstream.replicas, 2);
        assert_eq!(config.jetstream.token, Some(Secret::new("t")));
        assert_eq!(config.jetstream.bounded_staleness_ms, Some(500));
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let error = applied(&[("MEMBERSHIP_DECENTRALIZED", "yes")]).unwrap_err().to_string();
        assert_eq!(error, "invalid MEMBERSHIP_DECENTRALIZED: is \"yes\", which is no bool");
    }
}
