// Bitswap of boxo between two processes over libp2p (TCP, noise, yamux) on loopback, memory stores. Every block is
// verified by SHA-256.
//
// usage: peer-bitswap serve DATA SIZE | peer-bitswap get ADDR DATA SIZE
//
// What goes in and out is said in bench/peers/README.md.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
)

// What is asked for at once, each part in a session of its own: the fastest of what was tried. Asking for all in one
// call, or in one session, leaves some to a rebroadcast after 45 s or more.
const (
	part     = 1024
	inFlight = 2
)

type usage struct {
	cpu float64
	rss int64
}

func usageNow() usage {
	var raw syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &raw))
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return usage{seconds(raw.Utime) + seconds(raw.Stime), raw.Maxrss * 1024}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func show(line map[string]any) { check(json.NewEncoder(os.Stdout).Encode(line)) }

// eachItem calls f with the items of the file, one after the other.
func eachItem(path string, size int, f func([]byte)) {
	file, err := os.Open(path)
	check(err)
	defer file.Close()
	in := bufio.NewReaderSize(file, 1<<20)
	for {
		item := make([]byte, size)
		_, err := io.ReadFull(in, item)
		if err == io.EOF {
			return
		}
		check(err)
		f(item)
	}
}

func cidOf(item []byte) cid.Cid {
	hash, err := mh.Sum(item, mh.SHA2_256, -1)
	check(err)
	return cid.NewCidV1(cid.Raw, hash)
}

func start(ctx context.Context) (host.Host, blockstore.Blockstore, *bitswap.Bitswap) {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New), libp2p.DisableRelay(), libp2p.ResourceManager(nil))
	check(err)
	store := blockstore.NewBlockstore(dssync.MutexWrap(ds.NewMapDatastore()))
	// The default of 1,024 wants a peer drops the rest of a large request until it is repeated.
	exchange := bitswap.New(ctx, bsnet.NewFromIpfsHost(h), nil, store,
		bitswap.MaxQueuedWantlistEntriesPerPeer(1<<20), bitswap.WithoutDuplicatedBlockStats())
	return h, store, exchange
}

func serve(ctx context.Context, data string, size int) {
	h, store, exchange := start(ctx)
	eachItem(data, size, func(item []byte) {
		block, err := blocks.NewBlockWithCid(item, cidOf(item))
		check(err)
		check(store.Put(ctx, block))
	})
	before := usageNow()
	show(map[string]any{"addr": fmt.Sprintf("%s/p2p/%s", h.Addrs()[0], h.ID())})
	_, err := io.Copy(io.Discard, os.Stdin)
	check(err)
	after := usageNow()
	show(map[string]any{"cpu_s": after.cpu - before.cpu, "peak_rss_bytes": after.rss})
	check(exchange.Close())
}

func get(ctx context.Context, addr, data string, size int) {
	address, err := multiaddr.NewMultiaddr(addr)
	check(err)
	server, err := peer.AddrInfoFromP2pAddr(address)
	check(err)
	var cids []cid.Cid
	eachItem(data, size, func(item []byte) { cids = append(cids, cidOf(item)) })
	h, store, exchange := start(ctx)

	before := usageNow()
	begin := time.Now()
	check(h.Connect(ctx, *server))
	parts := make(chan []cid.Cid, len(cids)/part+1)
	for i := 0; i < len(cids); i += part {
		parts <- cids[i:min(i+part, len(cids))]
	}
	close(parts)
	var group sync.WaitGroup
	var count atomic.Int64
	for range inFlight {
		group.Go(func() {
			for wanted := range parts {
				got, err := exchange.GetBlocks(ctx, wanted)
				check(err)
				for block := range got {
					check(store.Put(ctx, block))
					count.Add(1)
				}
			}
		})
	}
	group.Wait()
	items := int(count.Load())
	wall := time.Since(begin).Seconds()
	after := usageNow()

	if items != len(cids) {
		check(fmt.Errorf("%d of %d items came", items, len(cids)))
	}
	next := 0
	eachItem(data, size, func(item []byte) {
		block, err := store.Get(ctx, cids[next])
		check(err)
		if !bytes.Equal(block.RawData(), item) {
			check(fmt.Errorf("item %d differs", next))
		}
		next++
	})
	show(map[string]any{"items": items, "bytes": items * size, "wall_s": wall, "cpu_s": after.cpu - before.cpu,
		"peak_rss_bytes": after.rss})
	check(exchange.Close())
}

func main() {
	args := os.Args[1:]
	ctx := context.Background()
	sizeOf := func(text string) int {
		size, err := strconv.Atoi(text)
		check(err)
		return size
	}
	switch {
	case len(args) == 3 && args[0] == "serve":
		serve(ctx, args[1], sizeOf(args[2]))
	case len(args) == 4 && args[0] == "get":
		get(ctx, args[1], args[2], sizeOf(args[3]))
	default:
		check(fmt.Errorf("usage: serve DATA SIZE | get ADDR DATA SIZE"))
	}
}
