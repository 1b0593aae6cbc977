//! Names of the hub, fetched from a server on this machine. Opt-in, as the feature is:
//!
//!     cargo test --release --features hub --test hub
#![cfg(feature = "hub")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use assert_cmd::Command;

const REPOSITORY: &str = "someone/tiny-bert";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn published() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/fixtures/checkpoints/minilm")
}

/// Serves the folder as the hub serves a repository, until the test ends; returns its address.
fn serve(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let folder = folder.clone();
            std::thread::spawn(move || answer(stream.unwrap(), &folder));
        }
    });
    address
}

/// Answers the requests of one connection.
fn answer(mut stream: TcpStream, folder: &Path) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut path, mut range) = (String::new(), None);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim();
            if line.is_empty() {
                break;
            }
            if let Some(request) = line.strip_prefix("GET ") {
                path = request.split(' ').next().unwrap().to_owned();
            }
            if let Some(bytes) = line.to_lowercase().strip_prefix("range: bytes=") {
                range = Some(bytes.to_owned());
            }
        }
        let response = respond(&path, range.as_deref(), folder);
        if stream.write_all(&response).is_err() {
            return;
        }
    }
}

fn respond(path: &str, range: Option<&str>, folder: &Path) -> Vec<u8> {
    let (status, headers, body) = if path == format!("/api/models/{REPOSITORY}/revision/v2") {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            serde_json::json!({ "rfilename": name })
        });
        let info = serde_json::json!({ "sha": COMMIT, "siblings": names.collect::<Vec<_>>() });
        ("200 OK", String::new(), info.to_string().into_bytes())
    } else if let Some(file) = path.strip_prefix(&format!("/{REPOSITORY}/resolve/v2/")) {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let (from, to) = range.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
        let from: usize = from.parse().unwrap();
        let to = to.parse().map_or(bytes.len(), |to: usize| to + 1);
        let headers = format!(
            "etag: \"{file}\"\r\nx-repo-commit: {COMMIT}\r\ncontent-range: bytes {from}-{}/{}\r\n",
            to - 1,
            bytes.len()
        );
        ("206 Partial Content", headers, bytes[from..to].to_vec())
    } else {
        ("404 Not Found", String::new(), Vec::new())
    };
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body].concat()
}

fn inspect(name: &str, endpoint: &str, cache: &Path) -> Command {
    let mut command = Command::cargo_bin("mi2rage").unwrap();
    command.env("HF_ENDPOINT", endpoint).env("HF_HOME", cache);
    command.args(["weights", "inspect", name]);
    command
}

#[test]
fn a_name_of_the_hub_is_fetched_into_the_shared_cache_and_is_then_as_the_folder() {
    let cache = tempfile::tempdir().unwrap();
    let endpoint = serve(published());
    let name = format!("hf:{REPOSITORY}@v2");
    let fetched = inspect(&name, &endpoint, cache.path()).assert().success();
    let fetched = String::from_utf8(fetched.get_output().stdout.clone()).unwrap();
    let snapshot = cache.path().join("hub/models--someone--tiny-bert/snapshots").join(COMMIT);
    let mut names: Vec<_> = std::fs::read_dir(&snapshot)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.contains(&"config.json".to_owned()), "{names:?}");
    assert!(names.iter().any(|name| name.ends_with(".safetensors")), "{names:?}");
    let folder = published();
    let local = inspect(folder.to_str().unwrap(), &endpoint, cache.path()).assert().success();
    let local = String::from_utf8(local.get_output().stdout.clone()).unwrap();
    let shown = |output: &str, root: &Path| output.replace(root.to_str().unwrap(), "FOLDER");
    assert_eq!(shown(&fetched, &snapshot), shown(&local, &folder));
}

#[test]
fn what_cannot_be_fetched_says_which_files_to_put_where() {
    let cache = tempfile::tempdir().unwrap();
    let endpoint = serve(published());
    let missing = inspect("hf:someone/else", &endpoint, cache.path()).assert().code(2);
    let message = String::from_utf8(missing.get_output().stderr.clone()).unwrap();
    for part in ["hf:someone/else", "404", "config.json"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn without_a_network_what_was_fetched_before_is_used() {
    let cache = tempfile::tempdir().unwrap();
    let name = format!("hf:{REPOSITORY}@v2");
    let first = inspect(&name, &serve(published()), cache.path()).assert().success();
    // No one listens there.
    let again = inspect(&name, "http://127.0.0.1:9", cache.path()).assert().success();
    assert_eq!(again.get_output().stdout, first.get_output().stdout);
    let empty = tempfile::tempdir().unwrap();
    inspect(&name, "http://127.0.0.1:9", empty.path()).assert().code(2);
}

#[test]
fn a_repository_of_pickled_weights_says_how_to_convert_them() {
    let (cache, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::copy(published().join("config.json"), folder.path().join("config.json")).unwrap();
    std::fs::write(folder.path().join("pytorch_model.bin"), "PK").unwrap();
    let endpoint = serve(folder.path().to_owned());
    let refused = inspect(&format!("hf:{REPOSITORY}@v2"), &endpoint, cache.path()).assert().code(2);
    let message = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
    for part in ["pytorch_model.bin", "pickled", "save_file"] {
        assert!(message.contains(part), "{message}");
    }
}
