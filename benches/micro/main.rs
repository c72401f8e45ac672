//! What a frame costs in our own code, without a system call; AES-CBC beside one stream of OpenSSL. `make bench-micro` runs this
//! and writes the table in docs/BENCHMARKS.md.

#[allow(dead_code)] // The tests need more of it.
#[path = "../../worker/tests/offload/reference.rs"]
mod reference;

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use ethudp_worker::batch::{BATCH, Batch};
use ethudp_worker::frame::offload::superframe::{Checksum, Facts, Segments, Superframe};
use ethudp_worker::frame::checksum::Sum;
use ethudp_worker::frame::offload::coalesce::Coalescer;
use ethudp_worker::frame::offload::segment::Segmenter;
use ethudp_worker::wire::classic::codec::{Codec, Scratch};
use ethudp_worker::wire::secure::{CipherKind, Keys, Opening, Sealer, Sending};
use ethudp_worker::endpoint::Target;
use ethudp_worker::wire::Counters;
use ethudp_worker::wire::route::{Egress, Route};
use openssl::cipher::{Cipher as Peer, CipherRef};
use openssl::cipher_ctx::CipherCtx;
use privsep::ipc::{Cipher, State};
use reference::Flow;

/// Bytes in a frame.
const SIZE: usize = 1400;
/// Segments of 1400 bytes in a superframe of 64 KiB.
const SEGMENTS: usize = 46;
const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(600)).sample_size(20);
    group
}

/// Frames that do not compress, no two of which are the same.
fn random(count: usize) -> Vec<Vec<u8>> {
    let mut state = 1_u64;
    let mut byte = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..count).map(|_| (0..SIZE).map(|_| byte()).collect()).collect()
}

/// Frames of words.
fn text(count: usize) -> Vec<Vec<u8>> {
    let words = include_bytes!("../../docs/ARCHITECTURE.md");
    words.windows(SIZE).step_by(100).cycle().take(count).map(<[u8]>::to_vec).collect()
}

/// A batch of these frames, packed as they are when they come from a superframe.
fn fill(batch: &mut Batch, frames: &[Vec<u8>]) {
    batch.clear();
    for frame in frames {
        batch.pack_copy(&[frame]);
    }
}

/// What is measured: `work` on a batch that is filled with the same frames each time, which is not counted. Each has a slot of
/// its own, in which it can inflate.
fn batches(group: &mut BenchmarkGroup<WallTime>, name: &str, frames: &[Vec<u8>], mut work: impl FnMut(&mut Batch)) {
    let mut batch = Batch::default();
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|rounds| {
            let mut time = Duration::ZERO;
            for _ in 0..rounds {
                batch.clear();
                frames.iter().for_each(|frame| batch.append_copy(frame));
                let start = Instant::now();
                work(&mut batch);
                time += start.elapsed();
            }
            time
        });
    });
}

/// Sealing and opening full batches.
fn codecs(criterion: &mut Criterion) {
    for (name, cipher, compress, frames) in [
        ("xor", Cipher::Xor, false, random(BATCH)),
        ("aes-128", Cipher::Aes128, false, random(BATCH)),
        ("aes-192", Cipher::Aes192, false, random(BATCH)),
        ("aes-256", Cipher::Aes256, false, random(BATCH)),
        ("lz4 of text", Cipher::None, true, text(BATCH)),
        ("lz4 of random bytes", Cipher::None, true, random(BATCH)),
        ("lz4 of text and aes-128", Cipher::Aes128, true, text(BATCH)),
    ] {
        let (codec, mut scratch) = (Codec::new(cipher, KEY, compress), Scratch::default());
        let mut sealed = Batch::default();
        fill(&mut sealed, &frames);
        codec.seal(&mut sealed, &mut scratch);
        let datagrams: Vec<_> = sealed.frames(0).map(<[u8]>::to_vec).collect();
        let bytes = Throughput::Bytes((BATCH * SIZE) as u64);
        let mut seal = group(criterion, "seal");
        seal.throughput(bytes.clone());
        batches(&mut seal, name, &frames, |batch| {
            codec.seal(batch, &mut scratch);
        });
        seal.finish();
        let mut open = group(criterion, "open");
        open.throughput(bytes);
        batches(&mut open, name, &datagrams, |batch| {
            batch.filter_map(|_, buffer, length| codec.open(buffer, length, &mut scratch));
            assert_eq!(batch.len(), BATCH);
        });
        open.finish();
    }
}

/// The secure wire: full batches as they leave, and each datagram as it is opened when it has come.
fn secure(criterion: &mut Criterion) {
    let frames = random(BATCH);
    for (name, cipher) in
        [("secure, AES-256-GCM", CipherKind::Aes256Gcm), ("secure, ChaCha20-Poly1305", CipherKind::ChaCha20Poly1305)]
    {
        let keys = || Keys { sending: *KEY, receiving: *KEY, cipher, our_index: 1, their_index: 1, peer_features: 0 };
        let target = Target::Fixed(SocketAddr::from(([192, 0, 2, 1], 6000)).into());
        let route = Route {
            active: 0,
            egress: vec![Egress::new(target, 1472)],
            sending: Some(Arc::new(Sending::new(&keys()))),
        };
        let (mut sealer, counters) = (Sealer::new(route), Counters::new(&State::default(), 1));
        let bytes = Throughput::Bytes((BATCH * SIZE) as u64);
        let mut seal = group(criterion, "seal");
        seal.throughput(bytes.clone());
        batches(&mut seal, name, &frames, |batch| {
            black_box(sealer.seal(batch, &counters));
        });
        seal.finish();
        let mut open = group(criterion, "open");
        open.throughput(bytes);
        let (mut opening, mut batch) = (Opening::new(&keys(), 1), Batch::default());
        open.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut time = Duration::ZERO;
                for _ in 0..rounds {
                    batch.clear();
                    frames.iter().for_each(|frame| batch.append_copy(frame));
                    // None is opened twice.
                    let (sealed, _) = sealer.seal(&mut batch, &counters);
                    let mut datagrams: Vec<_> = sealed.frames(0).map(<[u8]>::to_vec).collect();
                    assert_eq!(datagrams.len(), BATCH);
                    let start = Instant::now();
                    for datagram in &mut datagrams {
                        let length = datagram.len();
                        black_box(opening.open(0, datagram, length).unwrap());
                    }
                    time += start.elapsed();
                }
                time
            });
        });
        open.finish();
    }
}

/// AES-CBC: batches of several sizes, and frame after frame as OpenSSL does it.
fn cbc(criterion: &mut Criterion) {
    for (name, cipher, peer, size) in [
        ("aes-128", Cipher::Aes128, Peer::aes_128_cbc(), 16),
        ("aes-192", Cipher::Aes192, Peer::aes_192_cbc(), 24),
        ("aes-256", Cipher::Aes256, Peer::aes_256_cbc(), 32),
    ] {
        let mut group = group(criterion, "cbc");
        openssl(&mut group, name, peer, &KEY[..size]);
        let (codec, mut scratch) = (Codec::new(cipher, KEY, false), Scratch::default());
        for count in [1, 8, 16, 32, SEGMENTS, BATCH] {
            let mut batch = Batch::default();
            fill(&mut batch, &random(count));
            group.throughput(Throughput::Bytes((count * SIZE) as u64));
            group.bench_function(format!("{name}, {count} frames"), |bencher| {
                bencher.iter(|| {
                    codec.seal(&mut batch, &mut scratch);
                    (0..count).for_each(|index| batch.truncate(index, SIZE));
                });
            });
        }
        group.finish();
    }
}

/// One stream of OpenSSL, which is set up once.
fn openssl(group: &mut BenchmarkGroup<WallTime>, name: &str, cipher: &CipherRef, key: &[u8]) {
    let (frames, mut to) = (random(BATCH), vec![0; SIZE + 2 * 16]);
    let (mut seal, mut open) = (CipherCtx::new().unwrap(), CipherCtx::new().unwrap());
    seal.encrypt_init(Some(cipher), Some(key), Some(&[0; 16])).unwrap();
    open.decrypt_init(Some(cipher), Some(key), Some(&[0; 16])).unwrap();
    let datagrams: Vec<Vec<u8>> = frames
        .iter()
        .map(|frame| {
            seal.encrypt_init(None, None, Some(&[0; 16])).unwrap();
            let mut datagram = Vec::new();
            seal.cipher_update_vec(frame, &mut datagram).unwrap();
            seal.cipher_final_vec(&mut datagram).unwrap();
            datagram
        })
        .collect();
    let mut batch = Batch::default();
    fill(&mut batch, &frames);
    let ours = match key.len() {
        16 => Cipher::Aes128,
        24 => Cipher::Aes192,
        _ => Cipher::Aes256,
    };
    Codec::new(ours, key, false).seal(&mut batch, &mut Scratch::default());
    assert!(batch.frames(0).eq(&datagrams), "{name}: not what OpenSSL makes of it");
    group.throughput(Throughput::Bytes((BATCH * SIZE) as u64));
    let mut one = |context: &mut CipherCtx, from: &[u8]| {
        let length = context.cipher_update(from, Some(&mut to)).unwrap();
        let length = length + context.cipher_final(&mut to[length..]).unwrap();
        black_box(&to[..length]);
    };
    group.bench_function(format!("{name}, OpenSSL seals"), |bencher| {
        bencher.iter(|| {
            for frame in &frames {
                seal.encrypt_init(None, None, Some(&[0; 16])).unwrap();
                one(&mut seal, frame);
            }
        });
    });
    group.bench_function(format!("{name}, OpenSSL opens"), |bencher| {
        bencher.iter(|| {
            for datagram in &datagrams {
                open.decrypt_init(None, None, Some(&[0; 16])).unwrap();
                one(&mut open, datagram);
            }
        });
    });
}

/// Cutting, joining, summing.
fn offload(criterion: &mut Criterion) {
    let mut group = group(criterion, "offload");
    let flow = Flow::new(false, false);
    let payload = random(SEGMENTS).concat();
    for size in [52, SIZE, payload.len()] {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("checksum of {size}"), |bencher| {
            bencher.iter(|| Sum::of(black_box(&payload[..size])).folded());
        });
    }
    let superframe = flow.superframe(1, 2, 0x18, &payload);
    let facts = Facts {
        checksum: Some(Checksum { start: 34, offset: 16 }),
        superframe: Some(Superframe { kind: Segments::Tcp4, header: 54, segment: SIZE as u16 }),
        vlan: None,
    };
    let mut batch = Batch::default();
    group.throughput(Throughput::Bytes(payload.len() as u64));
    let mut segment = || {
        batch.clear();
        let mut segmenter = Segmenter::new(black_box(&superframe), &facts).unwrap();
        while let Some((headers, payload)) = segmenter.cut() {
            batch.pack_copy(&[headers, payload]);
        }
    };
    segment();
    group.bench_function("segment 64 KiB", |bencher| bencher.iter(&mut segment));
    assert_eq!(batch.len(), SEGMENTS);
    let mut coalesce = |name: &str, frames: &[Vec<u8>], expected: usize| {
        let mut coalescer = Coalescer::new(true);
        coalescer.plan(frames.len(), |index| &frames[index]);
        assert_eq!(coalescer.planned().count(), expected, "{name}");
        group.throughput(Throughput::Bytes(frames.iter().map(|frame| frame.len() as u64).sum()));
        group.bench_function(format!("coalesce {name}"), |bencher| {
            bencher.iter(|| coalescer.plan(frames.len(), |index| black_box(&frames[index])));
        });
    };
    coalesce("46 of a flow", &batch.frames(0).map(<[u8]>::to_vec).collect::<Vec<_>>(), 1);
    let flows: Vec<_> = (0..64).map(|host| Flow { host, ..flow.clone() }.frame(1, 2, 0x10, &payload[..SIZE])).collect();
    coalesce("64 of as many flows", &flows, 64);
    let acknowledgements: Vec<_> = (0..64).map(|id| flow.frame(id, 2, 0x10, &[])).collect();
    coalesce("64 acknowledgements", &acknowledgements, 64);
    group.finish();
}

criterion_group!(benches, codecs, secure, cbc, offload);
criterion_main!(benches);
