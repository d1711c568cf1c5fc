//! Hides the secrets of a configuration in errors, logs and `Debug`.

/// Returns the servers' URLs without their users and passwords.
///
/// A text that does not look like a URL is replaced by its length, since any part of it may be the
/// secret. If any URL names a user, a URL without a user is replaced, too: it may be a part of a
/// password, since the environment splits URLs at commas, and a password may contain a comma.
pub(crate) fn servers(urls: &[String]) -> Vec<String> {
    let any_user = urls.iter().any(|url| url.contains('@'));
    urls.iter().map(|url| server(url, any_user)).collect()
}

fn server(url: &str, any_user: bool) -> String {
    let is_host = |text: &str| {
        let legal = |c: char| c.is_alphanumeric() || "-._:[]".contains(c);
        !text.is_empty() && text.chars().all(legal)
    };
    let scheme = ["nats://", "tls://"].into_iter().find(|scheme| url.starts_with(scheme));
    let scheme = scheme.unwrap_or_default();
    let rest = url.strip_prefix(scheme).unwrap_or(url);
    match rest.rsplit_once('@') {
        Some((user, host)) if is_host(host) && !user.contains(['/', '#', '?']) => {
            format!("{scheme}…@{host}")
        }
        None if !any_user && is_host(rest.strip_suffix('/').unwrap_or(rest)) => url.to_owned(),
        _ => format!("<{} bytes>", url.len()),
    }
}

/// Removes the value from serde's message about a value of the wrong kind. Otherwise a secret that
/// stands in the wrong field would be shown.
#[cfg(feature = "toml")]
pub(crate) fn misfit(message: &str) -> String {
    let message = message.replace('\n', " ");
    for what in ["invalid type: ", "invalid value: "] {
        if let Some(found) = message.strip_prefix(what)
            && let Some((found, expected)) = found.rsplit_once(", expected ")
        {
            // serde's message names the kind before the value: string "…", integer `…`, floating
            // point `…`, sequence.
            let kind = found.split(['"', '`']).next().unwrap_or_default().trim_end();
            return format!("{what}{kind}, expected {expected}");
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain(&["nats://a:1", "b", "tls://[::1]:4222/"], &["nats://a:1", "b", "tls://[::1]:4222/"])]
    #[case::password(&["nats://u:secret@a:1"], &["nats://…@a:1"])]
    #[case::at(&["u:secret@secret@a"], &["…@a"])]
    #[case::fragment(&["nats://u:22#secret@a"], &["<20 bytes>"])]
    #[case::path(&["nats://u:22/secret@a"], &["<20 bytes>"])]
    #[case::query(&["nats://u:22?secret@a"], &["<20 bytes>"])]
    #[case::after(&["nats://a/secret"], &["<15 bytes>"])]
    #[case::comma(&["nats://u:secret", "secret@a"], &["<15 bytes>", "…@a"])]
    #[case::scheme(&["secret://a"], &["<10 bytes>"])]
    #[case::nothing(&[""], &["<0 bytes>"])]
    fn urls_show_no_secret(#[case] urls: &[&str], #[case] expected: &[&str]) {
        let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        let shown = servers(&urls);
        assert_eq!(shown, expected);
        assert!(!shown.concat().contains("secret"));
    }

    #[cfg(feature = "toml")]
    #[rstest]
    #[case(
        r#"invalid type: string "a, expected b", expected u8"#,
        "invalid type: string, expected u8"
    )]
    #[case(r#"invalid type: string "", expected u8"#, "invalid type: string, expected u8")]
    #[case(
        "invalid type: sequence, expected a string",
        "invalid type: sequence, expected a string"
    )]
    #[case("invalid value: integer `7`, expected u8", "invalid value: integer, expected u8")]
    #[case(
        "invalid type: floating point `7.5`, expected u8",
        "invalid type: floating point, expected u8"
    )]
    #[case("unknown field `a`, expected `b`", "unknown field `a`, expected `b`")]
    fn a_value_that_does_not_fit_is_not_shown(#[case] message: &str, #[case] expected: &str) {
        assert_eq!(misfit(message), expected);
    }
}
