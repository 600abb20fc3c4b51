//! The crash-point test at length: `crash_points [IMAGES] [SEED]`.
//!
//! Runs scripts until so many images were recovered (100,000 by default), prints what was tried, and fails with the
//! script, the prefix and the image that does not recover.

#[allow(dead_code, reason = "damage and faults are for the tests")]
#[path = "../tests/engine/memory_disk.rs"]
mod memory_disk;
#[path = "../tests/engine/model.rs"]
mod model;
#[path = "../tests/engine/crash_points.rs"]
mod points;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |otherwise: u64| {
        arguments
            .next()
            .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{text} is no number")))
    };
    let (wanted, first) = (number(100_000), number(1));
    let (mut images, mut seed) = (0, first);
    while images < wanted {
        let tally = points::run(seed, 240, 8);
        images += tally.images;
        println!("script {seed}: {tally:?}");
        seed += 1;
    }
    println!("{images} images of {} scripts recovered", seed - first);
}
