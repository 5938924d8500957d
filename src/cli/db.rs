//! `dupfind db`

use std::io::{self, Write as _};

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::Context;
use super::exit::{Exit, Failure};
use crate::config::Flags;

/// Look at the database that holds the index
#[derive(Debug, Args)]
pub(super) struct DbArgs {
    #[command(subcommand)]
    command: DbCommand,
}

#[derive(Debug, Subcommand)]
enum DbCommand {
    /// Connect, make the index if there is none, and show what answers: version, schema, how fast
    Check {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(args: DbArgs, context: &Context) -> Result<Exit, Failure> {
    let DbCommand::Check { json } = args.command;
    let settings = context.settings(&Flags::default())?;
    let index = context.create_index(&settings).await?;
    let check = index.check().await?;
    let milliseconds = check.round_trip.as_secs_f64() * 1000.0;
    let mut output = io::stdout().lock();
    if json {
        let value = json!({
            "version": 1,
            "location": index.location(),
            "server": check.server,
            "schema_version": check.schema_version,
            "round_trip_ms": milliseconds,
        });
        writeln!(output, "{value}")?;
    } else {
        let bold = |text: &str| context.style.bold(text);
        writeln!(output, "{}       {}", bold("index"), index.location())?;
        writeln!(output, "{}      {}", bold("server"), check.server)?;
        writeln!(output, "{}      version {}", bold("schema"), check.schema_version)?;
        writeln!(output, "{}  {milliseconds:.2} ms", bold("round trip"))?;
    }
    Ok(Exit::Done)
}
