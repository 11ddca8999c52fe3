use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Ceph's libraries, played: counts what is there, and fails while told to.
#[derive(Default)]
struct Played {
    connected: AtomicUsize,
    connects: AtomicUsize,
    open: AtomicUsize,
    fails: AtomicUsize,
}

impl Library for Played {
    fn connect(&self, _: &[Word]) -> Result<Handle, c_int> {
        let nth = self.connects.fetch_add(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(std::time::Duration::from_millis(100));
            return Err(-libc::ETIMEDOUT);
        }
        self.connected.fetch_add(1, Ordering::SeqCst);
        Ok(Handle(nth + 1))
    }
    fn disconnect(&self, _: Handle) {
        self.connected.fetch_sub(1, Ordering::SeqCst);
    }
    fn open(&self, cluster: Handle, _: &CStr, _: &CStr, _: Option<&CStr>) -> Result<Opened, c_int> {
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok(Opened { context: cluster, image: Handle(77) })
    }
    fn close(&self, _: Opened) -> c_int {
        self.open.fetch_sub(1, Ordering::SeqCst);
        0
    }
}

impl Played {
    fn new() -> &'static Played {
        Box::leak(Box::default())
    }
    fn now(&self) -> [usize; 2] {
        [&self.connected, &self.open].map(|n| n.load(Ordering::SeqCst))
    }
}

fn cluster(user: &str, conf: &[u8]) -> Cluster {
    let of = |s: &str| CString::new(s).unwrap();
    let cluster = Cluster::new(Word::Name { cluster: None, user: Some(of(user)), flags: 0 });
    cluster.say(Word::File(Some(of("/c")), conf.to_vec()));
    cluster
}

fn image(library: &'static Played, all: &Connections, cluster: &Cluster, size: Option<u64>) -> Result<Image, c_int> {
    let context = Context { connection: cluster.join(library, all), pool: c"p".to_owned() };
    Image::new(&context, c"disk".to_owned(), None, size)
}

#[test]
fn a_disk_of_known_size_is_opened_when_it_is_first_asked_and_closed_with_its_connection() {
    let (library, all) = (Played::new(), Connections::new());
    let cluster = cluster("u", b"conf");
    let disk = image(library, &all, &cluster, Some(5)).unwrap();
    assert_eq!((library.now(), disk.open()), ([0, 0], None), "nothing is asked for a disk that nobody reads");
    assert_eq!(disk.handle(), Ok(Handle(77)));
    assert_eq!((library.now(), disk.handle(), disk.open()), ([1, 1], Ok(Handle(77)), Some(Handle(77))));
    assert_eq!(disk.close(), 0);
    drop(cluster);
    assert_eq!(library.now(), [0, 0]);
}

#[test]
fn a_disk_of_unknown_size_is_opened_at_once_and_its_failure_told() {
    let (library, all) = (Played::new(), Connections::new());
    let first = image(library, &all, &cluster("u", b"conf"), None).unwrap();
    assert_eq!(library.now(), [1, 1]);
    first.close();
    library.fails.store(1, Ordering::SeqCst);
    assert_eq!(image(library, &all, &cluster("u", b"conf"), None).err(), Some(-libc::ETIMEDOUT));
    assert_eq!(library.now(), [0, 0]);
}

#[test]
fn disks_of_one_user_and_configuration_share_a_connection_and_the_last_shuts_it_down() {
    let (library, all) = (Played::new(), Connections::new());
    let clusters = [("a", "x"), ("a", "x"), ("b", "x"), ("a", "y")].map(|(u, c)| cluster(u, c.as_bytes()));
    let [one, two, other, conf] = clusters.each_ref().map(|c| image(library, &all, c, None).unwrap());
    assert_eq!(library.now(), [3, 4]);
    drop(clusters);
    for (disk, left) in [(one, [3, 3]), (two, [2, 2]), (other, [1, 1]), (conf, [0, 0])] {
        disk.close();
        assert_eq!(library.now(), left);
    }
}

#[test]
fn a_disk_that_could_not_be_opened_is_tried_again_and_who_waited_shares_the_failure() {
    let (library, all) = (Played::new(), Connections::new());
    library.fails.store(1, Ordering::SeqCst);
    let clusters: Vec<_> = (0..8).map(|_| cluster("u", b"conf")).collect();
    let disks: Vec<_> = clusters.iter().map(|c| image(library, &all, c, Some(5)).unwrap()).collect();
    let together = Barrier::new(8);
    std::thread::scope(|s| {
        for disk in &disks {
            s.spawn(|| {
                together.wait();
                assert_eq!(disk.handle(), Err(-libc::ETIMEDOUT));
            });
        }
    });
    let tried = library.connects.load(Ordering::SeqCst);
    assert!(tried < 8, "eight waited one after another");
    library.fails.store(0, Ordering::SeqCst);
    for disk in disks {
        assert_eq!(disk.handle(), Ok(Handle(77)));
        disk.close();
    }
    assert_eq!(library.connects.load(Ordering::SeqCst), tried + 1);
    drop(clusters);
    assert_eq!(library.now(), [0, 0]);
}

#[test]
fn a_cluster_that_was_told_a_secret_of_its_own_is_shared_only_with_the_same() {
    let (library, all) = (Played::new(), Connections::new());
    let (plain, own) = (cluster("u", b"conf"), cluster("u", b"conf"));
    own.say(Word::Set(c"key".to_owned(), c"secret".to_owned()));
    let disks = [&plain, &own, &own].map(|c| image(library, &all, c, None).unwrap());
    assert_eq!(library.now(), [2, 3]);
    assert_eq!(disks.map(Image::close), [0; 3]);
}
