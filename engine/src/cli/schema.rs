//! `squall schema`.

use clap::{Args, ValueEnum};

use super::out::Out;
use crate::experiment::schema as language;
use crate::slo::exit;

/// Which schema.
#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// Of what
    #[arg(value_enum, default_value = "experiment")]
    of: Of,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Of {
    /// The experiment language, for editors
    Experiment,
    /// Run records
    Record,
}

pub(super) fn schema(args: &SchemaArgs, out: &mut Out) -> u8 {
    match args.of {
        Of::Experiment => out.document(&language::experiment()),
        Of::Record => out.result(reports::RECORD_SCHEMA.as_bytes()),
    }
    exit::HELD
}
