// ---------------------------------------------------------------- data
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D049BB133111EB);
    z ^ (z >> 31)
}
/// 32-byte id: little-endian index, then 24 mixed bytes.
fn id_bytes(i: u64) -> [u8; 32] {
    let mut b = [0u8; 32];
    b[0..8].copy_from_slice(&i.to_le_bytes());
    for k in 1..4u64 {
        b[(k as usize) * 8..(k as usize) * 8 + 8]
            .copy_from_slice(&mix(i.wrapping_mul(4).wrapping_add(k)).to_le_bytes());
    }
    b
}
fn id(i: u64) -> OpId {
    OpId::from(Bytes::copy_from_slice(&id_bytes(i)))
}
fn payload(i: u64, s: usize) -> Vec<u8> {
    let mut v = vec![0u8; s.max(32)];
    v[..32].copy_from_slice(&id_bytes(i));
    let mut z = i ^ 0xabcdef;
    for c in v[32..].chunks_mut(8) {
        z = mix(z);
        c.copy_from_slice(&z.to_le_bytes()[..c.len()]);
    }
    v
}
async fn preload(o: &Opts, nodes: &[&Node], base: u64, n: usize, s: usize) -> u64 {
    let mut encoded = 0;
    for i in base..base + n as u64 {
        let p = payload(i, s);
        let b: Bytes = if o.store == "mem" {
            MemoryOp::new(Timestamp::now(), p).into()
        } else {
            p.into()
        };
        encoded += b.len() as u64;
        for nd in nodes {
            #[cfg(not(feature = "v5"))]
            let op = b.clone();
            #[cfg(feature = "v5")]
            let op = IncomingOp {
                op_id: id(i),
                op_data: b.clone(),
                metadata: None,
            };
            nd.store.process_incoming_ops(vec![op]).await.unwrap();
        }
    }
    encoded
}
fn ids(base: u64, n: usize) -> Vec<OpId> {
    (base..base + n as u64).map(id).collect()
}
fn expect(base: u64, n: usize) {
    C.base.store(base, Relaxed);
    C.target.store(n as u64, Relaxed);
    let _ = SEEN.set((0..n).map(|_| AtomicU8::new(0)).collect());
}

// ---------------------------------------------------------------- process
fn cpu() -> (f64, f64) {
    unsafe {
        let mut r: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut r);
        let f = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
        (f(r.ru_utime), f(r.ru_stime))
    }
}
fn status(k: &str) -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .find(|l| l.starts_with(k))
        .and_then(|l| l.split_whitespace().nth(1))
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}
fn rss() -> u64 {
    status("VmRSS:")
}
fn hwm() -> u64 {
    status("VmHWM:")
}
fn reset_hwm() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
/// bytes of heap in use, all glibc arenas + mmapped
fn heap() -> u64 {
    unsafe {
        let m = libc::mallinfo2();
        (m.uordblks + m.hblkhd) as u64
    }
}
fn r3(x: f64) -> Value {
    json!((x * 1e6).round() / 1e6)
}

struct Run {
    t0: Instant,
    c0: (f64, f64),
    rss0: u64,
}
fn start() -> Run {
    reset_hwm();
    let rss0 = rss();
    Run {
        rss0,
        c0: cpu(),
        t0: Instant::now(),
    }
}

/// timed out, stalled, progress samples, time of last arrival if incomplete
type Wait = (bool, bool, Vec<Value>, f64);
