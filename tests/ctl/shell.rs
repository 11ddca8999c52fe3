//! Completion and man pages come from the same table.

use bmi::ops::OPS;

use super::fake::{Ran, bmictl};

#[test]
fn completion_knows_every_verb_in_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = Ran::of(bmictl(&["completion", shell]).output().unwrap());
        assert_eq!(ran.code, Some(0));
        for entry in OPS {
            let word = if entry.sheet.verb.is_empty() { entry.sheet.noun } else { entry.sheet.verb };
            assert!(ran.out.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn bash_takes_its_completion_script() {
    let script = bmictl(&["completion", "bash"]).output().unwrap().stdout;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bmictl.bash");
    std::fs::write(&path, script).unwrap();
    let ran = std::process::Command::new("bash").arg("-n").arg(&path).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn every_command_has_a_man_page_with_examples_and_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let ran = Ran::of(bmictl(&["man", folder.path().to_str().unwrap()]).output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{}", ran.err);
    for entry in OPS {
        let name = format!("bmictl-{}.1", entry.sheet.command().replace(' ', "-"));
        let page = std::fs::read_to_string(folder.path().join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(page.contains(".SH EXAMPLES") && page.contains(".SH \"EXIT STATUS\""), "{name}");
        assert!(page.contains("10"), "{name}");
    }
    assert!(folder.path().join("bmictl.1").exists());
    let one = Ran::of(bmictl(&["man"]).output().unwrap());
    assert!(one.out.contains(".TH bmictl 1"));
}

#[test]
fn man_pages_into_a_folder_that_is_not_there_fail_clearly() {
    let ran = Ran::of(bmictl(&["man", "/nonexistent/man"]).output().unwrap());
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("write man pages into /nonexistent/man"), "{}", ran.err);
}
