//! Secrets that are looked for: in every encoding, in files, streams and texts.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Letters of each end of a secret that are looked for: 120 bits, so that chance finds nothing, and
/// both ends, so that a secret that was cut off is found, too.
const END: usize = 20;
/// Bytes that one compressed stream may unfold to.
const UNFOLDED: u64 = 64 << 20;

/// 256 bits of chance, as 43 letters, digits, `-` and `_`.
pub fn canary() -> String {
    let (one, other) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    // Two ids of version 4 have 244 bits of chance; the rest comes from a third.
    let mut bytes = [one.into_bytes(), other.into_bytes()].concat();
    for (byte, more) in bytes.iter_mut().zip(uuid::Uuid::new_v4().into_bytes().iter().rev()) {
        *byte ^= more;
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

/// How a secret may be written.
pub const ENCODINGS: [&str; 15] = [
    "raw",
    "reversed",
    "hex",
    "hex in capitals",
    "base64, at 0",
    "base64, at 1",
    "base64, at 2",
    "base64url, at 0",
    "base64url, at 1",
    "base64url, at 2",
    "percent",
    "percent in capitals",
    "JSON escapes",
    "UTF-16 LE",
    "UTF-16 BE",
];

/// The bytes as an encoding writes them; for base64 those letters that do not depend on what stands
/// before and after.
pub fn encoded(encoding: &str, secret: &[u8]) -> Vec<u8> {
    let each = |write: &dyn Fn(u8) -> String| -> Vec<u8> {
        secret.iter().map(|byte| write(*byte)).collect::<String>().into_bytes()
    };
    match encoding {
        "raw" => secret.to_vec(),
        "reversed" => secret.iter().rev().copied().collect(),
        "hex" => each(&|byte| format!("{byte:02x}")),
        "hex in capitals" => each(&|byte| format!("{byte:02X}")),
        "percent" => each(&|byte| format!("%{byte:02x}")),
        "percent in capitals" => each(&|byte| format!("%{byte:02X}")),
        "JSON escapes" => each(&|byte| format!("\\u{byte:04x}")),
        "UTF-16 LE" => secret.iter().flat_map(|byte| [*byte, 0]).collect(),
        "UTF-16 BE" => secret.iter().flat_map(|byte| [0, *byte]).collect(),
        _ => {
            let skipped: usize = encoding[encoding.len() - 1..].parse().unwrap();
            let mut shifted = vec![0; skipped];
            shifted.extend(secret);
            let text = if encoding.starts_with("base64url") {
                URL_SAFE_NO_PAD.encode(&shifted)
            } else {
                STANDARD_NO_PAD.encode(&shifted)
            };
            // Letters that hold bits of what is before or after.
            let first = [0, 2, 3][skipped];
            let last = if shifted.len().is_multiple_of(3) { text.len() } else { text.len() - 1 };
            text.as_bytes()[first..last].to_vec()
        }
    }
}

/// A place where a secret was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    pub sink: String,
    pub secret: String,
    pub encoding: &'static str,
}

/// Looks for many secrets at once.
pub struct Search {
    names: Vec<String>,
    needles: Vec<(usize, &'static str)>,
    machine: AhoCorasick,
}

/// What was looked through.
#[derive(Debug, Default)]
pub struct Searched {
    pub sinks: usize,
    pub bytes: u64,
    /// Compressed streams that were looked into.
    pub streams: usize,
    pub hits: Vec<Hit>,
}

impl Search {
    /// Secrets with their names; a secret may have several forms, as a key has as text and as bytes.
    pub fn new(secrets: &[(String, Vec<u8>)]) -> Self {
        let (mut needles, mut patterns) = (Vec::new(), Vec::new());
        for (number, (name, secret)) in secrets.iter().enumerate() {
            assert!(secret.len() >= END, "{name} is too short to be looked for");
            for encoding in ENCODINGS {
                for end in [&secret[..END], &secret[secret.len() - END..]] {
                    needles.push((number, encoding));
                    patterns.push(encoded(encoding, end));
                }
            }
        }
        let names = secrets.iter().map(|(name, _)| name.clone()).collect();
        Self { names, needles, machine: AhoCorasick::new(patterns).unwrap() }
    }

    /// How many secrets it looks for.
    pub fn secrets(&self) -> usize {
        let names: std::collections::BTreeSet<&String> = self.names.iter().collect();
        names.len()
    }

    /// Looks through bytes, and into the compressed streams among them.
    pub fn bytes(&self, sink: &str, bytes: &[u8], searched: &mut Searched) {
        searched.sinks += 1;
        self.text(sink, bytes, searched);
        for unfolded in streams(bytes) {
            searched.streams += 1;
            self.text(&format!("{sink} (compressed)"), &unfolded, searched);
        }
    }

    fn text(&self, sink: &str, bytes: &[u8], searched: &mut Searched) {
        searched.bytes += bytes.len() as u64;
        let mut found = std::collections::BTreeSet::new();
        for hit in self.machine.find_overlapping_iter(bytes) {
            found.insert(self.needles[hit.pattern().as_usize()]);
        }
        searched.hits.extend(found.into_iter().map(|(secret, encoding)| Hit {
            sink: sink.to_owned(),
            secret: self.names[secret].clone(),
            encoding,
        }));
    }

    /// Looks through one file; one that is gone by now holds nothing.
    pub fn file(&self, path: &Path, searched: &mut Searched) {
        if let Ok(bytes) = std::fs::read(path) {
            self.bytes(&path.display().to_string(), &bytes, searched);
        }
    }

    /// Looks through all files below a folder, and through their names.
    pub fn folder(&self, folder: &Path, searched: &mut Searched) {
        let mut names = String::new();
        for path in files(folder) {
            names.push_str(&format!("{}\n", path.display()));
            self.file(&path, searched);
        }
        self.bytes(&format!("names in {}", folder.display()), names.as_bytes(), searched);
    }
}

/// The regular files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        // A database removes folders of its own while we look.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                Ok(_) | Err(_) => {}
            }
        }
    }
    found.sort();
    found
}

/// What the gzip and zstd streams among the bytes unfold to; one that is broken, as far as it goes.
fn streams(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut unfolded = Vec::new();
    let marks = AhoCorasick::new([&[0x1f, 0x8b, 0x08][..], &[0x28, 0xb5, 0x2f, 0xfd]]).unwrap();
    for mark in marks.find_iter(bytes) {
        let rest = &bytes[mark.start()..];
        let mut out = Vec::new();
        // Most are no streams but chance: what cannot be read ends there.
        let _end = match mark.pattern().as_usize() {
            0 => {
                flate2::read::MultiGzDecoder::new(rest).take(UNFOLDED).read_to_end(&mut out).is_ok()
            }
            _ => ruzstd::decoding::StreamingDecoder::new(rest)
                .is_ok_and(|stream| stream.take(UNFOLDED).read_to_end(&mut out).is_ok()),
        };
        if !out.is_empty() {
            unfolded.push(out);
        }
    }
    unfolded
}

/// Where a secret is meant to be seen: by name of the secret and part of the sink's name.
pub type Meant = BTreeMap<&'static str, Vec<&'static str>>;

/// Plants every secret in every encoding, alone, in gzip and in zstd, and counts what is found:
/// planted, found.
pub fn control(search: &Search, secrets: &[(String, Vec<u8>)], folder: &Path) -> (usize, usize) {
    let (mut planted, mut found) = (0, 0);
    for (number, (name, secret)) in secrets.iter().enumerate() {
        for (place, encoding) in ENCODINGS.iter().enumerate() {
            let text = match encoding.split_once(", at ") {
                // Base64 depends on how many bytes stand before: it is encoded with those.
                Some((kind, at)) => {
                    let at: usize = at.parse().unwrap();
                    let whole = [&b"xyz"[..at], secret, b"tail"].concat();
                    let text = if kind == "base64url" {
                        URL_SAFE_NO_PAD.encode(whole)
                    } else {
                        STANDARD_NO_PAD.encode(whole)
                    };
                    text.into_bytes()
                }
                None => encoded(encoding, secret),
            };
            let noise = [&b"{\"before\":\""[..], &text, b"\",\"after\":1}"].concat();
            let gzip = {
                let mut gzip =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
                std::io::Write::write_all(&mut gzip, &noise).unwrap();
                gzip.finish().unwrap()
            };
            let zstd = ruzstd::encoding::compress_to_vec(
                noise.as_slice(),
                ruzstd::encoding::CompressionLevel::Fastest,
            );
            for (form, bytes) in [("plain", noise), ("gzip", gzip), ("zstd", zstd)] {
                planted += 1;
                let path = folder.join(format!("{number}-{place}.{form}"));
                std::fs::write(&path, [&b"\0\0"[..], &bytes].concat()).unwrap();
                let mut searched = Searched::default();
                search.file(&path, &mut searched);
                let hit = |hit: &Hit| hit.secret == *name && hit.encoding == *encoding;
                found += usize::from(searched.hits.iter().any(hit));
                std::fs::remove_file(&path).unwrap();
            }
        }
    }
    (planted, found)
}
