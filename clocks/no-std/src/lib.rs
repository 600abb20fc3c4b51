//! The clocks without std: see the manifest.
#![no_std]

extern crate alloc;
#[cfg(feature = "with-std")]
extern crate std;

use core::panic::PanicInfo;

use synod_clocks::{ActorId, Causality, VectorClock};

/// Something that uses the crate, so that it is linked.
pub fn two_events_at_once_are_concurrent() -> bool {
    let (mut n1, mut n2) = (VectorClock::new(ActorId::new(1)), VectorClock::new(ActorId::new(2)));
    n1.local().compare(&n2.local()) == Causality::Concurrent
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}
