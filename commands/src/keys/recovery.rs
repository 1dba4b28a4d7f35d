//! The recovery file: the master keys under a code that a person keeps, for another machine.
//!
//! The code is stretched with argon2id, and the key file's text is sealed with AES-SIV under the
//! result; the parameters stand in the file and are part of what is authenticated.

use aes_siv::siv::Aes256Siv;
use aes_siv::{Key, KeyInit as _};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{KeyBytes, KeyError, MasterKeys, fill};
use crate::Secret;

/// 64 MiB, three passes: a guess takes a good part of a second, and the file may be kept for years.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// No more than this is believed of a file: it decides how much memory its reader takes.
const MOST_MEMORY_KIB: u32 = 1024 * 1024;
const MOST_PASSES: u32 = 32;
/// Characters at least of a code that a person chose.
const SHORTEST: usize = 16;
/// Letters and digits that are not mistaken for each other.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Characters of a generated code: 130 bits.
const CODE: usize = 26;

/// Why a recovery file cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("a recovery code has at least {SHORTEST} characters")]
    TooShort,
    #[error("this is not a recovery file of a version that this program reads")]
    Malformed,
    #[error("the recovery file does not open: the code is wrong, or the file was changed")]
    DoesNotOpen,
    #[error("the recovery code cannot be stretched: {0}")]
    Stretch(String),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The file: JSON, so that what it is can be seen without this program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// For whoever finds it.
    pub about: String,
    /// Always `proximity-recovery-1`.
    pub format: String,
    /// The installation that the keys belong to.
    pub installation: String,
    /// The keys in it, by their short names.
    pub generations: Vec<String>,
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
    salt: String,
    sealed: String,
}

const FORMAT: &str = "proximity-recovery-1";

impl Recovery {
    /// A code that nobody guesses, in groups for reading it aloud.
    pub fn new_code() -> Result<Secret, KeyError> {
        let mut bytes = Zeroizing::new([0; CODE]);
        fill(bytes.as_mut_slice())?;
        let mut code = String::with_capacity(CODE + CODE / 5);
        for (n, byte) in bytes.iter().enumerate() {
            if n > 0 && n % 5 == 0 {
                code.push('-');
            }
            // 32 divides 256: every letter is as likely as the others.
            code.push(char::from(ALPHABET[usize::from(byte % 32)]));
        }
        Ok(Secret::new(code))
    }

    /// Seals all keys under a code.
    pub fn seal(
        keys: &MasterKeys,
        installation: &str,
        code: &Secret,
    ) -> Result<Self, RecoveryError> {
        if canonical(code).chars().count() < SHORTEST {
            return Err(RecoveryError::TooShort);
        }
        let mut salt = [0; 32];
        fill(&mut salt)?;
        let mut this = Self {
            about:
                "Master keys of a Proximity installation, sealed. Without the recovery code they \
                    are worth nothing; with it, they open every credential in its database. Bring \
                    them back with: proximity keys import-recovery FILE"
                    .to_owned(),
            format: FORMAT.to_owned(),
            installation: installation.to_owned(),
            generations: keys.ids(),
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: STANDARD.encode(salt),
            sealed: String::new(),
        };
        let key = this.stretch(code, &salt)?;
        let sealed = cipher(&key).encrypt(this.bound(), keys.to_text().as_bytes());
        this.sealed = STANDARD.encode(sealed.map_err(|_| RecoveryError::DoesNotOpen)?);
        Ok(this)
    }

    /// Opens the file's text with the code.
    pub fn open(text: &str, code: &Secret) -> Result<(Self, MasterKeys), RecoveryError> {
        let this: Self = serde_json::from_str(text).map_err(|_| RecoveryError::Malformed)?;
        let sane = this.format == FORMAT
            && (8..=MOST_MEMORY_KIB).contains(&this.memory_kib)
            && (1..=MOST_PASSES).contains(&this.passes)
            && (1..=16).contains(&this.lanes);
        let salt = STANDARD.decode(&this.salt).ok().filter(|salt| salt.len() == 32);
        let (true, Some(salt), Ok(sealed)) = (sane, salt, STANDARD.decode(&this.sealed)) else {
            return Err(RecoveryError::Malformed);
        };
        let key = this.stretch(code, &salt)?;
        let opened = cipher(&key).decrypt(this.bound(), &sealed);
        let opened = Zeroizing::new(opened.map_err(|_| RecoveryError::DoesNotOpen)?);
        let text = std::str::from_utf8(&opened).map_err(|_| RecoveryError::Malformed)?;
        let keys = MasterKeys::parse(text)?;
        Ok((this, keys))
    }

    fn stretch(&self, code: &Secret, salt: &[u8]) -> Result<KeyBytes, RecoveryError> {
        let broken = |error: argon2::Error| RecoveryError::Stretch(error.to_string());
        let params =
            Params::new(self.memory_kib, self.passes, self.lanes, Some(64)).map_err(broken)?;
        let mut key = KeyBytes::new([0; 64]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(canonical(code).as_bytes(), salt, key.as_mut_slice())
            .map_err(broken)?;
        Ok(key)
    }

    /// Everything that stands in the clear.
    fn bound(&self) -> [Vec<u8>; 5] {
        [
            FORMAT.as_bytes().to_vec(),
            self.installation.as_bytes().to_vec(),
            self.generations.join(" ").into_bytes(),
            format!("{} {} {}", self.memory_kib, self.passes, self.lanes).into_bytes(),
            self.salt.as_bytes().to_vec(),
        ]
    }
}

/// A code is the same with other spaces, hyphens and letters of the other case.
fn canonical(code: &Secret) -> Zeroizing<String> {
    let kept = code.expose().chars().filter(|c| !c.is_whitespace() && *c != '-');
    Zeroizing::new(kept.flat_map(char::to_uppercase).collect())
}

fn cipher(key: &KeyBytes) -> Aes256Siv {
    Aes256Siv::new(Key::<aes_siv::Aes256SivAead>::from_slice(key.as_slice()))
}
