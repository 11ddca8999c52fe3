//! What is said of pools as `ceph osd dump` describes them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bmi::model::{Id, RbdExport};

use super::*;

fn place() -> RbdPlace {
    RbdPlace {
        pool: "bmi".into(),
        namespace: None,
        conf: "/etc/ceph/ceph.conf".into(),
        user: "engine".into(),
        keyring: None,
        datastore: Id::from_random([1; 16]),
        export: RbdExport::Auto,
    }
}

/// A cluster with pool `bmi` as told, and an erasure coded pool `ec` with these flags.
fn cluster(bmi: &str, ec: &str, more: &str) -> Survey {
    let text = format!(
        r#"{{"pools":[{{"pool_name":"bmi",{bmi}}},{{"pool_name":"ec","type":3,"flags_names":"{ec}","application_metadata":{{"rbd":{{}}}}}}]{more}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

const GOOD: &str = r#""type":1,"flags_names":"hashpspool","application_metadata":{"rbd":{}},"pg_num":8"#;

#[test]
fn a_pool_that_cannot_be_used_is_refused_with_what_to_type() {
    let told = |survey: &Survey| {
        let e = survey.fits(&place(), "t").and_then(|()| survey.has_room(&place(), "t")).unwrap_err();
        (e.kind, e.why, e.fix)
    };
    let flags = |flags: &str| GOOD.replace("hashpspool", flags);
    let in_ec = |survey: Survey| Survey { data_pool: "ec".into(), ..survey };
    let cases = [
        (cluster(r#""type":1"#, "", ""), Kind::Invalid, "not initialised for RBD", "`rbd pool init bmi`"),
        (cluster(&GOOD.replace("rbd", "cephfs"), "", ""), Kind::Invalid, "used by cephfs", "another pool"),
        (
            cluster(&GOOD.replace(":1", ":3"), "", ""),
            Kind::Invalid,
            "bmi is erasure coded",
            "`rbd_default_data_pool = bmi` for client.engine",
        ),
        (cluster(&flags("full,full_quota"), "", ""), Kind::Full, "reached its quota", "set-quota bmi"),
        (cluster(&flags("hashpspool,full"), "", ""), Kind::Full, "bmi is full", "add OSDs"),
        (cluster(GOOD, "", r#","flags":"sortbitwise,full""#), Kind::Full, "the cluster is full", "add OSDs"),
        (cluster(GOOD, "", r#","require_osd_release":"luminous""#), Kind::Invalid, "of release luminous", "upgrade"),
        (in_ec(cluster(GOOD, "hashpspool", "")), Kind::Invalid, "no overwriting", "set ec allow_ec_overwrites true"),
        (in_ec(cluster(GOOD, "ec_overwrites,full", "")), Kind::Full, "ec is full", "add OSDs"),
        (
            Survey { data_pool: "gone".into(), ..cluster(GOOD, "", "") },
            Kind::Invalid,
            "pool gone, which is not there",
            "make that pool",
        ),
    ];
    for (survey, kind, why, fix) in cases {
        let found = told(&survey);
        assert!(found.0 == kind && found.1.contains(why) && found.2.contains(fix), "{found:?}");
    }
}

#[test]
fn a_pool_that_can_be_used_is_not_refused() {
    let more = r#","flags":"sortbitwise","require_osd_release":"squid","require_min_compat_client":"luminous""#;
    let plain = cluster(GOOD, "", more);
    let coded = Survey { data_pool: "ec".into(), ..cluster(GOOD, "hashpspool,ec_overwrites", more) };
    for survey in [plain, coded] {
        survey.fits(&place(), "t").and_then(|()| survey.has_room(&place(), "t")).unwrap();
    }
}

#[test]
fn the_rights_to_give_name_every_pool_that_is_used() {
    let told = caps(&place(), None);
    assert!(told.contains("`ceph auth caps client.engine mon 'profile rbd' osd 'profile rbd pool=bmi'`"), "{told}");
    let both = caps(&RbdPlace { namespace: Some("a".into()), ..place() }, Some(("ec", None)));
    assert!(both.contains("osd 'profile rbd pool=bmi namespace=a, profile rbd pool=ec'"), "{both}");
}

#[test]
fn a_pool_that_is_nearly_full_is_told_and_one_that_is_full_is_told_as_full() {
    let tight = |survey: &Survey| survey.tight(&place(), "t").map(|t| (t.kind, t.why, t.fix));
    let flags = |flags: &str| cluster(&GOOD.replace("hashpspool", flags), "hashpspool,nearfull", "");
    assert_eq!(tight(&flags("hashpspool")), None);
    for near in ["nearfull", "hashpspool,backfillfull,nearfull"] {
        let (kind, why, fix) = tight(&flags(near)).unwrap();
        assert!(
            kind != Kind::Full && why.contains("pool bmi is nearly full") && fix.contains("add OSDs"),
            "{why} {fix}"
        );
    }
    let (kind, why, _) = tight(&Survey { data_pool: "ec".into(), ..flags("hashpspool") }).unwrap();
    assert!(kind != Kind::Full && why.contains("pool ec is nearly full"), "{why}");
    let (kind, _, fix) = tight(&flags("full,full_quota,nearfull")).unwrap();
    assert!(kind == Kind::Full && fix.contains("set-quota bmi"), "{fix}");
}
