//! What is different with a release of the original, v20230202 or older.

use std::time::Duration;

use crate::lab::{PATIENCE, Running, Wire, frame};

use super::ends::{Lab, Original, Ours, carry, frames, with_each_original};

const KEY: &str = "-k 0123456789abcdefghijklmnopqrstuv";

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn mismatch_names_other_aes_256() {
    with_each_original(|lab| {
        let (right, wrong) =
            if lab.program.released { ("aes-256-ethudp-2023", "aes-256") } else { ("aes-256", "aes-256-ethudp-2023") };
        let end = |cipher, here, there| format!("-e -enc {cipher} {KEY} 192.0.2.{here} 6000 192.0.2.{there} 6000 lan");
        let _original = Original::start(lab.program, &lab.sites.b, &end("aes-256", 2, 1));
        let ours = Running::classic(&lab.sites.a, "ours", &end(wrong, 1, 2));
        ours.wait_state("mismatch", PATIENCE);
        let status = ours.status();
        assert!(status["reason"].as_str().unwrap().contains(&format!("set cipher {right}")), "{status}");
        drop(ours);
        let _ours = Running::classic(&lab.sites.a, "ours", &end(right, 1, 2));
        lab.wait_open();
        lab.carry(&frames([14, 60, 1000, 1514]));
    });
}

/// A mirrors its interface, B gives out what arrives; a release asks its receiver for answers, the newest source does not.
fn a_mirror(ours: Ours) {
    with_each_original(|lab| {
        for options in ["", "-lz4 1", "-enc aes-256 -k key -mtu 1200"] {
            let mirror = format!("-t {options} 192.0.2.1 6000 192.0.2.2 6000 lan");
            let receiver = format!("-e {options} 192.0.2.2 6000 192.0.2.1 6000 lan");
            let (running, _original) = lab.start(ours, &mirror, &receiver);
            wait_mirrored(lab);
            for frame in frames([14, 60, 100, 1000, 1514]) {
                carry(&lab.a, &mut lab.b, &frame, &frame);
            }
            running.wait_state("up", PATIENCE);
        }
    });
}

fn wait_mirrored(lab: &mut Lab<'_>) {
    let mut number = 0;
    crate::lab::wait_for("a mirrored frame", PATIENCE, || {
        number += 1;
        let probe = frame(number, 60);
        lab.a.send(&probe);
        let wire: &mut Wire = &mut lab.b;
        std::iter::from_fn(|| wire.receive(Duration::from_millis(100))).any(|frame| frame == probe).then_some(())
    });
}

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn our_mirror_reaches_the_original() {
    a_mirror(Ours::A);
}

#[test]
#[ignore = "they need the original, which ETHUDP_REFERENCE and ETHUDP_REFERENCE_RELEASE name"]
fn originals_mirror_reaches_us() {
    a_mirror(Ours::B);
}
