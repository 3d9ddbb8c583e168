//! Writes every input of the core to a file, one JSON object a line, so that a run can be repeated
//! byte for byte: `weir replay FILE.jsonl`.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tracing::error;
use weir_model::Millis;

use crate::core::Input;

/// One line of a recording.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    /// The core's time when it happened.
    pub(crate) at: Millis,
    /// What happened.
    pub(crate) input: Input,
}

/// An open recording.
#[derive(Debug)]
pub(crate) struct Recorder {
    out: Option<BufWriter<File>>,
}

impl Recorder {
    /// # Errors
    /// When the file cannot be created.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("recording {}", path.display()))?;
        Ok(Self { out: Some(BufWriter::with_capacity(1 << 20, file)) })
    }

    /// Adds an input. A full disk ends the recording, never weir.
    pub(crate) fn write(&mut self, at: Millis, input: Input) {
        let Some(out) = &mut self.out else { return };
        let written = serde_json::to_writer(&mut *out, &Line { at, input })
            .map_err(std::io::Error::from)
            .and_then(|()| out.write_all(b"\n"));
        if let Err(error) = written {
            error!(%error, "the recording ends here");
            self.out = None;
        }
    }
}
