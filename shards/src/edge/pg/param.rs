//! Columns and scalars in PostgreSQL's binary format. Source: PostgreSQL, `array_recv`, `jsonb_recv`,
//! `date_recv` and `timestamptz_recv`.

use crate::columns::{Call, Column, ColumnType, Texts};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

type Error = Box<dyn std::error::Error + Sync + Send>;

/// 2000-01-01, where PostgreSQL begins to count, in days and microseconds from 1970-01-01.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_US: i64 = 10_957 * 86_400 * 1_000_000;
/// Version of the binary form of jsonb.
const JSONB_VERSION: u8 = 1;

/// One parameter of a call.
#[derive(Debug)]
pub enum Param<'a> {
    /// A scalar.
    Text(&'a str),
    /// Unix ns.
    Time(u64),
    /// An array of a value a row.
    Column(&'a Column),
}

/// The parameters of a call, in order.
#[must_use]
pub fn params<'a>(call: &Call<'a>) -> Vec<Param<'a>> {
    let mut params = Vec::with_capacity(3 + call.picks.len());
    params.push(Param::Text(call.scalars.company));
    params.push(Param::Time(call.scalars.now_ns));
    params.push(Param::Text(call.scalars.horizon));
    params.extend(call.picks.iter().map(|pick| Param::Column(&call.columns[*pick])));
    params
}

/// Their types.
pub(super) fn types(columns: &[ColumnType]) -> Vec<Type> {
    let mut types = vec![Type::TEXT, Type::TIMESTAMPTZ, Type::TEXT];
    types.extend(columns.iter().map(|of| match of {
        ColumnType::Text => Type::TEXT_ARRAY,
        ColumnType::Json => Type::JSONB_ARRAY,
        ColumnType::Int8 => Type::INT8_ARRAY,
        ColumnType::Int4 => Type::INT4_ARRAY,
        ColumnType::Bool => Type::BOOL_ARRAY,
        ColumnType::Date => Type::DATE_ARRAY,
    }));
    types
}

impl ToSql for Param<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Error> {
        match self {
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Time(ns) => {
                let us = i64::try_from(ns / 1000)? - EPOCH_US;
                out.extend_from_slice(&us.to_be_bytes());
            }
            Self::Column(column) => write_column(column, out)?,
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true // Statements are prepared with the types of their columns.
    }

    to_sql_checked!();
}

fn write_column(column: &Column, out: &mut BytesMut) -> Result<(), Error> {
    match column {
        Column::Text(texts) => write_texts(texts, &Type::TEXT, &[], out),
        Column::Json(texts) => write_texts(texts, &Type::JSONB, &[JSONB_VERSION], out),
        Column::Int8(values) => write_values(values, &Type::INT8, |v| v.to_be_bytes(), out),
        Column::Int4(values) => write_values(values, &Type::INT4, |v| v.to_be_bytes(), out),
        Column::Bool(values) => write_values(values, &Type::BOOL, |v| [u8::from(v)], out),
        Column::Date(values) => {
            write_values(values, &Type::DATE, |v| v.wrapping_sub(EPOCH_DAYS).to_be_bytes(), out)
        }
    }
}

fn write_texts(texts: &Texts, of: &Type, head: &[u8], out: &mut BytesMut) -> Result<(), Error> {
    let has_null = (0..texts.len()).any(|row| texts.get(row).is_none());
    write_header(texts.len(), has_null, of, out)?;
    for row in 0..texts.len() {
        match texts.get(row) {
            Some(text) => {
                let length = i32::try_from(head.len() + text.len())?;
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(head);
                out.extend_from_slice(text);
            }
            None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
    Ok(())
}

fn write_values<T: Copy, const N: usize>(
    values: &[Option<T>],
    of: &Type,
    bytes: impl Fn(T) -> [u8; N],
    out: &mut BytesMut,
) -> Result<(), Error> {
    write_header(values.len(), values.iter().any(Option::is_none), of, out)?;
    for value in values {
        match value {
            Some(value) => {
                out.extend_from_slice(&i32::try_from(N)?.to_be_bytes());
                out.extend_from_slice(&bytes(*value));
            }
            None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
    Ok(())
}

/// One dimension, counted from 1.
fn write_header(rows: usize, has_null: bool, of: &Type, out: &mut BytesMut) -> Result<(), Error> {
    for number in [1, i32::from(has_null), of.oid().cast_signed(), i32::try_from(rows)?, 1] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    Ok(())
}
