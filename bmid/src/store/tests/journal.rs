//! Intents, parts, answers and events: what goes in comes out, long ones too; what is old is forgotten.

use super::*;

fn journal(t: &Temp, f: impl FnOnce(&mut Tx<'_>) -> Result<(), Fault>) {
    t.store.write(f).unwrap().1.wait().unwrap();
}

fn pieces_left(t: &Temp) -> usize {
    t.db().scan_prefix([tables::CHUNK]).count()
}

#[test]
fn an_intent_and_its_parts_come_back_and_go_together() {
    let t = temp();
    journal(&t, |tx| {
        tx.put_intent(&samples::intent(90))?;
        tx.put_part(&samples::part(90, 1))?;
        tx.put_part(&samples::part(90, 0))?;
        tx.put_intent(&samples::intent(91))?;
        assert_eq!(tx.parts(id(90))?.len(), 2);
        assert_eq!(tx.intents()?.len(), 2);
        tx.put_part(&samples::part(91, 0))
    });
    assert_eq!(t.store.intents().unwrap(), [samples::intent(90), samples::intent(91)]);
    assert_eq!(t.store.parts(id(90)).unwrap(), [samples::part(90, 0), samples::part(90, 1)]);
    assert_eq!(t.store.part(id(90), 1).unwrap(), Some(samples::part(90, 1)));
    journal(&t, |tx| {
        tx.drop_intent(id(90))?;
        tx.drop_intent(id(90))?;
        assert_eq!(tx.intent(id(90))?, None);
        assert_eq!(tx.parts(id(90))?, []);
        Ok(())
    });
    assert_eq!(t.store.intent(id(90)).unwrap(), None);
    assert_eq!(t.store.part(id(90), 0).unwrap(), None);
    assert_eq!(t.store.parts(id(91)).unwrap(), [samples::part(91, 0)]);
}

#[test]
fn a_long_record_is_split_and_replaced_and_removed_without_leftovers() {
    let t = temp();
    for len in [tables::PIECE, tables::PIECE + 1, 1 << 20, 70_000, 10] {
        let long = Part { script: vec![0xff; len], ..samples::part(90, 0) };
        journal(&t, |tx| {
            tx.put_intent(&Intent { request: vec![0xff; len], ..samples::intent(90) })?;
            tx.put_part(&long)?;
            assert_eq!(tx.parts(id(90))?, std::slice::from_ref(&long));
            Ok(())
        });
        assert_eq!(t.store.parts(id(90)).unwrap(), [long]);
        assert_eq!(t.store.intents().unwrap()[0].request.len(), len);
        let longest = t.db().iter().values().map(|v| v.unwrap().len()).max().unwrap();
        assert!(longest <= tables::PIECE, "sled was given a value of {longest} bytes");
        let complaints: Vec<String> = t.store.check().unwrap();
        assert_eq!(complaints, Vec::<String>::new());
    }
    assert_eq!(pieces_left(&t), 0);
    journal(&t, |tx| tx.put_part(&Part { script: vec![1; 1 << 20], ..samples::part(90, 0) }));
    assert!(pieces_left(&t) > 200);
    journal(&t, |tx| tx.drop_intent(id(90)));
    assert_eq!(pieces_left(&t), 0);
}

#[test]
fn a_row_of_64_kib_is_refused_and_a_smaller_long_one_is_kept() {
    let t = temp();
    let with = |len: usize| Node { settings: [("k".to_owned(), "v".repeat(len))].into(), ..node(1, "web") };
    let fault = put(&t.store, &[with(64 << 10).into()]).unwrap_err();
    assert_eq!(fault.kind, Kind::Limit);
    put(&t.store, &[with(60 << 10).into()]).unwrap();
    assert_eq!(t.store.read(|v| v.get::<Node>(id(1))).unwrap(), Some(with(60 << 10)));
    put(&t.store, &[Change::delete(&with(0))]).unwrap();
    assert_eq!(pieces_left(&t), 0);
}

#[test]
fn events_are_given_newest_or_onwards_from_a_moment() {
    let t = temp();
    journal(&t, |tx| (1..=6).try_for_each(|n| tx.put_event(&samples::event(u64::from(n) * 10, n))));
    let at = |after: Option<u64>, limit, newest_last| -> Vec<u64> {
        let filter = EventFilter { after: after.map(Time), limit, newest_last };
        t.store.events(filter).unwrap().iter().map(|e| e.at.0).collect()
    };
    assert_eq!(at(None, 2, true), [50, 60]);
    assert_eq!(at(None, 2, false), [60, 50]);
    assert_eq!(at(Some(20), 2, true), [30, 40]);
    assert_eq!(at(Some(20), 9, false), [60, 50, 40, 30]);
    assert_eq!(at(Some(60), 9, true), [0u64; 0]);
    journal(&t, |tx| tx.put_event(&samples::event(30, 77)));
    assert_eq!(at(Some(20), 1, true), [30, 30], "events of one microsecond stay together");
}

#[test]
fn answers_of_yesterday_and_events_beyond_the_newest_are_forgotten() {
    let t = temp();
    let day = 24 * 3_600 * 1_000_000;
    journal(&t, |tx| {
        tx.put_answer(&samples::answer(1, Time(10)))?;
        tx.put_answer(&Answer { items: vec![7; 9_000], ..samples::answer(2, Time(10)) })?;
        tx.put_answer(&samples::answer(3, Time(11)))?;
        (1..=9).try_for_each(|n| tx.put_event(&samples::event(u64::from(n), n)))
    });
    assert_eq!(t.store.purge_to(Time(10 + day), 4).unwrap(), Purged { answers: 2, events: 5 });
    assert_eq!(t.store.answer(id(1)).unwrap(), None);
    assert_eq!(t.store.answers().unwrap(), [samples::answer(3, Time(11))]);
    let left = t.store.events(EventFilter { after: None, limit: 99, newest_last: true }).unwrap();
    assert_eq!(left.iter().map(|e| e.at.0).collect::<Vec<_>>(), [6, 7, 8, 9]);
    assert_eq!(pieces_left(&t), 0);
    assert_eq!(t.store.purge(Time(11 + day)).unwrap(), Purged { answers: 1, events: 0 });
}
