//! `annulus roads`: every technique is measured at every size, as a table and as a picture.

use annulus_integration_tests::files::Tree;
use annulus_integration_tests::server::Launch;

#[test]
fn every_technique_is_in_the_table_and_in_the_picture() {
    let tree = Tree::new();
    let svg = tree.at("roads.svg");
    let ended = Launch::new().args(["roads", "--quick", "--svg"]).arg(&svg).run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    let techniques = [
        "read + write",
        "sendfile",
        "splice",
        "ring, splice inline",
        "ring, splice in it",
        "ring, read + SEND_ZC",
    ];
    for size in ["1 KiB", "16 KiB", "64 KiB", "1 MiB", "16 MiB", "64 MiB"] {
        for technique in techniques {
            let is_it = |line: &&String| line.trim_start().starts_with(size) && line.contains(technique);
            assert!(ended.out.iter().any(|line| is_it(&line)), "{size} {technique}: {ended:#?}");
        }
    }
    let picture = std::fs::read_to_string(svg).unwrap();
    assert_eq!(picture.matches("<polyline").count(), techniques.len());
}
