//! A stock kitsune2 0.4.1 node driven by lines on stdin; what happens is told by lines on stdout:
//! `<ms since start> <name> EVENT …`. tests/interop/cpp_peer.cpp is its C++ twin: same commands, same events.
use bytes::Bytes;
use clap::Parser;
use kitsune2_api::*;
use kitsune2_core::factories::{CoreBootstrapConfig, CoreBootstrapModConfig, MemoryOp};
use kitsune2_core::{get_all_remote_agents, Ed25519LocalAgent};
use kitsune2_gossip::{K2GossipConfig, K2GossipModConfig};
use kitsune2_transport_iroh::{IrohTransportConfig, IrohTransportModConfig};
use sha2::Digest;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncBufReadExt;

#[derive(Parser, Clone)]
struct Args {
    #[arg(long)]
    name: String,
    /// host:port of relay and bootstrap server
    #[arg(long)]
    server: String,
    #[arg(long, default_value = "interop")]
    space: String,
    /// number of spaces, named <space>, <space>-1, <space>-2 …
    #[arg(long, default_value_t = 1)]
    spaces: usize,
    /// how often the bootstrap server is asked, ms
    #[arg(long, default_value_t = 500)]
    poll_ms: u32,
    /// what the server's authentication asks for
    #[arg(long)]
    auth_material: Option<String>,
    #[arg(long, default_value_t = 60)]
    timeout_s: u32,
    /// gossip initiate interval, ms; 0: never initiates
    #[arg(long, default_value_t = 0)]
    gossip_ms: u32,
}

#[derive(Clone)]
struct Log(Arc<String>, Instant);
impl Log {
    fn p(&self, s: impl AsRef<str>) {
        println!("{} {} {}", self.1.elapsed().as_millis(), self.0, s.as_ref());
    }
}
impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}

fn hex(b: &[u8]) -> String {
    b.iter().map(|x| format!("{x:02x}")).collect()
}

#[derive(Debug)]
struct S(Log, usize);
impl SpaceHandler for S {
    fn recv_notify(&self, _from: Url, _s: SpaceId, data: Bytes) -> K2Result<()> {
        let sum = sha2::Sha256::digest(&data);
        self.0.p(format!("NOTIFY {} {} {}", self.1, data.len(), hex(&sum)));
        Ok(())
    }
}

#[derive(Debug)]
struct K(Log, Vec<SpaceId>);
impl KitsuneHandler for K {
    fn create_space(&self, space: SpaceId, _: Option<&Config>) -> BoxFut<'_, K2Result<DynSpaceHandler>> {
        let index = self.1.iter().position(|s| *s == space).unwrap_or(usize::MAX);
        let handler: DynSpaceHandler = Arc::new(S(self.0.clone(), index));
        Box::pin(async move { Ok(handler) })
    }
    fn new_listening_address(&self, this_url: Url) -> BoxFut<'static, ()> {
        self.0.p(format!("ONLINE {this_url}"));
        Box::pin(async move {})
    }
    fn peer_disconnect(&self, peer: Url, reason: Option<String>) {
        self.0.p(format!("DISCONNECTED {peer} {reason:?}"));
    }
}

struct Node {
    log: Log,
    transport: DynTransport,
    spaces: Vec<DynSpace>,
    ids: Vec<SpaceId>,
    agents: Vec<AgentId>,
    own: Vec<Vec<OpId>>,
    name: String,
}

impl Node {
    async fn peers(&self, i: usize) -> Vec<Url> {
        let s = &self.spaces[i];
        get_all_remote_agents(s.peer_store().clone(), s.local_agent_store().clone())
            .await
            .unwrap()
            .iter()
            .filter_map(|a| a.url.clone())
            .collect()
    }

    async fn command(&mut self, line: &str) -> Result<(), String> {
        let w: Vec<&str> = line.split_whitespace().collect();
        let num = |i: usize| -> Result<usize, String> {
            w.get(i).ok_or("missing number")?.parse().map_err(|e| format!("{e}"))
        };
        match w.first().copied().unwrap_or("") {
            // ops COUNT MIN MAX TAG [AGE]: stores ops of MIN to MAX bytes in every space, created AGE seconds ago
            "ops" => {
                let (n, min, max, tag) = (num(1)?, num(2)?, num(3)?, w.get(4).ok_or("tag")?);
                let age = Duration::from_secs(if w.len() > 5 { num(5)? as u64 } else { 0 });
                for i in 0..self.spaces.len() {
                    let ops: Vec<MemoryOp> = (0..n)
                        .map(|k| {
                            let mut d = sha2::Sha256::digest(format!("{}/{tag}/{i}/{k}", self.name)).to_vec();
                            d.resize((min + (max - min) * k / n.max(1)).max(32), b'.');
                            MemoryOp::new((Timestamp::now() - age).unwrap(), d)
                        })
                        .collect();
                    let stored: Vec<StoredOp> = ops.iter().cloned().map(Into::into).collect();
                    self.own[i].extend(stored.iter().map(|o| o.op_id.clone()));
                    let s = &self.spaces[i];
                    s.op_store()
                        .process_incoming_ops(ops.into_iter().map(Into::into).collect())
                        .await
                        .map_err(|e| e.to_string())?;
                    s.inform_ops_stored(stored).await.map_err(|e| e.to_string())?;
                }
            }
            // publish: tells every known peer of every own op
            "publish" => {
                for i in 0..self.spaces.len() {
                    for url in self.peers(i).await {
                        let (s, own, log) = (self.spaces[i].clone(), self.own[i].clone(), self.log.clone());
                        // a peer that is gone holds its own task up, no other
                        tokio::spawn(async move {
                            if let Err(e) = s.publish().publish_ops(own, url.clone()).await {
                                log.p(format!("FAILED publish {url} {e}"));
                            }
                        });
                    }
                }
            }
            // notify SIZE: to every known peer in every space
            "notify" => {
                let size = num(1)?;
                for i in 0..self.spaces.len() {
                    for url in self.peers(i).await {
                        let data: Vec<u8> = (0..size).map(|k| (k % 251) as u8).collect();
                        let (s, log) = (self.spaces[i].clone(), self.log.clone());
                        tokio::spawn(async move {
                            if let Err(e) = s.send_notify(url.clone(), data.into()).await {
                                log.p(format!("FAILED notify {url} {e}"));
                            }
                        });
                    }
                }
            }
            // fetch URL ID…: through the fetch module of space 0
            "fetch" => {
                let url = Url::from_str(w[1]).map_err(|e| e.to_string())?;
                let ids = decode(&w[2..])?;
                self.spaces[0].fetch().request_ops(ids, url).await.map_err(|e| e.to_string())?;
            }
            // rawfetch URL ID…: one request message with all the ids, past the fetch module
            "rawfetch" => {
                let url = Url::from_str(w[1]).map_err(|e| e.to_string())?;
                let msg = request_message(&decode(&w[2..])?);
                self.transport
                    .send_module(url, self.ids[0].clone(), "Fetch".into(), msg)
                    .await
                    .map_err(|e| e.to_string())?;
            }
            // own: prints the own op ids of space 0
            "own" => {
                let ids: Vec<String> = self.own[0].iter().map(|i| hex(i)).collect();
                self.log.p(format!("OWN {}", ids.join(" ")));
            }
            "stats" => {
                let st = self.transport.dump_network_stats().await.map_err(|e| e.to_string())?;
                self.log.p(format!("STATS {}", serde_json::to_string(&st).unwrap()));
            }
            "leave" => {
                for (s, a) in self.spaces.iter().zip(&self.agents) {
                    s.local_agent_leave(a.clone()).await;
                }
                tokio::time::sleep(Duration::from_millis(800)).await;
            }
            "quit" => {
                self.log.p("END");
                std::process::exit(0);
            }
            other => return Err(format!("unknown command {other:?}")),
        }
        Ok(())
    }
}

/// K2FetchMessage { 1: REQUEST, 2: FetchRequest { repeated 1: op id } }; the crate keeps its own encoder private.
fn request_message(ids: &[OpId]) -> Bytes {
    fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
        out.push(number << 3 | 2);
        let mut n = bytes.len();
        while n > 127 {
            out.push(n as u8 | 128);
            n >>= 7;
        }
        out.push(n as u8);
        out.extend_from_slice(bytes);
    }
    let (mut request, mut out) = (vec![], vec![8u8, 1]);
    for id in ids {
        field(&mut request, 1, id);
    }
    field(&mut out, 2, &request);
    out.into()
}

fn decode(words: &[&str]) -> Result<Vec<OpId>, String> {
    words
        .iter()
        .map(|w| {
            let b: Result<Vec<u8>, _> =
                (0..w.len() / 2).map(|i| u8::from_str_radix(&w[2 * i..2 * i + 2], 16)).collect();
            b.map(|b| OpId::from(Bytes::from(b))).map_err(|e| e.to_string())
        })
        .collect()
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let a = Args::parse();
    let log = Log(Arc::new(a.name.clone()), Instant::now());
    let ids: Vec<SpaceId> = (0..a.spaces)
        .map(|i| if i == 0 { a.space.clone() } else { format!("{}-{i}", a.space) })
        .map(|s| SpaceId::from(Bytes::from(s.into_bytes())))
        .collect();

    let mut b = kitsune2::default_builder().with_default_config().unwrap();
    b.auth_material_bootstrap = a.auth_material.clone().map(String::into_bytes);
    b.auth_material_relay = a.auth_material.clone().map(String::into_bytes);
    b.config
        .set_module_config(&CoreBootstrapModConfig {
            core_bootstrap: CoreBootstrapConfig {
                server_url: Some(format!("http://{}", a.server)),
                backoff_min_ms: a.poll_ms,
                backoff_max_ms: 2 * a.poll_ms,
                ..Default::default()
            },
        })
        .unwrap();
    b.config
        .set_module_config(&IrohTransportModConfig {
            iroh_transport: IrohTransportConfig {
                relay_url: Some(format!("http://{}/relay", a.server)),
                relay_allow_plain_text: true,
                connect_timeout_s: a.timeout_s,
                ..Default::default()
            },
        })
        .unwrap();
    let every = if a.gossip_ms == 0 { 3_600_000 } else { a.gossip_ms };
    b.config
        .set_module_config(&K2GossipModConfig {
            k2_gossip: K2GossipConfig {
                initial_initiate_interval_ms: every,
                initiate_interval_ms: every,
                min_initiate_interval_ms: if a.gossip_ms == 0 { 300_000 } else { a.gossip_ms / 2 },
                initiate_jitter_ms: 10,
                ..Default::default()
            },
        })
        .unwrap();
    let k = b.build().await.unwrap();
    let handler: DynKitsuneHandler = Arc::new(K(log.clone(), ids.clone()));
    k.register_handler(handler).await.unwrap();
    let transport = k.transport().await.unwrap();

    let mut node = Node {
        log: log.clone(),
        transport,
        spaces: vec![],
        ids: ids.clone(),
        agents: vec![],
        own: vec![vec![]; ids.len()],
        name: a.name.clone(),
    };
    for id in &ids {
        let s = k.space(id.clone(), None).await.unwrap();
        // without a url the agent's info would not reach anybody before it is signed again
        while s.current_url().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let agent = Arc::new(Ed25519LocalAgent::default());
        agent.set_tgt_storage_arc_hint(DhtArc::FULL);
        node.agents.push(agent.agent().clone());
        s.local_agent_join(agent).await.unwrap();
        node.spaces.push(s);
    }
    log.p(format!("URL {}", node.spaces[0].current_url().map(|u| u.to_string()).unwrap_or_default()));

    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let mut peer_counts = vec![usize::MAX; ids.len()];
    let mut have: Vec<HashSet<OpId>> = vec![HashSet::new(); ids.len()];
    loop {
        tokio::select! {
            line = lines.next_line() => match line {
                Ok(Some(line)) => match node.command(&line).await {
                    Ok(()) => log.p(format!("OK {line}").chars().take(60).collect::<String>()),
                    Err(e) => log.p(format!("ERR {e}")),
                },
                _ => std::process::exit(0),
            },
            _ = tick.tick() => {
                for i in 0..ids.len() {
                    let n = node.peers(i).await.len();
                    if n != peer_counts[i] {
                        peer_counts[i] = n;
                        log.p(format!("PEERS {i} {n}"));
                    }
                    let (now, _, _) = node.spaces[i]
                        .op_store()
                        .retrieve_op_ids_bounded(DhtArc::FULL, Timestamp::from_micros(0), u32::MAX)
                        .await
                        .unwrap();
                    if now.len() != have[i].len() {
                        let fresh: Vec<OpId> = now.into_iter().filter(|o| !have[i].contains(o)).collect();
                        have[i].extend(fresh.iter().cloned());
                        // a digest over all ids, independent of their order
                        let mut sum = [0u8; 32];
                        for id in &have[i] {
                            for (s, b) in sum.iter_mut().zip(id.iter()) { *s ^= *b; }
                        }
                        let own: HashSet<&OpId> = node.own[i].iter().collect();
                        let got: Vec<OpId> = fresh.into_iter().filter(|o| !own.contains(o)).collect();
                        if !got.is_empty() {
                            let st: Vec<StoredOp> = node.spaces[i].op_store().retrieve_ops(got).await.unwrap()
                                .into_iter()
                                .map(|m| { let o: MemoryOp = m.op_data.into(); o.into() })
                                .collect();
                            node.spaces[i].inform_ops_stored(st).await.unwrap();
                        }
                        log.p(format!("HAVE {i} {} {}", have[i].len(), hex(&sum)));
                    }
                }
            }
        }
    }
}
