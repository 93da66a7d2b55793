//! The command lines of the two programs, apart from what the programs do, so that the manual and the
//! shells' completions are made from the same definitions.

pub mod dataplane;
pub mod dpctl;
