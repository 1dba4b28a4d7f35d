//! What is promised about a key file that nobody here can write, since the system hands it over, say.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tests::sealed;
use super::*;
use crate::Actor;
use crate::error::chain;
use crate::keys::KeyFile;
use crate::testing::Site;

fn owner() -> SecretOwner {
    SecretOwner { table: "credential", record: "1".into(), column: "value".into() }
}

fn shell() -> Actor {
    Actor::system("test")
}

/// The program with this key file, which its owner may write or the system hands over.
async fn opened(site: &Site, file: KeyFile) -> Result<Secrets, Error> {
    let keys = file.open(true).unwrap();
    Secrets::new(site.store.clone(), Keyring::new(file, keys, true)).await
}

async fn with(site: &Site, file: KeyFile) -> Secrets {
    opened(site, file).await.unwrap()
}

/// An installation with one secret, whose first key is in `credential`, and a place for copies of that.
struct Room {
    site: Site,
    folder: tempfile::TempDir,
    secret: SecretId,
}

impl Room {
    async fn open() -> Self {
        let (site, folder) = (Site::open().await, tempfile::tempdir().unwrap());
        let path = folder.path().join("credential");
        KeyFile::Own(path.clone()).open(false).unwrap();
        let secrets = with(&site, KeyFile::Credential(path)).await;
        let (secret, write) = sealed(&secrets, &owner(), 1, &Secret::new("well".into()));
        site.write(vec![write]).await;
        Self { site, folder, secret }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn credential(&self) -> KeyFile {
        KeyFile::Credential(self.path("credential"))
    }

    /// A copy of the file that can be written.
    fn copy(&self) -> KeyFile {
        let path = self.path("copy");
        std::fs::copy(self.path("credential"), &path).unwrap();
        KeyFile::Own(path)
    }

    /// The same once it was made.
    fn copy_again(&self) -> KeyFile {
        KeyFile::Own(self.path("copy"))
    }

    /// A copy in a folder that cannot be written: nobody makes a file in /sys, not even root.
    fn fixed(&self) -> KeyFile {
        let path = self.path("fixed");
        std::fs::copy(self.path("credential"), &path).unwrap();
        std::os::unix::fs::symlink("/sys/kernel/none", path.with_extension("lock")).unwrap();
        KeyFile::Own(path)
    }

    /// What the operator hands over from now on.
    fn hand_over(&self, lines: &[String]) {
        std::fs::write(self.path("credential"), lines.join("\n")).unwrap();
    }

    async fn opens(&self, secrets: &Secrets) -> bool {
        secrets.unseal(self.secret, &owner()).await.unwrap().expose() == "well"
    }

    async fn history(&self) -> Vec<String> {
        self.site.history("keys", STREAM).await
    }
}

/// The lines of a key file that say something.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_key_that_the_system_hands_over_is_replaced_in_a_copy_and_nowhere_else() {
    let room = Room::open().await;
    let secrets = with(&room.site, room.credential()).await;
    let old = secrets.keys().current_id().to_owned();
    for _ in 0..2 {
        let refused = secrets.rotate(&shell(), Duration::ZERO).await.unwrap_err();
        let told = chain(&refused);
        assert!(told.contains(room.path("credential").to_str().unwrap()), "{told}");
        assert!(told.contains("PROXIMITY_MASTER_KEY_FILE"), "{told}");
        assert_eq!(secrets.keys().ids(), std::slice::from_ref(&old));
        assert_eq!(secrets.sentinel_ids().await.unwrap(), std::slice::from_ref(&old));
    }
    assert_eq!(room.history().await, Vec::<String>::new());
    assert!(room.opens(&secrets).await);
    // As the guide for operators has it: a copy, and that instead.
    let rotated = with(&room.site, room.copy()).await.rotate(&shell(), Duration::ZERO).await;
    let new = rotated.unwrap().generation;
    room.hand_over(&lines(&room.path("copy")));
    let secrets = with(&room.site, room.credential()).await;
    assert_eq!(secrets.keys().ids(), [new, old]);
    assert!(room.opens(&secrets).await);
}

#[tokio::test]
async fn a_rotation_that_was_begun_ends_where_the_key_is_in_the_file_that_is_handed_over() {
    let room = Room::open().await;
    let new = MasterKeys::generate().unwrap();
    let line = new.to_text().lines().last().unwrap().to_owned();
    room.hand_over(&[vec![line], lines(&room.path("credential"))].concat());
    let secrets = with(&room.site, room.credential()).await;
    let rotated = secrets.rotate(&shell(), Duration::ZERO).await.unwrap();
    assert!(rotated.resumed && rotated.generation == new.current_id() && rotated.resealed == 1);
    assert!(room.opens(&with(&room.site, room.credential()).await).await);
}

#[tokio::test]
async fn a_key_is_not_destroyed_while_the_file_that_is_handed_over_has_it() {
    let room = Room::open().await;
    let old = lines(&room.path("credential"))[0].split(' ').next().unwrap().to_owned();
    let copy = with(&room.site, room.copy()).await;
    copy.rotate(&shell(), Duration::ZERO).await.unwrap();
    room.hand_over(&lines(&room.path("copy")));
    let secrets = with(&room.site, room.credential()).await;
    let refused = async |secrets: &Secrets| {
        let told = chain(&secrets.destroy(&shell(), &old).await.unwrap_err());
        assert!(told.contains(room.path("credential").to_str().unwrap()), "{told}");
        assert!(told.contains(&format!("still has the line of key {old}")), "{told}");
    };
    refused(&secrets).await;
    refused(&secrets).await;
    assert!(!room.history().await.contains(&"keys.destroyed".to_owned()));
    // In the copy it goes; the file that was not replaced is told of for as long as it has the line.
    copy.destroy(&shell(), &old).await.unwrap();
    assert!(secrets.followed().await.unwrap().by_id(&old).is_none());
    refused(&secrets).await;
    let started = with(&room.site, room.credential()).await;
    assert!(started.keys().by_id(&old).is_none());
    refused(&started).await;
    let file = room.credential().read().unwrap();
    let left = Secrets::destroyed_of(&room.site.store, &file).await.unwrap();
    assert_eq!(left, std::slice::from_ref(&old));
    room.hand_over(&lines(&room.path("copy")));
    let started = with(&room.site, room.credential()).await;
    started.destroy(&shell(), &old).await.unwrap();
    assert_eq!(started.keys().retired_ids(), [old]);
}

#[tokio::test]
async fn the_lines_of_a_file_that_is_handed_over_may_have_any_order() {
    let room = Room::open().await;
    let copy = with(&room.site, room.copy()).await;
    copy.rotate(&shell(), Duration::ZERO).await.unwrap();
    let [new, old] = <[String; 2]>::try_from(lines(&room.path("copy"))).unwrap();
    let id = |line: &str| line.split(' ').next().unwrap().to_owned();
    room.hand_over(&[old.clone(), new.clone()]);
    let secrets = with(&room.site, room.credential()).await;
    assert_eq!(secrets.keys().ids(), [id(&new), id(&old)]);
    assert!(room.opens(&secrets).await);
    // Whoever signs beside a server signs with the key that seals; one that the log does not know yet may lead.
    let ahead = MasterKeys::generate().unwrap();
    let ahead = ahead.to_text().lines().last().unwrap().to_owned();
    for (handed, signs) in
        [([&old, &new, &ahead], &new), ([&old, &ahead, &new], &new), ([&ahead, &old, &new], &ahead)]
    {
        room.hand_over(&handed.map(String::clone));
        let file = room.credential().read().unwrap();
        let file = Secrets::as_logged(&room.site.store, file).await.unwrap();
        assert_eq!(file.current_id(), id(signs));
    }
    copy.destroy(&shell(), &id(&old)).await.unwrap();
    for handed in [[&old, &new], [&new, &old]] {
        room.hand_over(&handed.map(String::clone));
        let secrets = with(&room.site, room.credential()).await;
        assert_eq!(secrets.followed().await.unwrap().ids(), [id(&new)]);
        assert_eq!(secrets.keys().retired_ids(), [id(&old)]);
        assert!(room.opens(&secrets).await);
        let file = room.credential().read().unwrap();
        let file = Secrets::as_logged(&room.site.store, file).await.unwrap();
        assert_eq!((file.ids(), file.retired_ids()), (vec![id(&new)], vec![id(&old)]));
    }
}

#[tokio::test]
async fn a_log_from_before_any_rotation_is_told_by_its_sentinel() {
    let (room, older) = (Room::open().await, Site::open().await);
    let secrets = with(&room.site, room.copy()).await;
    with(&older, room.copy_again()).await;
    let old = secrets.keys().current_id().to_owned();
    secrets.rotate(&shell(), Duration::ZERO).await.unwrap();
    secrets.destroy(&shell(), &old).await.unwrap();
    // What was destroyed since is retired in the newest file, which is that of the older log, too.
    let file = room.copy_again().read().unwrap();
    assert_eq!(file.retired_ids(), [old]);
    let is_missing = |refused: Result<MasterKeys, Error>| {
        assert!(
            matches!(refused, Err(Error::Unavailable { code: "keys.missing", .. })),
            "{refused:?}"
        );
    };
    // It verifies that, and signs nothing there: what seals in it is not held any more.
    Secrets::as_logged_to_verify(&older.store, file.clone()).await.unwrap();
    is_missing(Secrets::as_logged(&older.store, file).await);
    let stranger = KeyFile::Own(room.path("stranger")).open(false).unwrap();
    is_missing(Secrets::as_logged_to_verify(&older.store, stranger.clone()).await);
    is_missing(Secrets::as_logged(&older.store, stranger).await);
}

#[tokio::test]
async fn a_key_that_another_server_hands_over_is_used_and_never_the_end_of_a_rotation() {
    let room = Room::open().await;
    let (ours, theirs) =
        (with(&room.site, room.copy()).await, with(&room.site, room.credential()).await);
    let rotating = {
        let ours = ours.clone();
        tokio::spawn(async move { ours.rotate(&shell(), Duration::from_secs(2)).await })
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while room.history().await.is_empty() {
        assert!(std::time::Instant::now() < deadline, "no rotation was begun");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let taken = theirs.followed().await.unwrap();
    // It was in the other one's file before it came into the database.
    assert_eq!(taken.current_id(), room.copy_again().read().unwrap().current_id());
    assert_eq!(lines(&room.path("credential")).len(), 1);
    let refused = theirs.rotate(&shell(), Duration::ZERO).await.unwrap_err();
    let told = chain(&refused);
    assert!(told.contains(taken.current_id()) && told.contains("does not hold"), "{told}");
    rotating.await.unwrap().unwrap();
    assert!(room.opens(&theirs).await);
    // The next start is refused until the file has the line, and loses nothing then.
    let told = chain(&opened(&room.site, room.credential()).await.err().unwrap());
    assert!(told.contains(taken.current_id()), "{told}");
    room.hand_over(&lines(&room.path("copy")));
    assert!(room.opens(&with(&room.site, room.credential()).await).await);
}

#[tokio::test]
async fn a_destroyed_key_that_comes_back_with_an_old_file_is_taken_out_again() {
    let room = Room::open().await;
    let before = lines(&room.path("credential"))[0].clone();
    let old = before.split(' ').next().unwrap().to_owned();
    let secrets = with(&room.site, room.copy()).await;
    secrets.rotate(&shell(), Duration::ZERO).await.unwrap();
    secrets.destroy(&shell(), &old).await.unwrap();
    let back = || {
        let text = std::fs::read_to_string(room.path("copy")).unwrap();
        std::fs::write(room.path("copy"), format!("{text}{before}\n")).unwrap();
    };
    let has = || lines(&room.path("copy")).contains(&before);
    back();
    secrets.destroy(&shell(), &old).await.unwrap();
    assert!(!has(), "by another destruction");
    back();
    secrets.followed().await.unwrap();
    assert!(!has(), "by a server that runs");
    back();
    let started = with(&room.site, room.copy_again()).await;
    assert!(!has(), "by a start");
    assert_eq!(started.keys().retired_ids(), [old]);
}

#[tokio::test]
async fn a_key_file_that_cannot_be_written_is_read_and_its_server_goes_on() {
    let room = Room::open().await;
    let (theirs, ours) =
        (with(&room.site, room.fixed()).await, with(&room.site, room.copy()).await);
    let old = ours.keys().current_id().to_owned();
    let new = ours.rotate(&shell(), Duration::ZERO).await.unwrap().generation;
    let told = chain(&theirs.followed().await.unwrap_err());
    assert!(told.contains(&new) && told.contains("does not hold"), "{told}");
    // As the guide for operators has it: the new key's line, in whatever place.
    let mut both = lines(&room.path("copy"));
    both.reverse();
    std::fs::write(room.path("fixed"), both.join("\n")).unwrap();
    assert_eq!(theirs.followed().await.unwrap().ids(), [new.clone(), old.clone()]);
    assert!(room.opens(&theirs).await);
    // What was done to the keys elsewhere is followed in memory.
    let rotating = {
        let ours = ours.clone();
        tokio::spawn(async move { ours.rotate(&shell(), Duration::from_secs(2)).await })
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    // One that looks while the rotation begins may have read only the half of it.
    while !theirs.followed().await.is_ok_and(|keys| keys.ids().len() == 3) {
        assert!(std::time::Instant::now() < deadline, "the new key was not taken up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let newest = rotating.await.unwrap().unwrap().generation;
    assert_eq!(theirs.followed().await.unwrap().current_id(), newest);
    assert!(room.opens(&theirs).await);
    assert_eq!(lines(&room.path("fixed")), both);
    // Nothing is destroyed whose line would stay.
    theirs.destroy(&shell(), &old).await.unwrap_err();
    assert!(!room.history().await.contains(&"keys.destroyed".to_owned()));
    ours.destroy(&shell(), &old).await.unwrap();
    assert!(theirs.followed().await.unwrap().by_id(&old).is_none());
    assert_eq!(lines(&room.path("fixed")), both);
}
