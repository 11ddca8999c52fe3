//! One sample of every stored shape, with every optional field filled.

use bmi::model::journal::{Before, Standing, Subject};

use super::*;

pub(super) fn project() -> Project {
    Project { id: id(20), name: owner("alice"), created_at: Time(3) }
}

pub(super) fn server() -> Server {
    Server {
        id: id(21),
        name: "default".parse().unwrap(),
        kind: ServerKind::Datastore,
        driver: "file".to_owned(),
        url: Some("file:///srv/bmi".to_owned()),
        ip: Some("192.0.2.1".to_owned()),
        port: Some(3260),
        place: Some(Place::Folder { path: "/srv/bmi".to_owned(), loop_size: Some(Bytes(1 << 30)), thin: true }),
        state: ServerState::Active,
        created_at: Time(4),
        operation: Some(id(90)),
    }
}

pub(super) fn network() -> Network {
    Network {
        id: id(22),
        owner: Some(owner("default")),
        name: "lab".parse().unwrap(),
        vlan: Some(100),
        address: "192.0.2.1/24".parse().unwrap(),
        range: Some("192.0.2.100-192.0.2.150".parse().unwrap()),
        dhcp: Dhcp::Serve,
        state: NetworkState::Ready,
        slot: 3,
        created_at: Time(5),
        operation: Some(id(90)),
        router: Some("192.0.2.254".parse().unwrap()),
        dns: vec!["192.0.2.253".parse().unwrap()],
    }
}

pub(super) fn engine_network() -> EngineNetwork {
    EngineNetwork {
        id: id(23),
        network: id(22),
        engine: id(21),
        interface: "eth1".to_owned(),
        address_ours: true,
        trunk: Some(Trunk { parent: "bond0".to_owned(), tagging: Tagging::Dot1q, mtu: Some(9_000) }),
    }
}

pub(super) fn image() -> Image {
    Image {
        id: id(24),
        owner: owner("default"),
        name: "debian".parse().unwrap(),
        status: ImageStatus::Active,
        visibility: Visibility::Shared,
        is_snapshot: true,
        provisioned_instance_id: Some(id(27)),
        datastore: id(21),
        disk_format: Format::Raw,
        source_format: Some(Format::Qcow2),
        size_bytes: Bytes(5 << 30),
        md5: Some("d41d8cd98f00b204e9800998ecf8427e".to_owned()),
        sha256: Some("00".repeat(32)),
        raw_sha256: Some("11".repeat(32)),
        protected: true,
        properties: [("os".to_owned(), "debian".to_owned())].into(),
        created_at: Time(6),
        updated_at: Time(7),
        deleted_at: None,
        operation: Some(id(90)),
        location: Some("vms/rack-7/debian@ready".parse().unwrap()),
    }
}

pub(super) fn volume() -> Volume {
    Volume {
        id: id(25),
        owner: owner("default"),
        name: Some("disk".parse().unwrap()),
        image: Some(id(24)),
        datastore: id(21),
        generation: 2,
        role: Role::Boot,
        size_bytes: Bytes(5 << 30),
        status: VolumeStatus::InUse,
        created_at: Time(8),
        deleted_at: None,
        operation: Some(id(90)),
    }
}

pub(super) fn snapshot() -> Snapshot {
    Snapshot {
        id: id(26),
        owner: owner("default"),
        name: "clean".parse().unwrap(),
        volume: id(25),
        node: Some(id(27)),
        datastore: id(21),
        size_bytes: Bytes(5 << 30),
        image: Some(id(24)),
        active: true,
        created_at: Time(9),
        deleted_at: None,
        operation: Some(id(90)),
    }
}

pub(super) fn full_node() -> Node {
    Node {
        id: id(27),
        nic: Some("nic0".parse().unwrap()),
        network: id(22),
        cause: Some("its disk is gone".to_owned()),
        operation: Some(id(90)),
        ..node(27, "web")
    }
}

pub(super) fn attachment() -> Attachment {
    Attachment { id: id(28), node: id(27), volume: id(25), lun: 1, created_at: Time(10) }
}

pub(super) fn target() -> Target {
    Target {
        id: id(29),
        node: id(27),
        network: id(22),
        tid: 7,
        iqn: "iqn.2026-11.internal.bmi:node.x".to_owned(),
        initiator: "iqn.2026-11.internal.bmi:init.x".to_owned(),
        chap: Some(Chap { user: "u".to_owned(), secret: Sealed(vec![1, 2, 3]), mode: ChapMode::InScript, shown: None }),
        created_at: Time(11),
    }
}

pub(super) fn vlan() -> Vlan {
    Vlan { id: id(30), number: 100, owner: Some(owner("alice")), created_at: Time(15) }
}

/// A row of every table; together they are whole: every reference leads somewhere, if intent 90 is open.
pub(super) fn rows() -> Vec<Row> {
    vec![
        project().into(),
        server().into(),
        network().into(),
        engine_network().into(),
        image().into(),
        volume().into(),
        snapshot().into(),
        full_node().into(),
        attachment().into(),
        target().into(),
        vlan().into(),
    ]
}

pub(super) fn subject() -> Subject {
    Subject { noun: "node".to_owned(), id: id(27), name: "web".to_owned() }
}

fn caller() -> Caller {
    Caller { uid: Some(0), name: "root".to_owned(), admin: true, project: owner("default") }
}

pub(super) fn intent(n: u8) -> Intent {
    Intent {
        id: id(n),
        method: "node.provision".to_owned(),
        request: vec![1, 2, 3],
        caller: caller(),
        project: owner("default"),
        started_at: Time(12),
        parts: 1,
        atomic: true,
        changes: vec![id(27)],
        uses: vec![id(24)],
        subjects: vec![subject()],
    }
}

pub(super) fn part(n: u8, index: u32) -> Part {
    Part {
        intent: id(n),
        index,
        standing: Standing {
            phase: Phase::Parked,
            parked_in: Some(Phase::Unwinding),
            fault: Some(Fault::conflict("why").trying("try").fix("fix").because("cause")),
            ended: Some(Outcome::Done { changed: false }),
        },
        script: vec![4, 5, 6],
        before: vec![
            Before { table: Table::Node, id: id(27), row: Some(full_node().into()) },
            Before { table: Table::Volume, id: id(25), row: None },
        ],
        commit: vec![full_node().into(), Change::Delete(Table::Target, id(29))],
        subjects: vec![subject()],
    }
}

pub(super) fn answer(n: u8, ended_at: Time) -> Answer {
    Answer {
        id: id(n),
        method: "node.provision".to_owned(),
        request: vec![1, 2, 3],
        caller: caller(),
        subjects: vec![subject()],
        started_at: Time(12),
        ended_at,
        outcome: Outcome::Done { changed: true },
        items: vec![9],
    }
}

pub(super) fn event(at: u64, n: u8) -> Event {
    Event {
        at: Time(at),
        id: id(n),
        operation: Some(id(90)),
        method: "node.provision".to_owned(),
        caller: "root".to_owned(),
        project: owner("default"),
        subjects: vec![subject()],
        outcome: "done".to_owned(),
        message: "quick".to_owned(),
        took_ms: 11,
    }
}

pub(super) fn usage() -> Usage {
    Usage { nodes: 1, volumes: 2, snapshots: 3, gigabytes: 4, images: 5, image_gigabytes: 6, networks: 7 }
}

pub(super) fn meta() -> Meta {
    Meta {
        schema: 16,
        engine: id(21),
        engine_name: "engine1".parse().unwrap(),
        release: "0.1.0".to_owned(),
        created_at: Time(1),
    }
}
