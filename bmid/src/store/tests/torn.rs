//! Readers beside the writer see a write whole or not at all.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const NODES: u8 = 40;

fn generation(k: u32) -> Vec<Change> {
    (1..=NODES).map(|n| Node { cause: Some(k.to_string()), ..node(n, &format!("g{k}-{n}")) }.into()).collect()
}

#[test]
fn a_reader_beside_a_writer_never_sees_half_a_write() {
    let t = temp();
    put(&t.store, &generation(0)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                s.spawn(|| {
                    let mut seen = 0u32;
                    while !done.load(Ordering::Relaxed) {
                        // Rows through the listing, and names through the unique index, must be of one generation.
                        let all: Vec<Node> = t.store.read(|v| v.live()).unwrap();
                        assert_eq!(all.len(), usize::from(NODES));
                        assert!(all.iter().all(|n| n.cause == all[0].cause), "a torn look at the rows");
                        t.store
                            .read(|v| {
                                let k = v.must::<Node>(id(1))?.cause.unwrap_or_default();
                                let last = bmi::model::record::owned(
                                    &owner("default"),
                                    &format!("g{k}-{NODES}").parse().unwrap(),
                                );
                                assert_eq!(
                                    v.find(Index::NodeName, &last)?,
                                    Some(id(NODES)),
                                    "a torn look at the index"
                                );
                                Ok(())
                            })
                            .unwrap();
                        seen += 1;
                    }
                    seen
                })
            })
            .collect();
        for k in 1..200 {
            let ((), ticket) = t.store.write(|tx| generation(k).iter().try_for_each(|c| tx.apply(c))).unwrap();
            drop(ticket);
        }
        done.store(true, Ordering::Relaxed);
        for r in readers {
            assert!(r.join().unwrap() > 0, "a reader never got its turn");
        }
    });
}
