//! The challenge of a registry that answers 401.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// Most bytes of one header that are looked at.
const MAX_HEADER_BYTES: usize = 8 << 10;

/// A way to log in that we know. Source: RFC 9110, section 11.6.1; distribution documentation, "Token authentication".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token from the server at `realm`.
    Bearer {
        /// The token server's URL, as the registry writes it.
        realm: String,
        /// What the token server calls the registry.
        service: Option<String>,
    },
    /// User name and password.
    Basic,
}

impl Challenge {
    /// The best challenge among those offered: a token over a password. The `scope` of a challenge is ignored, it would
    /// let the registry have us fetch a token for something else.
    pub(super) fn best(headers: &HeaderMap) -> Option<Self> {
        let offered: Vec<Self> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok().filter(|text| text.len() <= MAX_HEADER_BYTES))
            .flat_map(parse)
            .collect();
        let bearer = offered
            .iter()
            .find(|challenge| matches!(challenge, Self::Bearer { .. }));
        bearer.or(offered.first()).cloned()
    }
}

fn parse(header: &str) -> Vec<Challenge> {
    let parsed = http_auth::parse_challenges(header).unwrap_or_default();
    parsed.iter().filter_map(known).collect()
}

fn known(challenge: &http_auth::ChallengeRef<'_>) -> Option<Challenge> {
    let parameter = |name: &str| {
        let mut named = challenge
            .params
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.to_unescaped())
    };
    if challenge.scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !challenge.scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    Some(Challenge::Bearer {
        realm: parameter("realm")?,
        service: parameter("service").filter(|service| !service.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn best(headers: &[&str]) -> Option<Challenge> {
        let headers = headers
            .iter()
            .filter_map(|text| Some((WWW_AUTHENTICATE, text.parse().ok()?)))
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            });
        Challenge::best(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        }
    }

    const HUB: &str =
        r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:push,pull""#;

    #[rstest]
    #[case::hub(&[HUB], Some(bearer("https://auth.docker.io/token", Some("registry.docker.io"))))]
    #[case::basic(&[r#"Basic realm="x""#], Some(Challenge::Basic))]
    #[case::case(&[r#"BASIC realm="x""#], Some(Challenge::Basic))]
    #[case::bearer_before_basic(&[r#"Basic realm="x", Bearer realm="https://t.example""#], Some(bearer("https://t.example", None)))]
    #[case::two_headers(&[r#"Basic realm="x""#, r#"Bearer realm="https://t.example",service="""#], Some(bearer("https://t.example", None)))]
    #[case::escaped(&[r#"Bearer realm="https://t.example/\"a""#], Some(bearer("https://t.example/\"a", None)))]
    #[case::unknown_scheme(&["Negotiate"], None)]
    #[case::bearer_without_realm(&["Bearer service=\"x\""], None)]
    #[case::nonsense(&[",,=,\""], None)]
    #[case::none(&[], None)]
    fn picks_the_best_known_scheme(#[case] headers: &[&str], #[case] expected: Option<Challenge>) {
        assert_eq!(best(headers), expected);
    }

    proptest! {
        #[test]
        fn never_panics_on_any_header(text in "(Bearer |Basic )?[ -~]{0,120}") {
            let _ = best(&[&text]);
        }
    }
}
