//! One sealed file: Apache Parquet, rows sorted by destination and source so that bounds of a row group
//! tell whether it can hold what is asked for. The schema is [`crate::columns`].

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::reader::ColumnReader;
use parquet::data_type::{
    AsBytes as _, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::statistics::Statistics;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, Type};
use weir_model::{ArchivedFlow, bits_of};

use crate::columns::{Bounds, Column, Columns, Values};

/// Rows of a row group: what is read, and kept in memory, at once.
pub const GROUP_ROWS: usize = 1 << 17;

/// The columns, in the order of [`Column`].
const SCHEMA: &str = "message flow {
    REQUIRED INT64 start (TIMESTAMP(MILLIS, true));
    REQUIRED INT64 end (TIMESTAMP(MILLIS, true));
    REQUIRED FIXED_LEN_BYTE_ARRAY(16) exporter;
    REQUIRED INT32 in_if (INTEGER(32, false));
    REQUIRED INT32 out_if (INTEGER(32, false));
    REQUIRED FIXED_LEN_BYTE_ARRAY(16) src;
    REQUIRED FIXED_LEN_BYTE_ARRAY(16) dst;
    REQUIRED INT32 src_port (INTEGER(16, false));
    REQUIRED INT32 dst_port (INTEGER(16, false));
    REQUIRED INT32 protocol (INTEGER(8, false));
    REQUIRED INT32 tcp_flags (INTEGER(8, false));
    REQUIRED INT32 forwarding (INTEGER(8, false));
    REQUIRED INT64 octets;
    REQUIRED INT64 packets;
    REQUIRED INT32 sampling (INTEGER(32, false));
    REQUIRED INT32 thinned (INTEGER(32, false));
}";

fn other(error: ParquetError) -> io::Error {
    // What the disk said is inside: callers look for a full one.
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(inner) => io::Error::other(inner),
        },
        error => io::Error::other(error),
    }
}

fn schema() -> io::Result<Arc<Type>> {
    parse_message_type(SCHEMA).map(Arc::new).map_err(other)
}

fn properties() -> io::Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).map_err(other)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_created_by(concat!("weir-flows ", env!("CARGO_PKG_VERSION")).to_owned());
    for times in ["start", "end"] {
        // Every value is another: a dictionary would only be built to be given up.
        let path = ColumnPath::from(times);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}

/// Sorts records and writes them to a new file, which is on the disk when this returns.
///
/// # Errors
/// What the disk says; the file is then of no use.
pub fn write(path: &Path, flows: &mut [ArchivedFlow]) -> io::Result<()> {
    flows.sort_unstable_by_key(|flow| {
        let ports = (flow.protocol, flow.src_port, flow.dst_port);
        (bits_of(flow.dst), bits_of(flow.src), ports, flow.end)
    });
    let file = File::create(path)?;
    let mut writer = SerializedFileWriter::new(file.try_clone()?, schema()?, properties()?.into())
        .map_err(other)?;
    for rows in flows.chunks(GROUP_ROWS) {
        write_group(&mut writer, rows).map_err(other)?;
    }
    writer.close().map_err(other)?;
    file.sync_all()
}

fn write_group(
    writer: &mut SerializedFileWriter<File>,
    rows: &[ArchivedFlow],
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    for column in Column::ALL {
        let Some(mut out) = group.next_column()? else { break };
        let values = rows.iter().map(|flow| column.of(flow));
        if column.is_address() {
            let values: Vec<FixedLenByteArray> =
                values.map(|bits| bits.to_be_bytes().to_vec().into()).collect();
            out.typed::<FixedLenByteArrayType>().write_batch(&values, None, None)?;
        } else if is_long(column) {
            let values: Vec<i64> = values.map(|v| i64::try_from(v).unwrap_or(i64::MAX)).collect();
            out.typed::<Int64Type>().write_batch(&values, None, None)?;
        } else {
            let word = |v| u32::try_from(v).unwrap_or(u32::MAX).cast_signed();
            let values: Vec<i32> = values.map(word).collect();
            out.typed::<Int32Type>().write_batch(&values, None, None)?;
        }
        out.close()?;
    }
    group.close()?;
    Ok(())
}

const fn is_long(column: Column) -> bool {
    matches!(column, Column::Start | Column::End | Column::Octets | Column::Packets)
}

/// An open file.
pub struct Reader(SerializedFileReader<File>);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    /// Opens a file and reads where everything is.
    ///
    /// # Errors
    /// When it cannot be read, or is not of this schema.
    pub fn open(path: &Path) -> io::Result<Self> {
        let reader = SerializedFileReader::new(File::open(path)?).map_err(other)?;
        let found = reader.metadata().file_metadata().schema_descr().num_columns();
        if found != Column::COUNT {
            return Err(io::Error::other(format!("{}: {found} columns", path.display())));
        }
        Ok(Self(reader))
    }

    /// Row groups.
    pub fn groups(&self) -> usize {
        self.0.num_row_groups()
    }

    /// Rows of a group.
    pub fn rows(&self, group: usize) -> usize {
        usize::try_from(self.0.metadata().row_group(group).num_rows()).unwrap_or(0)
    }

    /// Least and largest values in a group.
    pub fn bounds(&self, group: usize) -> Bounds {
        let group = self.0.metadata().row_group(group);
        Column::ALL.map(|column| bounds_of(group.column(column as usize).statistics()?))
    }

    /// Reads columns of a group that are not in `columns` yet.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, group: usize, wanted: &[Column], columns: &mut Columns) -> io::Result<()> {
        columns.rows = self.rows(group);
        let from = self.0.get_row_group(group).map_err(other)?;
        for column in wanted {
            let slot = &mut columns.values[*column as usize];
            if slot.is_none() {
                let reader = from.get_column_reader(*column as usize).map_err(other)?;
                *slot = Some(values(reader, columns.rows).map_err(other)?);
            }
        }
        Ok(())
    }
}

fn bounds_of(statistics: &Statistics) -> Option<(u128, u128)> {
    match statistics {
        Statistics::Int32(s) => {
            let number = |v: Option<&i32>| v.map(|v| u128::from(v.cast_unsigned()));
            Some((number(s.min_opt())?, number(s.max_opt())?))
        }
        Statistics::Int64(s) => {
            let number = |v: Option<&i64>| v.and_then(|v| u128::try_from(*v).ok());
            Some((number(s.min_opt())?, number(s.max_opt())?))
        }
        Statistics::FixedLenByteArray(s) => {
            let bits = |v: Option<&FixedLenByteArray>| {
                v.and_then(|v| v.as_bytes().try_into().ok()).map(u128::from_be_bytes)
            };
            Some((bits(s.min_opt())?, bits(s.max_opt())?))
        }
        _ => None,
    }
}

fn values(reader: ColumnReader, rows: usize) -> Result<Values, ParquetError> {
    match reader {
        ColumnReader::Int32ColumnReader(mut reader) => {
            let mut out = Vec::with_capacity(rows);
            reader.read_records(rows, None, None, &mut out)?;
            Ok(Values::Numbers(out.into_iter().map(|v| v.cast_unsigned().into()).collect()))
        }
        ColumnReader::Int64ColumnReader(mut reader) => {
            let mut out = Vec::with_capacity(rows);
            reader.read_records(rows, None, None, &mut out)?;
            Ok(Values::Numbers(out.into_iter().map(i64::cast_unsigned).collect()))
        }
        ColumnReader::FixedLenByteArrayColumnReader(mut reader) => {
            let mut out = Vec::with_capacity(rows);
            reader.read_records(rows, None, None, &mut out)?;
            let bits =
                |v: &FixedLenByteArray| v.as_bytes().try_into().map_or(0, u128::from_be_bytes);
            Ok(Values::Addresses(out.iter().map(bits).collect()))
        }
        _ => Err(ParquetError::General("a column of another type".to_owned())),
    }
}
