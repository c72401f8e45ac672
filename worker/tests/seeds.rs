//! The stored seeds of the fuzz targets pass, findings included.

use ethudp_worker::fuzzing;

fn replay(target: &str, check: fn(&[u8])) {
    let directory = format!("{}/../fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    let seeds: Vec<_> = std::fs::read_dir(directory).unwrap().collect();
    assert!(seeds.len() > 5, "{target}: {} seeds", seeds.len());
    for seed in seeds {
        check(&std::fs::read(seed.unwrap().path()).unwrap());
    }
}

#[test]
fn open() {
    replay("open", fuzzing::open);
}

#[test]
fn frame() {
    replay("frame", fuzzing::frame);
}

#[test]
fn fragment() {
    replay("fragment", fuzzing::fragment);
}

#[test]
fn offload() {
    replay("offload", fuzzing::offload);
}

#[test]
fn runs() {
    replay("runs", fuzzing::runs);
}

#[test]
fn tagged() {
    replay("tagged", fuzzing::tagged);
}

#[test]
fn message() {
    replay("message", fuzzing::message);
}

#[test]
fn content() {
    replay("content", fuzzing::content);
}

#[test]
fn unpack() {
    replay("unpack", fuzzing::unpack);
}

/// Limit of memory for two sessions and the state of the test, with any input.
#[test]
fn session() {
    replay("session", |script| {
        let most = allocation_counter::measure(|| fuzzing::session(script)).bytes_max;
        assert!(most < fuzzing::SESSION_BYTES, "{most} bytes");
    });
}
