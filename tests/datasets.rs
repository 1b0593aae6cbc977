//! The readers of datasets: what they read, what they refuse and in which words.

use std::path::{Path, PathBuf};

use mi2rage::data::audit::audit;
use mi2rage::data::picture_folder::{MissingPicture, PictureFolder, Rows};
use mi2rage::data::{DataError, Example, PictureSource, Relations, Split};
use mi2rage::data::{imagefolder, jsonl, mnre};

const PEER: &str = r#"{'token': ['Ada', "met", 'Bob', '.'], 'h': {'name': 'Ada', 'pos': [0, 1]}, 't': {'name': 'Bob', 'pos': [2, 3]}, 'img_id': 'a.png', 'relation': '/per/per/peer'}"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

fn mnre_error(text: &str) -> String {
    let folder = Folder::new(&[("mnre_train.txt", text)]);
    let relations = Relations::new(["/per/per/peer".to_owned()]);
    let error = mnre::read_split(folder.path(), Split::Train, &relations, None).unwrap_err();
    assert!(error.is_user_mistake());
    let message = error.to_string();
    let start = format!("{}/mnre_train.txt", folder.path().display());
    message.strip_prefix(&start).expect(&message).to_owned()
}

#[test]
fn an_mnre_row_becomes_an_example() {
    let none = PEER.replace("/per/per/peer", "None");
    let folder = Folder::new(&[("mnre_train.txt", &format!("\u{feff}{PEER}\r\n\n{none}\n{none}"))]);
    let relations = mnre::relations(folder.path()).unwrap();
    assert_eq!(relations.names(), ["None", "/per/per/peer"]);
    let rows = mnre::read_split(folder.path(), Split::Train, &relations, None).unwrap();
    let ids: Vec<_> = rows.examples.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["train-0", "train-1", "train-2"]);
    let first = &rows.examples[0];
    assert_eq!(first.tokens, ["Ada", "met", "Bob", "."]);
    assert_eq!((first.head.name.as_str(), &first.head.span), ("Ada", &(0..1)));
    assert_eq!((first.tail.name.as_str(), &first.tail.span), ("Bob", &(2..3)));
    assert_eq!((first.label, &first.picture), (1, &None));
    assert_eq!(rows.examples[1].label, 0);
}

#[test]
fn a_bad_mnre_row_is_named_by_line_and_cause() {
    let after_good = |row: &str| mnre_error(&format!("{PEER}\n{row}"));
    let edited = |from: &str, to: &str| {
        assert!(PEER.contains(from));
        after_good(&PEER.replace(from, to))
    };
    assert_eq!(edited("'relation': ", "'relation' "), ":2:143: expected `:`, found `'`");
    assert_eq!(after_good("[]"), ":2: expected a dict, found list");
    assert_eq!(edited("'h'", "'head'"), ":2: the key `h` is missing");
    assert_eq!(edited("'Bob', '.'", "'Bob', 1"), ":2: `token` must be a list of str, found int");
    assert_eq!(edited("'pos': [0, 1]", "'at': [0, 1]"), ":2: in `h`: the key `pos` is missing");
    assert_eq!(
        edited("[0, 1]", "[-1, 1]"),
        ":2: in `h`: `pos` must be two token offsets [start, end], neither negative"
    );
    assert_eq!(
        edited("[2, 3]", "[3, 5]"),
        ":2: the tail `Bob` has the span 3..5, outside the sentence of 4 tokens"
    );
    assert_eq!(edited("[2, 3]", "[2, 2]"), ":2: the tail `Bob` has the empty span 2..2");
    assert_eq!(
        edited("/per/per/peer", "/per/per/pear"),
        ":2: the relation `/per/per/pear` is none of the 2 of the training split; \
         the nearest is `/per/per/peer`"
    );
    assert_eq!(mnre_error("\n \n"), ": no rows; a split needs at least one");
}

#[test]
fn every_public_name_of_the_mnre_files_is_found() {
    for name in
        ["mnre_val.txt", "mnre_val .txt", "txt/mnre_val .txt", "txt/ours_val.txt", "ours_val.txt"]
    {
        let folder = Folder::new(&[(name, PEER)]);
        let relations = Relations::new(["/per/per/peer".to_owned()]);
        let rows = mnre::read_split(folder.path(), Split::Validation, &relations, None);
        assert_eq!(rows.unwrap().examples[0].id, "validation-0", "{name}");
    }
    let folder = Folder::new(&[]);
    let error = mnre::relations(folder.path()).unwrap_err();
    assert!(matches!(error, DataError::NoSplit { .. }));
    assert!(error.to_string().contains(
        "no file for the train split (looked for mnre_train.txt, ours_train.txt, also in txt/)"
    ));
}

#[test]
fn a_missing_picture_refuses_drops_or_keeps_its_row() {
    let other = PEER.replace("a.png", "b.png");
    let folder = Folder::new(&[
        ("mnre_train.txt", &format!("{PEER}\n{other}")),
        ("pictures/train/b.png", ""),
    ]);
    let relations = mnre::relations(folder.path()).unwrap();
    let read = |missing| -> Result<Rows, DataError> {
        let pictures = PictureFolder { path: folder.path().join("pictures"), missing };
        mnre::read_split(folder.path(), Split::Train, &relations, Some(&pictures))
    };
    let found = Some(PictureSource::File(folder.path().join("pictures/train/b.png")));

    let kept = read(MissingPicture::KeepRow).unwrap();
    assert_eq!((kept.examples.len(), kept.missing_pictures), (2, 1));
    assert_eq!(kept.examples[0].picture, None);
    assert_eq!(kept.examples[1].picture, found);

    let dropped = read(MissingPicture::DropRow).unwrap();
    assert_eq!((dropped.examples.len(), dropped.missing_pictures), (1, 1));
    assert_eq!(dropped.examples[0].id, "train-1");

    let message = read(MissingPicture::Refuse).unwrap_err().to_string();
    assert!(message.contains("mnre_train.txt:1: the picture `a.png` is not in"), "{message}");

    folder.write("mnre_train.txt", &PEER.replace("a.png", "../mnre_train.txt"));
    let message = read(MissingPicture::KeepRow).unwrap_err().to_string();
    assert!(message.contains("no file name below the folder"), "{message}");
}

#[test]
fn a_split_whose_rows_were_all_dropped_is_an_error() {
    let folder = Folder::new(&[("mnre_train.txt", PEER)]);
    let relations = mnre::relations(folder.path()).unwrap();
    let pictures =
        PictureFolder { path: folder.path().to_owned(), missing: MissingPicture::DropRow };
    let error = mnre::read_split(folder.path(), Split::Train, &relations, Some(&pictures));
    let message = error.unwrap_err().to_string();
    assert!(message.contains("every row names a picture that is not in"), "{message}");
}

const ROWS: &str = r#"{"id": "x", "tokens": ["Ada", "met", "Bob"], "head": {"name": "Ada", "span": [0, 1]}, "tail": {"name": "Bob", "span": [2, 3]}, "relation": "peer", "file_name": "x.png"}
{"text": "Bob of  ACME Corp", "head": {"name": "Bob"}, "tail": {"name": "Acme Corp"}, "relation": "None", "more": 1}
"#;

#[test]
fn jsonl_is_read_from_a_file_or_from_a_folder_for_each_split() {
    for name in ["train.jsonl", "train/metadata.jsonl"] {
        let folder = Folder::new(&[(name, ROWS), ("train/x.png", "")]);
        let relations = jsonl::relations(folder.path()).unwrap();
        assert_eq!(relations.names(), ["None", "peer"]);
        let pictures =
            PictureFolder { path: folder.path().to_owned(), missing: MissingPicture::KeepRow };
        let read = |pictures| {
            jsonl::read_split(folder.path(), Split::Train, &relations, pictures).unwrap()
        };
        let rows = read(Some(&pictures));
        assert_eq!(rows.missing_pictures, 1);
        let [first, second] = &rows.examples[..] else { panic!("two rows") };
        assert_eq!((first.id.as_str(), first.label), ("x", 1));
        assert_eq!(first.picture, Some(PictureSource::File(folder.path().join("train/x.png"))));
        assert_eq!((second.id.as_str(), second.label), ("train-1", 0));
        assert_eq!(second.tokens, ["Bob", "of", "ACME", "Corp"]);
        assert_eq!((&second.head.span, &second.tail.span), (&(0..1), &(2..4)));
        assert_eq!(read(None).examples[0].picture, None);
    }
}

#[test]
fn a_bad_jsonl_row_is_named_by_line_and_cause() {
    let message = |row: &str| {
        let folder = Folder::new(&[("train.jsonl", &format!("{ROWS}{row}"))]);
        let error = jsonl::relations(folder.path())
            .and_then(|relations| jsonl::read_split(folder.path(), Split::Train, &relations, None))
            .unwrap_err()
            .to_string();
        let start = format!("{}/train.jsonl:3", folder.path().display());
        error.strip_prefix(&start).expect(&error).to_owned()
    };
    let row = ROWS.lines().next().unwrap();
    assert_eq!(message("{]"), ":2: key must be a string");
    assert!(message(&row.replace("\"relation\"", "\"relatio\"")).contains("missing field `rel"));
    assert!(message(&row.replace("[0, 1]", "[-1, 1]")).contains("expected usize"));
    assert_eq!(
        message(&row.replace("[0, 1]", "[1, 4]")),
        ": the head `Ada` has the span 1..4, outside the sentence of 3 tokens"
    );
    assert_eq!(
        message(&row.replace("tokens", "words")),
        ": the key `tokens` (or `text`) is missing"
    );
    assert_eq!(message(row), ": the id `x` is used by an earlier row");
    assert_eq!(
        message(&row.replace(", \"span\": [2, 3]", "").replace("Bob\"}", "Eve\"}")),
        ": the tail `Eve` has no span and its name is not in the sentence"
    );
}

#[test]
fn an_image_folder_needs_pictures_and_names_but_no_sentence() {
    let folder = Folder::new(&[
        (
            "train/metadata.jsonl",
            r#"{"file_name": "a.png", "head": {"name": "Bill Cosby"}, "tail": {"name": "Walk"}, "relation": "at"}"#,
        ),
        ("train/a.png", ""),
    ]);
    let relations = imagefolder::relations(folder.path()).unwrap();
    let read = || imagefolder::read_split(folder.path(), Split::Train, &relations);
    let rows = read().unwrap();
    let example = &rows.examples[0];
    assert_eq!(example.tokens, ["Bill", "Cosby", "Walk"]);
    assert_eq!((&example.head.span, &example.tail.span), (&(0..2), &(2..3)));
    assert_eq!(example.label, 1);
    assert!(matches!(&example.picture, Some(PictureSource::File(path)) if path.is_file()));

    std::fs::remove_file(folder.path().join("train/a.png")).unwrap();
    let message = read().unwrap_err().to_string();
    assert!(message.contains("metadata.jsonl:1: the picture `a.png` is not in"));
    folder.write("train/metadata.jsonl", &ROWS.replace("\"Ada\"", "\" \""));
    let message = read().unwrap_err().to_string();
    assert!(message.ends_with("metadata.jsonl:1: the head has no name"), "{message}");
}

fn example(text: &str, head: usize, tail: usize, label: usize, picture: &str) -> Example {
    let entity = |place: usize| mi2rage::data::Entity {
        name: text.split(' ').nth(place).unwrap().to_owned(),
        span: place..place + 1,
    };
    Example {
        id: String::new(),
        tokens: text.split(' ').map(str::to_owned).collect(),
        head: entity(head),
        tail: entity(tail),
        label,
        picture: Some(PictureSource::File(picture.into())),
        truth: None,
    }
}

#[test]
fn the_audit_counts_what_stands_in_the_rows() {
    let relations = Relations::new(["a".to_owned(), "b".to_owned()]);
    let train = [
        example("x y", 0, 1, 0, "1"),
        example("x y", 0, 1, 1, "1"),
        example("x y", 1, 0, 1, "2"),
        example("p q r", 0, 1, 2, "3"),
        example("p q r", 0, 1, 2, "3"),
    ];
    let test = [example("x y", 0, 1, 0, "3"), example("z y", 0, 1, 0, "4")];
    let found = audit(&relations, &[(Split::Train, &train), (Split::Test, &test)]);
    let first = &found.splits[0];
    assert_eq!(first.labels.iter().map(|label| label.1).collect::<Vec<_>>(), [1, 2, 2]);
    assert_eq!(first.tokens, (2, 2.4, 3));
    assert_eq!((first.repeated_keys, first.conflicting_keys), (2, 1));
    assert_eq!((first.tail_first_none, first.tail_first_positive), (Some(0.0), Some(0.25)));
    assert_eq!((first.pictures, first.pictures_of_several_relations), (3, 1));
    assert_eq!(found.splits[1].tail_first_positive, None);
    assert_eq!((found.shared[0].sentences, found.shared[0].pictures), (1, 1));
}

/// MNRE-2 is not part of the project; without it the tests on it say so and prove nothing.
fn mnre_folder() -> Option<PathBuf> {
    let named = std::env::var_os("MI2RAGE_MNRE").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/mnre");
    let folder = named.or_else(|| beside.is_dir().then_some(beside));
    if folder.is_none() {
        println!("skipped: no MNRE-2 (name its folder in MI2RAGE_MNRE)");
    }
    folder
}

#[test]
fn mnre_2_has_its_published_counts_and_known_artefacts() {
    let Some(folder) = mnre_folder() else { return };
    let relations = mnre::relations(&folder).unwrap();
    assert_eq!(relations.len(), 23);
    let pictures = PictureFolder { path: folder.join("images"), missing: MissingPicture::KeepRow };
    let read = |split| mnre::read_split(&folder, split, &relations, Some(&pictures)).unwrap();
    let [train, validation, test] = Split::ALL.map(read);
    let found = audit(
        &relations,
        &[
            (Split::Train, &train.examples),
            (Split::Validation, &validation.examples),
            (Split::Test, &test.examples),
        ],
    );

    let counts: Vec<_> = found
        .splits
        .iter()
        .map(|split| {
            let (shortest, mean, longest) = split.tokens;
            let mean = (mean * 100.0).round() as usize;
            (split.rows, split.labels[0].1, shortest, mean, longest)
        })
        .collect();
    assert_eq!(
        counts,
        [(12_247, 7_744, 4, 1_666, 35), (1_624, 1_000, 6, 1_664, 30), (1_614, 974, 5, 1_683, 28)]
    );
    let absent = |split: usize| {
        let labels = found.splits[split].labels.iter();
        labels.filter(|label| label.1 == 0).map(|label| label.0.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(absent(0), [""; 0]);
    assert_eq!(absent(2), ["/per/misc/race", "/per/per/alumi"]);

    let keys = |split: usize| {
        let split = &found.splits[split];
        (split.repeated_keys, split.conflicting_keys)
    };
    assert_eq!([keys(0), keys(1), keys(2)], [(27, 27), (0, 0), (0, 0)]);
    let shared: Vec<_> = found.shared.iter().map(|shared| shared.sentences).collect();
    assert_eq!(shared, [5, 2, 1], "train and validation, train and test, validation and test");
    for split in &found.splits {
        assert!((0.30..0.335).contains(&split.tail_first_positive.unwrap()));
        assert!(split.tail_first_none.unwrap() < 0.0035);
    }

    // 50 of the real pictures are here: every one that is named must be found and decode.
    if pictures.path.is_dir() {
        let files: Vec<_> = [&train, &validation, &test]
            .into_iter()
            .flat_map(|rows| &rows.examples)
            .filter_map(|example| match &example.picture {
                Some(PictureSource::File(path)) => Some(path.clone()),
                _ => None,
            })
            .collect();
        let pictures: usize = found.splits.iter().map(|split| split.pictures).sum();
        let missing: usize =
            [&train, &validation, &test].map(|rows| rows.missing_pictures).iter().sum();
        assert!(pictures >= 50);
        assert_eq!(missing + files.len(), 12_247 + 1_624 + 1_614);
        for file in files.iter().collect::<std::collections::BTreeSet<_>>() {
            let picture = mi2rage::data::pictures::decode(file).unwrap();
            assert_eq!(picture.rgb.len(), picture.width * picture.height * 3);
        }
    }
}
