//! Lists in pages.

use std::collections::HashSet;

use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};

/// Follows `Link: <…>; rel="next"` within bounds.
///
/// Source: OCI distribution specification, "Listing Tags"; RFC 8288. Only the query of a link is used, and only if
/// it names this list of this registry: a registry behind a proxy writes the wrong scheme, and a hostile one another
/// host.
#[derive(Debug)]
pub(super) struct Pages {
    first: Url,
    seen: HashSet<Url>,
    limit: usize,
}

impl Pages {
    /// At most `limit` pages from `first` on.
    pub(super) fn new(first: Url, limit: usize) -> Self {
        let seen = HashSet::from([first.clone()]);
        Self { first, seen, limit }
    }

    /// The page after the one with these headers, none after the last, or what is wrong with it.
    pub(super) fn next(&mut self, headers: &HeaderMap) -> Result<Option<Url>, String> {
        let Some(link) = next_link(headers) else {
            return Ok(None);
        };
        let target = self.first.join(&link).map_err(|_| "the next page is not a valid URL")?;
        if target.host_str() != self.first.host_str() || target.path() != self.first.path() {
            return Err("the next page is not of this list".to_owned());
        }
        let mut next = self.first.clone();
        next.set_query(target.query());
        if self.seen.len() >= self.limit {
            return Err(format!("the list has more than {} pages", self.limit));
        }
        if !self.seen.insert(next.clone()) {
            return Err("the pages of the list form a loop".to_owned());
        }
        Ok(Some(next))
    }
}

/// The target of the first link whose relation is `next`.
fn next_link(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(links).find_map(|(target, parameters)| {
        let is_next = parameters.split(';').any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            name.trim().eq_ignore_ascii_case("rel")
                && value
                    .trim()
                    .trim_matches('"')
                    .split(' ')
                    .any(|relation| relation.eq_ignore_ascii_case("next"))
        });
        is_next.then(|| target.to_owned())
    })
}

/// `<target>; parameters, <target>; parameters`. A comma inside a target is part of it.
fn links(value: &str) -> Vec<(&str, &str)> {
    let mut links = Vec::new();
    let mut rest = value;
    while let Some((target, after)) = rest.split_once('<').and_then(|(_, rest)| rest.split_once('>')) {
        let end = after.find(",<").or_else(|| after.find(", <")).unwrap_or(after.len());
        links.push((target, &after[..end]));
        rest = &after[end..];
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const FIRST: &str = "https://registry.example/v2/p/tags/list?n=1000";

    fn next(link: &str) -> Result<Option<String>, String> {
        let headers = HeaderMap::from_iter([(LINK, link.parse().map_err(|_| "header")?)]);
        let next = Pages::new(FIRST.parse().unwrap(), 3).next(&headers)?;
        Ok(next.map(|url| url.query().unwrap_or_default().to_owned()))
    }

    #[rstest]
    #[case::relative("</v2/p/tags/list?last=b&n=2>; rel=\"next\"", Some("last=b&n=2"))]
    #[case::absolute("<https://registry.example/v2/p/tags/list?last=b>;rel=next", Some("last=b"))]
    #[case::scheme_of_a_proxy("<http://registry.example/v2/p/tags/list?last=b>; rel=next", Some("last=b"))]
    #[case::query_only("<?last=b>; rel=next", Some("last=b"))]
    #[case::among_others("<?a>; rel=\"prev\", <?b>; title=\"x\"; rel=\"last next\"", Some("b"))]
    #[case::comma_in_target("<?last=a,b>; rel=next", Some("last=a,b"))]
    #[case::other_relation("<?a>; rel=prev", None)]
    #[case::nonsense("next", None)]
    fn finds_the_next_page(#[case] link: &str, #[case] query: Option<&str>) {
        assert_eq!(next(link).unwrap().as_deref(), query);
    }

    #[rstest]
    #[case::other_host("<https://evil.example/v2/p/tags/list?last=b>; rel=next")]
    #[case::other_path("</v2/other/tags/list?last=b>; rel=next")]
    #[case::traversal("</v2/p/tags/../../q/tags/list>; rel=next")]
    #[case::itself("<?n=1000>; rel=next")]
    #[case::no_url("<http://[>; rel=next")]
    fn stays_in_the_list(#[case] link: &str) {
        assert!(next(link).is_err());
    }

    #[test]
    fn pages_are_counted() {
        let mut pages = Pages::new(FIRST.parse().unwrap(), 3);
        let mut page = |text: &str| pages.next(&HeaderMap::from_iter([(LINK, text.parse().unwrap())]));
        assert!(page("<?a>; rel=next").is_ok());
        assert!(page("<?b>; rel=next").is_ok());
        assert!(page("<?c>; rel=next").is_err());
    }

    proptest! {
        #[test]
        fn never_panics_on_any_header(text in "[ -~]{0,80}") {
            let _ = next(&text);
        }
    }
}
