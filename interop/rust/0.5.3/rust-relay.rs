//! The stock kitsune2_bootstrap_srv 0.5.3, or 0.4.1 (bootstrap and iroh relay) on a given port, plain http.
use clap::Parser;
use kitsune2_bootstrap_srv::{BootstrapSrv, Config};

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: std::net::SocketAddr,
    /// the server that decides who may use this one
    #[arg(long)]
    authentication_hook_server: Option<String>,
    /// how long a token is good after its last use; the stock program has no option for it
    #[arg(long)]
    auth_token_idle_millis: Option<u64>,
}

fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut config = Config::testing();
    let args = Args::parse();
    config.listen_address_list = vec![args.listen];
    config.auth.authentication_hook_server = args.authentication_hook_server;
    if let Some(ms) = args.auth_token_idle_millis {
        config.auth.auth_token_idle_timeout = std::time::Duration::from_millis(ms);
    }
    let server = BootstrapSrv::new(config).unwrap();
    println!("LISTENING {}", server.listen_addrs()[0]);
    loop {
        std::thread::park();
    }
}
