//! New rows into PostgreSQL through `COPY` in its binary form, which costs it less than an `insert`.

use sqlx::postgres::PgConnection;

use super::Rows;
use crate::cell::{Cell, Table};
use crate::error::Error;

/// The signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In place of a row's number of fields.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
/// What is sent at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// Writes rows of keys that the table does not have.
pub(super) async fn copy(
    connection: &mut PgConnection,
    table: &Table,
    physical: &str,
    rows: &Rows,
) -> Result<(), Error> {
    let sql = format!("copy {physical} ({}) from stdin with (format binary)", table.column_list());
    let mut sink = connection.copy_in_raw(&sql).await?;
    let mut buffer = Vec::with_capacity(CHUNK + CHUNK / 4);
    buffer.extend_from_slice(HEADER);
    for row in rows {
        encode(row, &mut buffer)?;
        if buffer.len() >= CHUNK {
            sink.send(buffer.as_slice()).await?;
            buffer.clear();
        }
    }
    buffer.extend_from_slice(&TRAILER);
    sink.send(buffer.as_slice()).await?;
    sink.finish().await?;
    Ok(())
}

/// The number of fields; for each its length, -1 for null, and its bytes.
fn encode(row: &[Cell], buffer: &mut Vec<u8>) -> Result<(), Error> {
    buffer.extend_from_slice(&number(row.len(), i16::to_be_bytes)?);
    for cell in row {
        match cell {
            Cell::Null => buffer.extend_from_slice(&(-1_i32).to_be_bytes()),
            Cell::Text(text) => {
                buffer.extend_from_slice(&number(text.len(), i32::to_be_bytes)?);
                buffer.extend_from_slice(text.as_bytes());
            }
            Cell::Integer(value) => {
                buffer.extend_from_slice(&number(size_of::<i64>(), i32::to_be_bytes)?);
                buffer.extend_from_slice(&value.to_be_bytes());
            }
        }
    }
    Ok(())
}

fn number<N: TryFrom<usize>, const SIZE: usize>(
    length: usize,
    bytes: fn(N) -> [u8; SIZE],
) -> Result<[u8; SIZE], Error> {
    let too_long = |_| sqlx::Error::Protocol(format!("a value of {length} is too long to copy"));
    Ok(bytes(N::try_from(length).map_err(too_long)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_its_number_of_fields_and_each_field_with_its_length() {
        let row = [Cell::Text("é".to_owned()), Cell::Null, Cell::Integer(-2)];
        let mut buffer = Vec::new();
        encode(&row, &mut buffer).unwrap();
        let expected: [&[u8]; 6] = [
            &[0, 3],
            &[0, 0, 0, 2],
            "é".as_bytes(),
            &[0xff; 4],
            &[0, 0, 0, 8],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe],
        ];
        assert_eq!(buffer, expected.concat());
    }
}
