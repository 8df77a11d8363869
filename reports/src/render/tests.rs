//! Laws that hold for every format, on rich, broken and hostile records.

use super::*;
use crate::sample;

/// Writes every sample in every format below `SQUALL_SAMPLE_DIR`, for a person to look at.
#[test]
fn write_sample() {
    for (name, record) in sample::all() {
        for format in Format::ALL {
            let bytes = render(&record, format, true).unwrap();
            assert!(!bytes.is_empty());
            if let Some(dir) = std::env::var_os("SQUALL_SAMPLE_DIR") {
                let path = std::path::Path::new(&dir).join(format!("{name}.{}", format.name()));
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}
