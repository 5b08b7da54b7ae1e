//! Where a redirect may lead. Blob stores are other hosts by design; everything else about a redirect is suspicious.

use reqwest::Url;
use reqwest::header::{HeaderMap, LOCATION};

/// Most redirects followed for one request.
pub(crate) const MAX_REDIRECTS: usize = 5;
/// Longest URL that is followed; signed ones of blob stores have about 2000 bytes. Some servers reject longer URLs, and
/// HTTP libraries do not send them, so a malicious redirect could make another host look down.
const MAX_URL_BYTES: usize = 8 << 10;

/// The URL that the response of `from` leads to, or why it is not followed.
pub(crate) fn target(from: &Url, headers: &HeaderMap) -> Result<Url, &'static str> {
    let location = headers.get(LOCATION).ok_or("a redirect without 'Location'")?;
    let text = location.to_str().map_err(|_| "a redirect to an invalid URL")?;
    let mut to = from.join(text).map_err(|_| "a redirect to an invalid URL")?;
    match (from.scheme(), to.scheme()) {
        ("https" | "http", "https") | ("http", "http") => {}
        ("https", "http") => return Err("a redirect from HTTPS to HTTP, which is not followed"),
        _ => return Err("a redirect to a scheme other than HTTP"),
    }
    if !to.username().is_empty() || to.password().is_some() {
        return Err("a redirect with a user name in it, which is not followed");
    }
    to.set_fragment(None);
    if to.as_str().len() > MAX_URL_BYTES {
        return Err("a redirect to a URL of more than 8 KiB, which is not followed");
    }
    Ok(to)
}

/// Whether credentials for `one` are meant for `other` too. Source: OCI distribution specification, "Pulling blobs":
/// clients must not forward `Authorization` to another host.
pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const HERE: &str = "https://registry.example/v2/p/blobs/x";

    fn follow(from: &str, location: &str) -> Result<String, &'static str> {
        let headers = HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
        target(&from.parse().unwrap(), &headers).map(String::from)
    }

    #[rstest]
    #[case::absolute(HERE, "https://store.example/b?sig=1", "https://store.example/b?sig=1")]
    #[case::relative(HERE, "/b", "https://registry.example/b")]
    #[case::without_scheme(HERE, "//store.example/b", "https://store.example/b")]
    #[case::up("http://registry.example/b", "https://store.example/b", "https://store.example/b")]
    #[case::plain("http://registry.example/b", "http://store.example/b", "http://store.example/b")]
    fn follows(#[case] from: &str, #[case] location: &str, #[case] to: &str) {
        assert_eq!(follow(from, location).as_deref(), Ok(to));
    }

    #[rstest]
    #[case::down("http://store.example/b")]
    #[case::file("file:///etc/passwd")]
    #[case::data("data:text/plain,x")]
    #[case::user("https://user@store.example/b")]
    #[case::password("https://:secret@store.example/b")]
    #[case::no_host("https://")]
    fn does_not_follow(#[case] location: &str) {
        assert!(follow(HERE, location).is_err());
    }

    #[test]
    fn a_long_url_is_not_held_against_the_host_it_names() {
        let location = |length: usize| format!("https://store.example/{}", "x".repeat(length));
        assert!(follow(HERE, &location(4000)).is_ok());
        assert!(follow(HERE, &location(MAX_URL_BYTES)).is_err());
        let encoded = format!("https://store.example/{}", "\"".repeat(4000));
        assert!(follow(HERE, &encoded).is_err(), "three bytes for each");
    }

    #[rstest]
    #[case::same("https://a.example/x", "https://a.example:443/y", true)]
    #[case::port("https://a.example/x", "https://a.example:444/x", false)]
    #[case::scheme("http://a.example/x", "https://a.example/x", false)]
    #[case::host("https://a.example/x", "https://b.a.example/x", false)]
    fn credentials_stay_with_their_origin(#[case] one: &str, #[case] other: &str, #[case] expected: bool) {
        assert_eq!(same_origin(&one.parse().unwrap(), &other.parse().unwrap()), expected);
    }
}
