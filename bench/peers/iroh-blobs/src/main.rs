//! iroh-blobs: GetMany between two processes, memory stores. Every blob is verified by BLAKE3.
//! usage: peer-iroh-blobs serve DATA SIZE [OPTION…] | peer-iroh-blobs get ADDR DATA SIZE [OPTION…]
//! relay=URL: the endpoints use this relay, and path=relay: nothing else, path=direct: UDP as well. Without it they
//! know each other's UDP address and there is no relay. What goes in and out is said in bench/peers/README.md.

use std::{
    fs::File,
    io::Read,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context, Result};
use bytes::Bytes;
use iroh::{
    endpoint::{presets, Connection},
    protocol::Router,
    Endpoint, EndpointAddr, RelayConfig, RelayMap, RelayMode, RelayUrl,
};
use iroh_blobs::{
    protocol::{ChunkRangesSeq, GetManyRequest},
    store::mem::MemStore,
    BlobsProtocol, Hash,
};

/// A request holds at most 1 MiB, a hash 32 bytes.
const HASHES_PER_REQUEST: usize = 16 * 1024;
const IN_FLIGHT: usize = 2;
/// What is fetched before the clock starts.
const FIRST_ITEM: &[u8] = b"an op that is not among the items";
/// Until a path is the expected one.
const PATH_WAIT: Duration = Duration::from_secs(10);
/// After that, so that the other side has it too.
const SETTLE: Duration = Duration::from_millis(1000);

/// How the two reach each other.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Alone,
    Relay,
    Direct,
}

#[derive(Default)]
struct Options {
    relay: Option<RelayUrl>,
    direct: bool,
    warm: bool,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self> {
        let mut out = Self::default();
        for arg in args {
            match arg.split_once('=').context("options are NAME=VALUE")? {
                ("relay", url) => out.relay = Some(url.parse()?),
                ("path", "direct") => out.direct = true,
                ("path", "relay") => out.direct = false,
                ("warm", value) => out.warm = value == "1",
                _ => bail!("no such option: {arg}"),
            }
        }
        Ok(out)
    }
    fn way(&self) -> Way {
        match (&self.relay, self.direct) {
            (None, _) => Way::Alone,
            (_, false) => Way::Relay,
            (_, true) => Way::Direct,
        }
    }
}

struct Usage {
    cpu_s: f64,
    peak_rss_bytes: i64,
}

fn usage() -> Usage {
    let mut raw: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut raw) };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    Usage { cpu_s: seconds(raw.ru_utime) + seconds(raw.ru_stime), peak_rss_bytes: raw.ru_maxrss * 1024 }
}

/// The items of DATA, one after the other.
fn each_item(path: &str, size: usize, mut f: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut file = std::io::BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut item = vec![0u8; size];
    for _ in 0..std::fs::metadata(path)?.len() / size as u64 {
        file.read_exact(&mut item)?;
        f(&item)?;
    }
    Ok(())
}

async fn endpoint(options: &Options) -> Result<Endpoint> {
    let loopback: SocketAddr = "127.0.0.1:0".parse()?;
    let mut builder = Endpoint::builder(presets::Minimal).clear_ip_transports();
    if options.way() != Way::Relay {
        builder = builder.bind_addr(loopback)?;
    }
    // No address lookup is in this preset, and the relay does no address discovery.
    builder = builder.relay_mode(match &options.relay {
        Some(url) => RelayMode::Custom(RelayMap::from(RelayConfig::new(url.clone(), None))),
        None => RelayMode::Disabled,
    });
    let endpoint = builder.bind().await?;
    if options.relay.is_some() {
        tokio::time::timeout(PATH_WAIT, endpoint.online()).await.context("the relay cannot be reached")?;
    }
    Ok(endpoint)
}

/// The path on which this side sends: "direct", "relay", or "" while none is selected.
fn path_of(connection: &Connection) -> &'static str {
    match connection.paths().iter().find(|path| path.is_selected()) {
        Some(path) if path.is_ip() => "direct",
        Some(path) if path.is_relay() => "relay",
        _ => "",
    }
}

async fn wait_for_path(connection: &Connection, wanted: &str) -> Result<()> {
    let begin = Instant::now();
    while path_of(connection) != wanted {
        ensure!(begin.elapsed() < PATH_WAIT, "the path is '{}' and not '{wanted}'", path_of(connection));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn serve(data: &str, size: usize, options: Options) -> Result<()> {
    let store = MemStore::new();
    let mut items = Vec::new();
    each_item(data, size, |item| Ok(items.push(Bytes::copy_from_slice(item))))?;
    items.push(Bytes::from_static(FIRST_ITEM));
    // Many at once: one after the other takes longer than getting them. The tags keep the items.
    let mut tags = Vec::new();
    let mut adding = tokio::task::JoinSet::new();
    for item in items {
        if adding.len() >= 256 {
            tags.push(adding.join_next().await.context("none runs")???);
        }
        let store = store.clone();
        adding.spawn(async move { anyhow::Ok(store.add_bytes(item).temp_tag().await?) });
    }
    while let Some(tag) = adding.join_next().await {
        tags.push(tag??);
    }
    let blobs = BlobsProtocol::new(&store, None);
    let router = Router::builder(endpoint(&options).await?).accept(iroh_blobs::ALPN, blobs).spawn();
    let before = usage();
    let addr = serde_json::to_string(&router.endpoint().addr())?;
    println!("{}", serde_json::json!({ "addr": addr }));
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    let after = usage();
    println!("{}", serde_json::json!({ "cpu_s": after.cpu_s - before.cpu_s, "peak_rss_bytes": after.peak_rss_bytes }));
    router.shutdown().await?;
    Ok(())
}

async fn get(addr: &str, data: &str, size: usize, options: Options) -> Result<()> {
    let addr: EndpointAddr = serde_json::from_str(addr)?;
    let mut hashes = Vec::new();
    each_item(data, size, |item| Ok(hashes.push(Hash::new(item))))?;
    let store = MemStore::new();
    let endpoint = endpoint(&options).await?;

    let (mut connection, mut first_s, mut path_s) = (None, None, None);
    if options.warm {
        let start = Instant::now();
        let made = endpoint.connect(addr.clone(), iroh_blobs::ALPN).await?;
        let request = GetManyRequest::new(vec![Hash::new(FIRST_ITEM)], ChunkRangesSeq::all());
        store.remote().execute_get_many(made.clone(), request).complete().await?;
        first_s = Some(start.elapsed().as_secs_f64());
        wait_for_path(&made, if options.way() == Way::Relay { "relay" } else { "direct" }).await?;
        path_s = Some(start.elapsed().as_secs_f64());
        tokio::time::sleep(SETTLE).await;
        connection = Some(made);
    }

    let before = usage();
    let start = Instant::now();
    let connection = match connection {
        Some(made) => made,
        None => endpoint.connect(addr, iroh_blobs::ALPN).await?,
    };
    let path_at_start = path_of(&connection);
    let mut running = tokio::task::JoinSet::new();
    for part in hashes.chunks(HASHES_PER_REQUEST) {
        if running.len() >= IN_FLIGHT {
            running.join_next().await.context("none runs")???;
        }
        let request = GetManyRequest::new(part.to_vec(), ChunkRangesSeq::all());
        let (remote, connection) = (store.remote().clone(), connection.clone());
        running.spawn(async move { anyhow::Ok(remote.execute_get_many(connection, request).complete().await?) });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    let wall_s = start.elapsed().as_secs_f64();
    let after = usage();
    let path_at_end = path_of(&connection);

    let mut items = Vec::new();
    each_item(data, size, |item| Ok(items.push(Bytes::copy_from_slice(item))))?;
    for (item, hash) in items.iter().zip(&hashes) {
        ensure!(store.get_bytes(*hash).await? == *item, "an item differs");
    }
    println!(
        "{}",
        serde_json::json!({ "items": items.len(), "bytes": items.len() * size, "wall_s": wall_s,
            "cpu_s": after.cpu_s - before.cpu_s, "peak_rss_bytes": after.peak_rss_bytes,
            "first_s": first_s, "path_s": path_s, "path": [path_at_start, path_at_end] })
    );
    endpoint.close().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve", data, size, options @ ..] => serve(data, size.parse()?, Options::parse(options)?).await,
        ["get", addr, data, size, options @ ..] => get(addr, data, size.parse()?, Options::parse(options)?).await,
        _ => bail!("usage: serve DATA SIZE | get ADDR DATA SIZE; then relay=URL, path=relay|direct, warm=1"),
    }
}
