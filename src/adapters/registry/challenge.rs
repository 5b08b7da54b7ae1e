//! What a 401 asks for. Source: OCI distribution specification and RFC 9110, section 11.6.1.

use reqwest::Response;
use reqwest::header::WWW_AUTHENTICATE;

/// Longest header that is parsed, in bytes.
const MAX_CHALLENGE_BYTES: usize = 4096;

/// A way to authenticate that we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from the server at `realm`.
    Bearer {
        /// The token server's URL, unchecked.
        realm: String,
        /// What the registry is called there.
        service: Option<String>,
    },
}

/// The best challenge of an answer: Bearer before Basic.
pub(super) fn of(response: &Response) -> Option<Challenge> {
    let values = response
        .headers()
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    best(values)
}

fn best<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers.filter(|header| header.len() <= MAX_CHALLENGE_BYTES) {
        for challenge in http_auth::parse_challenges(header).unwrap_or_default() {
            let parameter = |name: &str| {
                challenge
                    .params
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                return Some(Challenge::Bearer {
                    realm,
                    service: parameter("service"),
                });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        })
    }

    #[rstest]
    #[case::bearer(
        &[r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:acme/p:pull""#],
        bearer("https://auth.example/token", Some("reg"))
    )]
    #[case::basic(&[r#"Basic realm="registry""#], Some(Challenge::Basic))]
    #[case::bearer_wins(&[r#"Basic realm="registry""#, r#"Bearer realm="https://a.example/t""#], bearer("https://a.example/t", None))]
    #[case::one_header(&[r#"Basic realm="registry", Bearer realm="https://a.example/t""#], bearer("https://a.example/t", None))]
    #[case::no_realm(&[r#"Bearer service="reg""#], None)]
    #[case::unknown(&["Negotiate"], None)]
    #[case::junk(&["\"\"\""], None)]
    #[case::none(&[], None)]
    fn picks_the_best(#[case] headers: &[&str], #[case] expected: Option<Challenge>) {
        assert_eq!(best(headers.iter().copied()), expected);
    }

    proptest! {
        #[test]
        fn never_panics_on_any_header(text in "\\PC{0,200}") {
            let _ = best(std::iter::once(text.as_str()));
        }
    }
}
