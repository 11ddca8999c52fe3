//! bmid's command line. Everything it can say, the configuration file and the environment can say too, and more.

use std::path::PathBuf;

/// Gives bare-metal machines their disks.
#[derive(clap::Parser, Clone, Debug, Default)]
#[command(
    name = "bmid",
    version,
    about = "The bare-metal imaging daemon: gives bare-metal machines their disks",
    long_about = "The bare-metal imaging daemon. It runs in the foreground; `bmictl` talks to it. Without any configuration it \
                  keeps its state in /var/lib/bmid and listens on /run/bmid/bmid.sock.",
    after_help = EXAMPLES
)]
pub struct Args {
    /// Configuration file [default: /etc/bmid/bmid.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the state, made if missing
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Folder of what lives as long as the host is up: worker files, the socket
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Simulate everything outside in a folder [default: STATE_DIR/sim]: for trying things out
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option, reason = "absent, without a folder, with one: three meanings")]
    pub sim: Option<Option<PathBuf>>,
    /// Look for broken records in the state folder of a bmid that does not run, and end; exit code 1 if there are any
    #[arg(long, conflicts_with_all = ["sim", "check_config"])]
    pub check: bool,
    /// Print the configuration as it takes effect, and where each value comes from, and end
    #[arg(long)]
    pub check_config: bool,
    /// Tell the kernel's RBD client what stands in this folder, and end: for bmid-rbd@.service
    #[arg(long, value_name = "DIR", hide = true, exclusive = true)]
    pub rbd_order: Option<PathBuf>,
    /// Serve a network's boot files by HTTP as this file says: for bmid-http@.service
    #[arg(long, value_name = "FILE", hide = true, exclusive = true)]
    pub boot_files: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  bmid                                        as a service, on the system's folders
  bmid --state-dir /tmp/try --sim             try it out: nothing outside /tmp/try is touched
  bmictl --socket /tmp/try/run/bmid.sock status
  bmid --check-config --config new.toml       what would this file do?
  bmid --check                                is the state whole? (while bmid is stopped)

Each key of the configuration file is also an environment variable: BMID_STATE_DIR, BMID_PORT, BMID_LOG, ...
Flags come before the environment, the environment before the file.
SIGHUP takes a new `log` and `reconcile_every` over; SIGTERM stops bmid. Nodes keep their disks whatever happens to bmid.";
