//! A software TPM beside a machine: `swtpm`, in a sandbox like the machine's own, reached by a socket in the machine's scratch
//! directory. It ends with the machine, and nothing of its command line comes from a driver.

use crate::boot;
use crate::qemu::find_program;
use kspan_kernel::{Error, Result};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = "swtpm";
/// Its socket and its state, in the scratch directory.
const SOCKET: &str = "tpm";
const STATE: &str = "tpm-state";
/// It listens within this, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there can be none here.
pub fn lacking() -> Option<String> {
    let advice =
        "this machine has no swtpm: `apt-get install swtpm`, or run scripts/setup.sh".to_owned();
    find_program(PROGRAM).is_none().then_some(advice)
}

/// QEMU's arguments that lead to it; `{id}tpm` is what a device names.
pub fn arguments() -> [&'static str; 4] {
    [
        "-chardev",
        "socket,id={id}tpmc,path=tpm",
        "-tpmdev",
        "emulator,id={id}tpm,chardev={id}tpmc",
    ]
}

/// A running one.
pub struct Tpm(Child);

impl Tpm {
    /// Starts one for a machine and waits until it listens.
    ///
    /// # Errors
    /// When it is missing or does not come up.
    pub fn start(scratch: &Path) -> Result<Self> {
        let program = find_program(PROGRAM)
            .ok_or_else(|| Error::Environment(lacking().unwrap_or_default()))?;
        let state = scratch.join(STATE);
        std::fs::create_dir_all(&state).map_err(Error::io(&state))?;
        let mut command = boot::sandbox(scratch)?;
        command
            .arg(&program)
            .args(["socket", "--tpm2", "--terminate"])
            .args(["--tpmstate", &format!("dir={STATE}")])
            .args(["--ctrl", &format!("type=unixio,path={SOCKET}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut tpm = Self(command.spawn().map_err(Error::io(&program))?);
        let until = Instant::now() + PATIENCE;
        while !scratch.join(SOCKET).exists() {
            let ended = matches!(tpm.0.try_wait(), Ok(Some(_)) | Err(_));
            if ended || Instant::now() >= until {
                return Err(Error::Environment(format!(
                    "{} does not listen; try `swtpm socket --tpm2 --tpmstate dir=DIR --ctrl type=unixio,path=SOCKET` by hand",
                    program.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(tpm)
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        // The sandbox's first process takes swtpm along.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
