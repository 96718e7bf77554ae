//! sbd's own compliance suite over the relay that a command starts: `sbd-tester COMMAND [ARGUMENT…]`.
//! The command speaks the suite's lines: it says `CMD/READY`, and for each `CMD/START` it starts a relay of its own and
//! says `CMD/START/ADDRESS` (tests/interop/sbd_server.py).
#[tokio::main]
async fn main() {
    let report = sbd_o_bahn_server_tester::run(std::env::args_os().skip(1).collect()).await;
    for name in &report.passed {
        println!("PASSED {name}");
    }
    for (name, why) in &report.failed {
        println!("FAILED {name} {why}");
    }
    println!("END {} passed, {} failed", report.passed.len(), report.failed.len());
}
