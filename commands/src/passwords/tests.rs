//! What is promised about passwords, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::time::Instant;

use super::*;

fn random() -> String {
    SaltString::generate(&mut OsRng).as_str().to_owned()
}

fn secret(text: impl Into<String>) -> Secret {
    Secret::new(text.into())
}

#[tokio::test]
async fn only_the_right_password_verifies() {
    let passwords = Passwords::new(HashingLimits::default()).unwrap();
    let password = random();
    let stored = passwords.hash(secret(&*password)).await.unwrap();
    assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
    assert!(passwords.verify(secret(&*password), Some(stored.clone())).await.unwrap());
    assert!(!passwords.verify(secret(random()), Some(stored.clone())).await.unwrap());
    let again = passwords.hash(secret(&*password)).await.unwrap();
    assert_ne!(stored, again, "each has its own salt");
}

#[tokio::test]
async fn an_unknown_user_costs_the_same_work_and_never_matches() {
    let passwords = Passwords::new(HashingLimits::default()).unwrap();
    let stored = passwords.hash(secret(random())).await.unwrap();
    let mut known = Vec::new();
    let mut unknown = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        assert!(!passwords.verify(secret(random()), Some(stored.clone())).await.unwrap());
        known.push(start.elapsed());
        let start = Instant::now();
        assert!(!passwords.verify(secret(random()), None).await.unwrap());
        unknown.push(start.elapsed());
    }
    let fastest = |times: &[Duration]| times.iter().min().unwrap().as_secs_f64();
    let ratio = fastest(&unknown) / fastest(&known);
    println!("unknown user / known user: {ratio:.2} of the time");
    assert!(ratio > 0.3, "an unknown user answers {ratio:.2} times as fast");
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let passwords = Passwords::new(HashingLimits { running: 1, waiting: 1 }).unwrap();
    let held = passwords.admit().await.unwrap();
    let error = passwords.hash(secret(random())).await.unwrap_err();
    assert_eq!(error.code(), "login.busy");
    drop(held);
    passwords.hash(secret(random())).await.unwrap();
}

#[tokio::test]
async fn a_stored_hash_that_cannot_be_read_is_no_wrong_password() {
    let passwords = Passwords::new(HashingLimits::default()).unwrap();
    let error = passwords.verify(secret(random()), Some("nonsense".into())).await.unwrap_err();
    assert_eq!(error.code(), "internal");
}

#[test]
fn an_easy_password_is_refused_with_the_field_and_the_reason() {
    let code = |text: &str| check(&secret(text), "Ada.Lovelace", "password1").unwrap_err();
    assert_eq!(code("seven77").code(), "password.too_short");
    assert_eq!(code("äöüäöüä").code(), "password.too_short");
    assert_eq!(code("1815121019521").code(), "password.numeric");
    assert_eq!(code("ADA.lovelace").code(), "password.like_username");
    assert_eq!(code(&"x".repeat(1_025)).code(), "password.too_long");
    let Error::Invalid(fields) = code("short") else { panic!("a 422 names its field") };
    assert_eq!(fields[0].field, "password1");
    check(&secret(random()), "ada", "password").unwrap();
}

#[test]
fn a_new_password_is_sent_once_or_twice_the_same() {
    let text = random();
    let one = || Some(secret(&*text));
    assert_eq!(chosen(one(), None, None).unwrap().1, "password");
    assert_eq!(chosen(None, one(), one()).unwrap().1, "password1");
    let code = |result: Result<(Secret, &str), Error>| result.unwrap_err().code();
    assert_eq!(code(chosen(None, one(), Some(secret(random())))), "password.mismatch");
    for missing in [chosen(None, None, None), chosen(None, one(), None), chosen(one(), one(), None)]
    {
        assert_eq!(code(missing), "password.missing");
    }
}

#[test]
fn a_password_is_printed_as_redacted() {
    let text = random();
    let shown = format!("{:?}", secret(&*text));
    assert_eq!(shown, "[redacted]");
}
