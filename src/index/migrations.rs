//! The versions of the schema, of both dialects, as part of the program.
//!
//! sqlx has a macro for this. It comes with all of sqlx compiled a second time, for the compiler itself.

use std::borrow::Cow;
use std::sync::LazyLock;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Each file of a directory, in their order: its number, its name, what it says.
macro_rules! files {
    ($directory:literal: $($number:literal $name:literal),+ $(,)?) => {
        [$((
            $number,
            $name,
            include_str!(concat!("../../migrations/", $directory, "/", $number, "_", $name, ".sql")),
        )),+]
    };
}

type Files = [(&'static str, &'static str, &'static str); 5];

const SQLITE_FILES: Files =
    files!("sqlite": "0001" "index", "0002" "workers", "0003" "leases", "0004" "contents", "0005" "upkeep");

const POSTGRES_FILES: Files =
    files!("postgres": "0001" "index", "0002" "workers", "0003" "leases", "0004" "contents", "0005" "upkeep");

pub(super) static SQLITE: LazyLock<Migrator> = LazyLock::new(|| migrator(SQLITE_FILES));

pub(super) static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| migrator(POSTGRES_FILES));

/// Versions are counted from 1.
fn migrator(files: Files) -> Migrator {
    let migrations = (1..).zip(files).map(|(version, (_, name, text))| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, text.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn no_file_is_forgotten_and_each_has_its_number() {
        for (directory, files) in [("sqlite", SQLITE_FILES), ("postgres", POSTGRES_FILES)] {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(directory);
            let name =
                |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
            let mut found: Vec<_> = std::fs::read_dir(directory).unwrap().map(name).collect();
            found.sort();
            let known: Vec<_> =
                files.iter().map(|(number, name, _)| format!("{number}_{name}.sql")).collect();
            assert_eq!(found, known);
            for (version, (number, ..)) in (1..).zip(files) {
                assert_eq!(number.parse(), Ok(version));
            }
        }
    }
}
