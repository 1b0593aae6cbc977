use std::fs;

use super::*;

fn key(item: &str, chain: usize, round: usize, modality: Modality) -> SampleKey {
    SampleKey { item: item.into(), chain, round, modality }
}

fn picture(item: &str, chain: usize, round: usize, value: u8) -> Sample {
    Sample {
        key: key(item, chain, round, Modality::Picture),
        generator: "G".into(),
        parent: (round > 1).then(|| key(item, chain, round - 1, Modality::Text)),
        payload: Payload::Picture(Picture {
            width: 3,
            height: 2,
            rgb: (0..18).map(|at: u8| at.wrapping_mul(value)).collect(),
        }),
    }
}

fn caption(item: &str, chain: usize, round: usize) -> Sample {
    Sample {
        key: key(item, chain, round, Modality::Text),
        generator: "C".into(),
        parent: Some(key(item, chain, round, Modality::Picture)),
        payload: Payload::Caption(Caption {
            tokens: vec!["Ähm".into(), "\"b\"".into()],
            head: 0..1,
            tail: 1..2,
        }),
    }
}

fn fingerprint() -> Fingerprint {
    Fingerprint::new(Setting::MissingImage, 1, &BTreeMap::new())
}

fn open(root: &Path) -> Result<Store, StoreError> {
    Store::open(root, fingerprint())
}

fn only_segment(store: &Store) -> PathBuf {
    let segments = segments_of(store.folder()).unwrap();
    assert_eq!(segments.len(), 1);
    segments[0].clone()
}

#[test]
fn samples_come_back_as_they_were_also_after_reopening() {
    let root = tempfile::tempdir().unwrap();
    let samples = [picture("a", 0, 1, 3), caption("a", 0, 1), picture("a", 0, 2, 5)];
    let mut store = open(root.path()).unwrap();
    store.append(&samples[..2]).unwrap();
    store.append(&samples[1..]).unwrap();
    for store in [store, open(root.path()).unwrap()] {
        assert_eq!(store.len(), 3);
        for sample in &samples {
            assert_eq!(&store.read(&sample.key).unwrap(), sample);
        }
        let absent = key("b", 0, 1, Modality::Picture);
        assert!(!store.contains(&absent));
        let error = store.read(&absent).unwrap_err();
        assert!(matches!(error, StoreError::Missing { sample, .. } if sample == absent));
    }
}

#[test]
fn opening_writes_no_file_and_a_writer_only_its_own() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path()).unwrap();
    assert!(segments_of(store.folder()).unwrap().is_empty());
    store.append(&[picture("a", 0, 1, 3)]).unwrap();
    let first = only_segment(&store);
    let before = fs::read(&first).unwrap();
    let mut again = open(root.path()).unwrap();
    again.append(&[picture("a", 0, 2, 3)]).unwrap();
    assert_eq!(segments_of(store.folder()).unwrap().len(), 2);
    assert_eq!(fs::read(&first).unwrap(), before);
}

#[test]
fn a_last_record_cut_short_at_any_byte_is_a_sample_that_was_not_made() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path()).unwrap();
    store.append(&[picture("a", 0, 1, 3)]).unwrap();
    let path = only_segment(&store);
    let whole = fs::metadata(&path).unwrap().len() as usize;
    store.append(&[picture("a", 0, 2, 5)]).unwrap();
    let bytes = fs::read(&path).unwrap();
    for cut in whole..bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let mut store = open(root.path()).unwrap();
        assert_eq!(store.len(), 1, "cut at {cut}");
        assert!(store.read(&picture("a", 0, 1, 3).key).is_ok());
        store.append(&[picture("a", 0, 2, 5)]).unwrap();
        let again = open(root.path()).unwrap();
        assert_eq!(again.len(), 2, "cut at {cut}");
        fs::remove_file(&again.segments[1]).unwrap();
    }
    for cut in 0..whole {
        fs::write(&path, &bytes[..cut]).unwrap();
        assert!(open(root.path()).unwrap().is_empty(), "cut at {cut}");
    }
}

#[test]
fn a_flipped_byte_is_an_error_that_names_file_and_record_or_loses_the_last_record_alone() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path()).unwrap();
    store.append(&[picture("a", 0, 1, 3)]).unwrap();
    let path = only_segment(&store);
    let second = fs::metadata(&path).unwrap().len() as usize;
    store.append(&[picture("a", 0, 2, 5)]).unwrap();
    let bytes = fs::read(&path).unwrap();
    let (file_header, record_header) = (44, 44);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, flipped).unwrap();
        match open(root.path()) {
            Err(StoreError::Magic { .. }) => assert!(at < 8),
            Err(StoreError::Version { .. }) => assert!((8..12).contains(&at)),
            Err(StoreError::Fingerprint { .. }) => assert!((12..44).contains(&at)),
            Err(StoreError::Corrupt { path: file, offset, .. }) => {
                assert_eq!(file, path);
                let record = if at < second { file_header } else { second };
                assert_eq!(offset as usize, record);
                assert!(at < second + record_header);
            }
            Err(error) => panic!("byte {at}: {error}"),
            Ok(store) => {
                assert!(at >= second + record_header, "byte {at} is not noticed");
                assert_eq!(store.len(), 1);
            }
        }
    }
}

#[test]
fn damage_after_opening_is_noticed_on_reading() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path()).unwrap();
    let sample = picture("a", 0, 1, 3);
    store.append(std::slice::from_ref(&sample)).unwrap();
    let path = only_segment(&store);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = store.read(&sample.key).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { offset: 44, .. }));
}

#[test]
fn a_file_that_is_no_segment_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).unwrap();
    let path = store.folder().join("notes.samples");
    fs::write(&path, "shopping list").unwrap();
    let error = open(root.path()).err().unwrap();
    assert!(matches!(&error, StoreError::Magic { .. }));
    assert!(error.to_string().contains("notes.samples"));
}

#[test]
fn two_writers_at_once_share_a_store_and_must_agree() {
    let root = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (open(root.path()).unwrap(), open(root.path()).unwrap());
    for round in 1..4 {
        one.append(&[picture("a", 0, round, 3)]).unwrap();
        two.append(&[picture("b", 0, round, 3)]).unwrap();
    }
    // Both make the same sample: no harm, since it is the same.
    one.append(&[caption("c", 0, 1)]).unwrap();
    two.append(&[caption("c", 0, 1)]).unwrap();
    let merged = open(root.path()).unwrap();
    assert_eq!(merged.len(), 7);
    assert_eq!(segments_of(merged.folder()).unwrap().len(), 2);

    one.append(&[picture("d", 0, 1, 3)]).unwrap();
    two.append(&[picture("d", 0, 1, 7)]).unwrap();
    let error = open(root.path()).err().unwrap();
    let StoreError::Conflict { path, other, sample } = error else { panic!("{error}") };
    assert_eq!(sample.item, "d");
    assert_ne!(path, other);
}

#[test]
fn another_sample_of_a_held_key_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path()).unwrap();
    store.append(&[picture("a", 0, 1, 3)]).unwrap();
    store.append(&[picture("a", 0, 1, 3)]).unwrap();
    assert_eq!(store.len(), 1);
    let error = store.append(&[picture("a", 0, 1, 5)]).unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }));
    let twice = [picture("b", 0, 1, 3), picture("b", 0, 1, 5)];
    let error = store.append(&twice).unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }));
    assert_eq!(open(root.path()).unwrap().len(), 1);
}

#[test]
fn payloads_that_contradict_their_key_or_size_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path()).unwrap();
    let mut mislabelled = caption("a", 0, 1);
    mislabelled.key.modality = Modality::Picture;
    let mut short = picture("a", 0, 1, 3);
    if let Payload::Picture(picture) = &mut short.payload {
        picture.rgb.pop();
    }
    for sample in [mislabelled, short] {
        let error = store.append(&[sample]).unwrap_err();
        assert!(matches!(error, StoreError::Payload { .. }));
    }
    assert!(store.is_empty());
}

#[test]
fn another_configuration_is_another_folder() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path()).unwrap();
    store.append(&[picture("a", 0, 1, 3)]).unwrap();
    let part = |value: &str| BTreeMap::from([("weights".to_owned(), value.to_owned())]);
    let others = [
        Fingerprint::new(Setting::MissingText, 1, &BTreeMap::new()),
        Fingerprint::new(Setting::MissingImage, 2, &BTreeMap::new()),
        Fingerprint::new(Setting::MissingImage, 1, &part("x")),
        Fingerprint::new(Setting::MissingImage, 1, &part("y")),
    ];
    let mut folders = vec![store.folder().to_owned()];
    for other in others {
        let other = Store::open(root.path(), other).unwrap();
        assert!(other.is_empty());
        assert!(!folders.contains(&other.folder().to_owned()));
        folders.push(other.folder().to_owned());
    }
    // A segment that was moved there by hand is refused.
    let moved = folders[1].join("segment-0000.samples");
    fs::copy(only_segment(&store), moved).unwrap();
    let setting = Setting::MissingText;
    let error = Store::open(root.path(), Fingerprint::new(setting, 1, &BTreeMap::new()));
    assert!(matches!(error, Err(StoreError::Fingerprint { .. })));
}

#[test]
fn samples_of_an_item_are_listed_chain_by_chain_in_the_order_of_making() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open(root.path()).unwrap();
    let samples = [
        picture("ab", 0, 1, 3),
        picture("a", 1, 1, 3),
        picture("a", 0, 2, 3),
        caption("a", 0, 1),
        picture("a", 0, 1, 3),
        picture("", 0, 1, 3),
    ];
    store.append(&samples).unwrap();
    let picture = |chain, round| key("a", chain, round, Modality::Picture);
    let text = key("a", 0, 1, Modality::Text);
    assert_eq!(
        store.samples_of("a", Setting::MissingImage),
        [&picture(0, 1), &text, &picture(0, 2), &picture(1, 1)]
    );
    assert_eq!(
        store.samples_of("a", Setting::MissingText),
        [&text, &picture(0, 1), &picture(0, 2), &picture(1, 1)]
    );
}
