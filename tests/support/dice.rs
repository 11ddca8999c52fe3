//! Numbers that look like chance and come again by their seed: who reads what a test sent or struck can have it do so again.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

/// splitmix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("below a usize")
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// The seed that was given to see it again, in BMI_SEED.
pub fn given() -> Option<u64> {
    std::env::var("BMI_SEED").ok().map(|seed| seed.parse().expect("BMI_SEED is a number"))
}
