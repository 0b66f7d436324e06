//! A directory for programs.

use serde_json::{Value, json};

use super::{Item, timestamp};

/// An array with an object for each name: `name`, `type` (`file` or `directory`), `size` in bytes of a file,
/// `mtime` as in RFC
/// 3339. What in a name is no UTF-8 stands there as U+FFFD.
pub(crate) fn list(items: &[Item]) -> String {
    let object = |item: &Item| {
        let mut object = json!({
            "name": item.name.to_string_lossy(),
            "type": if item.is_directory { "directory" } else { "file" },
            "mtime": timestamp(item.modified),
        });
        if !item.is_directory {
            object["size"] = json!(item.size);
        }
        object
    };
    Value::Array(items.iter().map(object).collect()).to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::tests::item;
    use super::*;

    #[test]
    fn what_programs_read() {
        let text = list(&[item("a\"b", false, 7, 0), item("d", true, 0, 1)]);
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            read,
            json!([
                { "name": "a\"b", "type": "file", "size": 7, "mtime": "1970-01-01T00:00:00Z" },
                { "name": "d", "type": "directory", "mtime": "1970-01-01T00:00:01Z" },
            ])
        );
    }
}
