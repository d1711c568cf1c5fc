//! Reads a configuration from a TOML file.

use std::path::Path;

use crate::config::StoreConfig;
use crate::error::Invalid;
use crate::{Error, shown};

impl StoreConfig {
    /// Returns the defaults, overridden by the file (if one is given) and then by the environment,
    /// whose variables [`from_env`](Self::from_env) lists.
    ///
    /// Errors: those of `from_env`, and [`Error::Invalid`] for a file that cannot be read, is not
    /// TOML, or has an unknown field or a value of the wrong kind. The error shows no value that
    /// may be a secret.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let mut config = match file {
            None => Self::default(),
            Some(file) => {
                let name = format!("file {}", file.display());
                let text = std::fs::read_to_string(file).map_err(|error| {
                    Invalid::new("configuration", format!("{name} cannot be read: {error}"))
                })?;
                Self::parse(&text, &name)?
            }
        };
        config.apply(std::env::vars_os())?;
        Ok(config)
    }

    /// Returns the defaults, overridden by a TOML text.
    ///
    /// ```
    /// use membership::StoreConfig;
    ///
    /// let config = StoreConfig::from_toml(
    ///     r#"
    ///     decentralized = true
    ///
    ///     [jetstream]
    ///     servers = ["nats://a:4222", "nats://b:4222", "nats://c:4222"]
    ///     replicas = 3
    ///     "#,
    /// )?;
    /// assert_eq!(config.jetstream.replicas, 3);
    /// # Ok::<(), membership::Error>(())
    /// ```
    ///
    /// Errors: [`Error::Invalid`] for a text that is not TOML, an unknown field, and a value of the
    /// wrong kind. The error shows no value that may be a secret.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        Self::parse(text, "text")
    }

    fn parse(text: &str, name: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| {
                text.get(..span.start).map_or(0, |before| before.matches('\n').count() + 1)
            });
            let what = shown::misfit(error.message());
            let problem = format!("{name} is wrong at line {line}: {what}");
            Invalid::new("configuration", problem).into()
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::SqliteSection;

    fn fixture(name: &str) -> Result<StoreConfig, Error> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config").join(name);
        StoreConfig::from_toml(&std::fs::read_to_string(path).unwrap())
    }

    #[test]
    fn the_defaults_are_one_file() {
        let config = StoreConfig::from_toml("").unwrap();
        assert_eq!(config, StoreConfig::default());
        assert!(!config.decentralized);
        let expected =
            SqliteSection { path: "/var/lib/m.db".into(), must_exist: true, mode: 0o640 };
        assert_eq!(fixture("sqlite.toml").unwrap().sqlite, expected);
    }

    #[rstest]
    #[case("unknown-field.toml", "line 2: unknown field `replica`")]
    #[case("wrong-kind.toml", "line 1: invalid type: string, expected a boolean")]
    #[case("password-of-the-wrong-kind.toml", "line 4: invalid type: string, expected a sequence")]
    #[case("no-toml.toml", "line 1")]
    fn what_is_wrong_is_named(#[case] name: &str, #[case] expected: &str) {
        let error = fixture(name).unwrap_err().to_string();
        assert!(error.starts_with("invalid configuration: text is wrong at "), "{error}");
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        assert!(!error.contains("hidden"), "{error}");
    }

    #[test]
    fn a_file_is_named_with_what_is_wrong_in_it() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config/unknown-field.toml");
        let error = StoreConfig::load(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("unknown-field.toml is wrong at line 2: unknown field"), "{error}");
        let error = StoreConfig::load(Some(Path::new("/nowhere.toml"))).unwrap_err().to_string();
        assert!(error.starts_with("invalid configuration: file /nowhere.toml cannot be read: "));
    }

    #[rstest]
    #[case("token = 271828", "line 3: a secret must be a text in quotes")]
    #[case("replicas = \"3\"", "line 3: invalid type: string, expected u8")]
    #[case("servers = \"nats://u:p@a\"", "line 3: invalid type: string, expected a sequence")]
    #[case("servers = [271828]", "line 3: invalid type: integer, expected a string")]
    #[case("prefix = 271.828", "line 3: invalid type: floating point, expected a string")]
    #[case("domain = [\"p\"]", "line 3: invalid type: sequence, expected a string")]
    #[case("replicas = 300", "line 3: invalid value: integer, expected u8")]
    #[case("replicas = 1\nreplicas = 2", "line 4: duplicate key")]
    fn what_is_of_the_wrong_kind_is_named(#[case] field: &str, #[case] expected: &str) {
        let text = format!("\n[jetstream]\n{field}");
        let error = StoreConfig::from_toml(&text).unwrap_err().to_string();
        assert_eq!(error, format!("invalid configuration: text is wrong at {expected}"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = r#"
            [jetstream]
            servers = ["nats://u:hidden@a", "nats://u:22#hidden@a", "nats://u:hidden", "hidden@a"]
            user = "u"
            password = "hidden"
            token = "hidden"
            nkey_seed = "hidden"
        "#;
        let config = StoreConfig::from_toml(text).unwrap();
        for shown in [format!("{config:?}"), format!("{:#?}", config.jetstream)] {
            assert!(!shown.contains("hidden"), "{shown}");
            assert!(shown.contains("nats://…@a"), "{shown}");
        }
    }
}
