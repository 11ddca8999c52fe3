//! Many at once: eight clients against eight threads that only clone, and five hundred nodes in one call.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::super::client::Client;
use super::super::figures::{line, note, title};
use super::super::house::House;
use super::cores::Spent;
use super::{NETWORKS, Pooled, away};

const CLIENTS: usize = 8;
/// What each of them makes in a round.
const EACH: usize = 12;
const ROUNDS: usize = 6;
/// What part of librbd's own rate it should be.
const GOAL: f64 = 0.9;
const MANY: usize = 500;
const MANY_GOAL: Duration = Duration::from_secs(10);

/// Measures and prints.
pub(super) fn run(house: &House, pooled: &mut Pooled) {
    title(&format!("pool: {CLIENTS} at once, {EACH} each, {ROUNDS} rounds"));
    // All rounds together: they take turns, and in turn come first, so that what a machine does beside them, and what each leaves to
    // the next, is in all of them.
    let mut took = [Duration::ZERO; 3];
    for turn in 0..ROUNDS * took.len() {
        let which = (turn + turn / took.len()) % took.len();
        took[which] += match which {
            0 => librbd(pooled),
            1 => clients(house, pooled, 1),
            _ => clients(house, pooled, NETWORKS),
        };
    }
    let [bare, one, apart] = took.map(rate);
    note(&format!("rbd_clone3 alone, {CLIENTS} threads"), &format!("{bare:.0} a second"));
    for (what, rate) in [("node provision, one network", one), ("node provision, a network each", apart)] {
        let found = format!("{rate:.0} a second, {:.0} % of librbd's clones", 100.0 * rate / bare);
        line(what, &found, &format!(">= {:.0} %", 100.0 * GOAL), rate >= GOAL * bare);
    }
    title(&format!("pool: {MANY} nodes"));
    many(house, pooled, 1, "one call, one network");
    many(house, pooled, 5, "5 calls at once, a network each");
}

/// Runs `f` in as many threads as there are, all from the same moment on; how long until the last was through.
fn together<T: Send>(all: Vec<T>, f: impl Fn(T) + Sync) -> Duration {
    let start = Barrier::new(all.len() + 1);
    std::thread::scope(|scope| {
        for one in all {
            let (start, f) = (&start, &f);
            scope.spawn(move || {
                start.wait();
                f(one);
            });
        }
        start.wait();
        Instant::now()
    })
    .elapsed()
}

fn rate(took: Duration) -> f64 {
    (ROUNDS * CLIENTS * EACH) as f64 / took.as_secs_f64()
}

fn librbd(pooled: &Pooled) -> Duration {
    let each = |f: fn(&Pooled, &str)| {
        together((0..CLIENTS).collect(), |c| (0..EACH).for_each(|i| f(pooled, &format!("bare.{c}.{i}"))))
    };
    let spent = Spent::now();
    let took = each(|pooled, name| pooled.pool.clone_of(&pooled.golden, name));
    spent.told("clone", CLIENTS * EACH);
    each(|pooled, name| pooled.pool.remove(name));
    took
}

fn clients(house: &House, pooled: &mut Pooled, networks: usize) -> Duration {
    let mut work: Vec<(Client, Vec<(String, bmi::ops::Request)>)> = Vec::new();
    for c in 0..CLIENTS {
        let network = format!("rack{}", c % networks + 1);
        let names = (0..EACH).map(|i| format!("client{c}-{i}"));
        work.push((house.connect(), names.map(|name| (name.clone(), pooled.one(&network, &name))).collect()));
    }
    let names: Vec<Vec<String>> = work.iter().map(|(_, all)| all.iter().map(|(n, _)| n.clone()).collect()).collect();
    let spent = Spent::now();
    let took = together(work, |(mut client, all)| {
        for (_, request) in all {
            client.must(request);
        }
    });
    spent.told(&format!("node, {networks} networks"), CLIENTS * EACH);
    together(names, |names| {
        let mut client = house.connect();
        names.iter().for_each(|name| away(&mut client, name));
    });
    pooled.settle();
    took
}

fn many(house: &House, pooled: &mut Pooled, networks: usize, what: &str) {
    let mut calls = Vec::new();
    for n in 1..=networks {
        let names: Vec<String> = (0..MANY / networks).map(|i| format!("of{networks}-{n}-{i}")).collect();
        calls.push((house.connect(), pooled.several(&format!("rack{n}"), &names)));
    }
    let made = AtomicUsize::new(0);
    let took = together(calls, |(mut client, request)| {
        made.fetch_add(client.must(request).len(), Ordering::Relaxed);
    });
    assert_eq!(made.into_inner(), MANY);
    let found = format!("{:.1} s, {:.0} a second", took.as_secs_f64(), MANY as f64 / took.as_secs_f64());
    line(what, &found, "< 10 s", took < MANY_GOAL);
}
