//! Puts the built dashboard (`ui/dist`, checked in) into the binary. Never runs npm.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use zopfli::{Format, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("ui/dist");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut files = Vec::new();
    collect(&folder, &mut files)?;
    files.sort();
    let mut table =
        format!("/// Every file, by name.\nstatic FILES: [File; {}] = [\n", files.len());
    for (number, path) in files.iter().enumerate() {
        println!("cargo:rerun-if-changed={}", path.display());
        let name = path.strip_prefix(&folder)?.to_string_lossy().replace('\\', "/");
        let packed = out.join(format!("{number}.gz"));
        let content = fs::read(path)?;
        zopfli::compress(Options::default(), Format::Gzip, &*content, fs::File::create(&packed)?)?;
        writeln!(
            table,
            "    File {{ name: {name:?}, content: include_bytes!({path:?}), gzip: include_bytes!({packed:?}) }},"
        )?;
    }
    table.push_str("];\n");
    fs::write(out.join("dashboard.rs"), table)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
