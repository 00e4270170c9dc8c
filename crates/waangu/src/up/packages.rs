//! The programs of a platform's modules, which stand beside this one.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use waangu_kernel::ModuleId;

use super::state::State;
use crate::failure::{Failure, Of as _};

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Programs {
    modules: Vec<(ModuleId, PathBuf)>,
}

impl Programs {
    /// Finds `waangu-<module>` programs in this program's own folder.
    pub(crate) fn find() -> Result<Self, Failure> {
        let waangu = std::env::current_exe().of("this program")?;
        let folder = waangu.parent().map(Path::to_owned).unwrap_or_default();
        let mut modules = Vec::new();
        for entry in std::fs::read_dir(&folder).of(folder.display())? {
            let path = entry.of(folder.display())?.path();
            if let Some(module) = module_of(&path) {
                modules.push((module, path));
            }
        }
        modules.sort();
        if modules.is_empty() {
            return Err(Failure::failed(format!(
                "no module programs (waangu-<module>) in {}; build them with `cargo xtask up`",
                folder.display()
            )));
        }
        Ok(Self { modules })
    }

    /// A module's program.
    pub(crate) fn module(&self, module: &ModuleId) -> Result<&Path, Failure> {
        let found = self.modules.iter().find(|(id, _)| id == module);
        found
            .map(|(_, path)| path.as_path())
            .ok_or_else(|| Failure::failed(format!("module {module} has no program")))
    }

    /// Writes each module's package (manifest and migrations) for the control plane.
    pub(crate) async fn export(&self, state: &State) -> Result<Vec<ModuleId>, Failure> {
        let mut ids = Vec::new();
        for (module, path) in &self.modules {
            let output = Command::new(path)
                .arg("package")
                .stdin(Stdio::null())
                .output()
                .await
                .of(path.display())?;
            if !output.status.success() {
                let why = String::from_utf8_lossy(&output.stderr);
                return Err(Failure::failed(format!(
                    "{} package: {}",
                    path.display(),
                    why.trim()
                )));
            }
            state.write(&format!("packages/{module}.json"), &output.stdout)?;
            ids.push(module.clone());
        }
        Ok(ids)
    }
}

/// The module that a file name stands for.
fn module_of(path: &Path) -> Option<ModuleId> {
    if path.extension().is_some() || !path.is_file() {
        return None;
    }
    path.file_name()?
        .to_str()?
        .strip_prefix("waangu-")?
        .parse()
        .ok()
}
