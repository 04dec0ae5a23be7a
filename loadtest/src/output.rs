//! Files that the user named for results and reports; `-` is standard output.

use std::error::Error;
use std::fs::File;

/// Creates the file, so that a name that can't be written is refused before a run that takes hours.
pub(crate) fn check(file: &str) -> Result<(), Box<dyn Error>> {
    if file != "-" {
        File::options()
            .append(true)
            .create(true)
            .open(file)
            .map_err(|error| format!("cannot write {file}: {error}"))?;
    }
    Ok(())
}

/// Writes the file.
pub(crate) fn write(file: &str, text: &str) -> Result<(), Box<dyn Error>> {
    if file == "-" {
        println!("{text}");
        return Ok(());
    }
    std::fs::write(file, text).map_err(|error| format!("cannot write {file}: {error}").into())
}
