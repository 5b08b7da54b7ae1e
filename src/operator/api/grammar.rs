//! What the patterns of the schema say, for texts that no API server has checked: manifests that `render` reads, and
//! names that come from other objects than a PolicyImage.
//!
//! Source: Kubernetes, "Object Names and IDs" and "Labels and Selectors".

/// Whether `text` can be the name of a Secret, ConfigMap or ServiceAccount: an RFC 1123 subdomain of at most 253 bytes.
///
/// **Security invariant:** a name becomes a part of a request's path, so one with `/`, `..`, `?` or `%` could reach
/// another namespace. Check every name from user input before it goes into a request to the API server.
#[must_use]
pub fn is_object_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_word)
}

/// Whether `text` can be the name of an authority: an RFC 1123 label of at most 63 bytes.
#[must_use]
pub fn is_authority_name(text: &str) -> bool {
    text.len() <= 63 && is_word(text)
}

/// Whether `text` can be a key of a Secret or ConfigMap: at most 253 of `[-._a-zA-Z0-9]`.
#[must_use]
pub fn is_data_key(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// Whether `text` can be the key of a label or annotation: a name, or a DNS prefix, `/` and a name.
#[must_use]
pub fn is_metadata_key(text: &str) -> bool {
    let (prefix, name) = text
        .rsplit_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_object_name) && !name.is_empty() && is_label_value(name)
}

/// Whether `text` can be the value of a label: empty, or at most 63 of `[-._a-zA-Z0-9]` with a letter or digit at both
/// ends.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    let ends = |end: Option<u8>| end.is_none_or(|byte| byte.is_ascii_alphanumeric());
    text.is_empty() || (text.len() <= 63 && is_data_key(text) && ends(text.bytes().next()) && ends(text.bytes().last()))
}

/// Lower-case letters, digits and inner hyphens, at least one.
fn is_word(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.bytes().all(|byte| plain(&byte) || byte == b'-')
        && text.as_bytes().first().is_some_and(plain)
        && text.as_bytes().last().is_some_and(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a", true)]
    #[case("acme-policy.example", true)]
    #[case("0", true)]
    #[case("", false)]
    #[case("Acme", false)]
    #[case("-a", false)]
    #[case("a-", false)]
    #[case("a..b", false)]
    #[case(".a", false)]
    #[case("..", false)]
    #[case("other/name", false)]
    #[case("../other/secrets/name", false)]
    #[case("..%2fother", false)]
    #[case("name?watch=true", false)]
    #[case("näme", false)]
    #[case("name\n", false)]
    fn object_names_stay_in_their_place_of_a_path(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(is_object_name(text), expected, "{text:?}");
    }

    #[rstest]
    #[case("team", true)]
    #[case("acme.example/team_A.b", true)]
    #[case("", false)]
    #[case("/team", false)]
    #[case("acme.example/", false)]
    #[case("Acme/team", false)]
    #[case("a/b/c", false)]
    #[case("-team", false)]
    #[case("a b", false)]
    fn metadata_keys_have_one_prefix_at_most(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(is_metadata_key(text), expected, "{text:?}");
    }

    #[test]
    fn lengths_are_bounded() {
        let long = |length| "a".repeat(length);
        assert!(is_object_name(&long(253)) && !is_object_name(&long(254)));
        assert!(is_authority_name(&long(63)) && !is_authority_name(&long(64)));
        assert!(is_data_key(&long(253)) && !is_data_key(&long(254)) && !is_data_key("") && !is_data_key("a/b"));
        assert!(is_label_value(&long(63)) && !is_label_value(&long(64)) && is_label_value("") && !is_label_value("_"));
    }
}
