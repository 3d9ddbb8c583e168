//! Manual pages and shell completions, written from the commands themselves so that they cannot differ.
//!
//! The packages are made with `weir manual DIR`; nobody needs it on a machine that runs weir.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

/// Where each shell looks for completions, below `/usr/share`.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions"),
    (Shell::Zsh, "zsh/vendor-completions"),
    (Shell::Fish, "fish/vendor_completions.d"),
];

/// Writes the pages and completions of `weir`, `weir-agent` and `weir-mirror`, each below a directory with the program's
/// name that is laid out like `/usr/share`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(weir: &Command, dir: &Path) -> anyhow::Result<()> {
    let others = [weir_agent::cli::Cli::command(), weir_agent::mirror::Cli::command()];
    for command in [weir.clone().name("weir")].into_iter().chain(others) {
        let name = command.get_name().to_owned();
        let share = dir.join(&name);
        let pages = share.join("man/man1");
        fs::create_dir_all(&pages)?;
        clap_mangen::generate_to(command.clone(), &pages)?;
        for (shell, place) in SHELLS {
            let folder = share.join(place);
            fs::create_dir_all(&folder)?;
            let made = clap_complete::generate_to(shell, &mut command.clone(), &name, &folder)?;
            if shell == Shell::Bash {
                // bash-completion loads a file of the command's own name.
                fs::rename(made, folder.join(&name))?;
            }
        }
    }
    Ok(())
}
