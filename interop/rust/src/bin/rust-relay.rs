//! The stock kitsune2_bootstrap_srv 0.2.2 (bootstrap and sbd relay) on a given port, plain http and ws.
use clap::Parser;
use kitsune2_bootstrap_srv::{BootstrapSrv, Config};

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: std::net::SocketAddr,
    /// switch the relay's rate limit off, as --sbd-disable-rate-limiting does
    #[arg(long)]
    sbd_disable_rate_limiting: bool,
}

fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    // production limits, as the stand-alone program has them, on plain http
    let mut config = Config::production();
    config.listen_address_list = vec![args.listen];
    config.sbd.disable_rate_limiting = args.sbd_disable_rate_limiting;
    let server = BootstrapSrv::new(config).unwrap();
    println!("LISTENING {}", server.listen_addrs()[0]);
    loop {
        std::thread::park();
    }
}
