//! Pages and the `Link` header.

use serde::Deserialize;

/// Query parameters of a list. What is not a number counts as absent, as at GitHub.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ListQuery {
    per_page: Option<String>,
    page: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) filter: Option<String>,
    pub(crate) sort: Option<String>,
    pub(crate) direction: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
}

/// One page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) total: usize,
    /// The `Link` header; absent when all fits one page.
    pub(crate) link: Option<String>,
}

const PER_PAGE_DEFAULT: usize = 30;
const PER_PAGE_MAX: usize = 100;

impl ListQuery {
    fn per_page(&self) -> usize {
        number(self.per_page.as_deref()).map_or(PER_PAGE_DEFAULT, |n| n.clamp(1, PER_PAGE_MAX))
    }

    fn page(&self) -> usize {
        number(self.page.as_deref()).unwrap_or(1).max(1)
    }

    /// Cuts a page out of a list. `url` is the absolute URL that was asked for.
    pub(crate) fn cut<T>(&self, items: Vec<T>, url: &str) -> Page<T> {
        let (per_page, page, total) = (self.per_page(), self.page(), items.len());
        let last = total.div_ceil(per_page).max(1);
        let start = (page - 1).saturating_mul(per_page);
        let items: Vec<T> = items.into_iter().skip(start).take(per_page).collect();
        Page { items, total, link: link(url, page, last) }
    }
}

fn number(text: Option<&str>) -> Option<usize> {
    text.and_then(|text| text.parse().ok())
}

fn link(url: &str, page: usize, last: usize) -> Option<String> {
    let mut parts = Vec::new();
    if page > 1 {
        parts.push(("prev", (page - 1).min(last)));
    }
    if page < last {
        parts.push(("next", page + 1));
        parts.push(("last", last));
    }
    if page > 1 {
        parts.push(("first", 1));
    }
    if parts.is_empty() {
        return None;
    }
    let parts: Vec<String> = parts
        .into_iter()
        .map(|(rel, number)| format!("<{}>; rel=\"{rel}\"", with_page(url, number)))
        .collect();
    Some(parts.join(", "))
}

/// The URL with its `page` parameter set.
fn with_page(url: &str, page: usize) -> String {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let mut kept: Vec<String> = query
        .split('&')
        .filter(|part| !part.is_empty() && !part.starts_with("page="))
        .map(str::to_owned)
        .collect();
    kept.push(format!("page={page}"));
    format!("{path}?{}", kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(per_page: &str, page: &str) -> ListQuery {
        ListQuery {
            per_page: Some(per_page.into()),
            page: Some(page.into()),
            ..ListQuery::default()
        }
    }

    #[test]
    fn pages_link_to_their_neighbours() {
        let url = "http://h/x?per_page=2&page=2&name=a";
        let page = query("2", "2").cut((1..=5).collect(), url);
        assert_eq!((page.items.as_slice(), page.total), ([3, 4].as_slice(), 5));
        assert_eq!(
            page.link.as_deref(),
            Some(
                "<http://h/x?per_page=2&name=a&page=1>; rel=\"prev\", \
                 <http://h/x?per_page=2&name=a&page=3>; rel=\"next\", \
                 <http://h/x?per_page=2&name=a&page=3>; rel=\"last\", \
                 <http://h/x?per_page=2&name=a&page=1>; rel=\"first\""
            )
        );
    }

    #[test]
    fn one_page_has_no_link_and_odd_numbers_fall_back() {
        assert_eq!(query("100", "1").cut(vec![1], "http://h/x").link, None);
        assert_eq!(query("x", "0").cut((0..40).collect(), "http://h/x").items.len(), 30);
        assert_eq!(query("1000", "1").cut((0..140).collect(), "http://h/x").items.len(), 100);
        let beyond = query("10", "9").cut((0..15).collect::<Vec<i32>>(), "http://h/x");
        assert!(beyond.items.is_empty());
        assert_eq!(beyond.total, 15);
    }
}
