//! The servers' URLs, and the user in them.

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;

use crate::Error;
use crate::error::Invalid;
use crate::jetstream::config::credentials::Credentials;

/// Checks the URLs. Either the URLs or `credentials` name a user, not both. Returns the servers and the credentials.
/// The servers' URLs have no users any more, since the driver would log them.
pub(in crate::jetstream) fn resolve(
    urls: &[String],
    credentials: &Credentials,
) -> Result<(Vec<ServerAddr>, Credentials), Error> {
    let numbered = urls.iter().enumerate();
    let servers = numbered.map(|(n, url)| address(n + 1, url)).collect::<Result<Vec<_>, _>>()?;
    let credentials = match (credentials, named_in(&servers)?) {
        (Credentials::None, Some(named)) => named,
        (given, None) => given.clone(),
        _ => {
            let problem = "are given, and others stand in the URLs of servers; keep one of them";
            return Err(Invalid::new("credentials", problem).into());
        }
    };
    let anonymous = servers.into_iter().map(|server| {
        let mut url = server.into_inner();
        // Both fail only for URLs without a host, which the check above refuses.
        let _ = (url.set_username(""), url.set_password(None));
        ServerAddr::from_url(url)
    });
    let anonymous = anonymous.collect::<Result<Vec<_>, _>>();
    let anonymous = anonymous.map_err(|error| Invalid::new("servers", error.to_string()))?;
    Ok((anonymous, credentials))
}

/// Returns the address of the `n`-th server. An error does not show the URL, since any part of an invalid URL may be
/// the password.
fn address(n: usize, url: &str) -> Result<ServerAddr, Error> {
    const ENCODE: &str = "percent-encode special characters of a user or password: # as %23, \
                          / as %2F, ? as %3F, a comma as %2C";
    let refuse = |problem: &str, hint: &str| {
        let problem = format!("hold no NATS URL as number {n}: {problem}; {hint}");
        Err(Error::from(Invalid::new("servers", problem)))
    };
    let example = "e.g. nats://127.0.0.1:4222";
    // The parser would drop some of these characters silently, and so change a password.
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return refuse("it has a space or a line break", example);
    }
    match url.split_once("://") {
        Some(("nats" | "tls", _)) | None => {}
        Some(("ws" | "wss", _)) => return refuse("websockets are not supported", example),
        Some(_) => return refuse("it begins with neither nats:// nor tls://", example),
    }
    let address: ServerAddr = match url.parse() {
        Ok(address) => address,
        // The parser's own errors, as "invalid port number", quote nothing.
        Err(error) => {
            let error: std::io::Error = error;
            let said = error.to_string();
            let said = said.strip_prefix("NATS server URL is invalid: ").unwrap_or("invalid");
            return refuse(said, ENCODE);
        }
    };
    if address.host().is_empty() {
        return refuse("it names no host", example);
    }
    let parts = address.clone().into_inner();
    // `nats://app:22#secret@host` names the host `app`, which the operator did not mean.
    if parts.fragment().is_some() || parts.query().is_some() || !matches!(parts.path(), "" | "/") {
        return refuse("something follows host and port", ENCODE);
    }
    Ok(address)
}

/// The credentials in the URLs, before the `@`. The driver does not read them.
fn named_in(servers: &[ServerAddr]) -> Result<Option<Credentials>, Error> {
    let mut names = servers.iter().map(|server| (server.username(), server.password()));
    let Some((user, password)) = names.next() else { return Ok(None) };
    if names.any(|other| other != (user, password)) {
        let problem = "name different users; a store is the same user to all of its servers \
                       (a comma in a password is written %2C)";
        return Err(Invalid::new("servers", problem).into());
    }
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Ok(user.map(|user| match password {
        Some(password) => {
            Credentials::UserPassword { user: plain(user), password: plain(password).into() }
        }
        None => Credentials::Token(plain(user).into()),
    }))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const USERS: &str = "invalid servers: name different users; a store is the same user";

    fn resolve_for(
        urls: &[&str],
        credentials: &Credentials,
    ) -> Result<(Vec<ServerAddr>, Credentials), Error> {
        let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        resolve(&urls, credentials)
    }

    #[rstest]
    #[case::nobody(&["nats://a"], "None")]
    #[case::slash(&["nats://a:4222/", "[::1]"], "None")]
    #[case::user(&["nats://u:p@a", "u:p@b"], "UserPassword { user: \"u\", password: <1 bytes> }")]
    #[case::encoded(&["nats://%40:p%2Fq@a"], "UserPassword { user: \"@\", password: <3 bytes> }")]
    #[case::at(&["nats://u:p@q@a"], "UserPassword { user: \"u\", password: <3 bytes> }")]
    #[case::token(&["nats://t@a"], "Token(<1 bytes>)")]
    #[case::two(&["nats://t@a", "b"], USERS)]
    #[case::comma(&["nats://u:22", "hidden@a"], USERS)]
    #[case::websocket(&["ws://a"], "invalid servers: hold no NATS URL as number 1: websockets are")]
    #[case::scheme(&["a", "hidden://b"], "invalid servers: hold no NATS URL as number 2: it begins")]
    #[case::fragment(&["nats://u:22#hidden@a"], "invalid servers: hold no NATS URL as number 1: some")]
    #[case::query(&["nats://u:22?hidden@a"], "invalid servers: hold no NATS URL as number 1: some")]
    #[case::path(&["nats://u:22/hidden@a"], "invalid servers: hold no NATS URL as number 1: some")]
    #[case::port(&["nats://u:hidden"], "invalid servers: hold no NATS URL as number 1: invalid port")]
    #[case::port_too(&["u:hidden#@a"], "invalid servers: hold no NATS URL as number 1: invalid port")]
    #[case::tab(&["u:hid\tden@a"], "invalid servers: hold no NATS URL as number 1: it has a space")]
    #[case::empty(&[""], "invalid servers: hold no NATS URL as number 1: it names no host; e.g.")]
    fn urls_say_who_we_are(#[case] urls: &[&str], #[case] expected: &str) {
        let said = resolve_for(urls, &Credentials::None);
        let said = said.map_or_else(|error| error.to_string(), |(_, named)| format!("{named:?}"));
        assert!(said.starts_with(expected), "{said}");
        assert!(!said.contains("hid"), "{said}");
    }

    #[test]
    fn a_password_is_not_dialled_nor_given_to_the_driver() {
        let urls = ["nats://u:p@a:1", "tls://u:p@b"];
        let (servers, _) = resolve_for(&urls, &Credentials::None).unwrap();
        let servers: Vec<&str> = servers.iter().map(ServerAddr::as_url_str).collect();
        assert_eq!(servers, ["nats://a:1", "tls://b"]);
    }

    #[test]
    fn who_we_are_is_said_once() {
        let token = Credentials::Token("t".into());
        let error = resolve_for(&["nats://u:p@a"], &token).unwrap_err();
        assert!(error.to_string().starts_with("invalid credentials: are given, and others stand"));
    }
}
