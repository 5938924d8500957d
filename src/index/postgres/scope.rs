//! Subtrees as parameters of a statement.

use std::borrow::Cow;

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, query};

use crate::index::convert::below;
use crate::index::rows::Columns as _;
use crate::index::{IndexError, Result};
use crate::model::rules::{HashRule, HashRules};
use crate::model::settings::HashPolicy;
use crate::model::volume::Extent;

/// A statement that begins with the table `scope (id)`: the directories of the subtrees in the
/// parameters $1 to $4, looked up in two ways, because no index serves both at once. The statement's own parameters begin with $5.
macro_rules! with_scope {
    ($($rest:expr),+ $(,)?) => {
        concat!(
            "with extent (volume_id, path, low, high) as materialized (
                select * from unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[])),
            scope (id) as materialized (
                select d.id from extent e join directories d on d.volume_id = e.volume_id and d.path = e.path
                union
                select d.id from extent e
                join directories d on d.volume_id = e.volume_id and d.path >= e.low and d.path < e.high)",
            $($rest),+
        )
    };
}

pub(super) use with_scope;

/// The table `governed (id, policy)`: the directories that some rule of [`RuleArrays`], in these five parameters, holds
/// for, each with that of the innermost.
macro_rules! governed {
    ($volumes:literal, $paths:literal, $lows:literal, $highs:literal, $policies:literal) => {
        concat!(
            "governed (id, policy) as materialized (
                select distinct on (d.id) d.id, e.policy from directories d
                join unnest($", $volumes, "::bigint[], $", $paths, "::bytea[], $", $lows, "::bytea[], $", $highs,
            "::bytea[], $", $policies, "::text[]) e (volume_id, path, low, high, policy)
                  on d.volume_id = e.volume_id and (d.path = e.path or (d.path >= e.low and d.path < e.high))
                order by d.id, length(e.path) desc)"
        )
    };
}

pub(super) use governed;

/// The files that are read, where some directories are never: what lies in them is no partner, either. To come after `governed!`.
macro_rules! read_files {
    () => {
        "(select * from files r
          where not exists (select 1 from governed g where g.id = r.directory_id and g.policy = 'none'))"
    };
}

pub(super) use read_files;

const KNOWS: &str = with_scope!(" select exists (select 1 from scope)");

/// True if there is a directory in one of these subtrees.
pub(super) async fn knows(connection: &mut PgConnection, extents: &[Extent]) -> Result<bool> {
    let known = ScopeArrays::new(extents).query(KNOWS).fetch_one(connection).await;
    known.map_err(IndexError::during("look for a directory"))?.value(0)
}

/// Rules about hashing as five arrays of equal length: all that it takes to know which directories go by one policy.
#[derive(Debug, Default)]
pub(super) struct RuleArrays {
    extents: ScopeArrays,
    policies: Vec<&'static str>,
}

impl RuleArrays {
    /// Those that concern these policies.
    pub(super) fn new(rules: &HashRules, policies: &[HashPolicy]) -> Self {
        let mut concerned: Vec<&HashRule> = Vec::new();
        for policy in policies {
            for rule in rules.of_policy(*policy) {
                if !concerned.contains(&rule) {
                    concerned.push(rule);
                }
            }
        }
        let extents: Vec<Extent> = concerned.iter().map(|rule| rule.extent.clone()).collect();
        let policies = concerned.iter().map(|rule| rule.policy.as_str()).collect();
        Self { extents: ScopeArrays::new(&extents), policies }
    }

    /// Binds the five arrays as the next parameters.
    pub(super) fn bind_to<'q>(
        &'q self,
        statement: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        self.extents.bind_to(statement).bind(&self.policies)
    }
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
            arrays.push(extent, low, high);
        }
        arrays
    }

    /// The same with directories, without what lies below them.
    pub(super) fn with_directories(extents: &[Extent], directories: &[Extent]) -> Self {
        let mut arrays = Self::new(extents);
        for directory in directories {
            arrays.push(directory, Vec::new(), Vec::new());
        }
        arrays
    }

    fn push(&mut self, extent: &Extent, low: Vec<u8>, high: Vec<u8>) {
        self.volumes.push(extent.volume.0);
        self.paths.push(extent.path.as_bytes().to_vec());
        self.lows.push(low);
        self.highs.push(high);
    }

    /// A query whose text begins with `with_scope!`, its first four parameters bound. It is planned for its
    /// parameters, each time: one directory and a million are not read in the same way.
    pub(super) fn query(&self, text: impl Into<Cow<'static, str>>) -> Query<'_, Postgres, PgArguments> {
        self.bind_to(query(AssertSqlSafe(text.into().into_owned())).persistent(false))
    }

    /// Binds the four arrays as the next parameters.
    pub(super) fn bind_to<'q>(
        &'q self,
        statement: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        statement.bind(&self.volumes).bind(&self.paths).bind(&self.lows).bind(&self.highs)
    }
}
