//! The standard output stream: what a command answers goes through here and nowhere else.

use std::io::{self, Write};

use super::Failure;

/// Prints it. What a reader misses who has seen enough, as `head` has, is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    write(text.as_bytes()).map(drop)
}

/// The same of what is shown once only, such as a password: nobody else has it.
pub fn print_once(text: &str) -> Result<(), Failure> {
    if write(text.as_bytes())? {
        return Ok(());
    }
    Err(Failure::Failed(anyhow::anyhow!("nobody read the output, and it is shown only once")))
}

/// Writes the next piece of a long answer; false when nobody reads on.
pub fn write(bytes: &[u8]) -> Result<bool, Failure> {
    write_to(&mut io::stdout().lock(), bytes)
}

fn write_to(out: &mut impl Write, bytes: &[u8]) -> Result<bool, Failure> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::output(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    /// Refuses every write for one reason.
    struct Refusing(io::ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_output_and_a_full_disk_is_a_failure() {
        let mut kept = Vec::new();
        assert!(write_to(&mut kept, b"all of it").unwrap());
        assert_eq!(kept, b"all of it");
        assert!(!write_to(&mut Refusing(io::ErrorKind::BrokenPipe), b"more").unwrap());
        let full = write_to(&mut Refusing(io::ErrorKind::StorageFull), b"more").unwrap_err();
        assert_eq!(full.code(), 1);
        assert!(full.to_string().starts_with("the output cannot be written: "), "{full}");
    }
}
