use proptest::prelude::*;

use super::*;
use crate::data::Entity;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

const SENTENCES: [&str; 5] = [
    "Ada met Bob in the garden of the museum",
    "@bob : the museum opens the garden #opening",
    "Ada and Grace play in the garden , Grace wins",
    "the players of the museum play and play",
    "it 's a winner é 日本 !",
];

fn tokenizer(size: usize) -> Tokenizer {
    Tokenizer::train(SENTENCES.map(str::split_whitespace), size).unwrap()
}

fn example(text: &str, head: Range<usize>, tail: Range<usize>) -> Example {
    let tokens = words(text);
    let entity = |span: Range<usize>| Entity {
        name: tokens.get(span.clone()).unwrap_or_default().join(" "),
        span,
    };
    Example {
        id: "a".to_owned(),
        head: entity(head),
        tail: entity(tail),
        tokens: tokens.clone(),
        label: 0,
        picture: None,
        truth: None,
    }
}

/// The encoding with its marks, words joined.
fn shown(tokenizer: &Tokenizer, encoded: &EncodedText) -> String {
    let text: Vec<_> = encoded.ids.iter().map(|&id| tokenizer.piece(id).unwrap()).collect();
    assert_eq!(encoded.ids[encoded.head_marker], tokenizer.special().head[0]);
    assert_eq!(encoded.ids[encoded.tail_marker], tokenizer.special().tail[0]);
    text.join(" ").replace(" ##", "")
}

#[test]
fn special_tokens_have_fixed_identifiers() {
    let tokenizer = tokenizer(200);
    let special = tokenizer.special();
    assert_eq!((special.pad, special.unknown, special.start, special.end), (0, 1, 2, 3));
    assert_eq!((special.mask, special.head, special.tail), (4, [5, 6], [7, 8]));
    for (id, name) in SPECIAL.iter().enumerate() {
        assert_eq!(tokenizer.piece(id as u32).as_deref(), Some(*name));
    }
}

#[test]
fn the_vocabulary_is_the_same_in_every_process() {
    // The hash of what one process trained: random hash seeds would change it in the next.
    let vocabulary = train(SENTENCES.map(str::split_whitespace), 150).join("\n");
    let hash = blake3::hash(vocabulary.as_bytes()).to_hex();
    assert_eq!(hash[..16], *"e3136849c07ea828", "{vocabulary}");
}

#[test]
fn the_vocabulary_keeps_to_its_size_and_holds_frequent_words_whole() {
    for size in [9, 20, 60, 120, 200] {
        assert!(tokenizer(size).vocabulary_size() <= size, "{size}");
    }
    let tokenizer = tokenizer(200);
    for word in ["the", "museum", "garden", "play", "grace"] {
        assert_eq!(tokenizer.pieces(word).unwrap().len(), 1, "{word}");
    }
    assert!(tokenizer.pieces("museums").unwrap().len() > 1);
    assert_eq!(tokenizer.pieces("x").unwrap(), [1]);
    assert_eq!(tokenizer.pieces("").unwrap(), [1]);
}

#[test]
fn a_tokenizer_written_and_read_again_encodes_the_same() {
    let tokenizer = tokenizer(200);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, tokenizer.to_json().unwrap()).unwrap();
    let read = Tokenizer::load(&path).unwrap();
    assert_eq!(read.special(), tokenizer.special());
    assert_eq!(read.to_json().unwrap(), tokenizer.to_json().unwrap());
    for sentence in SENTENCES {
        let encode = |tokenizer: &Tokenizer| tokenizer.encode_plain(&words(sentence), 99).unwrap();
        assert_eq!(encode(&read), encode(&tokenizer));
    }
}

#[test]
fn known_text_comes_back_as_its_tokens_in_lower_case() {
    let tokenizer = tokenizer(200);
    for sentence in SENTENCES.into_iter().chain(["@grace#museums , adamuseum"]) {
        let ids = tokenizer.encode_plain(&words(sentence), 99).unwrap();
        assert_eq!((ids[0], *ids.last().unwrap()), (2, 3));
        let expected: Vec<_> = words(sentence).iter().map(|w| w.to_lowercase()).collect();
        assert_eq!(tokenizer.decode(&ids), expected);
    }
    // What follows the end of the text is no text.
    assert_eq!(tokenizer.decode(&[2, 5, 99_999, 3, 10]), [] as [&str; 0]);
}

#[test]
fn text_that_looks_like_a_special_token_is_text() {
    let tokenizer = tokenizer(200);
    for name in SPECIAL {
        let pieces = tokenizer.pieces(name).unwrap();
        assert!(
            pieces.iter().all(|&id| id == 1 || id as usize >= SPECIAL.len()),
            "{name}: {pieces:?}"
        );
    }
}

#[test]
fn marks_stand_around_both_entities_however_they_lie() {
    let tokenizer = tokenizer(200);
    let marked = |head, tail| {
        let encoded =
            tokenizer.encode_example(&example("the garden and museum", head, tail), 99).unwrap();
        assert!(!encoded.truncated);
        shown(&tokenizer, &encoded)
    };
    assert_eq!(marked(0..2, 3..4), "[CLS] [H] the garden [/H] and [T] museum [/T] [SEP]");
    assert_eq!(marked(3..4, 0..1), "[CLS] [T] the [/T] garden and [H] museum [/H] [SEP]");
    assert_eq!(marked(0..2, 2..3), "[CLS] [H] the garden [/H] [T] and [/T] museum [SEP]");
    assert_eq!(marked(1..2, 0..4), "[CLS] [T] the [H] garden [/H] and museum [/T] [SEP]");
    assert_eq!(marked(0..4, 0..1), "[CLS] [H] [T] the [/T] garden and museum [/H] [SEP]");
    assert_eq!(marked(3..4, 1..4), "[CLS] the [T] garden and [H] museum [/H] [/T] [SEP]");
    assert_eq!(marked(1..2, 1..2), "[CLS] the [H] [T] garden [/T] [/H] and museum [SEP]");
    assert_eq!(marked(0..3, 1..4), "[CLS] [H] the [T] garden and [/H] museum [/T] [SEP]");
}

#[test]
fn truncation_keeps_the_entities_and_what_stands_nearest() {
    let tokenizer = tokenizer(200);
    let text = "play play the garden and museum of play play the ada in the garden";
    let encode = |length| {
        let encoded = tokenizer.encode_example(&example(text, 5..6, 10..11), length).unwrap();
        (shown(&tokenizer, &encoded), encoded.truncated, encoded.ids.len())
    };
    assert_eq!(encode(8), ("[CLS] [H] museum [/H] [T] ada [/T] [SEP]".to_owned(), true, 8));
    assert_eq!(
        encode(12),
        ("[CLS] and [H] museum [/H] of the [T] ada [/T] in [SEP]".to_owned(), true, 12)
    );
    assert!(!encode(20).1);
    // Two entities that are longer than all the room: the marks stay.
    let long = example(text, 0..7, 7..14);
    let encoded = tokenizer.encode_example(&long, 8).unwrap();
    assert_eq!(encoded.ids.len(), 8);
    assert_eq!(shown(&tokenizer, &encoded), "[CLS] [H] play play [/H] [T] [/T] [SEP]");
}

proptest! {
    #[test]
    fn every_encoding_has_its_marks_and_its_length(
        tokens in prop::collection::vec("[a-zé\\[\\]A-Z@# ]{0,8}", 1..20),
        spans in [0..25_usize, 0..25, 0..25, 0..25],
        length in 0..40_usize,
    ) {
        let tokenizer = tokenizer(120);
        let mut example = example("", 0..0, 0..0);
        example.tokens = tokens;
        example.head.span = spans[0].min(spans[1])..spans[0].max(spans[1]) + 1;
        example.tail.span = spans[2].min(spans[3])..spans[2].max(spans[3]) + 1;
        let encoded = tokenizer.encode_example(&example, length).unwrap();
        prop_assert!(encoded.ids.len() <= length.max(MIN_LENGTH));
        let full = tokenizer.encode_example(&example, usize::MAX).unwrap();
        prop_assert_eq!(encoded.truncated, encoded.ids.len() < full.ids.len());
        let special = tokenizer.special();
        prop_assert_eq!(encoded.ids[encoded.head_marker], special.head[0]);
        prop_assert_eq!(encoded.ids[encoded.tail_marker], special.tail[0]);
        for mark in special.head.iter().chain(&special.tail) {
            prop_assert_eq!(encoded.ids.iter().filter(|&id| id == mark).count(), 1);
        }
    }
}

#[test]
fn a_batch_is_padded_to_a_multiple_of_four_within_the_models_positions() {
    let tokenizer = tokenizer(120);
    let rows = [vec![2, 9, 3], vec![2, 9, 9, 9, 3]];
    let padded = tokenizer.pad(&rows, 64);
    assert_eq!((padded.rows, padded.length), (2, 8));
    assert_eq!(padded.ids[..8], [2, 9, 3, 0, 0, 0, 0, 0]);
    assert_eq!(padded.ids[8..], [2, 9, 9, 9, 3, 0, 0, 0]);
    assert_eq!(padded.mask.iter().filter(|&&token| token).count(), 8);
    assert_eq!(tokenizer.pad(&rows, 6).length, 6);
    assert!(tokenizer.pad(&rows[..0], 6).ids.is_empty());
}

/// As little of BERT's `tokenizer.json` as shows how such a file is taken.
fn bert(extra: &str) -> String {
    format!(
        r###"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
            {{"id": 0, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false,
              "normalized": false, "special": true}}],
          "normalizer": {{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true}},
          "pre_tokenizer": {{"type": "BertPreTokenizer"}}, "post_processor": null, "decoder": null,
          "model": {{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {{"[PAD]": 0, "[UNK]": 1, "[CLS]": 2,
            "[SEP]": 3, "[MASK]": 4, "ada": 5, "met": 6, "##s": 7, "@": 8, "!": 9{extra}}}}}}}"###
    )
}

#[test]
fn a_published_vocabulary_gets_markers_from_its_unused_entries_or_at_its_end() {
    let path = Path::new("tokenizer.json");
    let unused = r#", "[unused1]": 10, "[unused2]": 11, "[unused3]": 12, "[unused4]": 13"#;
    let tokenizer = Tokenizer::from_bytes(path, bert(unused).as_bytes()).unwrap();
    assert_eq!((tokenizer.special().head, tokenizer.special().tail), ([10, 11], [12, 13]));
    assert_eq!(tokenizer.vocabulary_size(), 14);
    let tokenizer = Tokenizer::from_bytes(path, bert("").as_bytes()).unwrap();
    assert_eq!((tokenizer.special().head, tokenizer.special().tail), ([10, 11], [12, 13]));
    assert_eq!(tokenizer.vocabulary_size(), 14);
    let ids = tokenizer.encode_plain(&words("@Adas met!"), 99).unwrap();
    assert_eq!(ids, [2, 8, 5, 7, 6, 9, 3]);
    assert_eq!(tokenizer.decode(&ids), ["@", "adas", "met", "!"]);
    let encoded = tokenizer.encode_example(&example("Ada met Ada", 0..1, 2..3), 99).unwrap();
    assert_eq!(encoded.ids, [2, 10, 5, 11, 6, 12, 5, 13, 3]);
}

#[test]
fn a_file_that_is_no_tokenizer_is_refused_with_its_path() {
    let path = Path::new("some/tokenizer.json");
    for (bytes, message) in [
        ("{}".to_owned(), "some/tokenizer.json: not a usable tokenizer"),
        (bert("").replace("[MASK]", "[MASQUE]"), "it has no [MASK]"),
    ] {
        let error = Tokenizer::from_bytes(path, bytes.as_bytes()).err().unwrap();
        assert!(error.to_string().contains(message), "{error}");
    }
    assert!(matches!(Tokenizer::load(Path::new("no-such.json")), Err(DataError::Read { .. })));
}

#[test]
fn a_name_is_found_token_by_token_without_case() {
    let tokens = words("the bill of Bill COSBY and bill cosby");
    assert_eq!(find_span(&tokens, "Bill Cosby"), Some(3..5));
    assert_eq!(find_span(&tokens, "THE"), Some(0..1));
    for absent in ["", " ", "cos", "cosby bill", "a b c d e f g h i j k"] {
        assert_eq!(find_span(&tokens, absent), None, "{absent}");
    }
}
