//! How fast this machine seals and opens: the very code that forwards, confined as it always is, without a socket.

use std::time::{Duration, Instant};

use privsep::ipc::{BenchmarkResult, Classic, Secrets};

use crate::batch::{BATCH, Batch, MAX_FRAME};
use crate::wire::classic::codec::{Codec, Scratch};

/// Time spent on each size and direction.
const TIME: Duration = Duration::from_millis(300);

/// Measures frames of these sizes in bytes, filled with one letter as the original's are.
pub fn measure(classic: Classic, secrets: &Secrets, sizes: &[u16]) -> Vec<BenchmarkResult> {
    let codec = Codec::new(classic.cipher, secrets.key.expose(), classic.compress);
    sizes.iter().map(|&size| one(&codec, usize::from(size).min(MAX_FRAME))).collect()
}

fn one(codec: &Codec, size: usize) -> BenchmarkResult {
    let (mut batch, mut sealed, mut scratch) = (Batch::default(), Batch::default(), Scratch::default());
    fill(&mut sealed, &vec![b'a'; size]);
    let frame = sealed.frame(0).to_vec();
    codec.seal(&mut sealed, &mut scratch);
    let datagram = sealed.frame(0).to_vec();
    let seal_ns = time(|| {
        fill(&mut batch, &frame);
        codec.seal(&mut batch, &mut scratch);
    });
    let open_ns = time(|| {
        fill(&mut batch, &datagram);
        batch.filter_map(|_, buffer, length| codec.open(buffer, length, &mut scratch));
    });
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    BenchmarkResult { frame: length(&frame), datagram: length(&datagram), seal_ns, open_ns }
}

fn fill(batch: &mut Batch, bytes: &[u8]) {
    batch.clear();
    for _ in 0..BATCH {
        batch.append_copy(bytes);
    }
}

/// Nanoseconds a frame, over as many batches as fit into [`TIME`].
fn time(mut batch: impl FnMut()) -> f64 {
    let (start, mut batches) = (Instant::now(), 0_u32);
    while start.elapsed() < TIME {
        batch();
        batches += 1;
    }
    #[allow(clippy::cast_precision_loss)] // A time for people.
    let frames = f64::from(batches) * BATCH as f64;
    start.elapsed().as_secs_f64() * 1e9 / frames
}
