//! A directory for people: one page that needs nothing else, no script, and sorts by links.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use super::{Item, Key, Order, encoded, shown, timestamp};

const STYLE: &str = include_str!("page.css");

/// The two pictures, drawn once and referred to.
const PICTURES: &str = "<svg class=p><symbol id=d viewBox=\"0 0 16 16\"><path d=\"M1.5 3.5h4.5l1.5 2h7v8h-13z\"/></symbol>\
    <symbol id=f viewBox=\"0 0 16 16\"><path d=\"M3.5 1.5h6l3 3v10h-9zM9.5 1.5v3h3\"/></symbol></svg>";

/// The page of the directory `path` below ROOT.
pub(crate) fn page(path: &Path, items: &[Item], order: Order) -> String {
    let title = escaped(&shown(path));
    let mut page = String::with_capacity(4096 + items.len() * 256);
    page.push_str("<!doctype html><html lang=en><head><meta charset=utf-8>");
    page.push_str("<meta name=viewport content=\"width=device-width,initial-scale=1\"><title>");
    page.push_str(&title);
    page.push_str("</title><style>");
    page.push_str(STYLE);
    page.push_str("</style></head><body>");
    page.push_str(PICTURES);
    page.push_str("<header><h1>");
    crumbs(&mut page, path);
    page.push_str("</h1></header><main><table><thead><tr>");
    for (key, class, text) in
        [(Key::Name, "", "Name"), (Key::Size, "s", "Size"), (Key::Time, "t", "Modified (UTC)")]
    {
        heading(&mut page, order, key, class, text);
    }
    page.push_str("</tr></thead><tbody>");
    if path.components().next().is_some() {
        page.push_str("<tr class=d><td><a href=\"../\"><svg><use href=\"#d\"/></svg>..</a></td><td class=s></td><td class=t></td></tr>");
    }
    items.iter().for_each(|item| row(&mut page, item));
    page.push_str("</tbody></table>");
    if items.is_empty() {
        page.push_str("<p class=e>Nothing here.</p>");
    }
    page.push_str("</main><footer>");
    page.push_str(&total(items));
    page.push_str("</footer></body></html>\n");
    page
}

/// The path, each directory on the way a link to it.
fn crumbs(page: &mut String, path: &Path) {
    let names: Vec<_> = path
        .components()
        .filter_map(|part| if let Component::Normal(name) = part { Some(name) } else { None })
        .collect();
    let up = |levels: usize| if levels == 0 { "./".to_owned() } else { "../".repeat(levels) };
    push(page, format_args!("<a href=\"{}\" title=\"Root\">/</a>", up(names.len())));
    for (at, name) in names.iter().enumerate() {
        let name = escaped(&name.to_string_lossy());
        let divider = if at == 0 { "" } else { "<i>/</i>" };
        match names.len() - 1 - at {
            0 => push(page, format_args!("{divider}{name}")),
            levels => push(page, format_args!("{divider}<a href=\"{}\">{name}</a>", up(levels))),
        }
    }
}

/// A column's head, which sorts by it, or the other way round.
fn heading(page: &mut String, order: Order, key: Key, class: &str, text: &str) {
    let name = match key {
        Key::Name => "name",
        Key::Size => "size",
        Key::Time => "time",
    };
    let current = order.key == key;
    let next = if current && !order.descending { "desc" } else { "asc" };
    let sorted = match (current, order.descending) {
        (false, _) => "",
        (true, false) => " aria-sort=ascending",
        (true, true) => " aria-sort=descending",
    };
    let class = if class.is_empty() { String::new() } else { format!(" class={class}") };
    push(
        page,
        format_args!(
            "<th scope=col{class}{sorted}><a href=\"?sort={name}&amp;order={next}\">{text}</a></th>"
        ),
    );
}

fn row(page: &mut String, item: &Item) {
    let name = escaped(&item.name.to_string_lossy());
    let (class, picture, slash) = if item.is_directory { (" class=d", "d", "/") } else { ("", "f", "") };
    let size = if item.is_directory { String::new() } else { size(item.size) };
    let time = timestamp(item.modified);
    let shown = time.get(..16).unwrap_or_default().replace('T', " ");
    // With `./` before it, nothing in a name is taken for a scheme.
    let link = encoded(item.name.as_bytes());
    push(
        page,
        format_args!(
            "<tr{class}><td><a href=\"./{link}{slash}\"><svg><use href=\"#{picture}\"/></svg>{name}{slash}</a></td>\
             <td class=s title=\"{} bytes\">{size}</td><td class=t><time datetime=\"{time}\">{shown}</time></td></tr>",
            item.size
        ),
    );
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes everything");
}

fn total(items: &[Item]) -> String {
    let directories = items.iter().filter(|item| item.is_directory).count();
    let files = items.len() - directories;
    let bytes = items.iter().map(|item| item.size).sum();
    let count =
        |number: usize, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    format!(
        "{}, {}, {}",
        count(directories, "directory", "directories"),
        count(files, "file", "files"),
        size(bytes)
    )
}

/// `512 B`, `1.5 KiB`, `20 MiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 9.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Text escaped for HTML, between tags and in attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::item;
    use super::*;

    #[test]
    fn names_are_names_and_no_markup() {
        let odd = "<script>\"'&x</script>.txt";
        let page = page(Path::new("a<b>/c"), &[item(odd, false, 1, 0)], Order::of(None));
        assert!(!page.contains("<script>") && !page.contains("a<b>"), "{page}");
        assert!(page.contains("&lt;script&gt;&quot;&#39;&amp;x&lt;/script&gt;.txt</a>"), "{page}");
        assert!(page.contains("href=\"./%3Cscript%3E%22%27%26x%3C%2Fscript%3E.txt\""), "{page}");
    }

    #[test]
    fn columns_sort_and_say_so() {
        let page = page(Path::new(""), &[item("d", true, 0, 0)], Order::of(Some(b"sort=size")));
        assert!(page.contains("aria-sort=ascending><a href=\"?sort=size&amp;order=desc\""), "{page}");
        assert!(page.contains("<a href=\"?sort=name&amp;order=asc\""), "{page}");
        assert!(page.contains("1 directory, 0 files"), "{page}");
        assert!(!page.contains("href=\"../\""), "nothing is above the root: {page}");
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10_240, "10 KiB"),
            (1_048_575, "1.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
