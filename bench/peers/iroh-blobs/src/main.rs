//! iroh-blobs: GetMany between two processes over QUIC on loopback, memory stores. Every blob is verified by BLAKE3.
//! usage: peer-iroh-blobs serve DATA SIZE | peer-iroh-blobs get ADDR DATA SIZE [IN_FLIGHT]
//! What goes in and out is said in bench/peers/README.md.

use std::{fs::File, io::Read, net::SocketAddr, time::Instant};

use anyhow::{bail, ensure, Context, Result};
use bytes::Bytes;
use iroh::{endpoint::presets, protocol::Router, Endpoint, EndpointAddr, RelayMode};
use iroh_blobs::{
    protocol::{ChunkRangesSeq, GetManyRequest},
    store::mem::MemStore,
    BlobsProtocol, Hash,
};

/// A request holds at most 1 MiB, a hash 32 bytes.
const HASHES_PER_REQUEST: usize = 16 * 1024;

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

async fn endpoint() -> Result<Endpoint> {
    let loopback: SocketAddr = "127.0.0.1:0".parse()?;
    Ok(Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr(loopback)?
        .bind()
        .await?)
}

async fn serve(data: &str, size: usize) -> Result<()> {
    let store = MemStore::new();
    let mut items = Vec::new();
    each_item(data, size, |item| Ok(items.push(Bytes::copy_from_slice(item))))?;
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
    let router = Router::builder(endpoint().await?).accept(iroh_blobs::ALPN, blobs).spawn();
    let before = usage();
    let addr = serde_json::to_string(&router.endpoint().addr())?;
    println!("{}", serde_json::json!({ "addr": addr }));
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    let after = usage();
    println!("{}", serde_json::json!({ "cpu_s": after.cpu_s - before.cpu_s, "peak_rss_bytes": after.peak_rss_bytes }));
    router.shutdown().await?;
    Ok(())
}

async fn get(addr: &str, data: &str, size: usize, in_flight: usize) -> Result<()> {
    let addr: EndpointAddr = serde_json::from_str(addr)?;
    let mut hashes = Vec::new();
    each_item(data, size, |item| Ok(hashes.push(Hash::new(item))))?;
    let store = MemStore::new();
    let endpoint = endpoint().await?;

    let before = usage();
    let start = Instant::now();
    let connection = endpoint.connect(addr, iroh_blobs::ALPN).await?;
    let mut running = tokio::task::JoinSet::new();
    for part in hashes.chunks(HASHES_PER_REQUEST) {
        if running.len() >= in_flight {
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

    let mut items = Vec::new();
    each_item(data, size, |item| Ok(items.push(Bytes::copy_from_slice(item))))?;
    for (item, hash) in items.iter().zip(&hashes) {
        ensure!(store.get_bytes(*hash).await? == *item, "an item differs");
    }
    println!(
        "{}",
        serde_json::json!({ "items": items.len(), "bytes": items.len() * size, "wall_s": wall_s,
            "cpu_s": after.cpu_s - before.cpu_s, "peak_rss_bytes": after.peak_rss_bytes })
    );
    endpoint.close().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve", data, size] => serve(data, size.parse()?).await,
        ["get", addr, data, size] => get(addr, data, size.parse()?, 2).await,
        ["get", addr, data, size, in_flight] => get(addr, data, size.parse()?, in_flight.parse()?).await,
        _ => bail!("usage: serve DATA SIZE | get ADDR DATA SIZE [IN_FLIGHT]"),
    }
}
