#!/usr/bin/env bash
# Builds all sides and runs the comparisons. usage: bench/run.sh [quick]
#
# quick: the rows that need no foreign program, with small sizes. Otherwise these variables count:
#   PARTS="a b c d gossip folder"  what to run; also "iroh": dialect 0.5 beside iroh-blobs, by the relay and direct, and
#                           "distance": W1 to W3 and one op through a line that delays and throttles
#   REPS=5 (3 if quick), FOLDER_MIB=1024
#   K2_LIBTORRENT_PYTHON    a Python with libtorrent 2.1.1, to run beside ours over that line
#   K2_PEERS_TARGET, K2_ANCHOR_TARGET  where the foreign programs are built
# Results: JSON lines in bench/results, from which bench/plot.py makes the plot of docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-full}
reps=${REPS:-$([[ $mode == quick ]] && echo 3 || echo 5)}
parts=" ${PARTS:-a b c d gossip folder} "
out=bench/results/$(date +%Y%m%d-%H%M%S)-$mode
mkdir -p bench/results
ours=build/bench/bench

cmake --preset bench >/dev/null
cmake --build build/bench -j "$(nproc)"

rust=() others=() iroh=()
if [[ $mode != quick ]]; then
  if [[ $parts == *" a "* ]]; then
    anchor=${K2_ANCHOR_TARGET:-$PWD/bench/peers/rust-fetch/target}
    CARGO_TARGET_DIR=$anchor cargo build --release --locked --manifest-path bench/peers/rust-fetch/Cargo.toml
    rust=(--rust "$anchor/release/anchor-fetch")
  fi
  target=${K2_PEERS_TARGET:-$PWD/bench/peers/target}
  # They need newer compilers than Debian's: without one, the table is printed without that row.
  if [[ $parts == *" b "* || $parts == *" iroh "* ]]; then
    if CARGO_TARGET_DIR=$target cargo build --release --locked --manifest-path bench/peers/iroh-blobs/Cargo.toml; then
      iroh=(--iroh "$target/release/peer-iroh-blobs")
    else
      echo "bench: iroh-blobs is left out: it could not be built (Rust 1.91 or newer)" >&2
    fi
  fi
  if [[ $parts == *" b "* ]]; then
    others=(--libtorrent bench/peers/libtorrent/peer_libtorrent.py "${iroh[@]}")
    if (cd bench/peers/bitswap && go build -mod=readonly -o "$target/peer-bitswap" .); then
      others+=(--bitswap "$target/peer-bitswap")
    else
      echo "bench: bitswap is left out: it could not be built (Go 1.26 or newer)" >&2
    fi
  fi
fi

if [[ $parts == *" a "* ]]; then
  python3 bench/compare.py --cpp $ours/fetch_anchor "${rust[@]}" --reps "$reps" --out "$out.jsonl"
fi
if [[ $parts == *" b "* || $parts == *" c "* ]]; then
  store=()
  [[ $parts != *" c "* ]] || store=(--store-dir bench/results)
  python3 bench/transfers.py --ours $ours/transfer "${others[@]}" "${store[@]}" --reps "$reps" --out "$out-transfers.jsonl"
fi
if [[ $parts == *" iroh "* ]]; then
  python3 bench/beside_iroh.py --bin $ours --relay build/bench/apps/kitsune2/kitsune2 "${iroh[@]}" --reps "$reps" --out "$out-iroh.jsonl" | tee "$out-iroh.txt"
fi
if [[ $parts == *" d "* ]]; then
  if [[ $mode == quick ]]; then $ours/scale 50 200; else $ours/scale; fi | tee "$out-scale.jsonl"
  $ours/relay_bench "$([[ $mode == quick ]] && echo 1 || echo 3)" | tee "$out-relay.txt"
fi
if [[ $parts == *" gossip "* ]]; then
  K2_STOCK=$([[ $mode == quick ]] && echo 0 || echo 1) REPS=$reps bench/gossip.sh $ours | tee "$out-gossip.txt"
fi
if [[ $parts == *" distance "* ]]; then
  beside=()
  [[ -z ${K2_LIBTORRENT_PYTHON:-} ]] || beside=(--libtorrent "$K2_LIBTORRENT_PYTHON")
  python3 bench/distance.py --bin $ours "${beside[@]}" --reps "$reps" --out "$out-distance.jsonl"
fi
if [[ $parts == *" folder "* ]]; then
  mib=${FOLDER_MIB:-$([[ $mode == quick ]] && echo 64 || echo 1024)}
  python3 bench/folder.py --program build/bench/apps/kitsune2/kitsune2 --ours $ours/transfer --mib "$mib" --reps "$([[ $mode == quick ]] && echo 1 || echo 3)" \
    --dir bench/results --out "$out-folder.jsonl"
fi
