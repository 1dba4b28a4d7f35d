//! AES-SIV as we use it, held against the vectors of RFC 5297 and of Wycheproof.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use aes_siv::KeyInit as _;
use aes_siv::aead::generic_array::GenericArray;
use aes_siv::siv::{Aes128Siv, Aes256Siv};
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// RFC 5297 has vectors for 256-bit keys only; the construction over the longer key is the same code.
#[test]
fn the_vectors_of_rfc_5297_hold() {
    // A.1: deterministic, one header.
    let key = hex("fffefdfc fbfaf9f8 f7f6f5f4 f3f2f1f0 f0f1f2f3 f4f5f6f7 f8f9fafb fcfdfeff");
    let header = hex("10111213 14151617 18191a1b 1c1d1e1f 20212223 24252627");
    let plain = hex("11223344 55667788 99aabbcc ddee");
    let sealed = hex("85632d07 c6e8f37f 950acd32 0a2ecc93 40c02b96 90c4dc04 daef7f6a fe5c");
    let mut siv = Aes128Siv::new(GenericArray::from_slice(&key));
    assert_eq!(siv.encrypt([&header], &plain).unwrap(), sealed);
    assert_eq!(siv.decrypt([&header], &sealed).unwrap(), plain);

    // A.2: two headers and a nonce.
    let key = hex("7f7e7d7c 7b7a7978 77767574 73727170 40414243 44454647 48494a4b 4c4d4e4f");
    let headers = [
        hex(
            "00112233 44556677 8899aabb ccddeeff deaddada deaddada ffeeddcc bbaa9988 77665544 33221100",
        ),
        hex("10203040 50607080 90a0"),
        hex("09f91102 9d74e35b d84156c5 635688c0"),
    ];
    let plain =
        hex("74686973 20697320 736f6d65 20706c61 696e7465 78742074 6f20656e 63727970 74207573 \
         696e6720 5349562d 414553");
    let sealed =
        hex("7bdb6e3b 432667eb 06f4d14b ff2fbd0f cb900f2f ddbe4043 26601965 c889bf17 dba77ceb \
         094fa663 b7a3f748 ba8af829 ea64ad54 4a272e9c 485b62a3 fd5c0d");
    let mut siv = Aes128Siv::new(GenericArray::from_slice(&key));
    assert_eq!(siv.encrypt(&headers, &plain).unwrap(), sealed);
}

/// Opens one vector. The interface with a nonce puts it behind the associated data, as a last header.
fn opens(key: &[u8], headers: [&[u8]; 2], sealed: &[u8]) -> Option<Vec<u8>> {
    match key.len() {
        32 => Aes128Siv::new(GenericArray::from_slice(key)).decrypt(headers, sealed).ok(),
        64 => Aes256Siv::new(GenericArray::from_slice(key)).decrypt(headers, sealed).ok(),
        other => panic!("a key of {other} bytes"),
    }
}

#[test]
fn the_vectors_of_wycheproof_hold() {
    let set = TestSet::load(TestName::AesSivCmac).unwrap();
    let (mut valid, mut invalid, mut skipped) = (0, 0, 0);
    for group in &set.test_groups {
        for test in &group.tests {
            // 384-bit keys (AES-192) are in the set, and in neither the crate nor this program.
            if !matches!(test.key.len(), 32 | 64) {
                skipped += 1;
                continue;
            }
            let sealed = [&test.tag[..], &test.ct[..]].concat();
            let headers = [&test.aad[..], &test.nonce[..]];
            let opened = opens(&test.key, headers, &sealed).is_some_and(|got| got == test.pt[..]);
            match test.result {
                TestResult::Valid | TestResult::Acceptable => {
                    assert!(opened, "vector {} does not open: {}", test.tc_id, test.comment);
                    valid += 1;
                    if test.key.len() == 64 {
                        let mut siv = Aes256Siv::new(GenericArray::from_slice(&test.key));
                        assert_eq!(siv.encrypt(headers, &test.pt).unwrap(), sealed);
                    }
                }
                TestResult::Invalid => {
                    assert!(!opened, "vector {} opens: {}", test.tc_id, test.comment);
                    invalid += 1;
                }
            }
        }
    }
    println!(
        "figure: AES-SIV, Wycheproof: {valid} valid vectors open, {invalid} forged ones do not ({skipped} with AES-192 keys)"
    );
    assert!(valid > 100 && invalid > 100, "{valid} and {invalid} vectors are too few");
}
