//! Subtrees as parameters of a statement.

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::{Postgres, query};

use super::convert::column;
use crate::index::convert::below;
use crate::index::{IndexError, Result};
use crate::model::volume::Extent;

/// A statement that begins with the table `scope (id)`: the directories of the subtrees in the
/// parameters $1 to $4. The statement's own parameters begin with $5.
macro_rules! with_scope {
    ($($rest:literal),+ $(,)?) => {
        concat!(
            "with scope (id) as materialized (
                select distinct d.id from directories d
                join unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[]) e (volume_id, path, low, high)
                  on d.volume_id = e.volume_id and (d.path = e.path or (d.path >= e.low and d.path < e.high)))",
            $($rest),+
        )
    };
}

pub(super) use with_scope;

const KNOWS: &str = with_scope!(" select exists (select 1 from scope)");

/// True if there is a directory in one of these subtrees.
pub(super) async fn knows(connection: &mut PgConnection, extents: &[Extent]) -> Result<bool> {
    let known = ScopeArrays::new(extents).query(KNOWS).fetch_one(connection).await;
    column(&known.map_err(IndexError::during("look for a directory"))?, 0)
}

/// Subtrees as four arrays of equal length.
#[derive(Debug, Default)]
pub(super) struct ScopeArrays {
    volumes: Vec<i64>,
    paths: Vec<Vec<u8>>,
    lows: Vec<Vec<u8>>,
    highs: Vec<Vec<u8>>,
}

impl ScopeArrays {
    pub(super) fn new(extents: &[Extent]) -> Self {
        let mut arrays = Self::default();
        for extent in extents {
            let (low, high) = below(&extent.path);
            arrays.volumes.push(extent.volume.0);
            arrays.paths.push(extent.path.as_bytes().to_vec());
            arrays.lows.push(low);
            arrays.highs.push(high);
        }
        arrays
    }

    /// One directory without those below it.
    pub(super) fn only(directory: &Extent) -> Self {
        let path = directory.path.as_bytes().to_vec();
        let (lows, highs) = (vec![Vec::new()], vec![Vec::new()]);
        Self { volumes: vec![directory.volume.0], paths: vec![path], lows, highs }
    }

    /// A query whose text begins with `with_scope!`, its first four parameters bound. It is planned for its
    /// parameters, each time: one directory and a million are not read in the same way.
    pub(super) fn query<'q>(&'q self, text: &'static str) -> Query<'q, Postgres, PgArguments> {
        self.bind_to(query(text).persistent(false))
    }

    /// Binds the four arrays as the next parameters.
    pub(super) fn bind_to<'q>(
        &'q self,
        statement: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        statement.bind(&self.volumes).bind(&self.paths).bind(&self.lows).bind(&self.highs)
    }
}
