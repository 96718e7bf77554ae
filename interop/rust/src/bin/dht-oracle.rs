//! What the DHT model of stock kitsune2_dht computes for op sets that come on stdin. The answers on stdout are compared
//! with those of the C++ model by tests/interop/dht_pairs.cpp, which also says what the lines mean.
use bytes::Bytes;
use kitsune2_api::*;
use kitsune2_dht::{ArcSet, Dht, DhtApi, DhtSnapshot, DhtSnapshotNextAction, SECTOR_SIZE, UNIT_TIME};
use std::collections::{BTreeMap, HashMap};
use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::sync::{Arc, Mutex};

type Answer<'a, T> = BoxFut<'a, K2Result<T>>;

fn answer<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

#[derive(Default, Debug)]
struct Sector {
    ops: BTreeMap<(i64, OpId), u32>,
    slices: BTreeMap<u64, Bytes>,
}

/// An op store by sector: the model asks for each of 512 sectors separately.
#[derive(Debug)]
struct Store {
    sectors: Mutex<Vec<Sector>>,
    /// What sector 0 calls its earliest op at the latest, so that the model asks for every slice of the recent past.
    earliest: i64,
    /// The slices that the model has asked for in sector 0: they show how it divides time.
    asked: Mutex<Vec<(i64, i64)>>,
}

impl Store {
    fn put(&self, op: &HeldOp) {
        let sector = (op.id.loc() / SECTOR_SIZE) as usize;
        self.sectors.lock().unwrap()[sector].ops.insert((op.created_at, op.id.clone()), op.bytes);
    }
    fn of<T>(&self, arc: DhtArc, read: impl FnOnce(&Sector) -> T) -> T {
        read(&self.sectors.lock().unwrap()[index_of(arc)])
    }
}

fn index_of(arc: DhtArc) -> usize {
    match arc {
        DhtArc::Arc(start, _) => (start / SECTOR_SIZE) as usize,
        DhtArc::Empty => panic!("the model asks for no sector"),
    }
}

impl OpStore for Store {
    fn retrieve_op_hashes_in_time_slice(
        &self,
        arc: DhtArc,
        start: Timestamp,
        end: Timestamp,
    ) -> Answer<'_, (Vec<OpId>, u32)> {
        let (start, end) = (start.as_micros(), end.as_micros());
        if index_of(arc) == 0 {
            self.asked.lock().unwrap().push((start, end));
        }
        answer(self.of(arc, |sector| {
            let first = (start, OpId::from(Bytes::new()));
            let found = sector.ops.range(first..).take_while(|((at, _), _)| *at < end);
            found.fold((vec![], 0), |(mut ids, bytes), ((_, id), size)| {
                ids.push(id.clone());
                (ids, bytes + size)
            })
        }))
    }
    fn earliest_timestamp_in_arc(&self, arc: DhtArc) -> Answer<'_, Option<Timestamp>> {
        let mut earliest = self.of(arc, |sector| sector.ops.keys().next().map(|(at, _)| *at));
        if index_of(arc) == 0 {
            earliest = Some(earliest.unwrap_or(self.earliest).min(self.earliest));
        }
        answer(earliest.map(Timestamp::from_micros))
    }
    fn store_slice_hash(&self, arc: DhtArc, slice: u64, hash: Bytes) -> Answer<'_, ()> {
        self.sectors.lock().unwrap()[index_of(arc)].slices.insert(slice, hash);
        answer(())
    }
    fn slice_hash_count(&self, arc: DhtArc) -> Answer<'_, u64> {
        answer(self.of(arc, |sector| sector.slices.keys().next_back().map_or(0, |slice| slice + 1)))
    }
    fn retrieve_slice_hash(&self, arc: DhtArc, slice: u64) -> Answer<'_, Option<Bytes>> {
        answer(self.of(arc, |sector| sector.slices.get(&slice).cloned()))
    }
    fn retrieve_slice_hashes(&self, arc: DhtArc) -> Answer<'_, Vec<(u64, Bytes)>> {
        answer(self.of(arc, |sector| sector.slices.iter().map(|(slice, hash)| (*slice, hash.clone())).collect()))
    }
    // The model asks for nothing else.
    fn process_incoming_ops(&self, _: Vec<Bytes>) -> Answer<'_, Vec<OpId>> {
        unimplemented!()
    }
    fn retrieve_ops(&self, _: Vec<OpId>) -> Answer<'_, Vec<MetaOp>> {
        unimplemented!()
    }
    fn filter_out_existing_ops(&self, _: Vec<OpId>) -> Answer<'_, Vec<OpId>> {
        unimplemented!()
    }
    fn retrieve_op_ids_bounded(&self, _: DhtArc, _: Timestamp, _: u32) -> Answer<'_, (Vec<OpId>, u32, Timestamp)> {
        unimplemented!()
    }
}

struct HeldOp {
    id: OpId,
    created_at: i64,
    bytes: u32,
    holders: String,
    late: bool,
}

struct Node {
    name: String,
    dht: Dht,
    store: Arc<Store>,
    sectors: ArcSet,
    budget: i32,
    now: i64,
    later: i64,
}

impl Node {
    /// `line`: what is said of it: NAME NOW LATER BUDGET SECTORS.
    async fn new(line: &str, ops: &[HeldOp]) -> Self {
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        let (name, now) = (words[0].to_string(), words[1].parse::<i64>().unwrap());
        let recent = 1100 * UNIT_TIME.as_micros() as i64;
        let sectors = (0..512).map(|_| Sector::default()).collect();
        let store = Arc::new(Store {
            sectors: Mutex::new(sectors),
            earliest: (now - recent).max(0),
            asked: Default::default(),
        });
        ops.iter().filter(|op| !op.late && op.holders.contains(&name)).for_each(|op| store.put(op));
        let dht = Dht::try_from_store(Timestamp::from_micros(now), store.clone()).await.unwrap();
        let later = words[2].parse().unwrap();
        Self { name, dht, store, sectors: sectors_from(words[4]), budget: words[3].parse().unwrap(), now, later }
    }

    /// How it divides time: the end of the disc, the next update, and start and length of each ring.
    async fn layout(&self, out: &mut String) {
        let DhtSnapshot::Minimal { disc_boundary, .. } = self.dht.snapshot_minimal(first_sector()).await.unwrap() else {
            unreachable!()
        };
        let boundary = disc_boundary.as_micros();
        write!(out, "{} layout {boundary} {}", self.name, self.dht.next_update_at().as_micros()).unwrap();
        for (start, end) in self.store.asked.lock().unwrap().iter().filter(|(start, _)| *start >= boundary) {
            write!(out, " {start}+{}", end - start).unwrap();
        }
        out.push('\n');
    }

    async fn store_late_ops(&mut self, ops: &[HeldOp]) {
        let late: Vec<&HeldOp> = ops.iter().filter(|op| op.late && op.holders.contains(&self.name)).collect();
        late.iter().for_each(|op| self.store.put(op));
        let told = late
            .iter()
            .map(|op| StoredOp { op_id: op.id.clone(), created_at: Timestamp::from_micros(op.created_at) })
            .collect();
        self.dht.inform_ops_stored(told).await.unwrap();
    }

    /// All that the model holds in `sectors`: what it answers to snapshots that differ everywhere.
    async fn all(&self, sectors: &ArcSet, out: &mut String) {
        let minimal = self.dht.snapshot_minimal(sectors.clone()).await.unwrap();
        let name = &self.name;
        writeln!(out, "{name} next_update {}", self.dht.next_update_at().as_micros()).unwrap();
        writeln!(out, "{name} {}", snapshot_text(&minimal)).unwrap();
        let DhtSnapshot::Minimal { disc_top_hash, disc_boundary, ring_top_hashes } = minimal else { unreachable!() };
        let odd = Bytes::from_static(b"a hash that nobody has");
        let odd_disc = DhtSnapshot::Minimal {
            disc_top_hash: odd.clone(),
            disc_boundary,
            ring_top_hashes: ring_top_hashes.clone(),
        };
        let discs = self.ask(odd_disc, sectors).await;
        writeln!(out, "{name} {}", snapshot_text(&discs)).unwrap();
        let DhtSnapshot::DiscSectors { disc_sector_top_hashes, .. } = discs else { unreachable!() };
        if !disc_sector_top_hashes.is_empty() {
            let odd_sectors = DhtSnapshot::DiscSectors {
                disc_sector_top_hashes: disc_sector_top_hashes.into_keys().map(|key| (key, odd.clone())).collect(),
                disc_boundary,
            };
            writeln!(out, "{name} {}", snapshot_text(&self.ask(odd_sectors, sectors).await)).unwrap();
        }
        if !ring_top_hashes.is_empty() {
            let odd_rings = DhtSnapshot::Minimal {
                disc_top_hash,
                disc_boundary,
                ring_top_hashes: ring_top_hashes.iter().map(|_| odd.clone()).collect(),
            };
            writeln!(out, "{name} {}", snapshot_text(&self.ask(odd_rings, sectors).await)).unwrap();
        }
    }

    async fn ask(&self, snapshot: DhtSnapshot, sectors: &ArcSet) -> DhtSnapshot {
        match self.dht.handle_snapshot(snapshot, None, sectors.clone(), 0).await.unwrap().0 {
            DhtSnapshotNextAction::NewSnapshot(s) => s,
            other => panic!("no snapshot: {other:?}"),
        }
    }
}

fn first_sector() -> ArcSet {
    ArcSet::new(vec![DhtArc::Arc(0, SECTOR_SIZE - 1)]).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if bytes.is_empty() {
        return "-".into();
    }
    bytes.iter().flat_map(|b| [DIGITS[(b >> 4) as usize] as char, DIGITS[(b & 15) as usize] as char]).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn sectors_from(text: &str) -> ArcSet {
    let words: Vec<u32> = (0..16).map(|i| u32::from_str_radix(&text[8 * i..8 * i + 8], 16).unwrap()).collect();
    ArcSet::decode(&words).unwrap()
}

fn map_text<K: Ord + Display>(map: &HashMap<K, Bytes>) -> String {
    let sorted: BTreeMap<&K, &Bytes> = map.iter().collect();
    sorted.iter().map(|(key, hash)| format!(" {key}={}", hex(hash))).collect()
}

fn nested_text<K: Ord + Display, L: Ord + Display>(map: &HashMap<K, HashMap<L, Bytes>>) -> String {
    let sorted: BTreeMap<&K, &HashMap<L, Bytes>> = map.iter().collect();
    sorted.iter().map(|(key, inner)| format!(" {key}:{}", map_text(inner))).collect()
}

fn snapshot_text(snapshot: &DhtSnapshot) -> String {
    match snapshot {
        DhtSnapshot::Minimal { disc_top_hash, disc_boundary, ring_top_hashes } => {
            let rings: String = ring_top_hashes.iter().map(|hash| format!(" {}", hex(hash))).collect();
            format!("minimal {} {}{rings}", disc_boundary.as_micros(), hex(disc_top_hash))
        }
        DhtSnapshot::DiscSectors { disc_sector_top_hashes, disc_boundary } => {
            format!("disc_sectors {}{}", disc_boundary.as_micros(), map_text(disc_sector_top_hashes))
        }
        DhtSnapshot::DiscSectorDetails { disc_sector_hashes, disc_boundary } => {
            format!("disc_sector_details {}{}", disc_boundary.as_micros(), nested_text(disc_sector_hashes))
        }
        DhtSnapshot::RingSectorDetails { ring_sector_hashes, disc_boundary } => {
            format!("ring_sector_details {}{}", disc_boundary.as_micros(), nested_text(ring_sector_hashes))
        }
    }
}

fn ids_text(ids: &[OpId], used: u32) -> String {
    format!("ids {used}{}", ids.iter().map(|id| format!(" {}", hex(id))).collect::<String>())
}

/// Compares the two models as a round of gossip does, `first` being the one that accepts it.
async fn round(first: &Node, second: &Node, out: &mut String) {
    let common = first.sectors.intersection(&second.sectors);
    let words: String = common.encode().iter().map(|word| format!("{word:08x}")).collect();
    writeln!(out, "{}{} common {words}", first.name, second.name).unwrap();
    if common.covered_sector_count() == 0 {
        return;
    }
    let mut theirs = first.dht.snapshot_minimal(common.clone()).await.unwrap();
    writeln!(out, "{} accepts {}", first.name, snapshot_text(&theirs)).unwrap();
    let mut shown = [None, None];
    for turn in 0.. {
        let node = [second, first][turn % 2];
        let before = shown[turn % 2].take();
        let (next, used) = node.dht.handle_snapshot(theirs.clone(), before, common.clone(), node.budget).await.unwrap();
        let (text, snapshot) = match next {
            DhtSnapshotNextAction::Identical => ("identical".to_string(), None),
            DhtSnapshotNextAction::CannotCompare => ("cannot_compare".to_string(), None),
            DhtSnapshotNextAction::NewSnapshot(s) => (snapshot_text(&s), Some(s)),
            DhtSnapshotNextAction::NewSnapshotAndHashList(s, ids) => {
                (format!("{} and {}", snapshot_text(&s), ids_text(&ids, used)), Some(s))
            }
            DhtSnapshotNextAction::HashList(ids) => (ids_text(&ids, used), None),
        };
        writeln!(out, "{} answers {text}", node.name).unwrap();
        let Some(snapshot) = snapshot else { break };
        shown[turn % 2] = Some(snapshot.clone());
        theirs = snapshot;
    }
}

async fn answer_case(sectors: &ArcSet, lines: &[String], ops: &[HeldOp]) -> String {
    let mut out = String::new();
    let mut nodes = vec![];
    for line in lines {
        let mut node = Node::new(line, ops).await;
        node.layout(&mut out).await;
        node.store_late_ops(ops).await;
        node.all(sectors, &mut out).await;
        if node.later != node.now {
            node.dht.update(Timestamp::from_micros(node.later)).await.unwrap();
            node.all(sectors, &mut out).await;
        }
        nodes.push(node);
    }
    for second in 1..nodes.len() {
        for first in 0..second {
            let (first, second) = if (first + second) % 2 == 0 { (first, second) } else { (second, first) };
            round(&nodes[first], &nodes[second], &mut out).await;
        }
    }
    out.push_str("end\n");
    out
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (mut sectors, mut nodes, mut ops) = (first_sector(), vec![], vec![]);
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "case" => {
                sectors = sectors_from(words[2]);
                nodes.clear();
                ops.clear();
            }
            "node" => nodes.push(line.clone()),
            "op" => ops.push(HeldOp {
                id: OpId::from(Bytes::from(from_hex(words[1]))),
                created_at: words[2].parse().unwrap(),
                bytes: words[3].parse().unwrap(),
                holders: words[4].to_string(),
                late: words[5] == "late",
            }),
            _ => {
                let out = answer_case(&sectors, &nodes, &ops).await;
                std::io::stdout().write_all(out.as_bytes()).unwrap();
                std::io::stdout().flush().unwrap();
            }
        }
    }
}
