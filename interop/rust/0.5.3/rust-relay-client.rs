//! The relay client of stock kitsune2 0.5.3 nodes, iroh-relay 1.4.1, over TLS with a root of the test's: the nodes
//! themselves trust those only that are compiled in. Connects once, sends a ping, and prints the library's own trace of
//! the handshake and PONG.
use clap::Parser;
use futures::{SinkExt, StreamExt};
use iroh_base::{RelayUrl, SecretKey};
use iroh_dns::dns::DnsResolver;
use iroh_relay::client::ClientBuilder;
use iroh_relay::protos::relay::{ClientToRelayMsg, RelayToClientMsg};
use iroh_relay::tls::{default_provider, CaTlsConfig};

#[derive(Parser)]
struct Args {
    /// https://host:port
    #[arg(long)]
    relay: RelayUrl,
    /// a certificate in DER
    #[arg(long)]
    root: std::path::PathBuf,
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt()
        .with_env_filter("iroh_relay::client=debug,iroh_relay::protos::handshake=trace")
        .with_ansi(false)
        .init();
    let args = Args::parse();
    let root = std::fs::read(args.root).unwrap();
    let tls = CaTlsConfig::custom_roots([root.into()]).client_config(default_provider()).unwrap();
    let mut client = ClientBuilder::new(args.relay, SecretKey::generate(), DnsResolver::new())
        .tls_client_config(tls)
        .connect()
        .await
        .unwrap();
    client.send(ClientToRelayMsg::Ping(*b"k2-tests")).await.unwrap();
    while let Some(message) = client.next().await {
        if matches!(message.unwrap(), RelayToClientMsg::Pong(payload) if payload == *b"k2-tests") {
            println!("PONG");
            return;
        }
    }
    panic!("the relay closed the connection");
}
