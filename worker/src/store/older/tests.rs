//! What columns are taken for.

use std::collections::BTreeMap;

use super::shape::{Column, choose, fields, recognise};
use super::*;

fn columns(names: &str) -> Vec<Column> {
    let column = |name: &str| Column { name: name.to_owned(), kind: "varchar".to_owned() };
    names.split_whitespace().map(column).collect()
}

fn read(names: &str, named: &Named) -> Result<Layout, String> {
    recognise("old", &columns(names), named).map_err(|error| error.to_string())
}

fn alone(names: &str) -> Layout {
    read(names, &Named::default()).unwrap()
}

#[test]
fn each_shape_is_told_by_its_columns() {
    for (names, shape, ignored) in [
        (
            "id image_hash edit_type prompt result_url hit_count created_at",
            Shape::Cache,
            &["id", "created_at"][..],
        ),
        ("id sha256 operation prompt output_url", Shape::Cache, &["id"]),
        ("id task_id edit_type prompt status results", Shape::TasksJson, &["id", "task_id", "status"]),
        ("id edit_type prompt image_1_hash image_1_result_url", Shape::TasksColumns, &["id"]),
        ("id edit_type prompt image1_hash image1_url results", Shape::TasksColumns, &["id", "results"]),
        ("id edit_type prompt image_hash_1 result_url_1", Shape::TasksColumns, &["id"]),
    ] {
        let layout = alone(names);
        assert_eq!(
            (layout.shape, &layout.ignored[..]),
            (shape, &ignored.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..]),
            "{names}"
        );
    }
}

#[test]
fn what_is_missing_is_named_with_the_way_to_name_it() {
    for (names, parts) in [
        ("id image_hash edit_type result_url", &["no column for prompt", "--column prompt=NAME"][..]),
        ("id foo bar", &["of no shape that is known", "id, foo, bar", "--shape"]),
        ("id edit_key image_hash", &["Retouch's own"]),
    ] {
        let error = read(names, &Named::default()).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{names}: {error}");
    }
    let named =
        Named { columns: BTreeMap::from([("prompt".to_owned(), "words".to_owned())]), ..Named::default() };
    let layout = read("id image_hash edit_type words result_url", &named).unwrap();
    assert_eq!(layout.column("prompt"), "words");
    let error = read("id image_hash edit_type result_url", &named).unwrap_err();
    assert!(error.contains("--column prompt=words: old has no such column"), "{error}");
}

#[test]
fn images_of_columns_are_read_by_their_number_and_one_meaning() {
    // The first image tells how all are called: the others' `url` is not taken for a result.
    let layout = alone(
        "id edit_type prompt image_1_hash image_1_url image_1_result_url image_2_hash image_2_url image_10_hash image_10_result_url",
    );
    let positions: Vec<_> = layout.positions.iter().map(|at| (at.number, at.url.as_str())).collect();
    assert_eq!(positions, [(1, "image_1_result_url"), (10, "image_10_result_url")]);
}

#[test]
fn the_cache_is_chosen_before_the_tasks_and_a_table_by_its_name() {
    let tables: Vec<String> = ["image_edit_tasks", "image_edit_cache", "other"].map(str::to_owned).to_vec();
    let of = |table: Option<&str>, shape| {
        let named = Named { table: table.map(str::to_owned), shape, ..Named::default() };
        choose(&tables, &named).map_err(|error| error.to_string())
    };
    assert_eq!(of(None, None).unwrap(), "image_edit_cache");
    assert_eq!(of(None, Some(Shape::TasksJson)).unwrap(), "image_edit_tasks");
    assert_eq!(of(Some("other"), None).unwrap(), "other");
    assert!(of(Some("nowhere"), None).unwrap_err().contains("image_edit_tasks, image_edit_cache, other"));
}

#[test]
fn the_images_of_a_json_list_are_found_however_it_is_wrapped() {
    let mut layout = alone("id edit_type prompt results");
    let there = BTreeMap::from([("hash".to_owned(), 1), ("url".to_owned(), 1), ("result_url".to_owned(), 1)]);
    layout.fields = Some(fields(&layout, &there, &Named::default(), false).unwrap());
    // Edit type, prompt, results: by role.
    let row = |results: &str| {
        [Some("7"), Some("blur"), Some("p"), Some(results)].map(|cell| cell.map(str::to_owned)).to_vec()
    };
    for results in [
        r#"[{"hash":"aa","url":"source","result_url":"u"}]"#,
        r#"{"images":[{"hash":"aa","result_url":"u"}]}"#,
        r#""[{\"hash\":\"aa\",\"result_url\":\"u\"}]""#,
    ] {
        let mut found = Vec::new();
        images(&layout, &row(results), &mut found);
        let image = OlderImage {
            place: "row 7, image 0".to_owned(),
            image_hash: Some("aa".to_owned()),
            edit_type: Some("blur".to_owned()),
            prompt: "p".to_owned(),
            result_url: Some("u".to_owned()),
            hits: 1,
        };
        assert_eq!(found, [image], "{results}");
    }
    for (results, count) in [("null", 0), ("[]", 0), ("", 0), ("not json", 1), ("{}", 1)] {
        let mut found = Vec::new();
        images(&layout, &row(results), &mut found);
        assert_eq!(found.len(), count, "{results}");
    }
    let nested = Named {
        hash_field: Some("source.sha256".to_owned()),
        url_field: Some("output.url".to_owned()),
        ..Named::default()
    };
    layout.fields = Some(fields(&layout, &there, &nested, false).unwrap());
    let mut found = Vec::new();
    images(&layout, &row(r#"[{"source":{"sha256":"bb"},"output":{"url":"v"}}]"#), &mut found);
    assert_eq!(found[0].image_hash.as_deref(), Some("bb"));
    assert_eq!(found[0].result_url.as_deref(), Some("v"));
}
