use super::*;
use proptest::prelude::*;

fn text(source: &str) -> String {
    match parse(source) {
        Ok(Literal::Str(value)) => value,
        other => panic!("{source}: {other:?}"),
    }
}

fn fails(source: &str) -> LiteralError {
    parse(source).expect_err(source)
}

#[test]
fn every_escape_of_python_strings_is_read_in_both_kinds_of_quotes() {
    for quote in ['\'', '"'] {
        let quoted = |body: &str| text(&format!("{quote}{body}{quote}"));
        assert_eq!(quoted(r"\\\'\x22\a\b\f\n\r\t\v"), "\\'\"\x07\x08\x0c\n\r\t\x0b");
        assert_eq!(quoted(r"\x41\u00e9\U0001F600\0\101\1019"), "Aé😀\0AA9");
        assert_eq!(quoted(r"\777"), "\u{1ff}");
        assert_eq!(quoted(r"\d\é"), r"\d\é");
    }
    assert_eq!(text(r#""it's""#), "it's");
    assert_eq!(text(r#"'say "it\'s"'"#), "say \"it's\"");
}

#[test]
fn numbers_words_and_containers_are_read_as_python_reads_them() {
    assert_eq!(parse(" -7 ").unwrap(), Literal::Int(-7));
    assert_eq!(parse("+00").unwrap(), Literal::Int(0));
    assert_eq!(parse("1e-05").unwrap(), Literal::Float(1e-5));
    assert_eq!(parse("-.5").unwrap(), Literal::Float(-0.5));
    assert_eq!(parse("(1)").unwrap(), Literal::Int(1));
    assert_eq!(parse("(1,)").unwrap(), Literal::Tuple(vec![Literal::Int(1)]));
    assert_eq!(parse("()").unwrap(), Literal::Tuple(vec![]));
    let value = parse("{'a': [True, None,], 2: (1.5, 'x'), 'a': False}").unwrap();
    assert_eq!(value.get("a"), Some(&Literal::Bool(false)));
    assert_eq!(value.get("b"), None);
}

#[test]
fn an_error_names_the_column_in_characters_and_what_was_expected() {
    let error = fails("{'é': 1 'b': 2}");
    assert_eq!(error.to_string(), "column 9: expected `,` or `}`, found `'`");
    assert_eq!(fails("[1, 2").expected, "`,` or `]`");
    assert_eq!(fails("'abc").column, 5);
    assert_eq!(fails("{'a' 1}").expected, "`:`");
    assert_eq!(fails("1 2").expected, "the end of the line");
    assert_eq!(fails("true").found, "`true`");
    assert_eq!(fails("{[]: 1}").found, "a list");
}

#[test]
fn what_repr_never_writes_is_refused() {
    for source in [
        "",
        "[,]",
        "(,)",
        "{,}",
        "[1,,2]",
        "'a' 'b'",
        "'''a'''",
        "b'a'",
        "0x10",
        "1_000",
        "007",
        "1e",
        ".",
        "--1",
        "1j",
        r"'\N{DASH}'",
        r"'\ud800'",
        r"'\x4'",
        r"'\U00110000'",
        "99999999999999999999",
        "inf",
        "{1}",
        "'a\nb'",
        "'\\",
    ] {
        fails(source);
    }
}

#[test]
fn nesting_is_limited() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(parse(&nested(MAX_DEPTH + 1)).is_ok());
    assert!(parse(&nested(MAX_DEPTH + 2)).is_err());
    assert!(parse(&"{1:".repeat(1_000_000)).is_err());
}

/// `repr` of a value, as CPython's `unicode_repr` writes strings: double quotes only where
/// there is a single quote and no double one.
fn repr(value: &Literal) -> String {
    let join = |items: &[Literal]| items.iter().map(repr).collect::<Vec<_>>().join(", ");
    match value {
        Literal::None => "None".to_owned(),
        Literal::Bool(true) => "True".to_owned(),
        Literal::Bool(false) => "False".to_owned(),
        Literal::Int(value) => value.to_string(),
        Literal::Float(value) => format!("{value:?}"),
        Literal::Str(value) => repr_str(value),
        Literal::List(items) => format!("[{}]", join(items)),
        Literal::Tuple(items) if items.len() == 1 => format!("({},)", repr(&items[0])),
        Literal::Tuple(items) => format!("({})", join(items)),
        Literal::Dict(items) => {
            let items: Vec<_> = items
                .iter()
                .map(|(key, value)| format!("{}: {}", repr(key), repr(value)))
                .collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}

fn repr_str(value: &str) -> String {
    let quote = if value.contains('\'') && !value.contains('"') { '"' } else { '\'' };
    let mut written = String::from(quote);
    for c in value.chars() {
        match c {
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            c if c == quote => written.extend(['\\', c]),
            c if (c as u32) < 0x20 || (0x7f..0xa1).contains(&(c as u32)) => {
                written.push_str(&format!("\\x{:02x}", c as u32));
            }
            c if (0xe000..0xf900).contains(&(c as u32)) => {
                written.push_str(&format!("\\u{:04x}", c as u32));
            }
            c if (c as u32) > 0xe0000 => written.push_str(&format!("\\U{:08x}", c as u32)),
            c => written.push(c),
        }
    }
    written.push(quote);
    written
}

fn key() -> impl Strategy<Value = Literal> {
    prop_oneof![
        any::<bool>().prop_map(Literal::Bool),
        any::<i64>().prop_map(Literal::Int),
        any::<String>().prop_map(Literal::Str),
    ]
}

fn value() -> impl Strategy<Value = Literal> {
    let leaf = prop_oneof![
        Just(Literal::None),
        proptest::num::f64::NORMAL.prop_map(Literal::Float),
        key(),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Literal::List),
            prop::collection::vec(inner.clone(), 0..6).prop_map(Literal::Tuple),
            prop::collection::vec((key(), inner), 0..6).prop_map(Literal::Dict),
        ]
    })
}

proptest! {
    #[test]
    fn what_repr_writes_is_read_back(value in value()) {
        prop_assert_eq!(parse(&repr(&value)), Ok(value));
    }

    #[test]
    fn no_text_makes_the_parser_panic(
        text in prop_oneof![any::<String>(), r#"[\[\]{}(),:'"\\0-9a-zA-Z.+\-_ \nuUxN]{0,60}"#]
    ) {
        let _ = parse(&text);
    }

    #[test]
    fn a_literal_with_one_character_changed_is_no_panic(
        value in value(), at in any::<prop::sample::Index>(), other in any::<char>()
    ) {
        let mut text: Vec<char> = repr(&value).chars().collect();
        let at = at.index(text.len());
        text[at] = other;
        let _ = parse(&text.into_iter().collect::<String>());
    }
}
