//! Who may do what, by the kernel's word: users and groups that exist only in the test's own view of the host.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use super::house::House;

/// Numbers that no real group of a test host has.
const BMI: u32 = 61_001;
const ADMIN: u32 = 61_002;

/// bmid in a view of the host where the groups bmi and bmi-admin exist.
fn with_groups() -> House {
    let mut house = House::new();
    let groups = fs::read_to_string("/etc/group").expect("there");
    let others = groups.lines().filter(|l| !l.starts_with("bmi:") && !l.starts_with("bmi-admin:"));
    let text: Vec<String> = others.map(str::to_owned).collect();
    let text = format!("{}\nbmi:x:{BMI}:\nbmi-admin:x:{ADMIN}:\n", text.join("\n"));
    fs::write(house.path("group"), text).expect("written");
    let mut unshare = Command::new("unshare");
    unshare.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(["--mount", "sh", "-c"]);
    unshare.arg("mount --bind \"$0\" /etc/group && exec \"$@\"").arg(house.path("group")).arg(super::support::bmid());
    house.with_flags(&mut unshare);
    house.start(&mut unshare);
    house
}

/// bmictl where every user can reach it.
fn bmictl(house: &House) -> PathBuf {
    let copy = house.path("bmictl");
    if !copy.exists() {
        // By another process: what is open for writing here while another test forks could not be run.
        let mut install = Command::new("install");
        super::support::run(install.args(["-m", "755"]).arg(super::support::bmictl()).arg(&copy));
    }
    copy
}

fn as_user(house: &House, groups: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "61234", "--regid", "61234", "--groups", groups]).arg(bmictl(house));
    command.arg("--socket").arg(house.socket()).args(args);
    House::runs(&mut command)
}

#[test]
fn the_group_bmi_may_connect_and_the_group_bmi_admin_is_admin() {
    let house = with_groups();
    let at = fs::metadata(house.socket()).expect("there");
    assert_eq!((at.gid(), at.mode() & 0o777), (BMI, 0o660));

    let (code, _, said) = as_user(&house, "61999", &["status"]);
    assert_eq!(code, Some(5), "{said}");
    for part in ["uid 61234", &format!("group {BMI}"), "usermod -aG", house.socket().to_str().expect("text")] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let member = as_user(&house, &BMI.to_string(), &["status"]);
    assert_eq!(member.0, Some(0), "{member:?}");
    let (code, _, said) = as_user(&house, &BMI.to_string(), &["datastore", "rm", "default", "--yes"]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("uid 61234") && said.contains("bmi-admin"), "{said}");
    let admin = as_user(&house, &format!("{BMI},{ADMIN}"), &["event", "ls"]);
    assert_eq!(admin.0, Some(0), "{admin:?}");
}
