//! The crate as a whole: no input makes it panic, and what it reads it prints.

use proptest::prelude::*;
use std::sync::LazyLock;

use prost::Message as _;

use crate::schema::{
    CustomPattern, EnumType, EnumValue, FieldType, File, FileSet, HttpRule, MessageOptions,
    MessageType, Method, MethodOptions, Oneof, Pattern, Service,
};
use crate::{ErrorKind, Miss, Options, Transcoder};

const REPEATED: i32 = FieldType::LABEL_REPEATED;

fn field(number: i32, name: &str, kind: i32, type_name: &str) -> FieldType {
    FieldType {
        name: name.to_owned(),
        number,
        label: 1,
        r#type: kind,
        type_name: type_name.to_owned(),
        ..FieldType::default()
    }
}

fn message(name: &str, field: Vec<FieldType>) -> MessageType {
    MessageType {
        name: name.to_owned(),
        field,
        ..MessageType::default()
    }
}

fn proto3(name: &str, package: &str, message_type: Vec<MessageType>) -> File {
    File {
        name: name.to_owned(),
        package: package.to_owned(),
        message_type,
        syntax: "proto3".to_owned(),
        ..File::default()
    }
}

/// The well-known types, as far as their translation looks at them.
fn well_known() -> File {
    let any = message(
        "Any",
        vec![field(1, "type_url", 9, ""), field(2, "value", 12, "")],
    );
    let wrapper = message("Int64Value", vec![field(1, "value", 3, "")]);
    let others = [
        "Duration",
        "FieldMask",
        "ListValue",
        "Struct",
        "Timestamp",
        "Value",
        "Empty",
    ];
    let messages = others.into_iter().map(|name| message(name, Vec::new()));
    proto3(
        "wkt.proto",
        "google.protobuf",
        messages.chain([any, wrapper]).collect(),
    )
}

/// A message with every type once alone and once repeated, a map, a oneof and the known types.
fn all() -> MessageType {
    let mut fields = Vec::new();
    for kind in (1..=18).filter(|kind| *kind != 10) {
        let type_name = match kind {
            11 => ".t.All",
            14 => ".t.Level",
            _ => "",
        };
        fields.push(field(kind, &format!("f{kind}"), kind, type_name));
        let mut repeated = field(20 + kind, &format!("r_{kind}"), kind, type_name);
        repeated.label = REPEATED;
        fields.push(repeated);
    }
    let known = [
        "Any",
        "Duration",
        "FieldMask",
        "ListValue",
        "Struct",
        "Timestamp",
        "Value",
    ];
    for (name, number) in known.into_iter().chain(["Int64Value"]).zip(50..) {
        let type_name = format!(".google.protobuf.{name}");
        fields.push(field(number, &format!("k{name}"), 11, &type_name));
    }
    for (name, number) in ["ByText", "ByNumber"].into_iter().zip(70..) {
        let mut map = field(number, &name.to_lowercase(), 11, &format!(".t.All.{name}"));
        map.label = REPEATED;
        fields.push(map);
    }
    for (kind, number) in [(9, 80), (5, 81), (11, 82)] {
        let mut choice = field(number, &format!("c{number}"), kind, ".t.All");
        choice.oneof_index = Some(0);
        fields.push(choice);
    }
    fields.push(field(5000, "far", 9, ""));
    let options = Some(MessageOptions {
        map_entry: true,
        features: None,
    });
    let entry = |name: &str, key: i32, value: i32| MessageType {
        options: options.clone(),
        ..message(
            name,
            vec![field(1, "key", key, ""), field(2, "value", value, ".t.All")],
        )
    };
    MessageType {
        nested_type: vec![entry("ByText", 9, 11), entry("ByNumber", 3, 1)],
        oneof_decl: vec![Oneof {
            name: "choice".to_owned(),
        }],
        ..message("All", fields)
    }
}

fn rule(pattern: Pattern, body: &str) -> HttpRule {
    HttpRule {
        pattern: Some(pattern),
        body: body.to_owned(),
        ..HttpRule::default()
    }
}

static TRANSCODER: LazyLock<Transcoder> = LazyLock::new(compile);

fn compile() -> Transcoder {
    let value = |name: &str, number| EnumValue {
        name: name.to_owned(),
        number,
    };
    let level = EnumType {
        name: "Level".to_owned(),
        value: vec![value("ZERO", 0), value("ONE", 1), value("UNO", 1)],
        options: None,
    };
    let custom = CustomPattern {
        kind: "*".to_owned(),
        path: "/any/{f9}".to_owned(),
    };
    let rules = [
        rule(Pattern::Get("/a/{f9}".to_owned()), ""),
        rule(Pattern::Post("/a/{f11.f9}/{f5}:go".to_owned()), "*"),
        rule(Pattern::Put("/b/{f11.f9=x/*}".to_owned()), "f11"),
        rule(Pattern::Patch("/{f9=**}".to_owned()), "r_11"),
        rule(Pattern::Custom(custom), ""),
    ];
    let methods = rules.into_iter().enumerate().map(|(at, rule)| Method {
        name: format!("M{at}"),
        input_type: ".t.All".to_owned(),
        output_type: ".t.All".to_owned(),
        options: Some(MethodOptions { http: Some(rule) }),
        ..Method::default()
    });
    let file = File {
        enum_type: vec![level],
        service: vec![Service {
            name: "S".to_owned(),
            method: methods.collect(),
        }],
        ..proto3("t.proto", "t", vec![all()])
    };
    let set = FileSet {
        file: vec![well_known(), file],
    };
    Transcoder::new(&set.encode_to_vec(), Options::default()).unwrap()
}

fn parse(document: &[u8]) -> Result<Vec<u8>, crate::Error> {
    TRANSCODER.parse("t.All", document).unwrap()
}

/// Text that is nearly a document: pieces of one in any order.
fn nearly_json() -> impl Strategy<Value = String> {
    let names = "(f[0-9]{1,2}|r[0-9]{1,2}|k(Any|Value|Struct|Duration)|bytext|c8[012]|@type|a)";
    let piece = prop_oneof![
        4 => names.prop_map(|name| format!("\"{name}\":")),
        2 => prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "null", "true", "false", " ", "\"t/t.All\"", "\"x\"",
            "\"@type\":\"x/t.All\",", "\"@type\":\"x/google.protobuf.Value\",\"value\":", "\"\\u",
            "\\ud800", "\"1.5s\"", "\"2020-01-01T00:00:00Z\"", "\"ONE\"", "1e999", "-0", "\0",
        ])
        .prop_map(str::to_owned),
        1 => "-?[0-9]{1,20}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?",
        1 => "\"\\PC{0,6}\"",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

#[test]
fn what_is_read_is_printed() {
    let document = concat!(
        r#"{"f1":1.5,"f9":"é\u0000","f11":{"f5":-7},"f14":"ONE","r5":[1,2],"r14":["ZERO",9],"#,
        r#""kAny":{"@type":"x/t.All","f8":true},"kDuration":"1.500s","kFieldMask":"aB,c","#,
        r#""kListValue":[null,1.0],"kStruct":{"a":{"b":[]}},"kTimestamp":"2020-01-01T00:00:00Z","#,
        r#""kValue":{"x":false},"kInt64Value":"5","bytext":{"k":{"f9":"v"}},"bynumber":{"-1":2.0},"#,
        r#""c82":{},"far":"z"}"#
    );
    let wire = TRANSCODER
        .parse("t.All", document.as_bytes())
        .unwrap()
        .unwrap();
    let printed = TRANSCODER.print("t.All", &wire).unwrap().unwrap();
    assert_eq!(String::from_utf8(printed).unwrap(), document);
}

#[test]
fn depth_is_refused_before_the_stack_ends() {
    for opening in [
        "{\"f11\":",
        "{\"kValue\":[",
        "{\"kAny\":{\"a\":[",
        "{\"r_11\":[",
        "{\"kStruct\":",
    ] {
        let error = parse(opening.repeat(100_000).as_bytes()).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::TooDeep | ErrorKind::UnknownField),
            "{error}"
        );
    }
    let error = parse(
        &b"{\"kValue\":"
            .iter()
            .chain(&vec![b'['; 100_000])
            .copied()
            .collect::<Vec<_>>(),
    );
    assert_eq!(error.unwrap_err().kind(), ErrorKind::TooDeep);
}

#[test]
fn errors_say_where() {
    let error = parse(br#"{"r_11":[{},{"bytext":{"k":{"f5":"x"}}}]}"#).unwrap_err();
    assert_eq!(
        error.field(),
        r#"r11[1].bytext["k"].f5"#.replace("r11", "r_11")
    );
    assert_eq!(error.kind(), ErrorKind::WrongType);
    assert_eq!(error.offset(), Some(33));
}

#[test]
fn a_wrong_method_is_told_with_the_right_ones() {
    match TRANSCODER.find("DELETE", "/a/x") {
        Err(Miss::WrongMethod(allowed)) => assert_eq!(allowed, ["GET", "PATCH"]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        TRANSCODER.find("GET", "/a/../b"),
        Err(Miss::BadTarget(_))
    ));
    assert!(matches!(
        TRANSCODER.find("GET", "/nope/x/y"),
        Err(Miss::WrongMethod(_))
    ));
    assert_eq!(
        TRANSCODER.find("X", "/any/a%2Fb?q").unwrap().values,
        ["a/b"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_read_or_refused(document in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&document);
    }

    #[test]
    fn nearly_json_is_read_or_refused(document in nearly_json()) {
        for whole in [document.clone(), format!("{{{document}}}"), format!("{{\"kAny\":{{{document}}}}}")] {
            match TRANSCODER.parse("t.All", whole.as_bytes()).unwrap() {
                Ok(wire) => {
                    let printed = TRANSCODER.print("t.All", &wire).unwrap().unwrap();
                    let again = TRANSCODER.parse("t.All", &printed).unwrap().unwrap();
                    let reprinted = TRANSCODER.print("t.All", &again).unwrap().unwrap();
                    prop_assert_eq!(printed, reprinted);
                }
                Err(error) => prop_assert!(error.offset().is_some_and(|at| at <= whole.len())),
            }
        }
    }

    #[test]
    fn any_message_is_printed_or_refused(
        fields in prop::collection::vec((1..90_u32, 0..6_u8, prop::collection::vec(any::<u8>(), 0..12)), 0..12)
    ) {
        let mut wire = Vec::new();
        for (number, kind, content) in fields {
            crate::wire::Tag::new(number, kind).put(&mut wire);
            match kind {
                crate::wire::BYTES => crate::wire::put_bytes(&mut wire, &content),
                crate::wire::VARINT => crate::wire::put_varint(&mut wire, content.len() as u64),
                _ => wire.extend_from_slice(&content),
            }
        }
        if let Ok(printed) = TRANSCODER.print("t.All", &wire).unwrap() {
            // It is JSON of the message's type: at least its own reader takes it.
            let again = TRANSCODER.parse("t.All", &printed).unwrap();
            prop_assert!(again.is_ok(), "{:?}: {}", again, String::from_utf8_lossy(&printed));
        }
    }

    #[test]
    fn any_bytes_are_printed_or_refused(wire in prop::collection::vec(any::<u8>(), 0..48)) {
        let _ = TRANSCODER.print("t.All", &wire);
    }

    #[test]
    fn any_request_has_an_answer(
        method in "(GET|POST|PUT|PATCH|X)",
        target in "/(a|b|any)/[a-c%2FxX/.:?=&+f11\\\\]{0,12}(:go)?(\\?[f0-9k.=&%a-c]{0,16})?",
        body in prop_oneof![Just(String::new()), nearly_json()],
    ) {
        if let Ok(found) = TRANSCODER.find(&method, &target) {
            let binding = &TRANSCODER.bindings()[found.route];
            let _ = TRANSCODER.request(binding, &found.values, found.query, body.as_bytes());
        }
    }

    #[test]
    fn any_target_has_an_answer(target in "\\PC{0,40}") {
        let _ = TRANSCODER.find("GET", &target);
    }

    #[test]
    fn any_bytes_are_a_set_or_refused(set in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Transcoder::new(&set, Options::default());
    }
}
