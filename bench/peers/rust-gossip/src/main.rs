//! Measuring harness for the released kitsune2_dht and kitsune2_gossip: one row a process, one JSON line on stdout.
//! bench/gossip_bench.cpp is its counterpart: same rows, same ops.
//!
//! peer-gossip start N            Dht::try_from_store over the memory op store with N ops
//! peer-gossip stored N           what a stored op costs the model, at N ops
//! peer-gossip round N MISSING    one comparison of two nodes with N ops, of which one lacks MISSING; a third number is
//!                                the limit of what it may name, in bytes
//! peer-gossip catchup N SIZE     an empty node gets N ops of SIZE bytes from another one
//! With K2_GOSSIP_TIMELESS set all ops are of 1970. The models of `round` are then told of each op, as by a running
//! node: a start would read 512 times 3,800 slices.
use bytes::Bytes;
use kitsune2_api::*;
use kitsune2_core::factories::MemoryOp;
use kitsune2_core::{default_test_builder, Ed25519LocalAgent};
use kitsune2_dht::{ArcSet, Dht, DhtApi, DhtSnapshot, DhtSnapshotNextAction};
use kitsune2_gossip::{K2GossipConfig, K2GossipFactory, K2GossipModConfig};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DAY_US: u64 = 24 * 3_600_000_000;

fn space_id() -> SpaceId {
    SpaceId::from(Bytes::from_static(b"bench-gossip"))
}

/// splitmix64, as in the counterpart, so that both have the same ops.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn is_timeless() -> bool {
    std::env::var_os("K2_GOSSIP_TIMELESS").is_some()
}

/// Op `number`, created within the 30 days before `now`.
fn op(number: u64, now: Timestamp, size: usize) -> MemoryOp {
    let mut data: Vec<u8> = (0..4).flat_map(|k| mix(4 * number + k).to_le_bytes()).collect();
    data.resize(size.max(32), b'.');
    if is_timeless() {
        return MemoryOp::new(UNIX_TIMESTAMP, data);
    }
    let age = Duration::from_micros(1_800_000_000 + mix(number ^ 0xa9e) % (30 * DAY_US));
    MemoryOp::new((now - age).unwrap(), data)
}

fn cpu() -> f64 {
    let mut u: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut u) };
    let s = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    s(u.ru_utime) + s(u.ru_stime)
}

async fn store_of(numbers: impl Iterator<Item = u64>, now: Timestamp) -> DynOpStore {
    let b = Arc::new(default_test_builder().with_default_config().unwrap());
    let store = b.op_store.create(b.clone(), space_id()).await.unwrap();
    let mut ops: Vec<Bytes> = vec![];
    for number in numbers {
        ops.push(op(number, now, 32).into());
        if ops.len() == 4096 {
            store.process_incoming_ops(std::mem::take(&mut ops)).await.unwrap();
        }
    }
    store.process_incoming_ops(ops).await.unwrap();
    store
}

/// A store of those ops, and its model.
async fn model_of(numbers: std::ops::Range<u64>, now: Timestamp) -> Dht {
    if !is_timeless() {
        return Dht::try_from_store(now, store_of(numbers, now).await).await.unwrap();
    }
    let store = store_of(0..0, now).await;
    let mut dht = Dht::try_from_store(now, store.clone()).await.unwrap();
    for first in numbers.clone().step_by(4096) {
        let ops: Vec<MemoryOp> = (first..numbers.end.min(first + 4096)).map(|k| op(k, now, 32)).collect();
        store.process_incoming_ops(ops.iter().cloned().map(Into::into).collect()).await.unwrap();
        dht.inform_ops_stored(ops.into_iter().map(Into::into).collect()).await.unwrap();
    }
    dht
}

/// What a snapshot and a list of ids take in messages, about: 34 bytes for a hash or id, 3 for an index.
fn size_of(snapshot: Option<&DhtSnapshot>, ids: usize) -> usize {
    let hashes = match snapshot {
        None => 0,
        Some(DhtSnapshot::Minimal { ring_top_hashes, .. }) => 1 + ring_top_hashes.len(),
        Some(DhtSnapshot::DiscSectors { disc_sector_top_hashes, .. }) => disc_sector_top_hashes.len(),
        Some(DhtSnapshot::DiscSectorDetails { disc_sector_hashes, .. }) => {
            disc_sector_hashes.values().map(|m| m.len()).sum()
        }
        Some(DhtSnapshot::RingSectorDetails { ring_sector_hashes, .. }) => {
            ring_sector_hashes.values().map(|m| m.len()).sum()
        }
    };
    37 * hashes + 34 * ids
}

/// One comparison from ACCEPT to the last word; returns bytes and how many ids were named.
async fn compare(a: &Dht, b: &Dht, most_bytes: i32) -> (usize, usize) {
    let all = ArcSet::new(vec![DhtArc::FULL]).unwrap();
    let mut theirs = b.snapshot_minimal(all.clone()).await.unwrap();
    let (mut bytes, mut named) = (size_of(Some(&theirs), 0), 0);
    let mut mine: [Option<DhtSnapshot>; 2] = [None, None];
    for turn in 0.. {
        let dht = if turn % 2 == 0 { a } else { b };
        let (next, _) = dht
            .handle_snapshot(theirs.clone(), mine[turn % 2].clone(), all.clone(), most_bytes)
            .await
            .unwrap();
        let (snapshot, ids) = match next {
            DhtSnapshotNextAction::NewSnapshot(s) => (Some(s), vec![]),
            DhtSnapshotNextAction::NewSnapshotAndHashList(s, ids) => (Some(s), ids),
            DhtSnapshotNextAction::HashList(ids) => (None, ids),
            _ => (None, vec![]),
        };
        bytes += size_of(snapshot.as_ref(), ids.len());
        named += ids.len();
        let Some(s) = snapshot else { break };
        mine[turn % 2] = Some(s.clone());
        theirs = s;
    }
    (bytes, named)
}

// ---------------------------------------------------------------- whole nodes

static SENT: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct CountFactory(DynTransportFactory);
impl TransportFactory for CountFactory {
    fn default_config(&self, c: &mut Config) -> K2Result<()> {
        self.0.default_config(c)
    }
    fn validate_config(&self, c: &Config) -> K2Result<()> {
        self.0.validate_config(c)
    }
    fn create(&self, b: Arc<Builder>, h: DynTxHandler) -> BoxFut<'static, K2Result<DynTransport>> {
        let made = self.0.create(b, h);
        Box::pin(async move {
            let out: DynTransport = Arc::new(Count(made.await?));
            Ok(out)
        })
    }
}
#[derive(Debug)]
struct Count(DynTransport);
impl Transport for Count {
    fn register_space_handler(&self, s: SpaceId, h: DynTxSpaceHandler) -> Option<Url> {
        self.0.register_space_handler(s, h)
    }
    fn register_module_handler(&self, s: SpaceId, m: String, h: DynTxModuleHandler) {
        self.0.register_module_handler(s, m, h)
    }
    fn disconnect(&self, p: Url, r: Option<String>) -> BoxFut<'_, ()> {
        self.0.disconnect(p, r)
    }
    fn send_space_notify(&self, p: Url, s: SpaceId, d: Bytes) -> BoxFut<'_, K2Result<()>> {
        self.0.send_space_notify(p, s, d)
    }
    fn send_module(&self, p: Url, s: SpaceId, m: String, d: Bytes) -> BoxFut<'_, K2Result<()>> {
        // With the K2Proto around it: type, space, module, and the lengths.
        let length = (64 - (d.len() as u64 | 1).leading_zeros() as usize + 6) / 7;
        SENT.fetch_add((2 + 2 + s.len() + 2 + m.len() + 1 + length + d.len()) as u64, Relaxed);
        self.0.send_module(p, s, m, d)
    }
    fn dump_network_stats(&self) -> BoxFut<'_, K2Result<TransportStats>> {
        self.0.dump_network_stats()
    }
}

#[derive(Debug)]
struct Host;
impl SpaceHandler for Host {}
impl KitsuneHandler for Host {
    fn create_space(&self, _: SpaceId) -> BoxFut<'_, K2Result<DynSpaceHandler>> {
        let handler: DynSpaceHandler = Arc::new(Host);
        Box::pin(async move { Ok(handler) })
    }
}

/// A node whose gossip runs once a second instead of every two to five minutes, as ours does among its own kind.
async fn node() -> (DynKitsune, DynSpace) {
    let mut b = default_test_builder();
    b.gossip = K2GossipFactory::create();
    b.transport = Arc::new(CountFactory(b.transport));
    let b = b.with_default_config().unwrap();
    b.config
        .set_module_config(&K2GossipModConfig {
            k2_gossip: K2GossipConfig {
                initial_initiate_interval_ms: 100,
                initiate_interval_ms: 1000,
                min_initiate_interval_ms: 500,
                initiate_jitter_ms: 10,
                ..Default::default()
            },
        })
        .unwrap();
    let k = b.build().await.unwrap();
    k.register_handler(Arc::new(Host)).await.unwrap();
    let s = k.space(space_id()).await.unwrap();
    (k, s)
}
async fn join(s: &DynSpace) {
    let agent = Arc::new(Ed25519LocalAgent::default());
    agent.set_tgt_storage_arc_hint(DhtArc::FULL);
    s.local_agent_join(agent).await.unwrap();
}
async fn held(s: &DynSpace) -> usize {
    let all = s
        .op_store()
        .retrieve_op_ids_bounded(DhtArc::FULL, Timestamp::from_micros(0), u32::MAX)
        .await
        .unwrap();
    all.0.len()
}

async fn catch_up(n: u64, size: usize, limit: Duration) -> serde_json::Value {
    let now = Timestamp::now();
    let (_ka, a) = node().await;
    let (_kb, b) = node().await;
    for first in (0..n).step_by(4096) {
        let ops: Vec<MemoryOp> = (first..n.min(first + 4096)).map(|k| op(k, now, size)).collect();
        let stored = ops.iter().cloned().map(Into::into).collect();
        a.op_store().process_incoming_ops(ops.into_iter().map(Into::into).collect()).await.unwrap();
        a.inform_ops_stored(stored).await.unwrap();
    }
    join(&a).await;
    SENT.store(0, Relaxed);
    let (start, before) = (Instant::now(), cpu());
    join(&b).await;
    for (from, to) in [(&a, &b), (&b, &a)] {
        loop {
            let infos = from.peer_store().get_all().await.unwrap();
            if !infos.is_empty() {
                to.peer_store().insert(infos).await.unwrap();
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut have = 0;
    while have < n as usize && start.elapsed() < limit {
        tokio::time::sleep(Duration::from_millis(20)).await;
        have = held(&b).await;
    }
    json!({"row": "catchup", "n": n, "size": size, "s": start.elapsed().as_secs_f64(), "cpu_s": cpu() - before,
        "bytes": SENT.load(Relaxed), "held": have})
}

#[tokio::main]
async fn main() {
    let v: Vec<String> = std::env::args().collect();
    let num = |i: usize, d: u64| v.get(i).map(|s| s.parse().unwrap()).unwrap_or(d);
    let n = num(2, 1000);
    let now = Timestamp::now();
    let out = match v[1].as_str() {
        "start" => {
            let store = store_of(0..n, now).await;
            let (start, before) = (Instant::now(), cpu());
            let _dht = Dht::try_from_store(now, store).await.unwrap();
            json!({"row": "start", "n": n, "s": start.elapsed().as_secs_f64(), "cpu_s": cpu() - before})
        }
        "stored" => {
            let store = store_of(0..n, now).await;
            let mut dht = Dht::try_from_store(now, store.clone()).await.unwrap();
            let more = 10_000.min(n / 10).max(1);
            let mut cost = 0.0;
            for first in (n..n + more).step_by(100) {
                let ops: Vec<MemoryOp> = (first..(n + more).min(first + 100)).map(|k| op(k, now, 32)).collect();
                let stored: Vec<StoredOp> = ops.iter().cloned().map(Into::into).collect();
                store.process_incoming_ops(ops.into_iter().map(Into::into).collect()).await.unwrap();
                let before = cpu();
                dht.inform_ops_stored(stored).await.unwrap();
                cost += cpu() - before;
            }
            json!({"row": "stored", "n": n, "cpu_us_an_op": 1e6 * cost / more as f64})
        }
        "round" => {
            let missing = num(3, 0);
            let most_bytes = num(4, 100 << 20) as i32;
            let before = cpu();
            let a = model_of(0..n, now).await;
            let b = model_of(missing..n, now).await;
            let build = cpu() - before;
            let reps = if missing == 0 { 100 } else { 3 };
            let before = cpu();
            let (mut bytes, mut named) = (0, 0);
            for _ in 0..reps {
                (bytes, named) = compare(&a, &b, most_bytes).await;
            }
            let cost = (cpu() - before) / reps as f64;
            json!({"row": "round", "n": n, "missing": missing, "cpu_s": cost, "bytes": bytes, "ids": named,
                "build_cpu_s": build})
        }
        "catchup" => catch_up(n, num(3, 1024) as usize, Duration::from_secs(num(4, 300))).await,
        other => panic!("no row {other}"),
    };
    println!("{out}");
    std::process::exit(0);
}
