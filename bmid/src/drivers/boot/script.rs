//! The iPXE scripts: what a machine runs to reach its disk, and what one runs that bmid does not know. Pure.
//!
//! iPXE has no quoting: a line is split at white space, `${…}` is replaced, and `&&`, `||` join commands. So values that
//! mean something to iPXE are refused, never escaped, and texts for people lose what could mean anything. A script never
//! carries a secret that its step does not carry.

use std::net::IpAddr;

use bmi::model::{Id, Kind};
use bmi::step::Entry;

use crate::drivers::DriverError;

/// How often a machine tries to reach its disk. With [`PAUSE`] between, it outlasts a restart of the engine's host.
const TRIES: u32 = 60;
/// Seconds between two tries.
const PAUSE: u32 = 5;

/// The script that every iPXE of a network runs first: it finds the machine's own.
///
/// `--replace` lets the machine's script take this one's place: what happens in there never comes back here, so that
/// coming here means that there is no such script.
pub(super) fn first(network: Id) -> String {
    format!(
        "#!ipxe
# bmid network {network}: the first script of every machine
isset ${{netX/mac}} && set card ${{netX/mac:hexhyp}} || set card ${{net0/mac:hexhyp}}
echo bmid: looking for the script of network card ${{card}}
chain --autofree --replace mac/${{card}}.ipxe || goto unknown
:unknown
echo
echo bmid: no disk is set up for the network card ${{card}} on this network (or its script did not arrive: see above).
echo To give this machine a disk, type on the engine:
echo
echo   bmictl node provision NAME --image IMAGE --mac ${{card}} --network {network}
echo
echo Going on with the next boot device in 10 seconds.
sleep 10
exit 1
"
    )
}

/// What a newer iPXE (Debian 13's; not Debian 12's) runs that was loaded by UEFI and looks for `autoexec.ipxe` where it came from: before it has an address
/// of its own. It is told to ask for one, as it does where there is no such file; what it is then sent to is the first script.
pub(super) fn alone(network: Id) -> String {
    format!("#!ipxe\n# bmid network {network}: for an iPXE that has no address yet\nautoboot\n")
}

/// One machine's script, without the lines that mark it. `secret` is the opened one of `entry.secret`.
pub(super) fn machine(entry: &Entry, secret: Option<&str>) -> Result<String, DriverError> {
    let name = shown(&entry.hostname);
    let check = |what: &str, value: &str, allowed: fn(char) -> bool| {
        if !value.is_empty() && value.len() <= 223 && value.chars().all(allowed) {
            return Ok(());
        }
        // The value is not shown: it may be the secret.
        let why = format!("its {what} has characters that iPXE would not read as they are");
        Err(DriverError::new(Kind::Invalid, format!("write the boot script of {name}"), why))
    };
    let in_names = |c: char| c.is_ascii_alphanumeric() || ".:-".contains(c);
    // `$` would begin a setting, `|` and `&` alone are harmless, `#` begins a remark only at a line's start.
    let in_words = |c: char| c.is_ascii_graphic() && c != '$' && c != '\\';
    check("target name", &entry.iqn, in_names)?;
    check("initiator name", &entry.initiator, in_names)?;
    let mut credentials = String::new();
    if let (Some(account), Some(secret)) = (&entry.secret, secret) {
        check("account name", &account.user, in_words)?;
        check("secret", secret, in_words)?;
        credentials = format!("set username {}\nset password {secret}\n", account.user);
    }
    let Entry { port, iqn, initiator, lun, .. } = entry;
    let portal = match entry.portal {
        IpAddr::V4(a) => a.to_string(),
        IpAddr::V6(a) => format!("[{a}]"),
    };
    // A disk that was reached and does not boot stays hooked while `keep-san` says so, and no later try could hook it again,
    // rolled back or not.
    Ok(format!(
        "set initiator-iqn {initiator}
{credentials}set tries:int32 0
:again
set keep-san 1
inc tries
echo bmid: node {name} boots from its disk on {portal} (try ${{tries}} of {TRIES})
sanboot --keep iscsi:{portal}::{port}:{lun:x}:{iqn} ||
echo
echo bmid: node {name} did not get its disk: ${{errno}}
clear keep-san ||
sanunhook ||
iseq ${{tries}} {TRIES} && goto failed ||
echo Trying again in {PAUSE} seconds.
sleep {PAUSE}
goto again
:failed
echo bmid: giving up. On the engine type: bmictl node show {name}
echo Going on with the next boot device in 10 seconds.
sleep 10
exit 1
"
    ))
}

/// A name as iPXE may print it.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '?' };
    text.chars().take(63).map(plain).collect()
}
