//! The whole pool of VLANs in one page, asked over the socket by a bare client.

use std::time::Duration;

use super::client::request;
use super::figures::{Figures, line, ms, note, title};
use super::house::House;

/// As many as there can be.
const ALL: usize = 4094;
const RUNS: usize = 100;
const GOAL: Duration = Duration::from_millis(10);

/// Measures and prints.
pub(crate) fn run(house: &mut House) {
    title(&format!("{ALL} VLANs listed, a request each time"));
    let mut client = house.connect();
    let mut added = Figures::default();
    assert_eq!(added.time(|| client.must(request("vlan add 1-4094 --everyone"))).len(), ALL);
    let (mut whole, mut page) = (Figures::default(), Figures::default());
    for _ in 0..RUNS {
        assert_eq!(whole.time(|| client.must(request("vlan ls"))).len(), ALL);
        assert_eq!(page.time(|| client.must(request("vlan ls --limit 100 --after 2000"))).len(), 100);
    }
    let found = format!("{} (p99 {})", ms(whole.median()), ms(whole.percentile(99)));
    line(&format!("in one page, {RUNS} runs"), &found, "< 10 ms", whole.median() < GOAL);
    note("a page of 100 of them", &ms(page.median()));
    note("adding them in one call", &ms(added.median()));
    client.must(request("vlan rm 1-4094"));
}
