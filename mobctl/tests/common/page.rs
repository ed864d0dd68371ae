//! docs/json.md, as the tests read it: a section for each command, with a table of members.

use serde_json::Value;
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../docs/json.md");

/// The members that a section documents, those that it refers to as well.
pub(crate) fn documented(section: &str) -> BTreeSet<String> {
    let heading = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    let part = PAGE
        .split("\n## ")
        .find(|part| heading(part).split(", ").any(|name| name == section))
        .unwrap_or_else(|| panic!("docs/json.md has no section {section}"));
    let mut found = BTreeSet::new();
    for row in part.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = row.split('|').skip(1);
        let (members, meaning) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        for member in members.split('`').skip(1).step_by(2) {
            found.insert(member.to_owned());
            for (anchor, other) in [("(#a-flow)", "A flow"), ("(#the-name)", "The name")] {
                if meaning.contains(anchor) {
                    found.extend(documented(other).into_iter().map(|inner| format!("{member}.{inner}")));
                }
            }
        }
    }
    found
}

/// All members of what was printed that hold no others, as the page writes them. What has a name for each kind of
/// thing is NAME there.
fn members(value: &Value, way: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                let way = match way {
                    "" => name.clone(),
                    "stats" | "status.daemon.datagrams" => format!("{way}.NAME"),
                    _ => format!("{way}.{name}"),
                };
                members(inner, &way, into);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.iter().for_each(|inner| members(inner, &format!("{way}[]"), into));
        }
        Value::Array(_) => {
            into.insert(format!("{way}[]"));
        }
        _ => {
            into.insert(way.to_owned());
        }
    }
}

/// What was printed has documented members only; returns them.
pub(crate) fn check(section: &str, printed: &Value) -> BTreeSet<String> {
    let page = documented(section);
    let mut found = BTreeSet::new();
    members(printed, "", &mut found);
    let unknown: Vec<_> = found.difference(&page).collect();
    assert!(!found.is_empty() && unknown.is_empty(), "not in docs/json.md, {section}: {unknown:?}");
    found
}

/// All members that a section documents were printed at one time or another, but for those that hold others.
pub(crate) fn complete(section: &str, printed: &BTreeSet<String>) {
    let inside = |one: &str| {
        printed.iter().any(|way| way.starts_with(&format!("{one}.")) || way.starts_with(&format!("{one}[]")))
    };
    let missing: Vec<_> =
        documented(section).into_iter().filter(|way| !printed.contains(way) && !inside(way)).collect();
    assert!(missing.is_empty(), "docs/json.md, {section}: never printed: {missing:?}");
}
