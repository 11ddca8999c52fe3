//! Machines without a disk that boot over the host's network, and what they say on their serial line. How one is started is
//! told by the script `machine` alone; here it is only called.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::host::Host;

/// Seconds that a machine may take for anything: an emulated processor on a busy host is slow, and gets there.
const LIMIT: u64 = 600;

/// What starts it.
#[derive(Clone, Copy)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF with a network card whose ROM is iPXE.
    Uefi,
    /// OVMF with its own network boot.
    UefiPxe,
    /// The same by HTTP.
    UefiHttp,
}

/// Makes the small golden image `id` in the host's folder. `mode`: `once` writes and powers off, `loop` writes until `stop` is
/// typed (see the script `golden`).
pub fn golden(host: &Host, id: &str, mode: &str) -> PathBuf {
    let image = host.path(&format!("{id}.raw"));
    let mut command = Command::new(super::script("golden"));
    super::run(command.arg(&image).args(["--mode", mode, "--id", id]));
    image
}

/// A file of the root on a disk that such an image was cloned to, read while no machine has it.
pub fn file_on(disk: &Path, file: &str) -> String {
    super::run(
        Command::new("debugfs").args(["-R", &format!("cat {file}")]).arg(format!("{}?offset=1048576", disk.display())),
    )
}

/// A machine, powered on.
pub struct Machine<'a> {
    host: &'a Host,
    process: Child,
    serial: PathBuf,
    input: PathBuf,
}

impl<'a> Machine<'a> {
    /// Powers a machine on at the host's `tap`; `disk` is what it boots when the network sends it on.
    pub fn boot(host: &'a Host, tap: &str, mac: &str, firmware: Firmware, disk: Option<&Path>) -> Machine<'a> {
        let serial = tempfile::Builder::new().prefix("serial.").tempfile_in(host.folder()).unwrap();
        let serial = serial.into_temp_path().keep().unwrap();
        let input = PathBuf::from(format!("{}.input", serial.display()));
        super::run(Command::new("mkfifo").arg(&input));
        let mut command = host.command(super::script("machine"));
        let firmware = match firmware {
            Firmware::Bios => "bios",
            Firmware::Uefi => "uefi",
            Firmware::UefiPxe => "uefi-pxe",
            Firmware::UefiHttp => "uefi-http",
        };
        command.args(["boot", "--tap", tap, "--mac", mac, "--firmware", firmware, "--limit", &LIMIT.to_string()]);
        command.arg("--serial").arg(&serial).arg("--input").arg(&input);
        if let Some(disk) = disk {
            command.arg("--disk").arg(disk);
        }
        Machine { host, process: command.spawn().unwrap(), serial, input }
    }

    /// What it said so far, one line a line.
    pub fn said(&self) -> String {
        super::run(Command::new(super::script("machine")).arg("show").arg(&self.serial))
    }

    /// The first line that holds `text`.
    pub fn line(&self, text: &str) -> String {
        let said = self.said();
        said.lines().find(|l| l.contains(text)).unwrap_or_else(|| panic!("no {text:?} in:\n{said}")).to_owned()
    }

    /// Waits until it says something that matches.
    pub fn wait(&self, pattern: &str) {
        let mut command = Command::new(super::script("machine"));
        command.args([
            "wait",
            "--text",
            pattern,
            "--limit",
            &LIMIT.to_string(),
            "--pid",
            &self.process.id().to_string(),
        ]);
        let found = command.arg("--serial").arg(&self.serial).status().unwrap().success();
        assert!(found, "the machine never said {pattern:?}:\n{}", self.errors());
    }

    /// Waits until what it said so far is so.
    pub fn wait_until(&self, is_so: impl Fn(&str) -> bool) {
        let since = Instant::now();
        while !is_so(&self.said()) {
            assert!(since.elapsed() < Duration::from_secs(LIMIT), "the machine never said it:\n{}", self.errors());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Types keys as a person does, for what listens only now and then.
    pub fn type_slowly(&self, keys: &str) {
        for key in keys.chars() {
            self.type_keys(key.encode_utf8(&mut [0; 4]));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Types a line.
    pub fn type_line(&self, line: &str) {
        self.type_keys(&format!("{line}\n"));
    }

    /// Types just these keys. Fails on a machine that is off, instead of waiting for it.
    pub fn type_keys(&self, keys: &str) {
        let mut input = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&self.input).unwrap();
        input.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until it powers itself off.
    pub fn powered_off(&mut self) {
        let status = self.process.wait().unwrap();
        assert!(status.success(), "the machine did not power off: {status}\n{}", self.errors());
    }

    fn errors(&self) -> String {
        let mut text = self.said();
        let name = format!("{}.err", self.serial.display());
        let _ = write!(text, "{}", std::fs::read_to_string(name).unwrap_or_default());
        text
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the machine said:\n{}", self.errors());
        }
        // What runs inside ends with the host; here only the process that entered it has to be taken in.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
