//! All tags of a repository.

use reqwest::StatusCode;

use super::observer::RequestKind;
use super::paging::Pages;
use super::session::Session;
use crate::domain::bounded::BoundedList;
use crate::domain::reference::Tag;
use crate::pipeline::ports::RegistryError;

/// Most tags of one repository.
const MAX_TAGS: usize = 10_000;
/// Most pages they may be spread over.
const MAX_PAGES: usize = 100;
/// Largest page, in bytes.
const MAX_PAGE_BYTES: u64 = 1 << 20;

#[derive(serde::Deserialize)]
struct Page {
    /// `null` if there are none.
    tags: Option<BoundedList<String, MAX_TAGS>>,
}

/// Shows all tags to `visit`, and returns how many there were. Texts that break the grammar of tags are left out: nothing
/// could be pulled by them.
pub(super) async fn list(session: &Session<'_>, visit: &mut (dyn FnMut(Tag) + Send)) -> Result<usize, RegistryError> {
    let mut request = session.request(RequestKind::Tags, session.endpoint.tags(), " (its tags)");
    let mut pages = Pages::new(request.url.clone(), MAX_PAGES);
    let mut count = 0;
    loop {
        let response = session.fetch(&request, MAX_PAGE_BYTES).await?;
        if response.status != StatusCode::OK {
            return Err(request.unexpected(response.status));
        }
        let page: Page =
            serde_json::from_slice(&response.body).map_err(|_| request.protocol("the list of tags cannot be read"))?;
        let too_many = || request.protocol(format!("there are more than {MAX_TAGS} tags"));
        let page = page.tags.unwrap_or_default().complete().map_err(|_| too_many())?;
        count += page.len();
        if count > MAX_TAGS {
            return Err(too_many());
        }
        page.iter().filter_map(|tag| tag.parse().ok()).for_each(&mut *visit);
        match pages.next(&response.headers).map_err(|cause| request.protocol(cause))? {
            Some(next) => request.url = next,
            None => return Ok(count),
        }
    }
}
